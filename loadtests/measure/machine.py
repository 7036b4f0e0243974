"""The machine that is measured on, and what processes take of it."""

import contextlib
import datetime
import os
import pathlib
import platform
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


def describe(root: pathlib.Path, options) -> dict:
    """Where, when and what: for the head of the report."""
    command = "loadtests/bench" if options.quick or options.only else "make bench"
    if options.quick:
        command += " --quick"
    for part in sorted(options.only or ()):
        command += f" --only {part}"
    if options.profile != "bench-lto":
        command = f"GRID_BENCH_PROFILE={options.profile} {command}"
    before = Usage()
    time.sleep(2)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(root),
        "command": command,
        "cores": os.cpu_count(),
        "processor": processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "busy_percent_before": before.busy_percent(),
        "versions": {},
    }


def commit(root: pathlib.Path) -> str:
    """The commit that is checked out, and whether something else than the results was changed since."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        name = git("rev-parse", "--short=12", "HEAD") or "unknown"
        changed = git("status", "--porcelain", "--", ".", ":!loadtests/RESULTS.md", ":!loadtests/results.json")
    except OSError:
        return "unknown"
    return f"{name} with changes" if changed else name


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


class Usage:
    """What all processes together take from now on."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.first = self._read()

    @staticmethod
    def _read() -> list:
        with open("/proc/stat") as stat:
            return [int(ticks) for ticks in stat.readline().split()[1:9]]

    def _since(self) -> list:
        return [now - then for now, then in zip(self._read(), self.first)]

    def seconds(self) -> int:
        return round(time.perf_counter() - self.began)

    def busy_seconds(self) -> float:
        user, nice, system, _idle, _iowait, irq, softirq, _steal = self._since()
        return (user + nice + system + irq + softirq) / TICKS

    def busy_percent(self) -> float:
        return round(100 * self.busy_seconds() * TICKS / max(sum(self._since()), 1), 1)

    def steal_percent(self) -> float:
        since = self._since()
        return round(100 * since[7] / max(sum(since), 1), 1)


class Cpu:
    """What processes have taken until now, with all their threads."""

    def __init__(self, pids: list) -> None:
        self.ticks = self.user_ticks = 0
        self.threads = {}  # nanoseconds by id, where the kernel keeps that account
        for pid in pids:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            self.user_ticks += int(fields[11])
            self.ticks += int(fields[11]) + int(fields[12])
            for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):  # it ended meanwhile
                    self.threads[thread.name] = int((thread / "schedstat").read_text().split()[0])

    def seconds_since(self, before: "Cpu") -> float:
        """User and system time. Without the last moments of threads that have ended: what is measured keeps its own."""
        if not self.threads:
            return (self.ticks - before.ticks) / TICKS
        return sum(now - before.threads.get(thread, 0) for thread, now in self.threads.items()) / 1e9

    def user_seconds_since(self, before: "Cpu") -> float:
        """Of these in user mode, in steps of a clock tick."""
        return (self.user_ticks - before.user_ticks) / TICKS


def rss(pid: int, field: str = "VmRSS") -> float:
    """MiB that a process has in memory, shared pages included."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/status has no {field}")


def pss(pid: int):
    """MiB of a process with shared pages divided among those that share; None when it may not be read."""
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
