"""A request as the handler's first argument, in the format `grid`."""
from json import loads
from time import gmtime, monotonic, time_ns

HOP_BY_HOP = frozenset(("connection", "keep-alive", "proxy-connection", "te", "trailer",
                        "transfer-encoding", "upgrade"))
HEX = "0123456789abcdefABCDEF"


class Incoming:
    """A function request with the edge's headers read."""

    def __init__(self, settings, request):
        target = "".join(c if c < "\x80" else "%%%02X" % ord(c) for c in request.target)
        self.path, _, self.query = target.partition("?")
        slash = self.path.find("/", 4)
        self.rest = self.path[slash:] if slash > 0 else "/"
        self.method = request.method
        self.protocol = request.protocol
        self.headers = request.headers
        self.body = request.body
        self.time_ms = time_ns() // 1000000
        self.request_id = self._grid("request-id") or _new_id()
        self.function_name = self._grid("function") or settings.function_name
        self.source_ip = self._grid("source-ip")
        self.scheme = self._grid("scheme") or "http"
        left = self._grid("deadline-ms")
        known = left.isascii() and left.isdigit() and len(left) <= 12
        self.deadline = monotonic() + (int(left) if known else settings.timeout_ms) / 1000

    def _grid(self, name):
        return self.headers.get("x-grid-" + name, ("",))[0]

    def user_agent(self):
        return ", ".join(self.headers.get("user-agent", ()))

    def domain_name(self):
        host = self.headers.get("host", ("",))[0]
        name, colon, port = host.rpartition(":")
        return name if colon and (port == "" or port.isdigit()) else host


def _new_id():
    import os
    text = os.urandom(16).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def is_client_header(name):
    return name not in HOP_BY_HOP and not name.startswith("x-grid-")


def _form_decode(text):
    data = text.replace("+", " ").split("%")
    out = [data[0].encode("ascii")]
    for part in data[1:]:
        code = part[:2]
        if len(code) == 2 and code[0] in HEX and code[1] in HEX:
            out.append(bytes((int(code, 16),)) + part[2:].encode("ascii"))
        else:
            out.append(b"%" + part.encode("ascii"))
    return b"".join(out).decode("utf-8", "replace")


def parse_query(query):
    """Form-decoded query: a dict of name to values, None when it holds no name."""
    grouped = {}
    for pair in query.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            grouped.setdefault(_form_decode(name), []).append(_form_decode(value))
    return grouped or None


def body_text(data):
    """(text, is_base64): the body as text, or as base64 when it is not UTF-8; None when empty."""
    if not data:
        return None, False
    try:
        return data.decode("utf-8"), False
    except UnicodeDecodeError:
        import binascii
        return binascii.b2a_base64(data, newline=False).decode("ascii"), True


def _refuse_constant(name):
    raise ValueError("%s is not JSON" % name)


def _parse_body(text, is_base64):
    if text is None or is_base64:
        return text
    try:
        return loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _iso_time(ms):
    t = gmtime(ms // 1000)
    return "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ" % (*t[:6], ms % 1000)


def grid_event(incoming):
    multi = {name: values for name, values in incoming.headers.items()
             if is_client_header(name) and name not in ("host", "content-length")}
    query = parse_query(incoming.query)
    text, is_base64 = body_text(incoming.body)
    return {
        "httpMethod": incoming.method,
        "path": incoming.rest,
        "headers": {name: ("; " if name == "cookie" else ", ").join(values)
                    for name, values in multi.items()},
        "multiValueHeaders": multi,
        "queryStringParameters": query and {name: values[-1] for name, values in query.items()},
        "multiValueQueryStringParameters": query,
        "body": _parse_body(text, is_base64),
        "rawBody": text,
        "isBase64Encoded": is_base64,
        "requestContext": {
            "requestId": incoming.request_id,
            "stage": "$default",
            "httpMethod": incoming.method,
            "path": incoming.path,
            "protocol": incoming.protocol,
            "scheme": incoming.scheme,
            "domainName": incoming.domain_name(),
            "functionName": incoming.function_name,
            "time": _iso_time(incoming.time_ms),
            "timeEpoch": incoming.time_ms,
            "identity": {"sourceIp": incoming.source_ip, "userAgent": incoming.user_agent()},
        },
    }
