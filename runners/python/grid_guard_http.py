"""The SSRF guard's part above the HTTP libraries: its error leaves them as an error of the
library's own kind that is SsrfBlocked as well, at once and without a retry."""
import sys

from grid_guard_withheld import make_explain


def patches(policy, blocked_class):
    """Patches by the name of the module that they are for."""
    kinds = {}
    explain = make_explain(policy)

    def find(error, before):
        """The guard's error in what a library made of it. `before` is the exception that was
        being handled when the library was called: it is another story."""
        seen = [error]
        for error in seen:  # grows while it is walked
            if isinstance(error, blocked_class):
                return error
            for link in (getattr(error, "reason", None), error.__cause__, error.__context__,
                         *error.args):
                if (isinstance(link, BaseException) and link is not before
                        and not any(link is known for known in seen)):
                    seen.append(link)
        return None

    def as_kind(kind, blocked, attributes):
        if kind not in kinds:
            kinds[kind] = type(blocked_class.__name__, (blocked_class, kind),
                               {"__module__": blocked_class.__module__})
        error = kinds[kind](blocked.address, blocked.host, blocked.port, blocked.why)
        error.__dict__.update(attributes)
        return error

    def translated(owner, name, kind):
        """Replaces a method by one that raises the guard's error as `kind`."""
        original = getattr(owner, name)

        def method(*args, **options):
            before = sys.exc_info()[1]
            try:
                return original(*args, **options)
            except Exception as error:
                blocked = find(error, before)
                if blocked is None or isinstance(error, kind) and isinstance(error, blocked_class):
                    raise
                # What the library's error carries (a request, a pool) is kept.
                attributes = {"reason": blocked, **vars(error)}
                raise as_kind(kind, blocked, attributes) from blocked
        _replace(owner, name, method, original)

    def explained_ftp(module):
        """FTP's handler looks its host up by itself, and connects to what it found."""
        original = module.FTPHandler.ftp_open

        def ftp_open(self, req):
            try:
                return original(self, req)
            except module.URLError as error:
                place = module.urlsplit("//" + req.host)
                explain(error.reason, module.unquote(place.hostname or ""), place.port or 21)
                raise
        _replace(module.FTPHandler, "ftp_open", ftp_open, original)

    def patch_urllib(module):
        kind = module.URLError
        explained_ftp(module)
        translated(module.OpenerDirector, "open", kind)
        if hasattr(module, "URLopener"):
            translated(module.URLopener, "open", kind)

    def patch_connection(module):
        translated(module.HTTPConnection, "_new_conn", module.NewConnectionError)

    def patch_retry(module):
        """Every failed attempt asks here whether there is another one."""
        original = module.Retry.increment

        def increment(self, method=None, url=None, response=None, error=None, _pool=None,
                      _stacktrace=None):
            # It is here, or in the library's error for a connection or a proxy that failed.
            blocked = error
            while blocked is not None and not isinstance(blocked, blocked_class):
                blocked = next((arg for arg in blocked.args if isinstance(arg, Exception)), None)
            if blocked is not None:
                attributes = {"pool": _pool, "url": url, "reason": error}
                raise as_kind(module.MaxRetryError, blocked, attributes) from blocked
            return original(self, method, url, response, error, _pool, _stacktrace)
        _replace(module.Retry, "increment", increment, original)

    def patch_requests(module):
        translated(module.HTTPAdapter, "send", module.ConnectionError)

    return {"urllib.request": patch_urllib, "urllib3.connection": patch_connection,
            "urllib3.util.retry": patch_retry, "requests.adapters": patch_requests}


def _replace(owner, name, method, original):
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(method, attribute, getattr(original, attribute))
    method.__wrapped__ = original
    setattr(owner, name, method)
