"""What pages of a long list of services cost the process that serves them."""

import time

import machine
from functions import NODE
from grid import Lonely

# Queries, by what they are for.
WAYS = {
    "first page": "",
    "page in the middle": "?page={middle}",
    "page of 100": "?page_size=100",
    "by name": "?ordering=name&page={middle}",
    "last changed first": "?ordering=-updated_at",
    "one name": "?name=listed-7",
    "one status": "?status=deploying",
}
PAGE = 20


def measure(grid: Lonely, counts: dict) -> dict:
    many = counts["services"]
    before = machine.rss(grid.pid)
    began = time.perf_counter()
    for number in range(many):
        body = {"name": f"listed-{number}", "function_runtime": NODE.name, "function_code": NODE.code("listed")}
        grid.api("POST", "services/", body)
    created = time.perf_counter() - began
    results = {
        "services": many,
        "created_per_second": round(many / created, 1),
        "memory": {"before": before, "with_services": machine.rss(grid.pid)},
        "idle": idle(grid),
        "ways": {},
    }
    for name, query in WAYS.items():
        results["ways"][name] = page(grid, query.format(middle=many // PAGE // 2), counts["pages"])
    return results


def idle(grid: Lonely) -> float:
    """CPU ms per second without requests."""
    cpu, began = machine.Cpu([grid.pid]), time.perf_counter()
    time.sleep(3)
    return round(machine.Cpu([grid.pid]).seconds_since(cpu) * 1000 / (time.perf_counter() - began), 3)


def page(grid: Lonely, query: str, times: int) -> dict:
    """CPU ms and wall-clock ms of one answer."""
    grid.api("GET", f"services/{query}")
    cpu, began = machine.Cpu([grid.pid]), time.perf_counter()
    for _ in range(times):
        answer = grid.api("GET", f"services/{query}")
    took = time.perf_counter() - began
    used = machine.Cpu([grid.pid]).seconds_since(cpu)
    return {
        "count": answer["count"],
        "results": len(answer["results"]),
        "cpu_ms": round(used * 1000 / times, 3),
        "took_ms": round(took * 1000 / times, 3),
    }
