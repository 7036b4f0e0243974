"""Requests per second and CPU per request: wrk against one replica of a small function."""

from engine import Engine
from functions import NODE, turns
from grid import Grid
from wrk import Target, load

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
    target = Target(grid.public_port, NAME)
    load(target, 16, 2, watched)  # the first requests find cold caches
    samples = [
        load(target, connections, counts["run_seconds"], watched)
        for _, connections in turns(counts["runs"], list(CONNECTIONS))
    ]
    grid.delete(service)
    return samples
