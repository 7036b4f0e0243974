"""Docker Engine by itself: its API over the Unix socket, and the naive ways to start a function."""

import contextlib
import http.client
import io
import json
import os
import pathlib
import secrets
import socket
import struct
import subprocess
import tarfile
import threading
import time
import urllib.parse

# On everything that is made here without Grid.
LABEL = "grid.bench"
WITHIN = 30
# Servers end connections that are idle for long. After so many seconds a new one is taken.
IDLE = 10


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=120)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Engine:
    def __init__(self, scratch: pathlib.Path) -> None:
        host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        if not host.startswith("unix://"):
            raise RuntimeError(f"DOCKER_HOST is {host}: only an engine on a Unix socket can be measured")
        self.host = host
        self.connection = UnixConnection(host[len("unix://") :])
        self.called = time.monotonic()  # last
        self.scratch = scratch
        self.run = secrets.token_hex(6)
        self.own = {f"{LABEL}={self.run}"}  # labels of what this run made, with Grid or without
        self.instances = set()  # ids of the Grids of this run

    def call(self, method: str, path: str, body: object = None, kind: str = "application/json", **query: object):
        """The decoded answer; for a build, its output."""
        query = {k: v if isinstance(v, str) else json.dumps(v) for k, v in query.items()}
        if query:
            path += "?" + urllib.parse.urlencode(query)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if time.monotonic() - self.called > IDLE:
            self.connection.close()
        self.called = time.monotonic()
        try:
            self.connection.request(method, path, body, {"Content-Type": kind} if body else {})
            answer = self.connection.getresponse()
            status, text = answer.status, answer.read()
        except BaseException:
            self.connection.close()  # an exchange that was left half way
            raise
        if status >= 400:
            raise RuntimeError(f"engine: {method} {path}: {status} {text.decode(errors='replace').strip()}")
        if answer.getheader("Content-Type", "").startswith("application/json") and path.split("?")[0] != "/build":
            return json.loads(text) if text else None
        return text.decode(errors="replace")

    def describe(self) -> dict:
        info, version = self.call("GET", "/info"), self.call("GET", "/version")
        return {
            "version": version["Version"],
            "storage": info["Driver"],
            "cgroup": info.get("CgroupVersion", "1"),
            "runtime": info["DefaultRuntime"],
        }

    def daemon(self) -> list:
        """The process that listens on the socket, or every engine where that is another, such as systemd."""
        self.call("GET", "/_ping")
        peer = self.connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid = struct.unpack("3i", peer)[0]
        name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip() if pid else ""
        return [pid] if name == "dockerd" else daemons()

    # What Grid made.

    def containers(self, service: str) -> list:
        filters = {"label": [f"grid.service={service}"]}
        return self.call("GET", "/containers/json", all="1", filters=filters)

    def note_instance(self, service: str) -> None:
        """Remembers which Grid a service's containers are of: its network has to go in the end, and all its containers."""
        for container in self.containers(service):
            instance = container["Labels"]["grid.instance"]
            self.instances.add(instance)
            self.own.add(f"grid.instance={instance}")

    def images(self, service: str) -> list:
        filters = {"label": [f"grid.service={service}"]}
        return self.call("GET", "/images/json", filters=filters)

    def inspect(self, service: str) -> dict:
        """The only container of a service."""
        (found,) = self.containers(service)
        return self.call("GET", f"/containers/{found['Id']}/json")

    def pids(self, container: str) -> list:
        """Its processes as the host numbers them."""
        top = self.call("GET", f"/containers/{container}/top", ps_args="-eo pid,comm")
        return [int(row[0]) for row in top["Processes"]]

    def memory(self, container: str) -> float:
        """MiB as `docker stats` shows them: the cgroup's use without inactive file pages."""
        stats = self.call("GET", f"/containers/{container}/stats", stream="false", **{"one-shot": "true"})
        use, detail = stats["memory_stats"]["usage"], stats["memory_stats"]["stats"]
        return (use - detail.get("total_inactive_file", detail.get("inactive_file", 0))) / 2**20

    def has_image(self, name: str) -> bool:
        return bool(self.call("GET", "/images/json", filters={"reference": [name]}))

    def runner_layer(self, image: str) -> str:
        """The runner layer that a function's image was built on."""
        layers = self.call("GET", f"/images/{image}/json")["RootFS"]["Layers"]
        for found in self.call("GET", "/images/json", filters={"reference": ["grid/runner-*"]}):
            base = self.call("GET", f"/images/{found['Id']}/json")["RootFS"]["Layers"]
            if layers[: len(base)] == base and found["RepoTags"]:
                return found["RepoTags"][0]
        raise RuntimeError(f"no runner layer below {image}")

    # What a function would cost without Grid.

    def build(self, tag: str, template: str, runner: str, files: dict) -> float:
        """Builds the image of a function as Grid does; milliseconds."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, text in {"Dockerfile": template, **files}.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))
        options = {"buildargs": {"RUNNER": runner}, "labels": {LABEL: self.run}, "networkmode": "none"}
        began = time.perf_counter()
        output = self.call(
            "POST", "/build", archive.getvalue(), "application/x-tar", t=tag, rm="1", forcerm="1", **options
        )
        took = since(began)
        if "errorDetail" in output:
            raise RuntimeError(f"engine: build {tag}: {output[-500:]}")
        return took

    def start(self, image: str, like: dict) -> dict:
        """Creates and starts a container with the options of one of Grid's, takes its call home, and
        asks it what Grid asks: milliseconds from the beginning to each step."""
        name = f"grid-bench-{self.run}-{secrets.token_hex(4)}"
        home = self.scratch / name[-8:]
        home.mkdir()
        home.chmod(0o755)
        host = dict(like["HostConfig"], Binds=[f"{home}:/run/grid:ro"])
        kept = {k: like["Config"].get(k) for k in ("Env", "User", "NetworkDisabled", "Healthcheck")}
        body = {**kept, "Image": image, "Labels": {LABEL: self.run}, "HostConfig": host}
        marks = {}
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(str(home / "edge.sock"))
            (home / "edge.sock").chmod(0o666)
            listener.listen(1)
            listener.settimeout(WITHIN)
            began = time.perf_counter()
            caller = threading.Thread(target=take_call, args=(listener, began, marks))
            caller.start()
            try:
                self.call("POST", "/containers/create", body, name=name)
                marks["created"] = since(began)
                self.call("POST", f"/containers/{name}/start")
                marks["started"] = since(began)
            except BaseException:
                listener.shutdown(socket.SHUT_RDWR)  # nobody will call
                raise
            finally:
                caller.join()
                with contextlib.suppress(RuntimeError):
                    self.call("DELETE", f"/containers/{name}", force="1", v="1")
        if "answered" not in marks:
            raise RuntimeError(f"a container of {image} did not call home and answer within {WITHIN} s")
        return marks

    def docker_run(self, image: str) -> dict:
        """`docker run` with a published port until the runner in it answers: milliseconds. It is asked
        only when the command has returned: a packet for a container whose network is not up yet is lost
        and repeated after a second, and that would be measured instead."""
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        name = f"grid-bench-{self.run}-{secrets.token_hex(4)}"
        label = f"{LABEL}={self.run}"
        command = ["docker", "--host", self.host, "run", "--detach", "--name", name, "--label", label]
        publish = ["--publish", f"127.0.0.1:{port}:8000"]
        began = time.perf_counter()
        try:
            done = subprocess.run([*command, *publish, image], capture_output=True, text=True, timeout=WITHIN)
            returned = since(began)
            if done.returncode:
                raise RuntimeError(f"docker run {image}: {done.stderr.strip()}")
            while not answers(port):
                if since(began) > WITHIN * 1000:
                    raise RuntimeError(f"docker run {image}: no answer within {WITHIN} s")
                time.sleep(0.002)
            return {"returned": returned, "answered": since(began)}
        finally:
            with contextlib.suppress(RuntimeError):
                self.call("DELETE", f"/containers/{name}", force="1", v="1")

    def remove_image(self, name: str) -> None:
        self.call("DELETE", f"/images/{name}", force="1")

    def sweep(self) -> None:
        """Removes every container and image that this run made."""
        for label in sorted(self.own):
            filters = {"label": [label]}
            for container in self.call("GET", "/containers/json", all="1", filters=filters):
                with contextlib.suppress(RuntimeError):  # on its way out
                    self.call("DELETE", f"/containers/{container['Id']}", force="1", v="1")
            for image in self.call("GET", "/images/json", filters=filters):
                with contextlib.suppress(RuntimeError):
                    self.remove_image(image["Id"])  # a build that was broken off has no tag
        for instance in self.instances:
            remove_network(self, instance)


def remove_network(engine: Engine, instance: str) -> None:
    """What a Grid leaves for its containers: network, rules and routes (docs/security.md)."""
    with contextlib.suppress(RuntimeError):
        engine.call("DELETE", f"/networks/grid-{instance}")
    bridge = f"grid-{instance[:10]}"
    for command in (
        ["nft", "delete", "table", "inet", bridge.replace("-", "_")],
        ["nft", "delete", "table", "bridge", bridge.replace("-", "_")],
        ["ip", "rule", "del", "iif", bridge],
        ["ip", "-6", "rule", "del", "iif", bridge],
    ):
        subprocess.run(command, capture_output=True, timeout=WITHIN, check=False)


def since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


def take_call(listener: socket.socket, began: float, marks: dict) -> None:
    """The edge's part: `/ready`, then the request."""
    try:
        accepted, _ = listener.accept()
        marks["called"] = since(began)
        accepted.settimeout(WITHIN)
        connection = http.client.HTTPConnection("runner")
        connection.sock = accepted
        for target in ("/ready", "/fn/bench"):
            connection.request("GET", target)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                return
            marks["answered" if target == "/fn/bench" else "ready"] = since(began)
        connection.close()
    except OSError:
        pass  # whoever started the container sees that the mark is missing


def daemons() -> list:
    """Every engine that is seen here, where the socket does not tell which one is ours."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if (directory / "comm").read_text().strip() == "dockerd":
                found.append(int(directory.name))
    return found


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/fn/bench")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
