"""What is broken: processes are killed or stand still, containers and images are removed."""

import random
import time

# Of each kind of episode the weights of: kill, stop, remove one container, remove all, remove images. And whose
# processes are left alone, so that some get old enough to show what they leak.
EPISODES = (
    ("everything", (50, 15, 17, 8, 10), ()),
    ("edge stays", (50, 15, 17, 8, 10), ("edge",)),
    ("only redis", (70, 30, 0, 0, 0), ("edge", "control")),
    ("everything", (50, 15, 17, 8, 10), ()),
    ("control stays", (50, 15, 17, 8, 10), ("control",)),
    ("only control", (70, 30, 0, 0, 0), ("edge", "redis")),
    ("only engine", (0, 0, 55, 20, 25), ("edge", "control", "redis")),
    ("control and redis", (70, 30, 0, 0, 0), ("edge",)),
)
# In these nothing happens to the edge and to containers: functions that never sleep answer all the time.
HARMLESS = {"only redis", "only control", "control and redis"}


class Faults:
    def __init__(self, parts: dict, docker, ledger, public, chance: random.Random) -> None:
        self.parts, self.docker, self.ledger, self.public, self.chance = parts, docker, ledger, public, chance

    def episode(self, number: int, steps: int, until: float) -> str:
        """Breaks things, and comes back when everything runs again, though not yet well."""
        name, weights, spared = EPISODES[number % len(EPISODES)]
        self.public.strict = {entry for entry in self.ledger.snapshot() if entry.least and entry.seen} if name in HARMLESS else set()
        for _ in range(steps):
            if time.monotonic() > until:
                break
            self.step(weights, [part for key, part in self.parts.items() if key not in spared])
            time.sleep(self.chance.uniform(0, 1.8))
        return name

    def step(self, weights: tuple, parts: list) -> None:
        kind = self.chance.choices(["kill", "stop", "one", "all", "images"], weights)[0]
        done = False
        if kind == "kill":
            part = self.chance.choice(parts)
            done = part.kill(self.chance.uniform(0, 3))
            kind = f"kill -9 {part.name}"
        elif kind == "stop":
            part = self.chance.choice(parts)
            done = part.stop(self.chance.uniform(0.1, 3))
            kind = f"SIGSTOP {part.name}"
        elif kind in ("one", "all"):
            there = sorted(self.docker.containers())
            chosen = there if kind == "all" else self.chance.sample(there, min(1, len(there)))
            self.docker.remove(chosen)
            done = bool(chosen)
            self.ledger.count("containers removed", len(chosen))
            kind = f"docker rm -f of {kind}"
        else:
            names = [name for _, tags, _ in self.docker.images() for name in tags or []]
            chosen = self.chance.sample(names, min(len(names), self.chance.randint(1, 3)))
            self.docker.remove_images(chosen)
            done = bool(chosen)
            self.ledger.count("images removed", len(chosen))
            kind = "docker rmi -f"
        if done:
            self.ledger.count(f"fault: {kind}")
