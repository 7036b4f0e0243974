"""Memory of Grid and of functions that have nothing to do."""

import time

import machine
from engine import Engine
from functions import RUNTIMES, slug
from grid import Grid


def measure(grid: Grid, engine: Engine, counts: dict, about: dict) -> dict:
    own = {"started": machine.rss(grid.pid)}
    services = []
    for number in range(counts["functions"]):
        for runtime in RUNTIMES:
            name = f"memory-{slug(runtime)}-{number}"
            service = grid.create(name, runtime.name, runtime.version_code(), least=1)
            with grid.client(name) as call:
                status, version, _ = call()
            if status != 200:
                raise RuntimeError(f"{name} answers {status}: {version}")
            about["versions"][runtime.name] = version
            services.append((runtime, service))
    time.sleep(2)
    own["with_idle_functions"] = machine.rss(grid.pid)
    own["idle_functions"] = len(services)

    functions = {runtime.name: [] for runtime in RUNTIMES}
    for runtime, service in services:
        (container,) = engine.containers(service)
        pids = engine.pids(container["Id"])
        shares = [machine.pss(pid) for pid in pids]
        functions[runtime.name].append(
            {
                "container": engine.memory(container["Id"]),
                "rss": sum(machine.rss(pid) for pid in pids),
                "pss": None if None in shares else sum(shares),
            }
        )
    for _, service in services:
        grid.delete(service)
    return {"grid": own, "functions": functions}
