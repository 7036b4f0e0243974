"""The embedded store beside a Redis."""

from .tables import median, table

NAMES = {"embedded": "embedded", "redis": "Redis"}


def render(samples: dict) -> str:
    wakes = {kind: median(samples["wakes"][kind]) for kind in NAMES}
    rows = []
    for kind, name in NAMES.items():
        few, many = samples["restored"][kind], samples["many"][kind]
        made, kept = many["rss"][1] - many["rss"][0], many["rss_restarted"] - many["rss"][0]
        rows.append(
            [
                name,
                f"{wakes[kind]:.1f}",
                f"{median(few['served_after']):,.0f}",
                f"{median(many['served_after']):,.0f}",
                f"{kept:.1f}",
                f"{made:.1f}",
                f"{many['redis_bytes'] / 1024 / 1024:.1f}" if many["redis_bytes"] else "",
                f"{many['created_per_second']:,.0f}",
            ]
        )
    steady, alone = samples["steady"], samples["wake_alone"]
    apart = f" Measured apart from the rest, by `{samples['apart']}`." if "apart" in samples else ""
    few, many = samples["restored"]["redis"]["services"], samples["many"]["redis"]["services"]
    heads = ["store", "wake, ms", f"{few:,} services served after, ms", f"{many:,} after, ms"]
    heads += [f"{many:,} cost Grid, MiB", "just after they were made, MiB", "cost the Redis, MiB", "created per second"]
    return (
        "## Embedded store and Redis\n\nBoth have everything on the disk before they answer (Redis with `appendfsync always`, "
        "over a Unix socket). Wakes are those of one function each, in turns; a start is measured from the new process to its "
        f"first answer to the public, without an engine. Medians.{apart}\n\n"
        + table(heads, rows)
        + f"\nWhat a wake does in the store, by itself and a thousand times (`cargo bench -p control`): {alone['embedded']:.2f} ms "
        f"in the embedded store, {alone['redis']:.2f} ms through Redis, **{alone['redis'] - alone['embedded']:+.2f} ms** (the aim is "
        f"less than 3). Whole wakes differ by {wakes['redis'] - wakes['embedded']:+.1f} ms, within what they vary by. While {steady['requests']:,} requests were answered in {steady['seconds']:.1f} s, the Redis had {steady['with_traffic']} "
        f"commands, and {steady['without']} in as long a time without requests: pings, and control that is confirmed.\n"
    )
