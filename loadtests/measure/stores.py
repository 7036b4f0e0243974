"""The embedded store and a Redis side by side: what many services cost, how soon they are there after a start, what a
wake takes, and whether steady traffic asks the store for anything."""

import contextlib
import http.client
import json
import pathlib
import subprocess
import time

import machine
from engine import Engine, since
from functions import NODE, turns
from grid import Grid, Lonely
from redis import Redis

KINDS = ("embedded", "redis")
SERVED_WITHIN = 60
BENCH_WITHIN = 300
# Seconds until the edge has read every service after a start. Control gets round to them later, and keeps
# nothing of those that rest.
SETTLED = 5
# Requests over one connection, while the Redis counts its commands.
STEADY = 2_000


def measure(binary: pathlib.Path, share: pathlib.Path, scratch: pathlib.Path, engine: Engine, counts: dict) -> dict:
    alone = wake_alone(share, binary.parents[1])
    with Redis(scratch / "redis") as redis:
        settings = {"embedded": {}, "redis": {"REDIS_URL": redis.url, "GRID_REDIS_PREFIX": "live"}}
        results = {"wakes": {kind: [] for kind in KINDS}, "wake_alone": alone, "many": {}, "restored": {}}
        with contextlib.ExitStack() as stack:
            grids = {
                kind: stack.enter_context(
                    Grid(binary, share, scratch, engine, {"GRID_IDLE_SECONDS": "1", **settings[kind]})
                )
                for kind in KINDS
            }
            wake(grids, counts["wakes"], results["wakes"])
            results["steady"] = steady(grids["redis"], redis)
        for kind in KINDS:
            for part, many in (("restored", counts["restored"]), ("many", counts["services"])):
                own = {"REDIS_URL": redis.url, "GRID_REDIS_PREFIX": part} if kind == "redis" else {}
                with Lonely(binary, share, scratch, engine, own) as grid:
                    results[part][kind] = fill(grid, many, redis if kind == "redis" else None)
                    results[part][kind]["served_after"] = restart(grid)
                    time.sleep(SETTLED)
                    results[part][kind]["rss_restarted"] = machine.rss(grid.pid)
        return results


def wake_alone(share: pathlib.Path, target: pathlib.Path) -> dict:
    """Milliseconds that a wake takes in the store itself."""
    command = ["cargo", "bench", "--locked", "--package", "control", "--bench", "wake", "--target-dir", str(target)]
    done = subprocess.run(command, cwd=share, capture_output=True, text=True, timeout=BENCH_WITHIN, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-1000:]}")
    estimates = {kind: target / "criterion/wake" / kind / "new/estimates.json" for kind in KINDS}
    return {kind: json.loads(file.read_text())["median"]["point_estimate"] / 1e6 for kind, file in estimates.items()}


def wake(grids: dict, times: int, samples: dict) -> None:
    tasks = []
    for kind, grid in grids.items():
        name = f"stored-{kind}"
        service = grid.create(name, NODE.name, NODE.code("awake"), least=0, egress="none")
        grid.wait_asleep(service)

        def take(grid: Grid = grid, service: str = service, name: str = name) -> float:
            with grid.client(name) as call:
                began = time.perf_counter()
                status, text, _ = call()
                took = since(began)
            if (status, text) != (200, "awake"):
                raise RuntimeError(f"{name} answers {status}: {text}")
            grid.wait_asleep(service)
            return took

        tasks.append((samples[kind], take))
    for _, (kept, take) in turns(times, tasks):
        kept.append(take())


def steady(grid: Grid, redis: Redis) -> dict:
    """Commands that the Redis has while a ready function answers, and while nothing happens for as long."""
    service = grid.create("steady", NODE.name, NODE.code("steady"), least=1)
    with grid.client("steady") as call:
        call()
        time.sleep(2)  # what the deployment and the first request left to do is done
        before, began = commands(redis), time.perf_counter()
        for _ in range(STEADY):
            call()
        took, with_traffic = time.perf_counter() - began, commands(redis) - before
        before = commands(redis)
        time.sleep(took)
        without = commands(redis) - before
    grid.delete(service)
    return {"requests": STEADY, "seconds": round(took, 3), "with_traffic": with_traffic, "without": without}


def commands(redis: Redis) -> int:
    """Those that Redis has taken, but for the INFO by which that is asked."""
    return int(redis.info("stats")["total_commands_processed"]) - redis_asked(redis)


def redis_asked(redis: Redis) -> int:
    stats = redis.info("commandstats").get("cmdstat_info", "calls=0")
    return int(stats.split("calls=")[1].split(",")[0])


def fill(grid: Lonely, many: int, redis: Redis | None) -> dict:
    before, in_redis = machine.rss(grid.pid), used(redis)
    began = time.perf_counter()
    for number in range(many):
        body = {"name": f"stored-{number}", "function_runtime": NODE.name, "function_code": NODE.code("stored")}
        grid.api("POST", "services/", body)
    return {
        "services": many,
        "created_per_second": round(many / (time.perf_counter() - began), 1),
        "rss": [before, machine.rss(grid.pid)],
        "redis_bytes": used(redis) - in_redis,
    }


def used(redis: Redis | None) -> int:
    return int(redis.info("memory")["used_memory"]) if redis else 0


def restart(grid: Lonely) -> list:
    """Milliseconds from a new process to its first answer to the public, which waits until all services are known."""
    samples = []
    for _ in range(3):
        grid.stop()
        began = time.perf_counter()
        grid.start()
        while not answers(grid.public_port):
            if since(began) > SERVED_WITHIN * 1000:
                raise RuntimeError(f"the public port does not answer within {SERVED_WITHIN} s")
            time.sleep(0.002)
        samples.append(since(began))
    return samples


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/fn/nobody")
        return connection.getresponse().status == 404
    except OSError:
        return False
    finally:
        connection.close()


