"""Requests per second and CPU per request."""

from .tables import median, table


def render(samples: list) -> str:
    groups = {}
    for sample in samples:
        groups.setdefault(sample["connections"], []).append(sample)
    who = [
        ("grid", "**Grid: CPU µs per request**"),
        ("function", "function's container: CPU µs per request"),
        ("engine", "dockerd: CPU µs per request"),
        ("wrk", "wrk: CPU µs per request"),
        ("all", "whole machine: CPU µs per request"),
    ]
    rates = [[s["requests"] / s["seconds"] for s in g] for g in groups.values()]
    rows = [
        ["**requests per second**", *(f"{median(rate):,.0f}" for rate in rates)],
        ["slowest and fastest run", *(f"{min(rate):,.0f} to {max(rate):,.0f}" for rate in rates)],
    ]
    for key, label in (("p50_us", "latency p50, ms"), ("p99_us", "latency p99, ms")):
        rows.append([label, *(f"{median([s[key] / 1000 for s in g]):.2f}" for g in groups.values())])
    for key, label in who:
        rows.append([label, *(f"{median([s['cpu_us'][key] for s in g]):.0f}" for g in groups.values())])
    counts = " and ".join(f"{len(g)} × {g[0]['seconds']:.0f} s at {c}" for c, g in groups.items())
    return (
        "## Requests per second and CPU per request\n\n"
        "One node18 replica (`min_replicas` and `max_replicas` 1), GET of a function that answers 5 bytes, wrk with one "
        f"thread; {counts} connections, in turn, after a warm-up; medians of the runs. CPU time is the user and system time of "
        "the processes during the run by the number of requests; Grid, function, engine and wrk share the cores. dockerd "
        "keeps what functions write; this one writes nothing. Whole machine: "
        "all of that, the kernel's interrupts, and whatever else ran.\n\n"
        + table(["", *(f"{c} connection{'s' * (c > 1)}" for c in groups)], rows)
    )
