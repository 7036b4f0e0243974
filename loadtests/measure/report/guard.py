"""What the guard in the runners costs."""


def render(samples: dict) -> str:
    parts = [
        "## What the guard costs\n\nEach runtime's own comparison of connections that are allowed, with and without the "
        "guard, in turns, in a container without a network, where the kernel refuses them at once "
        "(`runners/node/test/guard.bench.cjs`, `runners/python/test/guard_bench.py`). Medians; the aim is less than "
        "0.1 ms more for a request. `until` and `loading` are of the runner's start.\n"
    ]
    for name, lines in samples.items():
        parts.append(f"### {name}\n\n```\n" + "\n".join(lines) + "\n```\n")
    return "\n".join(parts)
