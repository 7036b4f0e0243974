"""Turns what the handler returned into an answer, or says which field is wrong and why."""
from json import dumps

from grid_failure import Failure, clean_text, show
from grid_http import CONTROL, TOKEN, Answer

DROPPED = frozenset(("connection", "content-length", "keep-alive", "transfer-encoding", "upgrade",
                     "trailer", "te"))
BODILESS = frozenset((204, 205, 304))
# What is JSON or a body as it is, whatever else it can do.
PLAIN = (dict, str, list, tuple, bytes, bytearray, memoryview, int, float, type(None))
BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _invalid(message):
    return Failure("invalid_result", message)


def is_stream(value):
    """Whether a value is a body that comes in pieces: an iterator, an async iterable, a file."""
    if isinstance(value, PLAIN) or isinstance(value, type):
        return False
    kind = type(value)
    return (hasattr(kind, "__next__") or hasattr(kind, "__aiter__")
            or callable(getattr(value, "read", None)))


def _to_json(value, field):
    try:
        text = dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise _invalid("%s cannot be written as JSON: it is nested too deeply" % field) from None
    except Exception as error:
        raise _invalid("%s cannot be written as JSON: %s" % (field, error)) from None
    # A lone surrogate leaves as the JSON escape that it needs.
    return text.encode("utf-8", "backslashreplace")


def _header_text(value, field):
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise _invalid("%s must be text, a number or a boolean, not %s" % (field, show(value)))
    text = str(value)
    for c in text:
        if ord(c) in CONTROL:
            raise _invalid("%s must not hold control characters such as %s" % (field, show(c)))
    try:
        text.encode("latin-1")
        return text
    except UnicodeEncodeError:
        # Text beyond Latin-1 goes out as the bytes of its UTF-8.
        return clean_text(text).encode("utf-8").decode("latin-1")


def _is_dropped(name):
    return name in DROPPED or name.startswith("proxy-") or name.startswith("x-grid-")


def _add_headers(into, headers, field, arrays_only):
    """Adds the members of `headers` or `multiValueHeaders` to the dict of names to values."""
    if headers is None:
        return
    if not isinstance(headers, dict):
        raise _invalid("%s must be a dict, not %s" % (field, show(headers)))
    own = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not name or not TOKEN.issuperset(map(ord, name)):
            raise _invalid("%s: %s is not a valid header name" % (field, show(name)))
        if value is None:
            continue
        place = '%s["%s"]' % (field, name)
        is_array = isinstance(value, (list, tuple))
        if arrays_only and not is_array:
            raise _invalid("%s must be a list, not %s" % (place, show(value)))
        values = [_header_text(one, place) for one in (value if is_array else (value,))
                  if one is not None]
        if not _is_dropped(name.lower()):
            own.setdefault(name.lower(), []).extend(values)
    into.update(own)


def _add_cookies(into, cookies):
    if cookies is None:
        return
    if not isinstance(cookies, (list, tuple)):
        raise _invalid("cookies must be a list of text, not %s" % show(cookies))
    values = []
    for index, cookie in enumerate(cookies):
        if not isinstance(cookie, str):
            raise _invalid("cookies[%d] must be text, not %s" % (index, show(cookie)))
        values.append(_header_text(cookie, "cookies[%d]" % index))
    if values:
        into["set-cookie"] = into.get("set-cookie", []) + values


def _decode_base64(body):
    if not isinstance(body, str):
        raise _invalid("body must be base64 text because isBase64Encoded is true, not " + show(body))
    import binascii
    data = body.replace("\r", "").replace("\n", "").encode("ascii", "replace")
    padding = len(data) - len(data.rstrip(b"="))
    if len(data) % 4 or padding > 2 or data.translate(None, BASE64) != b"=" * padding:
        raise _invalid("body must be base64 text because isBase64Encoded is true, "
                       "but it is not valid base64")
    return binascii.a2b_base64(data)


def _encode_body(result, is_lambda):
    """(bytes, the content type that fits when the response names none); a stream as it is"""
    body = result.get("body")
    flag = result.get("isBase64Encoded")
    if flag is not None and not isinstance(flag, bool):
        raise _invalid("isBase64Encoded must be true or false, not " + show(flag))
    if body is None:
        return b"", None
    if is_stream(body):
        if flag:
            raise _invalid("isBase64Encoded must not be true for a body that is a stream")
        return body, None
    if is_lambda and not isinstance(body, str):
        raise _invalid("body must be text in the format lambda-v2, not " + show(body))
    if flag:
        return _decode_base64(body), "application/octet-stream"
    if isinstance(body, str):
        return clean_text(body).encode("utf-8"), "text/plain; charset=utf-8"
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), "application/octet-stream"
    return _to_json(body, "body"), "application/json"


def _status(value):
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:
        raise _invalid("statusCode must be an integer from 200 to 599, not " + show(value))
    return int(value)


def _response(result, is_lambda):
    status = _status(result["statusCode"])
    headers = {}
    _add_headers(headers, result.get("headers"), "headers", False)
    _add_headers(headers, result.get("multiValueHeaders"), "multiValueHeaders", True)
    _add_cookies(headers, result.get("cookies"))
    body, content_type = _encode_body(result, is_lambda)
    stream = None
    if not isinstance(body, bytes):
        body, stream = b"", body
    elif status in BODILESS:
        body = b""
    if body and "content-type" not in headers:
        headers["content-type"] = [content_type]
    return Answer(status, [(name, value) for name, values in headers.items() for value in values],
                  body, stream)


def stream_head(piece, settings):
    """The answer that the first piece of a stream announces; None when that is a piece of the
    body."""
    if not isinstance(piece, dict) or "statusCode" not in piece:
        return None
    if piece.get("body") is not None:
        raise _invalid("body must be absent in the response that a stream begins with: "
                       "its other pieces are the body")
    return _response(piece, settings.is_lambda)


def to_answer(result, settings):
    """The answer for a handler's result. A stream that is the result itself may begin with a
    response (see stream_head)."""
    if isinstance(result, dict) and "statusCode" in result:
        answer = _response(result, settings.is_lambda)
    elif is_stream(result):
        answer = Answer(200, [], b"", result)
    else:
        answer = Answer(200, [("content-type", "application/json")],
                        _to_json(result, "the result"))
    if len(answer.body) > settings.max_response_bytes:
        raise Failure("response_too_large", "the response body has %d bytes; %d are allowed"
                      % (len(answer.body), settings.max_response_bytes))
    return answer
