"""Runs every measurement, keeps the raw samples, and writes the report from them."""

import argparse
import contextlib
import dataclasses
import datetime
import json
import pathlib
import shutil
import signal
import sys
import tempfile

import admin
import deploying
import edge
import guard
import k6
import machine
import memory
import report
import stores
import throughput
import waking
from engine import Engine
from grid import Grid, Lonely

ROOT = pathlib.Path(__file__).resolve().parents[2]
MOST_SECONDS = 20 * 60
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)

PARTS = ("guard", "memory", "throughput", "edge", "deploying", "admin", "stores", "waking", "k6")

# What a full and a quick run take.
FULL = {
    "wakes": 20,
    "patches": 15,
    "runs": 5,
    "run_seconds": 5,
    "functions": 3,
    "edge_runs": 3,
    "edge_seconds": 3,
    "k6_seconds": 10,
    "services": 10_000,
    "pages": 100,
    "restored": 1_000,
}
QUICK = {
    "wakes": 3,
    "patches": 3,
    "runs": 1,
    "run_seconds": 2,
    "functions": 1,
    "edge_runs": 1,
    "edge_seconds": 1,
    "k6_seconds": 4,
    "services": 1_000,
    "pages": 20,
    "restored": 300,
}


def main() -> int:
    options = read_options()
    counts = QUICK if options.quick else FULL
    for number in SIGNALS:
        signal.signal(number, stop)
    signal.alarm(MOST_SECONDS)

    about = machine.describe(ROOT, options)
    results = {"about": about, "counts": counts}
    with contextlib.ExitStack() as stack:
        # Short: the socket of a replica lies below it, and such a path holds 107 bytes.
        scratch = pathlib.Path(tempfile.mkdtemp(prefix="gb-", dir="/tmp"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        engine = Engine(scratch)
        about["engine"] = engine.describe()
        stack.callback(engine.sweep)
        stack.callback(ignore_signals)
        binary = options.target / ("debug" if options.profile == "dev" else options.profile) / "grid"
        usage = machine.Usage()
        Bench(options.parts, counts, results, scratch, engine, binary).run()
        about["steal_percent"] = usage.steal_percent()
        about["seconds"] = usage.seconds()

    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(dump(results))
    text = report.render(results)
    steps = ROOT / "loadtests/steps.md"
    if "edge" in options.parts and steps.exists():
        text += "\n" + steps.read_text()
    (options.output / "RESULTS.md").write_text(text)
    print(text)
    progress(f"Written: {options.output / 'RESULTS.md'} and results.json beside it")
    return 0


@dataclasses.dataclass
class Bench:
    """What the measurements work with, and where they put what they find."""

    wanted: set
    counts: dict
    results: dict
    scratch: pathlib.Path
    engine: Engine
    binary: pathlib.Path

    def run(self) -> None:
        if "guard" in self.wanted:
            progress("What the guard costs")
            self.results["guard"] = guard.measure(self.engine, ROOT)
        if self.wanted & {"memory", "throughput", "edge", "deploying"}:
            with self.grid() as grid:
                self.on_one_grid(grid)
        if "admin" in self.wanted:
            progress("Lists of many services")
            with Lonely(self.binary, ROOT, self.scratch, self.engine, {}) as grid:
                self.results["admin"] = admin.measure(grid, self.counts)
        if "stores" in self.wanted:
            progress("The embedded store beside a Redis")
            place = (self.binary, ROOT, self.scratch, self.engine)
            self.results["stores"] = stores.measure(*place, self.counts)
        if "waking" in self.wanted:
            progress("Wake from zero")
            with self.grid(GRID_IDLE_SECONDS="1") as grid:
                self.results["waking"] = waking.measure(grid, self.engine, self.counts)
        if "k6" in self.wanted:
            with self.grid(**k6.SETTINGS) as grid:
                self.results["k6"] = k6.measure(grid, self.counts, ROOT, self.scratch, progress)

    def grid(self, **settings: str) -> Grid:
        return Grid(self.binary, ROOT, self.scratch, self.engine, settings)

    def on_one_grid(self, grid: Grid) -> None:
        """Begins with what is to find it fresh."""
        wanted, results = self.wanted, self.results
        if "memory" in wanted:
            progress("Memory of idle functions")
            results["memory"] = memory.measure(grid, self.engine, self.counts, results["about"])
        if "throughput" in wanted:
            progress("Requests per second")
            results["throughput"] = throughput.measure(grid, self.engine, self.counts)
        if {"memory", "throughput"} <= wanted:
            results["memory"]["grid"]["after_load"] = machine.rss(grid.pid)
            results["memory"]["grid"]["peak"] = machine.rss(grid.pid, "VmHWM")
        if "edge" in wanted:
            progress("The edge beside nginx and HAProxy")
            results["edge"] = self.edge(grid)
        if "deploying" in wanted:
            progress("From PATCH to new code")
            template = (ROOT / "config/function.Dockerfile").read_text()
            results["deploying"] = deploying.measure(grid, self.engine, self.counts, template)

    def edge(self, grid: Grid) -> dict:
        if obstacle := edge.obstacle():
            progress(f"Not measured: {obstacle}")
            return {"obstacle": obstacle}
        return edge.measure(grid, self.engine, self.counts, self.scratch)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtests/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples; not written to loadtests/")
    parser.add_argument("--only", action="append", choices=PARTS, help="this measurement; may be given several times")
    parser.add_argument("--output", type=pathlib.Path, help="where results.json and RESULTS.md go")
    parser.add_argument("--target", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--profile", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.output is None:
        whole = not options.quick and not options.only
        options.output = ROOT / "loadtests" if whole else options.target / "bench"
    options.parts = set(options.only or PARTS)
    return options


def stop(number: int, _frame: object) -> None:
    """Leaves by way of every clean-up; a second signal does not interrupt it."""
    ignore_signals()
    why = f"not done within {MOST_SECONDS} s" if number == signal.SIGALRM else signal.Signals(number).name
    print(f"\nstopping ({why}): removing what was made", file=sys.stderr, flush=True)
    raise SystemExit(1 if number == signal.SIGALRM else 128 + number)


def ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def progress(text: str) -> None:
    now = datetime.datetime.now().strftime("%H:%M:%S")
    print(f"{now} {text}", file=sys.stderr, flush=True)


def dump(value: object, indent: str = "") -> str:
    """JSON with one sample per line, so that a change of one is a change of a line."""
    inner = indent + " "
    if isinstance(value, dict) and any(isinstance(v, (dict, list)) for v in value.values()):
        items = [f"{inner}{json.dumps(k)}: {dump(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}" + ("\n" if not indent else "")
    if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        return "[\n" + ",\n".join(inner + dump(v, inner) for v in value) + f"\n{indent}]"
    return json.dumps(value)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
