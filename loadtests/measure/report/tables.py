"""Medians, and tables of Markdown."""


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
