"""What the guard in the runners costs, by each runtime's own comparison in its base image."""

import pathlib
import subprocess

from engine import Engine

WITHIN = 240
COMMANDS = {
    "node18": (["grid/base-node18", "node:18-alpine"], ["node", "/src/node/test/guard.bench.cjs"]),
    "python3.9": (["grid/base-python3.9", "python:3.9-slim"], ["python3", "/src/python/test/guard_bench.py"]),
}


def measure(engine: Engine, root: pathlib.Path) -> dict:
    """The lines that each of them prints, by runtime."""
    mount = f"{root / 'runners'}:/src:ro"
    docker = ["docker", "--host", engine.host, "run", "--rm", "--network", "none", "--tmpfs", "/tmp:exec"]
    options = ["-e", "PYTHONDONTWRITEBYTECODE=1", "-v", mount]
    found = {}
    for runtime, (images, command) in COMMANDS.items():
        image = next(image for image in images if engine.has_image(image))
        whole = [*docker, *options, image, *command]
        done = subprocess.run(whole, capture_output=True, text=True, timeout=WITHIN, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
        found[runtime] = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
    return found
