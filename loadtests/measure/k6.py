"""The scenarios of k6, in short form, on a Grid of their own."""

import json
import os
import pathlib
import subprocess

from functions import NODE
from grid import Grid

# Limits that can be reached within seconds.
SETTINGS = {"GRID_IDLE_SECONDS": "1", "FUNCTION_TIMEOUT_SECONDS": "2"}
WITHIN = 300
# What k6 exits with when a threshold was crossed.
CROSSED = 99

# A limit of the one service, so that the other scenarios are not slowed down.
LIMIT = {"RATE": "10", "BURST": "20"}
SERVICE_FIELDS = json.dumps({"rate_limit": int(LIMIT["RATE"]), "rate_burst": int(LIMIT["BURST"])})

# With their own parameters, beside DURATION.
SCENARIOS = {
    "warm": {"VUS": "8"},
    "cold": {"VUS": "2", "ITERATIONS": "3"},
    "mixed": {"VUS": "5"},
    "limits": {"VUS": "2", "ITERATIONS": "1"},
    "rate-limit": {**LIMIT, "SERVICE_FIELDS": SERVICE_FIELDS},
    "soak": {"VUS": "8", "RATE": "50"},
}


def measure(grid: Grid, counts: dict, root: pathlib.Path, scratch: pathlib.Path, progress) -> list:
    # From a service of it the clean-up knows which Grid this is, and finds what a broken-off scenario leaves.
    grid.delete(grid.create("first", NODE.name, NODE.code("hello"), least=1))
    found = []
    for name, parameters in SCENARIOS.items():
        progress(f"k6: {name}")
        parameters = {"DURATION": f"{counts['k6_seconds']}s", **parameters}
        found.append({"scenario": name, "parameters": parameters, **run(name, parameters, grid, root, scratch)})
    return found


def run(name: str, parameters: dict, grid: Grid, root: pathlib.Path, scratch: pathlib.Path) -> dict:
    summary = scratch / f"k6-{name}.json"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "BASE_URL": f"http://127.0.0.1:{grid.public_port}",
        "ADMIN_URL": f"http://127.0.0.1:{grid.admin.port}",
        "SMSLY_TOKEN": grid.token,
        **parameters,
    }
    command = [str(root / "loadtests/k6/run"), name, "--quiet", "--summary-export", str(summary)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WITHIN, check=False)
    if done.returncode not in (0, CROSSED):
        raise RuntimeError(f"k6: {name}: exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-1500:]}")
    metrics = json.loads(summary.read_text())["metrics"]
    crossed = []
    for metric, values in metrics.items():
        # True is for one that was crossed.
        crossed += [f"{metric}: {text}" for text, bad in values.get("thresholds", {}).items() if bad]
    duration = metrics.get("http_req_duration{kind:function}") or metrics["http_req_duration"]
    return {
        "crossed": crossed,
        "requests": metrics["http_reqs"]["count"],
        "checks": metrics["checks"]["passes"] + metrics["checks"]["fails"],
        "checks_failed": metrics["checks"]["fails"],
        "p50_ms": round(duration["med"], 3),
        "p95_ms": round(duration["p(95)"], 3),
    }
