"""Pages of a long list of services."""

from .tables import table


def render(samples: dict) -> str:
    rows = [
        [name, f"{way['count']:,}", str(way["results"]), f"{way['cpu_ms']:.2f}", f"{way['took_ms']:.2f}"]
        for name, way in samples["ways"].items()
    ]
    most = max(way["cpu_ms"] for way in samples["ways"].values())
    memory = samples["memory"]
    each = (memory["with_services"] - memory["before"]) * 1024 / samples["services"]
    return (
        f"## Lists of {samples['services']:,} services\n\n`GET /api/v1/services/` over one connection, one request after the "
        "other; CPU is user and system time of Grid's process. There is no engine, so nothing is deployed. "
        f"{samples['created_per_second']:,.0f} services were created per second before, each written to the disk; they cost "
        f"{each:.1f} KiB of memory each. Without requests Grid takes {samples['idle']:.1f} ms of CPU per second.\n\n"
        + table(["", "matching", "on the page", "CPU, ms", "answer, ms"], rows)
        + f"\nThe dearest page costs **{most:.1f} ms** of CPU (the aim is less than 20).\n"
    )
