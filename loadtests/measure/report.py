"""The report, from the recorded samples and nothing else."""

from functions import RUNTIMES


def render(results: dict) -> str:
    about = results["about"]
    parts = [
        "# Results\n\nWritten by `make bench` from `results.json`. [README.md](README.md) says what each number "
        "means. The cores are shared with others: trust ratios within this run, not absolute figures.\n",
        head(about),
        waking(results["waking"]),
        deploying(results["deploying"]),
        throughput(results["throughput"]),
        memory(results["memory"]),
        guard(results["guard"]),
    ]
    return "\n".join(parts)


def head(about: dict) -> str:
    engine = about["engine"]
    versions = ", ".join(f"{runtime} is {version}" for runtime, version in about["versions"].items())
    cores = f"{about['cores']} cores ({about['processor']}), {about['memory_gib']} GiB"
    noise = (
        f"{about['busy_percent_before']} % of the CPU was busy in the 2 s before; "
        f"{about['steal_percent']} % was taken by other machines during the run"
    )
    return table(
        ["", ""],
        [
            ["date", about["date"]],
            ["commit", about["commit"]],
            ["command", f"`{about['command']}`, {about['seconds']} s after the build"],
            ["machine", cores],
            ["kernel", f"Linux {about['kernel']}, cgroup v{engine['cgroup']}"],
            ["engine", f"Docker Engine {engine['version']}, {engine['runtime']}, {engine['storage']}"],
            ["runtimes", versions],
            ["noise", noise],
        ],
    )


def waking(samples: dict) -> str:
    ways = [
        ("grid", "answered", "**Grid, request to answer**"),
        ("grid", "wake", "of which waiting for a replica"),
        ("grid", "exec", "of which in the replica"),
        ("grid_none", "answered", '**Grid, with `egress: "none"`**'),
        ("engine", "answered", "**engine alone, same options, to an answer**"),
        ("engine", "created", "create returned"),
        ("engine", "started", "create and start returned"),
        ("engine", "called", "the runner called home"),
        ("docker_run", "returned", "`docker run --detach` returned"),
        ("docker_run", "answered", "**`docker run` to an answer**"),
    ]
    lines = ["## Wake from zero\n"]
    lines.append(
        "A function without a container is called. *Grid*: one GET on an open connection; the parts are those of its "
        "`Server-Timing`. *Engine alone*: the same image with the same options created and started through the "
        "engine's API, taken home and asked `/ready` and one request as Grid asks them, by the benchmark; times count "
        "from the beginning. *`docker run`*: the command line, detached and with a published port; when it has "
        "returned the function is asked every 2 ms until it answers. All take turns. Milliseconds.\n"
    )
    for runtime in RUNTIMES:
        own = samples[runtime.name]
        lines.append(f"### {runtime.name}, {len(own['grid'])} samples each\n")
        lines.append(spread([(label, column(own[way], key)) for way, key, label in ways]))
        grid, engine, run = (median(column(own[way], "answered")) for way in ("grid", "engine", "docker_run"))
        none = median(column(own["grid_none"], "answered"))
        lines.append(f"Medians: without a network Grid takes {none / grid:.2f} × of the time with one.\n")
        lines.append(f"Medians: Grid is {grid / engine:.2f} × the engine alone and {grid / run:.2f} × `docker run`.\n")
    return "\n".join(lines)


