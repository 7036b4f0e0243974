"""A Redis for one Grid: how it is started, and asked a few things."""

import pathlib
import socket


class Redis:
    def __init__(self, directory: pathlib.Path) -> None:
        self.directory, self.path = directory, directory / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    @property
    def command(self) -> list:
        # Nothing that was acknowledged may be lost.
        return ["redis-server", "--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", "--unixsocket", str(self.path), "--dir", str(self.directory)]

    def ask(self, *words: str):
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(str(self.path))
            line.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words))
            return answer(line.makefile("rb"))

    def keys(self, pattern: str) -> list:
        return self.ask("KEYS", pattern)


def answer(lines):
    line = lines.readline().rstrip(b"\r\n").decode()
    kind, rest = line[:1], line[1:]
    if kind == "*":
        return [answer(lines) for _ in range(int(rest))]
    if kind == "$":
        return None if rest == "-1" else lines.read(int(rest) + 2)[:-2].decode(errors="replace")
    if kind == ":":
        return int(rest)
    if kind == "-":
        raise RuntimeError(f"redis: {rest}")
    return rest
