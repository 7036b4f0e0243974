"""From a PATCH to the answer of the new code, from a POST to a live service, and back to an earlier version, beside the
build and the start of the same image."""

import datetime
import time
from functools import partial

from engine import Engine, since
from functions import RUNTIMES, Runtime, slug, turns
from grid import Grid

# Between two looks at the public address: a tighter loop would take the cores from the deployment.
PAUSE = 0.005
WITHIN = 60
# Images of one function that Grid keeps: GRID_IMAGES_KEPT, and the live one.
KEPT = 6


def measure(grid: Grid, engine: Engine, counts: dict, template: str) -> dict:
    samples = {runtime.name: {"patch": [], "create": [], "rollback": [], "engine": []} for runtime in RUNTIMES}
    services, tasks = [], []
    for runtime in RUNTIMES:
        name = f"patch-{slug(runtime)}"
        service = grid.create(name, runtime.name, runtime.code("first"), least=1)
        change(grid, engine, service, runtime.code("second"))  # so that there is something to go back to
        like = engine.inspect(service)
        runner = engine.runner_layer(like["Image"])
        own = samples[runtime.name]
        tasks.append((own["patch"], partial(patch, grid, runtime, service, name)))
        tasks.append((own["create"], partial(create, grid, runtime)))
        tasks.append((own["rollback"], partial(rollback, grid, service)))
        tasks.append((own["engine"], partial(build_and_start, engine, runtime, template, runner, like)))
        services.append(service)
    for number, (kept, take) in turns(counts["patches"], tasks):
        kept.append(take(number))
    for service in services:
        grid.delete(service)
    return samples


def change(grid: Grid, engine: Engine, service: str, code: str) -> None:
    """Until only the new version's container is left."""
    grid.change(service, code)
    grid.wait_settled(service)
    deadline = time.monotonic() + WITHIN
    while len(engine.containers(service)) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)


def patch(grid: Grid, runtime: Runtime, service: str, name: str, number: int) -> dict:
    text = f"patched {number}"
    with grid.client(name) as call:
        call()
        sent, began = time.time(), time.perf_counter()
        changed = grid.change(service, runtime.code(text))
        sample = {"accepted": since(began)}
        while call()[1] != text:
            if since(began) > WITHIN * 1000:
                raise RuntimeError(f"{name} does not answer with its new code after {WITHIN} s")
            time.sleep(PAUSE)
        answered = time.time()
        sample["answered"] = since(began)
    grid.wait_settled(service)
    sample["settled"] = since(began)
    # The removal of the image before the previous one would disturb the next sample.
    while len(grid.engine.images(service)) > KEPT and since(began) < WITHIN * 1000:
        time.sleep(0.05)

    deployment = grid.deployment(service, changed["deployment"]["id"])
    entered = {entry["phase"]: moment(entry["at"]) for entry in deployment["phases"]}
    steps = ["queued", "building", "deploying", "health_checking", "live"]
    ends = [entered[step] for step in steps[1:]] + [answered]
    sample["before_queued"] = round((entered["queued"] - sent) * 1000, 3)
    for step, end in zip(steps, ends):
        sample[step] = round((end - entered[step]) * 1000, 3)
    return sample


def create(grid: Grid, runtime: Runtime, number: int) -> dict:
    """Milliseconds from sending a new service until its first deployment is live."""
    sent = time.time()
    service = grid.create(f"create-{slug(runtime)}-{number}", runtime.name, runtime.code(f"created {number}"), least=1)
    (deployment,) = grid.api("GET", f"services/{service}/deployments/")["results"]
    entered = {entry["phase"]: moment(entry["at"]) for entry in deployment["phases"]}
    grid.delete(service)
    steps = ["queued", "building", "deploying", "health_checking", "live"]
    sample = {step: round((entered[after] - entered[step]) * 1000, 3) for step, after in zip(steps, steps[1:])}
    return {"before_queued": round((entered["queued"] - sent) * 1000, 3), **sample, "took": round((entered["live"] - sent) * 1000, 3)}


def rollback(grid: Grid, service: str, _: int) -> float:
    """Milliseconds from asking for the version before until it is live."""
    sent = time.time()
    asked = grid.api("POST", f"services/{service}/rollback/")
    grid.wait_settled(service)
    phases = grid.deployment(service, asked["id"])["phases"]
    (live,) = (moment(entry["at"]) for entry in phases if entry["phase"] == "live")
    return round((live - sent) * 1000, 3)


def build_and_start(engine: Engine, runtime: Runtime, template: str, runner: str, like: dict, number: int) -> dict:
    tag = f"grid-bench/{slug(runtime)}:{engine.run}-{number}"
    files = {name: runtime.code(f"built {number} {engine.run}") for name in runtime.files}
    built = engine.build(tag, template, runner, files)
    try:
        return {"built": built, **engine.start(tag, like)}
    finally:
        engine.remove_image(tag)


def moment(text: str) -> float:
    """Seconds since the epoch of `2026-11-24T01:32:03.123456789Z`, whatever its precision."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    time_of_day = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
    return time_of_day.timestamp() + float(f"0.{fraction or 0}")