def deploying(samples: dict) -> str:
    ways = [
        ("answered", "**PATCH sent to new code answering**"),
        ("before_queued", "before: the request is read and checked"),
        ("queued", "queued"),
        ("building", "building"),
        ("deploying", "deploying: create and start"),
        ("health_checking", "health_checking: call home, load"),
        ("live", "live: the answer arrives"),
        ("accepted", "PATCH answered (beside the above)"),
        ("settled", "the replica before is gone (beside the above)"),
    ]
    alone = [
        ("built", "image build"),
        ("started", "create and start returned"),
        ("answered", "create, start, call home, `/ready`, one request"),
    ]
    lines = ["## From PATCH to new code answering\n"]
    lines.append(
        "*PATCH*: new source for a live function, from sending it until the public address gives the new text (asked "
        "5 ms after each answer, over one connection); the phases are those of the deployment's record. *Engine "
        "alone*, in turn with it: the same one-COPY image built through the engine's API, then a container of it "
        "created and started with the same options. Milliseconds.\n"
    )
    for runtime in RUNTIMES:
        own = samples[runtime.name]
        lines.append(f"### {runtime.name}, {len(own['patch'])} samples each\n")
        lines.append(spread([(label, column(own["patch"], key)) for key, label in ways]))
        lines.append(spread([(f"engine alone: {label}", column(own["engine"], key)) for key, label in alone]))
        patched = median(column(own["patch"], "answered"))
        sums = {key: median([s["built"] + s[key] for s in own["engine"]]) for key in ("started", "answered")}
        lines.append(
            f"Medians: PATCH is **{patched / sums['started']:.2f} ×** image build + container start "
            f"({sums['started']:.0f} ms; the aim is less than 2), and {patched / sums['answered']:.2f} × image build + "
            f"container start + first answer ({sums['answered']:.0f} ms).\n"
        )
    return "\n".join(lines)


def throughput(samples: list) -> str:
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


def memory(samples: dict) -> str:
    grid = samples["grid"]
    own = [
        ["started, nothing deployed", f"{grid['started']:.1f}"],
        [f"with {grid['idle_functions']} idle functions", f"{grid['with_idle_functions']:.1f}"],
        ["after the load above", f"{grid['after_load']:.1f}"],
        ["peak until then", f"{grid['peak']:.1f}"],
    ]
    labels = [("container", "container, as `docker stats`"), ("rss", "RSS of its processes"), ("pss", "PSS of its processes")]
    names = [runtime.name for runtime in RUNTIMES]
    rows = []
    for key, label in labels:
        taken = [[s[key] for s in samples["functions"][name] if s[key] is not None] for name in names]
        rows.append([label, *(f"{median(t):.1f}" if t else "not readable" for t in taken)])
    return (
        "## Memory\n\nMiB. Grid: resident set of its process. Functions: medians of "
        f"{len(samples['functions'][names[0]])} containers per runtime, 2 s or more after their only request; PSS divides "
        "pages among the processes that share them.\n\n"
        + table(["Grid", "MiB"], own)
        + "\n"
        + table(["one idle function", *names], rows)
    )


def guard(samples: dict) -> str:
    parts = [
        "## What the guard costs\n\nEach runtime's own comparison of connections that are allowed, with and without the "
        "guard, in turns, in a container without a network, where the kernel refuses them at once "
        "(`runners/node/test/guard.bench.cjs`, `runners/python/test/guard_bench.py`). Medians; the aim is less than "
        "0.1 ms more for a request. `until` and `loading` are of the runner's start.\n"
    ]
    for name, lines in samples.items():
        parts.append(f"### {name}\n\n```\n" + "\n".join(lines) + "\n```\n")
    return "\n".join(parts)


def column(samples: list, key: str) -> list:
    return [sample[key] for sample in samples]


def quantile(values: list, part: float) -> float:
    """Between the two nearest samples in proportion."""
    values = sorted(values)
    place = part * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def median(values: list) -> float:
    return quantile(values, 0.5)


def spread(rows: list) -> str:
    """A 99th percentile of some twenty samples would only be a name for the largest."""
    cells = [[label, *(f"{value:.1f}" for value in (min(v), median(v), quantile(v, 0.9), max(v)))] for label, v in rows]
    return table(["", "min", "p50", "p90", "max"], cells)


def table(head: list, rows: list) -> str:
    align = ["---", *("---:" for _ in head[1:])] if any(head) else ["---"] * len(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, align, *rows]) + "\n"
