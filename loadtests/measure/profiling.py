"""Grid with one replica under load, and perf on its process: the functions that take the time."""

import argparse
import contextlib
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from engine import Engine
from functions import NODE
from grid import Grid
from wrk import Target, load

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "profiled"
WARM_UP_SECONDS = 2


def main() -> int:
    options = read_options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    with contextlib.ExitStack() as stack:
        scratch = pathlib.Path(tempfile.mkdtemp(prefix="gb-", dir="/tmp"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        engine = Engine(scratch)
        stack.callback(engine.sweep)
        grid = stack.enter_context(Grid(options.binary, ROOT, scratch, engine, {}))
        service = grid.create(NAME, NODE.name, NODE.code("hello"), least=1)
        data = options.data or scratch / "perf.data"
        sample = record(grid, options, data)
        grid.delete(service)
        cpu, user = sample["cpu_us"]["grid"], sample["user_us"]["grid"]
        print(f"{options.method}, {options.connections} connections, while perf takes samples:")
        print(f"{sample['requests'] / sample['seconds']:,.0f} requests/s, {cpu:.1f} µs of Grid's CPU each, {user:.1f} in user mode")
        print(f"\nWhat takes it, by itself, in percent of Grid's CPU time (the rest is below {options.least} %):\n")
        print(by_self(data, options))
        if options.data:
            print(f"\nThe samples: {data}. For example: perf report --input {data} --children")
    return 0


def record(grid: Grid, options: argparse.Namespace, data: pathlib.Path) -> dict:
    """Takes samples during one run of wrk; what that says."""
    target = Target(grid.public_port, NAME)
    load(target, options.connections, WARM_UP_SECONDS, {}, options.method)
    # A clock of the kernel: virtual machines often have no counters of cycles.
    sampling = ["perf", "record", "--event", "cpu-clock", "--freq", str(options.frequency), "-g"]
    process = subprocess.Popen(
        [*sampling, "--pid", str(grid.pid), "--output", str(data), "--", "sleep", str(options.seconds)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        sample = load(target, options.connections, options.seconds, {"grid": [grid.pid]}, options.method)
        _, said = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise RuntimeError(f"perf record: {said.strip()[-500:]}")
    return sample


def by_self(data: pathlib.Path, options: argparse.Namespace) -> str:
    command = ["perf", "report", "--input", str(data), "--stdio", "--no-children", "--call-graph", "none"]
    command += ["--sort", "symbol", "--percent-limit", str(options.least), "--fields", "overhead,sym"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"perf report: {done.stderr.strip()[-500:]}")
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip() and not line.startswith("#")]
    lines.sort(key=lambda line: -float(line.split("%")[0]))  # perf itself sorts by name
    return "\n".join(lines[: options.top])


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtests/profile", description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, default=8, help="of load and samples (8)")
    parser.add_argument("--connections", type=int, default=16, help="of wrk (16)")
    parser.add_argument("--method", choices=["GET", "POST"], default="GET", help="POST sends 1 KB of JSON")
    parser.add_argument("--frequency", type=int, default=1999, help="samples per second of CPU time (1999)")
    parser.add_argument("--top", type=int, default=60, help="lines that are shown (60)")
    parser.add_argument("--least", type=float, default=0.3, help="percent that a line must have (0.3)")
    parser.add_argument("--data", type=pathlib.Path, help="keeps perf's samples there")
    return parser.parse_args()


def stop(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
