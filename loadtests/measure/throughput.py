"""Requests per second and CPU per request: wrk against one replica of a small function."""

import json
import pathlib
import resource
import subprocess

import machine
from engine import Engine
from functions import NODE, turns
from grid import Grid

NAME = "requests"
CONNECTIONS = (1, 16)


def measure(grid: Grid, engine: Engine, counts: dict) -> list:
    service = grid.create(NAME, NODE.name, NODE.code("hello"), least=1)
    (container,) = engine.containers(service)
    watched = {
        "grid": [grid.pid],
        "function": engine.pids(container["Id"]),
        "engine": engine.daemon(),
    }
    load(grid, 16, 2, watched)  # the first requests find cold caches
    samples = []
    for _, connections in turns(counts["runs"], list(CONNECTIONS)):
        sample = load(grid, connections, counts["run_seconds"], watched)
        if sample["not_2xx"] or sample["broken"]:
            raise RuntimeError(f"requests failed under load: {sample}")
        samples.append(sample)
    grid.delete(service)
    return samples


def load(grid: Grid, connections: int, seconds: int, watched: dict) -> dict:
    """One run of wrk: what it says, and the CPU microseconds per request of everyone involved."""
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    script = pathlib.Path(__file__).with_name("wrk.lua")
    target = ["--header", f"Host: {NAME}.localhost", f"http://127.0.0.1:{grid.public_port}/fn/{NAME}"]
    own = children_seconds()
    usage = machine.Usage()
    before = {who: machine.cpu_seconds(pids) for who, pids in watched.items()}
    done = subprocess.run(
        [*command, "--script", str(script), *target], capture_output=True, text=True, timeout=seconds + 30
    )
    spent = {who: machine.cpu_seconds(pids) - before[who] for who, pids in watched.items()}
    spent["all"] = usage.busy_seconds()
    spent["wrk"] = children_seconds() - own
    if done.returncode:
        raise RuntimeError(f"wrk: {done.stderr or done.stdout}")
    said = json.loads(done.stdout.splitlines()[-1])
    if not said["requests"]:
        raise RuntimeError(f"wrk got no answer: {done.stdout}")
    return {
        "connections": connections,
        **said,
        "cpu_us": {who: round(seconds * 1e6 / said["requests"], 2) for who, seconds in spent.items()},
    }


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
