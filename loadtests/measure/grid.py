"""A Grid of our own: its process, its admin API, its public port."""

import contextlib
import http.client
import json
import os
import pathlib
import secrets
import select
import signal
import socket
import subprocess
import time
import urllib.parse

from engine import IDLE, Engine

# The runner layers may have to be built first.
READY_WITHIN = 180
SETTLED_WITHIN = 60


class Grid:
    """Runs within a `with`, which leaves nothing behind."""

    def __init__(self, binary: pathlib.Path, share: pathlib.Path, scratch: pathlib.Path, engine: Engine, settings: dict):
        self.engine = engine
        self.token = secrets.token_hex(20)
        self.directory = scratch / f"grid{len(list(scratch.glob('grid*')))}"
        self.directory.mkdir()
        self.log = self.directory / "log"
        self.command = [str(binary), "serve"]
        # Nothing of the caller's settings: they would be measured without being told.
        self.environment = {
            "PATH": os.environ["PATH"],
            "DOCKER_HOST": engine.host,
            "GRID_ADMIN_ADDR": "127.0.0.1:0",
            "GRID_DATA_DIR": str(self.directory / "data"),
            "GRID_HTTP_ADDR": "127.0.0.1:0",
            "GRID_HTTPS_ADDR": "off",
            "GRID_SHARE_DIR": str(share),
            "SMSLY_TOKEN": self.token,
            **settings,
        }
        self.process = None
        self.admin = None
        self.called = 0.0  # when the admin API was called last

    def __enter__(self) -> "Grid":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.stop()  # what it leaves, the engine's sweep takes away
        if isinstance(error, Exception) and self.log.exists():
            tail = self.log.read_text(errors="replace").splitlines()[-15:]
            print("the end of grid's log:", *tail, sep="\n  ")

    def start(self) -> None:
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # a Ctrl-C reaches it after its services were removed
            )
        self.pid = self.process.pid
        self._await_ready()

    def _await_ready(self) -> None:
        line = b""
        deadline = time.monotonic() + READY_WITHIN
        while not line.endswith(b"\n"):
            if not select.select([self.process.stdout], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise RuntimeError(f"grid is not ready after {READY_WITHIN} s")
            part = os.read(self.process.stdout.fileno(), 4096)
            if not part:
                raise RuntimeError(f"grid ended: {self.log.read_text(errors='replace').strip()[-1000:]}")
            line += part
        words = dict(word.split("=", 1) for word in line.decode().split() if "=" in word)
        self.public_port = urllib.parse.urlsplit(words["public"]).port
        self._open_admin(urllib.parse.urlsplit(words["admin"]).port)

    def _open_admin(self, port: int) -> None:
        self.admin = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    # Admin API.

    def api(self, method: str, path: str, body: object = None):
        text = None if body is None else json.dumps(body)
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json"}
        if time.monotonic() - self.called > IDLE:
            self.admin.close()
        self.called = time.monotonic()
        try:
            self.admin.request(method, f"/api/v1/{path}", text, headers)
            answer = self.admin.getresponse()
            status, text = answer.status, answer.read()
        except BaseException:
            self.admin.close()
            raise
        if not 200 <= status < 300:
            raise RuntimeError(f"grid: {method} {path}: {status} {text.decode(errors='replace')}")
        return json.loads(text) if text else None

    def create(self, name: str, runtime: str, code: str, least: int, most: int = 1, egress: str = "public") -> str:
        """The id of a service that is live and has its one replica."""
        record = self.api(
            "POST",
            "services/",
            {
                "name": name,
                "deploy_type": "FUNCTION",
                "function_runtime": runtime,
                "function_code": code,
                "min_replicas": least,
                "max_replicas": most,
                "egress": egress,
            },
        )
        self.engine.own.add(f"grid.service={record['id']}")
        self._note(record)
        self.wait_settled(record["id"])
        self.engine.note_instance(record["id"])
        return record["id"]

    def change(self, service: str, code: str) -> dict:
        """The record as a PATCH answers it, before its deployment has run."""
        record = self.api("PATCH", f"services/{service}/", {"function_code": code})
        self._note(record)
        return record

    def _note(self, record: dict) -> None:
        """An image whose build is broken off may have no more labels than this one."""
        self.engine.own.add(f"grid.deployment={record['deployment']['id']}")

    def wait_settled(self, service: str) -> None:
        """The newest deployment is live, its replica is ready, and nothing of the one before runs."""

        def settled(record: dict) -> bool:
            if record["latest_deployment_phase"] == "failed":
                deployment = self.deployment(service, record["latest_deployment"])
                raise RuntimeError(f"grid: the deployment failed: {deployment['error']}")
            of_latest = [(record["latest_deployment"], "ready")]
            return record["status"] == "live" and [(r["deployment"], r["state"]) for r in record["replicas"]] == of_latest

        self._wait(service, settled)

    def wait_asleep(self, service: str) -> None:
        """No replica is left."""
        self._wait(service, lambda record: not record["replicas"])

    def _wait(self, service: str, reached) -> None:
        deadline = time.monotonic() + SETTLED_WITHIN
        while not reached(record := self.api("GET", f"services/{service}/")):
            if time.monotonic() > deadline:
                raise RuntimeError(f"grid: not settled after {SETTLED_WITHIN} s: {record}")
            time.sleep(0.02)

    def deployment(self, service: str, deployment: str) -> dict:
        return self.api("GET", f"services/{service}/deployments/{deployment}/")

    def delete(self, service: str) -> None:
        """Also waits until its containers are gone, so that they disturb nothing that follows."""
        self.api("DELETE", f"services/{service}/")
        deadline = time.monotonic() + SETTLED_WITHIN
        while self.engine.containers(service) and time.monotonic() < deadline:
            time.sleep(0.05)

    # Public port.

    @contextlib.contextmanager
    def client(self, name: str):
        """A function that calls a function over one connection: `(status, text, Server-Timing)`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.public_port, timeout=60)
        headers = {"Host": f"{name}.localhost"}

        def call(below: str = "") -> tuple:
            connection.request("GET", f"/fn/{name}{below}", headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), timing(answer.getheader("Server-Timing", ""))

        try:
            connection.connect()
            yield call
        finally:
            connection.close()


def timing(header: str) -> dict:
    """`queue;dur=0.0, wake;dur=410.2` as numbers."""
    parts = (part.strip().split(";dur=") for part in header.split(",") if ";dur=" in part)
    return {name: float(value) for name, value in parts}


class Lonely(Grid):
    """Has no engine: nothing is deployed, so that thousands of services cost no more than their records."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        with contextlib.ExitStack() as stack:
            free = [stack.enter_context(socket.socket()) for _ in range(2)]
            for one in free:
                one.bind(("127.0.0.1", 0))
            self.port, self.public_port = (one.getsockname()[1] for one in free)
        self.environment["GRID_ADMIN_ADDR"] = f"127.0.0.1:{self.port}"
        self.environment["GRID_HTTP_ADDR"] = f"127.0.0.1:{self.public_port}"
        self.environment["DOCKER_HOST"] = f"unix://{self.directory}/nowhere.sock"

    def _await_ready(self) -> None:
        """It is never ready for the public, but its admin API answers."""
        self._open_admin(self.port)
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.api("GET", "runtimes/")
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"grid's admin API does not answer: {self.log.read_text(errors='replace').strip()[-1000:]}")
