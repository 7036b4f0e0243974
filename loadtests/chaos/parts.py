"""The processes of a Grid in two parts and its Redis: each is started again whenever it has ended."""

import os
import pathlib
import signal
import subprocess
import threading
import time


class Absences:
    """When something was away: pairs of the begin and the end, which is None while it lasts."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.spans = []

    def begin(self) -> None:
        with self.lock:
            if not self.spans or self.spans[-1][1] is not None:
                self.spans.append([time.monotonic(), None])

    def end(self) -> None:
        with self.lock:
            if self.spans and self.spans[-1][1] is None:
                self.spans[-1][1] = time.monotonic()

    def overlap(self, begin: float, end: float) -> bool:
        with self.lock:
            return any(start <= end and (stop is None or stop >= begin) for start, stop in reversed(self.spans))


class Part:
    """A program that says on standard output when it is ready. It is started until `close` is called."""

    def __init__(self, name: str, command: list, environment: dict, directory: pathlib.Path, marker: str, report) -> None:
        self.name, self.command, self.environment, self.marker = name, command, environment, marker
        self.log = directory / f"{name}.log"
        self.directory = directory
        self.report = report
        self.away = Absences()
        self.ready = threading.Event()
        self.lock = threading.Lock()
        self.process = None
        self.killed = False  # by us
        self.pause = 0.0  # before it is started again
        self.stopped = False
        self.closing = False
        self.status = None
        self.count = {"started": 0, "killed": 0, "stopped": 0, "ended by itself": 0}
        self.away.begin()
        self.thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> "Part":
        self.thread.start()
        return self

    def _keep(self) -> None:
        while not self.closing:
            with self.lock:
                with open(self.log, "ab") as log:
                    self.process = subprocess.Popen(
                        self.command,
                        cwd=self.directory,
                        env=self.environment,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        start_new_session=True,
                    )
                self.killed = self.stopped = False
                self.began = time.monotonic()
                self.count["started"] += 1
            with open(self.log, "ab", buffering=0) as log:
                for line in self.process.stdout:
                    log.write(line)
                    if self.marker in line.decode(errors="replace").lower():
                        self.away.end()
                        self.ready.set()
            self.status = self.process.wait()
            self.away.begin()
            self.ready.clear()
            if self.closing:
                return
            if not self.killed:
                self.count["ended by itself"] += 1
                self.report(f"{self.name} ended by itself: {self.status}: {self.tail()}")
                self.pause = 1.0
            time.sleep(self.pause)

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else ""

    def signal(self, number: int) -> bool:
        """Whether there was a process to send it to."""
        if self.process is None or self.process.poll() is not None:
            return False
        self.process.send_signal(number)
        return True

    def kill(self, pause: float) -> bool:
        with self.lock:
            if self.process is None or self.killed or self.process.poll() is not None:
                return False
            self.killed, self.pause = True, pause
            self.away.begin()
            self.ready.clear()
            self.signal(signal.SIGKILL)
            self.count["killed"] += 1
            return True

    def stop(self, seconds: float) -> bool:
        """Lets it stand still for so long."""
        with self.lock:
            if self.killed or self.stopped or not self.signal(signal.SIGSTOP):
                return False
            self.stopped = True
            self.count["stopped"] += 1
            process = self.process

        def go_on() -> None:
            time.sleep(seconds)
            with self.lock:
                if self.process is process and process.poll() is None:
                    process.send_signal(signal.SIGCONT)
                    self.stopped = False

        threading.Thread(target=go_on, daemon=True).start()
        return True

    def close(self, within: float = 30) -> int:
        """Its exit status, once it was asked to end; that of SIGKILL when it did not in time."""
        self.closing = True
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        self.thread.join(within)
        if self.thread.is_alive():
            self.signal(signal.SIGKILL)
            self.thread.join(within)
        return self.status

    def takes(self) -> dict:
        """What the process takes at the moment."""
        base = pathlib.Path("/proc") / str(self.process.pid)
        fields = dict(line.split(":", 1) for line in (base / "status").read_text().splitlines() if ":" in line)
        return {
            "age": round(time.monotonic() - self.began),
            "rss_mb": round(int(fields["VmRSS"].split()[0]) / 1024, 1),
            "threads": int(fields["Threads"]),
            "files": len(os.listdir(base / "fd")),
        }
