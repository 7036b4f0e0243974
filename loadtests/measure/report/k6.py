"""The scenarios of k6 and their thresholds."""

from .tables import table


def render(found: list) -> str:
    rows = []
    for one in found:
        parameters = " ".join(f"{name}={value}" for name, value in one["parameters"].items())
        outcome = "kept" if not one["crossed"] else "**crossed**: " + "; ".join(f"`{text}`" for text in one["crossed"])
        checks = f"{one['checks'] - one['checks_failed']:,} of {one['checks']:,}"
        numbers = [f"{one['requests']:,}", checks, f"{one['p50_ms']:.1f}", f"{one['p95_ms']:.1f}"]
        rows.append([one["scenario"], f"`{parameters}`", *numbers, outcome])
    head = ["scenario", "parameters", "requests", "checks passed", "p50, ms", "p95, ms", "thresholds"]
    return (
        "## Scenarios of k6\n\nIn short form, one after the other, on a Grid that lets functions sleep after 1 s and ends "
        "them after 2 s ([README.md](README.md#scenarios-of-k6)). k6 shares the cores with all that it measures. Latencies "
        "are of calls of functions where a scenario tells them apart, else of all requests, those to the admin API too.\n\n"
        + table(head, rows)
    )
