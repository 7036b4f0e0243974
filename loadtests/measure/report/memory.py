"""Memory of Grid and of idle functions."""

from functions import RUNTIMES

from .tables import median, table


def render(samples: dict) -> str:
    grid = samples["grid"]
    own = [
        ["started, nothing deployed", f"{grid['started']:.1f}"],
        [f"with {grid['idle_functions']} idle functions", f"{grid['with_idle_functions']:.1f}"],
    ]
    if "after_load" in grid:  # when requests per second were measured in between
        own.append(["after the load above", f"{grid['after_load']:.1f}"])
        own.append(["peak until then", f"{grid['peak']:.1f}"])
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
