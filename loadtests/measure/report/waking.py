"""How long the first request to a function that sleeps takes."""

from functions import RUNTIMES

from .tables import column, median, spread


def render(samples: dict) -> str:
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
