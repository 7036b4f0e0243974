"""The report, from the recorded samples and nothing else."""

from . import admin, deploying, edge, guard, k6, memory, stores, throughput, waking
from .tables import table

# The parts by their names in the results, in the order of the report.
PARTS = {
    "edge": edge,
    "k6": k6,
    "waking": waking,
    "deploying": deploying,
    "admin": admin,
    "stores": stores,
    "throughput": throughput,
    "memory": memory,
    "guard": guard,
}


def render(results: dict) -> str:
    intro = (
        f"# Results\n\nWritten by `{results['about']['command']}` from `results.json`. [README.md](README.md) says what "
        "each number means. The cores are shared with others: trust ratios within this run, not absolute figures.\n"
    )
    parts = [part.render(results[name]) for name, part in PARTS.items() if name in results]
    return "\n".join([intro, head(results["about"]), *parts])


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
            *([["runtimes", versions]] if versions else []),
            ["noise", noise],
        ],
    )
