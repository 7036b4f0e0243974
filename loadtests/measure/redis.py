"""A Redis of our own, which has everything on the disk before it answers, as the embedded store has."""

import pathlib
import socket
import subprocess
import time

STARTED_WITHIN = 20


class Redis:
    """Runs within a `with`."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.socket = directory / "redis.sock"
        self.url = f"unix://{self.socket}"

    def __enter__(self) -> "Redis":
        self.directory.mkdir()
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen(
                ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory)]
                + ["--save", "", "--appendonly", "yes", "--appendfsync", "always"],
                stdout=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < deadline:
            try:
                self.info("server")
                return self
            except OSError:
                time.sleep(0.02)
        self.__exit__()
        raise RuntimeError("redis-server does not answer")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(15)

    def info(self, section: str) -> dict:
        """What INFO says of a section."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            connection.sendall(f"INFO {section}\r\n".encode())
            with connection.makefile("rb") as answer:
                size = int(answer.readline()[1:])
                lines = answer.read(size).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)
