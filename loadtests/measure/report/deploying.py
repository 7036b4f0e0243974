"""From a PATCH to the answer of the new code."""

from functions import RUNTIMES

from .tables import column, median, spread


def render(samples: dict) -> str:
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
        ("ready", "create, start, call home, `/ready`"),
        ("answered", "create, start, call home, `/ready`, one request"),
    ]
    created = [
        ("took", "**POST sent to live**"),
        ("before_queued", "before: the request is read and checked"),
        ("queued", "queued"),
        ("building", "building"),
        ("deploying", "deploying: create and start"),
        ("health_checking", "health_checking: call home, load"),
    ]
    lines = ["## From PATCH to new code answering\n"]
    lines.append(
        "*PATCH*: new source for a live function, from sending it until the public address gives the new text (asked "
        "5 ms after each answer, over one connection); the phases are those of the deployment's record. *Engine "
        "alone*, in turn with it: the same one-COPY image built through the engine's API, then a container of it "
        "created and started with the same options. *POST*: a new service, from sending it until its first deployment is "
        "live; a container starts with the engine's call and ends with the answer to `/ready`. Milliseconds.\n"
    )
    for runtime in RUNTIMES:
        own = samples[runtime.name]
        lines.append(f"### {runtime.name}, {len(own['patch'])} samples each\n")
        lines.append(spread([(label, column(own["patch"], key)) for key, label in ways]))
        lines.append(spread([(label, column(own["create"], key)) for key, label in created]))
        lines.append(spread([(f"engine alone: {label}", column(own["engine"], key)) for key, label in alone]))
        patched = median(column(own["patch"], "answered"))
        sums = {key: median([s["built"] + s[key] for s in own["engine"]]) for key in ("started", "answered")}
        lines.append(
            f"Medians: PATCH is **{patched / sums['started']:.2f} ×** image build + container start "
            f"({sums['started']:.0f} ms; the aim is less than 2), and {patched / sums['answered']:.2f} × image build + "
            f"container start + first answer ({sums['answered']:.0f} ms).\n"
        )
        took = median(column(own["create"], "took"))
        alone_took = median([s["built"] + s["ready"] for s in own["engine"]])
        lines.append(
            f"Medians: create to live takes {took:.0f} ms, image build + container start {alone_took:.0f} ms: Grid adds "
            f"**{took - alone_took:.0f} ms** (the aim is less than 30).\n"
        )
        back = own["rollback"]
        lines.append(
            f"Going back to the version before (*rollback*), whose image is there: live after **{median(back):.0f} ms**, "
            f"{max(back):.0f} at most (the aim is within a second).\n"
        )
    return "\n".join(lines)
