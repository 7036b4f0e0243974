"""`POST /invoke`: one call of the handler with an event that is given whole, and all that is known
about it afterwards."""
import math
import re
from json import dumps, loads
from time import monotonic

import grid_log
from grid_event import Incoming, body_text, grid_event
from grid_failure import Failure, one_line
from grid_http import STREAMED, Answer, Request
from grid_secrets import hide

MAX_MESSAGE_BYTES = 4096
MAX_STACK_CHARS = 16384
# Control characters that JSON writes with six bytes each.
COSTLY = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


class Basket:
    """Takes a stream's pieces for an answer that is sent whole: it stands for the connection, and
    for the job that has one."""

    keeps = True

    def __init__(self, job):
        self.request = _empty_get()
        self.connection = self
        self.answer = None
        self.pieces = []
        self._job = job

    @property
    def has_left(self):
        return self._job.has_left

    def claim(self):
        return True

    def begin_stream(self, _request, answer, data):
        self.answer = answer
        self.pieces.append(data)

    def write_piece(self, _request, data):
        self.pieces.append(data)


def _empty_get():
    """For what the event lacks."""
    request = Request()
    request.method, request.protocol, request.target = "GET", "HTTP/1.1", "/fn/function"
    request.headers, request.body, request.keep_alive = {}, b"", True
    return request


def read(settings, request):
    """(event, the request that stands for it)"""
    try:
        given = loads(request.body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Failure("invalid_request", "not JSON: %s" % error, 400) from None
    if not isinstance(given, dict) or "event" not in given:
        raise Failure("invalid_request", "there is no event", 400)
    about = given.get("request")
    if not isinstance(about, dict):
        about = {}
    incoming = Incoming(settings, _empty_get())
    name = about.get("function")
    if isinstance(name, str) and name:
        incoming.function_name = name
    incoming.path = "/fn/" + incoming.function_name
    request_id = about.get("request_id")
    if isinstance(request_id, str) and request_id:
        incoming.request_id = request_id
    left = about.get("deadline_ms")
    if isinstance(left, (int, float)) and not isinstance(left, bool) and math.isfinite(left):
        incoming.deadline = monotonic() + left / 1000
    return given["event"], incoming


def complete(event, incoming, settings):
    """The event with the top-level members that every event has."""
    if not isinstance(event, dict):
        return event
    if settings.is_lambda:
        from grid_lambda import lambda_event
        empty = lambda_event(incoming)
    else:
        empty = grid_event(incoming)
    for name, value in empty.items():
        event.setdefault(name, value)
    return event


def whole(reply, basket):
    """The answer with the pieces that were taken for it."""
    if reply is STREAMED:
        reply = basket.answer
        reply.body = b"".join(basket.pieces)
    return reply


def _body(data):
    text, is_base64 = body_text(data)
    if not is_base64 and text and COSTLY.search(text):
        import binascii
        text, is_base64 = binascii.b2a_base64(data, newline=False).decode("ascii"), True
    return {"body": text or "", "isBase64Encoded": is_base64}


def success(answer):
    headers = {}
    for name, value in answer.headers:
        if name != "x-grid-outcome":
            headers.setdefault(name, []).append(value)
    return {"ok": True, "statusCode": answer.status,
            "headers": {name: ", ".join(values) for name, values in headers.items()},
            "multiValueHeaders": headers, **_body(answer.body)}


def failed(failure, error):
    stack = failure.stack if failure is error else grid_log.stack_text(error)
    return {"ok": False, "statusCode": failure.status,
            "error": {"type": failure.kind,
                      "message": one_line(hide(failure.message), MAX_MESSAGE_BYTES),
                      "stack": stack and hide(stack)[:MAX_STACK_CHARS]}}


def _peak_memory():
    """The most memory that this process has had at one time, in MiB; None where nobody tells."""
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"VmHWM:"):
                    return -(-int(line.split()[1]) // 1024)
    except (OSError, ValueError, IndexError):
        pass
    return None


def to_json(report, init_ms, duration_ms):
    report["init_ms"] = round(init_ms, 3)
    report["duration_ms"] = round(duration_ms, 3)
    report["max_memory_mb"] = _peak_memory()
    text = dumps(report, ensure_ascii=False, separators=(",", ":"))
    return Answer(200, [("content-type", "application/json")],
                  text.encode("utf-8", "backslashreplace"))
