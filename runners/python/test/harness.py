"""Starts a real runner, plays the edge on a real Unix socket, and speaks raw HTTP/1.1 to it."""
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

RUNNER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                      "smsly_function_runner.py")
PATIENCE = 20


def until(check, what):
    """Polls until `check` gives something true."""
    end = time.monotonic() + PATIENCE
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("waited too long for " + what)
        time.sleep(0.005)


class Answer:
    def __init__(self, status, headers, body=b"", chunks=(), cut=False):
        self.status, self.headers, self.body = status, headers, body
        self.chunks, self.cut = list(chunks), cut
        self.outcome = headers.get("x-grid-outcome", [None])[0]

    def text(self):
        return self.body.decode("utf-8")

    def json(self):
        return json.loads(self.body)


class Wire:
    """One connection on which requests are sent and answers read, both as raw bytes."""

    def __init__(self, sock):
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.buffer = b""

    def send(self, data):
        self.sock.sendall(data)

    def _more(self):
        data = self.sock.recv(1 << 20)
        if not data:
            raise EOFError("the connection ended")
        self.buffer += data

    def closed(self):
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionError:
            pass
        return True

    def read_head(self):
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name.lower(), []).append(value.strip())
        return Answer(int(first.split(" ")[1]), headers)

    def read_bytes(self, length):
        while len(self.buffer) < length:
            self._more()
        data, self.buffer = self.buffer[:length], self.buffer[length:]
        return data

    def read_chunk(self):
        """The next chunk, written as strictly as the edge wants it; empty for the last one."""
        while b"\r\n" not in self.buffer:
            self._more()
        line = self.read_bytes(self.buffer.index(b"\r\n") + 2)
        if not re.fullmatch(rb"(?:0|[1-9a-f][0-9a-f]{0,7})\r\n", line):
            raise AssertionError("a chunk begins with %r" % line)
        data = self.read_bytes(int(line, 16))
        if self.read_bytes(2) != b"\r\n":
            raise AssertionError("a chunk does not end where it should")
        return data

    def read_chunks(self):
        """All chunks, and whether the connection ended before the last one."""
        chunks = []
        while True:
            try:
                chunk = self.read_chunk()
            except (EOFError, ConnectionError):
                return chunks, True
            if not chunk:
                return chunks, False
            chunks.append(chunk)

    def read(self, method="GET"):
        answer = self.read_head()
        if method == "HEAD":
            return answer
        if "transfer-encoding" in answer.headers:
            answer.chunks, answer.cut = self.read_chunks()
            answer.body = b"".join(answer.chunks)
        else:
            answer.body = self.read_bytes(int(answer.headers.get("content-length", ["0"])[0]))
        return answer

    def ask(self, **request):
        self.send(encode(**request))
        return self.read(request.get("method", "GET"))


def encode(method="GET", target="/fn/hello", headers=(), body=None, bodyBase64=None,
           bodyRepeat=None):
    data = b""
    if body is not None:
        data = body.encode("utf-8")
    if bodyBase64 is not None:
        data = base64.b64decode(bodyBase64)
    if bodyRepeat is not None:
        data = (bodyRepeat["text"] * bodyRepeat["count"]).encode("utf-8")
    headers = [tuple(pair) for pair in headers]
    names = {name.lower() for name, _ in headers}
    if "host" not in names:
        headers.insert(0, ("host", "hello.example.com"))
    if data and not names & {"content-length", "transfer-encoding"}:
        headers.append(("content-length", str(len(data))))
    lines = "".join("%s: %s\r\n" % pair for pair in headers)
    return ("%s %s HTTP/1.1\r\n%s\r\n" % (method, target, lines)).encode("latin-1") + data


class Edge:
    """The edge's listener; `accept` gives the next connection that a runner dialled."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        self.listener.settimeout(PATIENCE)
        self.wires = []

    def accept(self):
        wire = Wire(self.listener.accept()[0])
        self.wires.append(wire)
        return wire

    def close(self):
        self.listener.close()
        for wire in self.wires:
            wire.sock.close()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Runner:
    """A runner process with `code` as its function; `close` stops it and cleans up."""

    def __init__(self, code, env=None, edge=True, listen=True, flags=("-I",)):
        self.dir = tempfile.mkdtemp(prefix="grid-")
        with open(os.path.join(self.dir, "function.py"), "w", encoding="utf-8") as file:
            file.write(code)
        self.socket = os.path.join(self.dir, "edge.sock" if edge else "none/edge.sock")
        self.edge = Edge(self.socket) if edge and listen else None
        self.port = free_port()
        self.ports = []
        own = {"PATH": os.environ.get("PATH", ""), "GRID_FUNCTION_DIR": self.dir,
               "GRID_SOCKET": self.socket, "PORT": str(self.port)}
        self.out = open(os.path.join(self.dir, "stdout"), "wb")
        self.err = open(os.path.join(self.dir, "stderr"), "wb")
        self.child = subprocess.Popen([sys.executable, *flags, RUNNER], env={**own, **(env or {})},
                                      stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err)
        self.wire = self.edge.accept() if self.edge else None

    def _read(self, name):
        with open(os.path.join(self.dir, name), encoding="utf-8") as file:
            return file.read()

    @property
    def stdout(self):
        return self._read("stdout")

    @property
    def stderr(self):
        return self._read("stderr")

    def exit_code(self):
        return self.child.wait(PATIENCE)

    def connect_port(self):
        def attempt():
            try:
                return Wire(socket.create_connection(("127.0.0.1", self.port)))
            except OSError:
                return None
        self.ports.append(until(attempt, "the port"))
        return self.ports[-1]

    def close(self):
        self.child.kill()
        self.child.wait()
        if self.edge:
            self.edge.close()
        for wire in self.ports:
            wire.sock.close()
        self.out.close()
        self.err.close()
        shutil.rmtree(self.dir, ignore_errors=True)
