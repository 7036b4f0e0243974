"""The first request to a function that sleeps, beside `docker run` and the engine alone."""

import time
from functools import partial

from engine import Engine, since
from functions import RUNTIMES, slug, turns
from grid import Grid


def measure(grid: Grid, engine: Engine, counts: dict) -> dict:
    samples = {runtime.name: {"grid": [], "grid_none": [], "engine": [], "docker_run": []} for runtime in RUNTIMES}
    services, tasks = [], []
    for runtime in RUNTIMES:
        name = f"wake-{slug(runtime)}"
        service = grid.create(name, runtime.name, runtime.code("awake"), least=0)
        alone = f"{name}-none"
        without = grid.create(alone, runtime.name, runtime.code("awake"), least=0, egress="none")
        like = engine.inspect(service)
        image = like["Config"]["Image"]
        own = samples[runtime.name]
        tasks += [
            (own["grid"], partial(wake, grid, service, name)),
            (own["grid_none"], partial(wake, grid, without, alone)),
            (own["engine"], partial(engine.start, image, like)),
            (own["docker_run"], partial(engine.docker_run, image)),
        ]
        services += [service, without]
    for service in services:
        grid.wait_asleep(service)
    for _, (kept, take) in turns(counts["wakes"], tasks):
        kept.append(take())
    for service in services:
        grid.delete(service)
    return samples


def wake(grid: Grid, service: str, name: str) -> dict:
    with grid.client(name) as call:
        began = time.perf_counter()
        status, text, timing = call()
        answered = since(began)
    if (status, text) != (200, "awake"):
        raise RuntimeError(f"{name} answers {status}: {text}")
    grid.wait_asleep(service)  # so that its end disturbs no other sample
    return {"answered": answered, **timing}
