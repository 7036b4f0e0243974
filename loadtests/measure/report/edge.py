"""The edge beside nginx and HAProxy in front of the same replica."""

from .tables import median, table

WAYS = {
    "grid": "Grid",
    "nginx": "nginx",
    "haproxy_1": "HAProxy, `maxconn 1`",
    "haproxy": "HAProxy",
    "direct": "directly",
}
RIVALS = ("nginx", "haproxy_1", "haproxy")
# What is aimed at: times the CPU of the rival, and milliseconds.
MOST = {"nginx": 1.0, "haproxy_1": 1.25, "haproxy": 1.25}
MOST_ADDED = 0.15

INTRO = """\
## The edge beside nginx and HAProxy

One node18 replica, the same process for all: it has called Grid, and it takes connections on a Unix socket in its \
container too, where nginx and HAProxy find it. *Directly*: wrk in the container's network namespace, to the runner's \
port 8000 over the loopback device there. GET, and POST of 1 KB of JSON, of a function that answers 5 bytes; wrk with \
one thread; {runs} × {seconds:.0f} s each, in turn, after a warm-up; medians of the runs.

nginx {nginx}: one worker, `access_log off`, connections to the replica kept. HAProxy {haproxy}: `nbthread 1`, no log, \
`http-reuse always`; once with `maxconn 1` for the replica (one request at a time, the others wait in HAProxy), once \
without. The runner begins a request when the one before has ended, whoever sent it. HAProxy passes requests and answers \
on as they are; nginx adds `Server` and `Date` to answers. Grid sends a quick replica up to fifteen requests ahead, which \
it can call back; it also looks up the function by host and path, reads the whole body before the replica is taken, holds one \
deadline for the exchange, checks the answer, and adds a request id and `Server-Timing`; it gives the replica five more \
headers. Edge: all threads of the edge's processes. Grid's process is also its control plane, which has nothing to do \
meanwhile.
"""


def render(found: dict) -> str:
    if "obstacle" in found:
        return f"## The edge beside nginx and HAProxy\n\nNot measured: {found['obstacle']}.\n"
    groups = {}
    for sample in found["samples"]:
        shape = groups.setdefault((sample["connections"], sample["method"]), {})
        shape.setdefault(sample["way"], []).append(sample)
    first = found["samples"][0]
    runs = len(groups[first["connections"], first["method"]][first["way"]])
    lines = [INTRO.format(runs=runs, seconds=first["seconds"], **found["versions"]), targets(groups)]
    for (connections, method), ways in groups.items():
        lines.append(f"### {method}, {connections} connection{'s' * (connections > 1)}\n")
        lines.append(shape_table(ways))
    return "\n".join(lines)


def targets(groups: dict) -> str:
    """What is aimed at, beside what was found."""
    shapes = list(groups)
    rows = []
    for rival in RIVALS:
        ratios = (edge_cpu(groups[shape]["grid"]) / edge_cpu(groups[shape][rival]) for shape in shapes)
        rows.append([f"CPU per request: Grid by {WAYS[rival]}", f"≤ {MOST[rival]:.2f}", *(f"{r:.2f}" for r in ratios)])
    added = (p50_ms(groups[shape]["grid"]) - p50_ms(groups[shape]["direct"]) for shape in shapes)
    # With more connections than replicas the latency is the queue.
    cells = [f"{value:.2f}" if connections == 1 else "" for value, (connections, _) in zip(added, shapes)]
    rows.append(["p50 that Grid adds to talking to the replica, ms", f"≤ {MOST_ADDED:.2f}", *cells])
    head = [f"{method}, {connections}" for connections, method in shapes]
    return table(["", "aim", *head], rows)


def shape_table(ways: dict) -> str:
    def row(label: str, cell) -> list:
        return [label, *(cell(samples) for samples in ways.values())]

    def edge(samples: list, text) -> str:
        return "" if samples[0]["way"] == "direct" else text(samples)

    def spread(samples: list) -> str:
        taken = [s["cpu_us"]["edge"] for s in samples]
        return f"{min(taken):.1f} to {max(taken):.1f}"

    ways = {way: ways[way] for way in WAYS}
    rows = [
        row("**edge: CPU µs per request**", lambda s: edge(s, lambda s: f"**{edge_cpu(s):.1f}**")),
        row("least and most of the runs", lambda s: edge(s, spread)),
        row("of which user", lambda s: edge(s, lambda s: f"{median([x['user_us']['edge'] for x in s]):.1f}")),
        row("requests per second", lambda s: f"{median([x['requests'] / x['seconds'] for x in s]):,.0f}"),
        row("latency p50, ms", lambda s: f"{p50_ms(s):.3f}"),
        row("latency p99, ms", lambda s: f"{median([x['p99_us'] / 1000 for x in s]):.2f}"),
        row("function: CPU µs per request", lambda s: f"{median([x['cpu_us']['function'] for x in s]):.0f}"),
        row("whole machine: CPU µs per request", lambda s: f"{median([x['cpu_us']['all'] for x in s]):.0f}"),
    ]
    return table(["", *WAYS.values()], rows)


def edge_cpu(samples: list) -> float:
    return median([sample["cpu_us"]["edge"] for sample in samples])


def p50_ms(samples: list) -> float:
    return median([sample["p50_us"] / 1000 for sample in samples])
