"""nginx and HAProxy in front of a replica's Unix socket, each as small as it can be set up."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

from engine import answers

WITHIN = 10

NGINX = """\
daemon off;
pid {place}/nginx.pid;
user root;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    keepalive_requests 1000000000;
    upstream replica {{
        server unix:{door};
        keepalive 64;
        keepalive_requests 1000000000;
        keepalive_time 1h;
        keepalive_timeout 1h;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://replica;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""

HAPROXY = """\
global
    nbthread 1
    maxconn 1000
defaults
    mode http
    no log
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout queue 30s
listen one
    bind 127.0.0.1:{one}
    server replica unix@{door} maxconn 1
listen many
    bind 127.0.0.1:{many}
    server replica unix@{door}
"""


class Rival:
    """A process in the foreground, within a `with`, which begins when the replica answers through it."""

    name = ""

    def __init__(self, scratch: pathlib.Path) -> None:
        self.place = scratch / self.name
        self.place.mkdir()
        self.settings = self.place / f"{self.name}.conf"
        self.process = None

    def command(self) -> list:
        raise NotImplementedError

    def ports(self) -> tuple:
        raise NotImplementedError

    def __enter__(self) -> "Rival":
        log = self.place / "log"
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + WITHIN
        while not all(answers(port) for port in self.ports()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self._stop()
                raise RuntimeError(f"{self.name} does not start: {log.read_text(errors='replace').strip()[-500:]}")
            time.sleep(0.02)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._stop()

    def _stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own session: itself and what it has started
            self.process.wait()

    def pids(self) -> list:
        """The process and what it has started."""
        own = self.process.pid
        children = pathlib.Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *(int(child) for child in children)]

    def version(self) -> str:
        done = subprocess.run([self.name, "-v"], capture_output=True, text=True, check=False)
        return re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)[0]


class Nginx(Rival):
    name = "nginx"

    def __init__(self, scratch: pathlib.Path, door: pathlib.Path) -> None:
        super().__init__(scratch)
        (self.port,) = free_ports(1)
        self.settings.write_text(NGINX.format(place=self.place, door=door, port=self.port))

    def command(self) -> list:
        return ["nginx", "-c", str(self.settings), "-p", str(self.place), "-e", str(self.place / "error.log")]

    def ports(self) -> tuple:
        return (self.port,)


class Haproxy(Rival):
    name = "haproxy"

    def __init__(self, scratch: pathlib.Path, door: pathlib.Path) -> None:
        super().__init__(scratch)
        self.one, self.many = free_ports(2)
        self.settings.write_text(HAPROXY.format(door=door, one=self.one, many=self.many))

    def command(self) -> list:
        return ["haproxy", "-db", "-f", str(self.settings)]

    def ports(self) -> tuple:
        return (self.one, self.many)


def free_ports(count: int) -> list:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(contextlib.closing(socket.socket())) for _ in range(count)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in sockets]
