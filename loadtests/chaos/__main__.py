"""Breaks a Grid in two parts over a Redis for minutes, while it is used, and looks whether anything gets lost."""

import argparse
import contextlib
import json
import os
import pathlib
import random
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time

from checks import Checks
from docker import Docker
from faults import Faults
from ledger import Ledger
from owners import Admin, Owners
from parts import Part
from public import Public
from redis import Redis

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES_KEPT = 2
CALLERS = 8


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtests/chaos", description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/grid")
    parser.add_argument("--minutes", type=float, default=10, help="after which no new episode begins (10)")
    parser.add_argument("--steps", type=int, default=20, help="faults of an episode (20)")
    parser.add_argument("--rate", type=float, default=15, help="public calls a second (15)")
    parser.add_argument("--owners", type=int, default=2, help="who change services at one time (2)")
    parser.add_argument("--egress", choices=("public", "none"), default="public", help="of services that do not sleep")
    parser.add_argument("--seed", type=int, default=None, help="of what happens; when it happens differs each time")
    parser.add_argument("--keep", action="store_true", help="leave the directory with logs and data")
    return parser.parse_args()


def free_ports(count: int) -> list:
    with contextlib.ExitStack() as stack:
        ones = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in ones:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in ones]


class Run:
    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.seed = random.randrange(1 << 30) if given.seed is None else given.seed
        random.seed(self.seed)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="gc", dir="/tmp"))
        self.data = self.directory / "d"
        self.data.mkdir()
        self.begin = time.monotonic()
        self.ledger = Ledger()
        self.docker = Docker()
        self.redis = Redis(self.directory)
        self.taken = []  # what the processes took after each episode
        token = secrets.token_hex(20)
        self.http, control, edge = free_ports(3)
        self.admins = {"control": control, "edge": edge}
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST") if name in os.environ},
            "GRID_DATA_DIR": str(self.data),
            "GRID_SHARE_DIR": str(ROOT),
            "GRID_HTTP_ADDR": f"127.0.0.1:{self.http}",
            "GRID_HTTPS_ADDR": "off",
            "GRID_LOG": "info,control=debug,grid=debug",
            "GRID_IDLE_SECONDS": "5",
            "GRID_QUEUE_SECONDS": "10",
            "FUNCTION_TIMEOUT_SECONDS": "5",
            "GRID_IMAGES_KEPT": str(IMAGES_KEPT),
            "REDIS_URL": self.redis.url,
            "SMSLY_TOKEN": token,
            "RUST_BACKTRACE": "1",
        }

        def part(role: str) -> Part:
            settings = {**environment, "GRID_ROLE": role, "GRID_ADMIN_ADDR": f"127.0.0.1:{self.admins[role]}"}
            return Part(role, [str(given.binary.resolve()), "serve"], settings, self.directory, "grid ready", self.note)

        redis = Part("redis", self.redis.command, {"PATH": os.environ["PATH"]}, self.directory, "ready to accept connections", self.note)
        self.parts = {"redis": redis, "control": part("control"), "edge": part("edge")}
        self.admin = Admin(control, token)
        self.owners = Owners(self.admin, self.ledger, self.report, given.egress)
        self.public = Public(self.http, self.parts["edge"], self.ledger, self.report)
        self.checks = Checks(self.parts, self.admins, self.docker, self.ledger, self.public, self.report, self.note, self.data, IMAGES_KEPT, self.redis)
        self.faults = Faults(self.parts, self.docker, self.ledger, self.public, random.Random(self.seed))

    def note(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {time.monotonic() - self.begin:7.1f} {text}", flush=True)

    def report(self, text: str) -> None:
        with self.ledger.lock:
            self.ledger.violations.append(text)
        self.note(f"WRONG: {text}")

    def run(self) -> None:
        self.note(f"seed {self.seed}, {self.directory}")
        for part in self.parts.values():
            part.start()
            part.ready.wait(60)
        if not self.checks.ready():
            return
        self.owners.begin(self.given.owners)
        first = self.ledger.entries[0]
        self.checks.until("the first function", lambda: self.checks.settled(self.admin, first))
        self.docker.learn(first.id)
        self.layers = self.docker.all_images()
        self.public.begin(CALLERS, self.given.rate)
        number, until = 0, time.monotonic() + 60 * self.given.minutes
        while time.monotonic() < until:
            self.episode(number, until)
            number += 1
        self.end()

    def episode(self, number: int, until: float) -> None:
        self.owners.going.set()
        name = self.faults.episode(number, self.given.steps, until)
        self.owners.going.clear()
        self.note(f"episode {number} ({name}) is over")
        begin = time.monotonic()
        time.sleep(3)  # until the last one that stands still goes on
        if self.checks.ready():
            self.owners.settle()
            self.checks.all(self.admin)
        with contextlib.suppress(OSError, ValueError, KeyError):
            takes = {key: part.takes() for key, part in self.parts.items()}
            takes["redis"]["keys"] = self.redis.ask("DBSIZE")
            self.taken.append(takes)
        for key in ("control", "edge"):
            if "panicked at" in (self.directory / f"{key}.log").read_text(errors="replace"):
                self.report(f"{key} has panicked")
        self.note(f"episode {number} ({name}): quiet again after {time.monotonic() - begin:.1f} s; {json.dumps(self.taken[-1:])}")

    def end(self) -> None:
        """Deletes everything: nothing may be left."""
        for entry in self.ledger.snapshot():
            if entry.exists == {True}:
                entry.wanted = False
        self.owners.settle()
        self.checks.all(self.admin)
        layers = self.docker.all_images()
        self.ledger.count("images and layers before", self.layers)
        self.ledger.count("images and layers after", layers)
        left = {key: self.redis.ask("HLEN", key) for key in self.redis.keys("*") if self.redis.ask("TYPE", key) == "hash"}
        self.note(f"left in Redis: {json.dumps(left)}")
        self.note("left in the data directory: " + ", ".join(sorted(str(path.relative_to(self.data)) for path in self.data.rglob("*"))))

    def close(self) -> None:
        self.owners.closing = self.public.closing = True
        for key in ("edge", "control", "redis"):
            status = self.parts[key].close() if self.parts[key].thread.ident else 0
            if status != 0:
                self.report(f"{key} ended with {status}")
        if self.docker.instance:
            self.docker.remove(sorted(self.docker.containers()))
            self.docker.remove_images([identity for identity, _, _ in self.docker.images()])
            self.docker.run("network", "rm", f"grid-{self.docker.instance}")
        processes = {key: part.count for key, part in self.parts.items()}
        summary = {
            "seconds": round(time.monotonic() - self.begin),
            "processes": processes,
            "counts": dict(sorted(self.ledger.counts.items())),
            "slowest": self.checks.slowest,
            "most": {
                key: {what: max(takes[key][what] for takes in self.taken) for what in ("age", "rss_mb", "threads", "files")}
                for key in self.parts
                if self.taken
            },
            "violations": self.ledger.violations,
        }
        print(json.dumps(summary, indent=1, ensure_ascii=False))
        if not self.given.keep and not self.ledger.violations:
            shutil.rmtree(self.directory)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    run = Run(options())
    try:
        run.run()
    except BaseException as error:
        run.report(f"ended early: {error!r}")
        raise
    finally:
        run.close()
    return 1 if run.ledger.violations else 0


if __name__ == "__main__":
    sys.exit(main())
