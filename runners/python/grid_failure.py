"""Failures of a function and how they are worded: one line, bounded, without the stack."""


class Failure(Exception):
    """A failure that has one of the protocol's kinds."""

    def __init__(self, kind, message, status=502):
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.stack = None  # of what it came from, as text


def clean_text(text):
    """Text without lone surrogates, which UTF-8 cannot carry."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def one_line(text, limit=1024):
    line = "".join(c if c >= " " and c not in "\x7f\u2028\u2029" else "\n" for c in clean_text(text))
    line = " ".join(part for part in line.split("\n") if part).strip()
    data = line.encode("utf-8")
    if len(data) <= limit:
        return line
    return data[:limit - 3].decode("utf-8", "ignore") + "\u2026"


def show(value, limit=120):
    try:
        return one_line(repr(value), limit)
    except Exception:
        return "a value of type %s that cannot be shown" % type(value).__name__


def describe(error):
    """What was raised, for a person."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = ""
    return "%s: %s" % (name, text) if text else name


def _guard_error(error):
    """The SSRF guard's error, also when a client library wrapped it in its own
    (`raise … from`, urllib's `reason`)."""
    for _ in range(5):
        if error is None:
            return None
        if getattr(error, "status", None) == 452:
            return error
        reason = getattr(error, "reason", None)
        error = reason if isinstance(reason, BaseException) else getattr(error, "__cause__", None)
    return None


def from_raised(error):
    """The failure for an exception that escaped the handler."""
    if isinstance(error, Failure):
        return error
    try:
        guard = _guard_error(error)
        if guard is not None:
            return Failure("ssrf_blocked", str(guard), 452)
    except Exception:
        pass
    return Failure("handler_error", describe(error))
