"""HTTP/1.1 on a bare socket: strict requests with Content-Length or chunked bodies in,
answers with Content-Length or in chunks out, keep-alive in between."""
import _socket

MAX_HEADER_BYTES = 65536
# What is smaller leaves together with what belongs before it.
JOINED_BYTES = 65536
TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
CONTROL = frozenset(range(32)) - {9} | {127}
HEX = frozenset(b"0123456789abcdefABCDEF")
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 431: "Request Header Fields Too Large",
           501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
           505: "HTTP Version Not Supported"}


class BadRequest(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Request:
    """`headers` is a dict of lower-case names to lists of values, in the order of arrival."""

    __slots__ = ("method", "target", "protocol", "headers", "body", "keep_alive")


class Answer:
    """`headers` is a list of pairs; values are text of Latin-1 characters. With a `stream` the
    body is still to come from it; without `body` it is what HEAD is told of a stream."""

    __slots__ = ("status", "headers", "body", "stream")

    def __init__(self, status, headers, body, stream=None):
        self.status = status
        self.headers = headers
        self.body = body
        self.stream = stream


# Instead of an answer whose pieces have been sent already: what is left to do for it.
STREAMED = Answer(200, (), None)
CUT = Answer(200, (), None)


class Connection:
    def __init__(self, sock):
        self._sock = sock
        self._buffer = bytearray()
        self.is_lent = False

    def _fill(self, size=65536):
        data = self._sock.recv(size)
        self._buffer += data
        return bool(data)

    def _take(self, count):
        while len(self._buffer) < count:
            if not self._fill(max(65536, min(count - len(self._buffer), 1 << 20))):
                raise BadRequest(400, "the connection ended inside a body")
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _take_line(self, limit):
        searched = 0
        while True:
            end = self._buffer.find(b"\r\n", searched)
            if end >= 0:
                line = self._take(end)
                del self._buffer[:2]
                return line
            searched = max(0, len(self._buffer) - 1)
            if len(self._buffer) > limit:
                raise BadRequest(431, "a line is too long")
            if not self._fill():
                raise BadRequest(400, "the connection ended inside a line")

    def is_gone(self):
        """Whether the peer has ended the connection."""
        try:
            return self._sock.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def lend(self):
        """Ends the connection, but leaves it to another thread to close it."""
        self.is_lent = True
        try:
            self._sock.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self):
        self._sock.close()

    def read_request(self):
        """The next request, or None when the connection ended between requests."""
        head = self._read_head()
        if head is None:
            return None
        lines = head.split(b"\r\n")
        request = _parse_request_line(lines[0])
        request.headers = _parse_headers(lines[1:])
        request.keep_alive = _is_kept_alive(request)
        request.body = self._read_body(request.headers)
        return request

    def _read_head(self):
        searched = 0
        while True:
            while self._buffer[:2] == b"\r\n":  # empty lines before a request are allowed
                del self._buffer[:2]
                searched = 0
            end = self._buffer.find(b"\r\n\r\n", searched)
            if end > MAX_HEADER_BYTES or (end < 0 and len(self._buffer) > MAX_HEADER_BYTES):
                raise BadRequest(431, "the headers are too long")
            if end >= 0:
                head = bytes(self._buffer[:end])
                del self._buffer[:end + 4]
                return head
            searched = max(0, len(self._buffer) - 3)
            if not self._fill():
                if self._buffer:
                    raise BadRequest(400, "the connection ended inside the headers")
                return None

    def _read_body(self, headers):
        encodings = headers.get("transfer-encoding")
        lengths = headers.get("content-length")
        if encodings and lengths:
            raise BadRequest(400, "content-length and transfer-encoding together")
        if encodings is None and lengths is None:
            return b""
        if "100-continue" in [value.lower() for value in headers.get("expect", ())]:
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if lengths:
            if len(set(lengths)) > 1 or not _is_digits(lengths[0]):
                raise BadRequest(400, "invalid content-length")
            return self._take(int(lengths[0]))
        if len(encodings) > 1 or encodings[0].lower() != "chunked":
            raise BadRequest(501, "only the transfer-encoding chunked is known")
        return self._read_chunks()

    def _read_chunks(self):
        chunks = []
        while True:
            size = self._take_line(1024).split(b";", 1)[0].strip(b" \t")
            if not 1 <= len(size) <= 15 or not HEX.issuperset(size):
                raise BadRequest(400, "invalid chunk size")
            count = int(size, 16)
            if count == 0:
                break
            chunks.append(self._take(count))
            if self._take(2) != b"\r\n":
                raise BadRequest(400, "a chunk does not end where it should")
        budget = MAX_HEADER_BYTES
        while True:  # trailers are read and dropped
            line = self._take_line(budget)
            if not line:
                return b"".join(chunks)
            budget -= len(line)
            if budget <= 0:
                raise BadRequest(431, "the trailers are too long")

    def write_answer(self, request, answer):
        data = _head(request, answer)
        if request.method == "HEAD":
            self._sock.sendall(data)
        elif len(answer.body) < JOINED_BYTES:
            self._sock.sendall(data + answer.body)
        else:
            self._sock.sendall(data)
            self._sock.sendall(answer.body)

    def begin_stream(self, request, answer, data):
        """The head of a stream with its first bytes."""
        if request.protocol == "HTTP/1.0":  # knows no chunks: the end of the connection is the end
            request.keep_alive = False
        self._write_piece(request, data, _head(request, answer))

    def write_piece(self, request, data):
        self._write_piece(request, data, b"")

    def _write_piece(self, request, data, before):
        if request.protocol == "HTTP/1.0" or not data:
            after = b""
        else:
            before += b"%x\r\n" % len(data)
            after = b"\r\n"
        if len(data) < JOINED_BYTES:
            self._sock.sendall(before + data + after)
        else:
            self._sock.sendall(before)
            self._sock.sendall(data)
            self._sock.sendall(after)

    def end_stream(self, request):
        if request.protocol != "HTTP/1.0":
            self._sock.sendall(b"0\r\n\r\n")

    def cut(self, request):
        """Before the connection is closed in the middle of an answer."""
        if request.protocol == "HTTP/1.0":  # only a reset tells that something is missing
            self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def refuse(self, bad):
        """Answers a request that cannot be understood; the connection ends after it."""
        try:
            self._sock.sendall(
                ("HTTP/1.1 %d %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                 % (bad.status, REASONS.get(bad.status, "Error"))).encode("latin-1"))
        except OSError:
            pass


def _head(request, answer):
    head = ["HTTP/1.1 %d %s\r\n" % (answer.status, REASONS.get(answer.status, "Function"))]
    for name, value in answer.headers:
        head.append("%s: %s\r\n" % (name, value))
    if answer.body is not None:
        head.append("content-length: %d\r\n" % len(answer.body))
    elif request.protocol != "HTTP/1.0":
        head.append("transfer-encoding: chunked\r\n")
    head.append("connection: %s\r\n\r\n" % ("keep-alive" if request.keep_alive else "close"))
    return "".join(head).encode("latin-1")


def _is_digits(text):
    return 1 <= len(text) <= 15 and text.isascii() and text.isdigit()


def _parse_request_line(line):
    parts = line.split(b" ")
    if len(parts) != 3:
        raise BadRequest(400, "invalid request line")
    method, target, version = parts
    if not method or not TOKEN.issuperset(method):
        raise BadRequest(400, "invalid method")
    if not target or not CONTROL.isdisjoint(target):
        raise BadRequest(400, "invalid target")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise BadRequest(505 if version.startswith(b"HTTP/") else 400, "unknown version")
    request = Request()
    request.method = method.decode("latin-1")
    request.target = target.decode("latin-1")
    request.protocol = version.decode("latin-1")
    return request


def _parse_headers(lines):
    headers = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or not TOKEN.issuperset(name):
            raise BadRequest(400, "invalid header line")
        value = value.strip(b" \t")
        if not CONTROL.isdisjoint(value):
            raise BadRequest(400, "invalid header value")
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return headers


def _is_kept_alive(request):
    words = [word.strip().lower()
             for value in request.headers.get("connection", ()) for word in value.split(",")]
    if request.protocol == "HTTP/1.0":
        return "keep-alive" in words
    return "close" not in words
