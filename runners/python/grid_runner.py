"""The process: threads take requests from the call-home connection and from the port; the
main thread alone runs user code, one job at a time. /health is answered without it."""
import _queue
import _socket
import _thread
import os
import sys
from time import monotonic, sleep

import grid_http
import grid_log
import grid_signals
from grid_recalls import Recalls
from grid_settings import Settings

FAST_RETRY_SECONDS = 0.02
SLOW_RETRY_SECONDS = 0.2
FAST_PERIOD_SECONDS = 60
LEFT_CHECK_SECONDS = 0.25

# `_socket`, `_thread` and `_queue` are what `socket`, `threading` and `queue` are made of:
# they load in no time, and code that patches the public modules does not reach them.


class Job:
    """A request on its way to the main thread and its answer on the way back. The main thread
    may also write to the connection itself, once it has claimed it: then the connection's own
    thread leaves it to the main thread to close it. (A number of a file that is closed can be
    another client's in the middle of a write.)"""

    keeps = False

    def __init__(self, request, connection):
        self.request = request
        self.connection = connection
        self.has_left = False
        self._answer = None
        self._claim = _thread.allocate_lock()
        self._done = _thread.allocate_lock()
        self._done.acquire()

    def is_wanted(self):
        return not self.connection.is_gone()

    def claim(self):
        """Whether the connection is the caller's; once, for the main thread or the waiting one."""
        return self._claim.acquire(False)

    def finish(self, answer):
        self._answer = answer
        self._done.release()
        if self.connection.is_lent:
            self.connection.close()

    def wait(self):
        """The answer, or None when the client left before there was one."""
        while not self._done.acquire(timeout=LEFT_CHECK_SECONDS):
            if not self.is_wanted():
                self.has_left = True
                if not self.claim():
                    self.connection.lend()
                    if self._done.acquire(False):  # finished, perhaps before it saw that
                        self.connection.is_lent = False
                return None
        return self._answer


def json_answer(status, text):
    return grid_http.Answer(status, [("content-type", "application/json")], text)


def route(request, connection, recalls, jobs):
    is_home = recalls is not None
    path = request.target.split("?", 1)[0]
    if request.method in ("GET", "HEAD") and path == "/health":
        return json_answer(200, b'{"status":"ok"}')
    is_function = path.startswith("/fn/") and len(path) > 4 and path[4] != "/"
    if is_function and is_home and recalls.has(request):
        return grid_http.Answer(200, [("x-grid-outcome", "called-back")], b"")
    is_order = is_home and request.method == "POST" and path in ("/ready", "/invoke")
    if is_function or is_order or (request.method in ("GET", "HEAD") and path == "/ready"):
        job = Job(request, connection)
        jobs.put(job)
        return job.wait()
    return json_answer(404, b'{"error":"not_found"}')


def serve(sock, jobs, recalls=None):
    """Serves one connection until it ends; never raises. Orders and recalls come from the edge alone."""
    connection = grid_http.Connection(sock)
    try:
        while True:
            request = connection.read_request()
            if request is None:
                return
            answer = route(request, connection, recalls, jobs)
            if answer is None:
                return
            if answer is grid_http.CUT:
                connection.cut(request)
                return
            if answer is grid_http.STREAMED:
                connection.end_stream(request)
            else:
                connection.write_answer(request, answer)
            if not request.keep_alive:
                return
    except grid_http.BadRequest as bad:
        connection.refuse(bad)
    except OSError:
        pass
    finally:
        if not connection.is_lent:
            connection.close()


def dial(path):
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(path)
        return sock
    except OSError:
        sock.close()
        return None


def call_home(settings, sock, jobs):
    """Keeps one connection to the edge; ends the process when there is none for too long."""
    lost = monotonic()
    recalls = Recalls(settings)
    while True:
        if sock is not None:
            serve(sock, jobs, recalls)
            lost = monotonic()
        alone = monotonic() - lost
        if 0 < settings.orphan_seconds <= alone:
            os._exit(0)
        sleep(FAST_RETRY_SECONDS if alone < FAST_PERIOD_SECONDS else SLOW_RETRY_SECONDS)
        sock = dial(settings.socket)


def listen(port):
    """A listening socket on every address, or None."""
    for family, address in ((_socket.AF_INET6, "::"), (_socket.AF_INET, "0.0.0.0")):
        sock = None
        try:
            sock = _socket.socket(family, _socket.SOCK_STREAM)
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            if family == _socket.AF_INET6:
                sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
            sock.bind((address, port))
            sock.listen(128)
            return sock
        except (OSError, OverflowError) as error:
            problem = error
            if sock is not None:
                sock.close()
    grid_log.note("The runner does not listen on port %d: %s" % (port, problem))
    return None


def accept_all(listener, jobs):
    while True:
        try:
            fd, _ = listener._accept()
        except OSError:
            sleep(FAST_RETRY_SECONDS)
            continue
        sock = _socket.socket(listener.family, listener.type, listener.proto, fileno=fd)
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        try:
            _thread.start_new_thread(serve, (sock, jobs))
        except RuntimeError:  # no more threads
            sock.close()


def _guard():
    """No user code runs without the guard."""
    import grid_guard
    try:
        grid_guard.install()
    except grid_guard.ListError as problem:
        grid_log.note("The runner does not start without its SSRF guard: %s" % problem)
        sys.exit(1)


def main():
    settings = Settings()
    jobs = _queue.SimpleQueue()
    calls_home = os.path.isdir(os.path.dirname(settings.socket) or ".")
    # The first attempt is made here: the edge can accept while the rest loads.
    sock = dial(settings.socket) if calls_home else None
    grid_log.open_streams()
    _guard()
    grid_signals.install()
    if calls_home:
        _thread.start_new_thread(call_home, (settings, sock, jobs))
    listener = listen(settings.port)
    if listener is not None:
        _thread.start_new_thread(accept_all, (listener, jobs))
    elif not calls_home:
        sys.exit(1)

    if sys.flags.no_site:  # `-S` starts faster; site-packages are added now
        import site
        site.main()
    import grid_invoke
    while True:
        job = jobs.get()
        if job.is_wanted():
            job.finish(grid_invoke.answer(settings, job))
        else:
            job.finish(None)
