"""One run of wrk, and the CPU time of everyone involved in it."""

import dataclasses
import json
import pathlib
import resource
import subprocess

import machine

SCRIPT = pathlib.Path(__file__).with_name("wrk.lua")


@dataclasses.dataclass(frozen=True)
class Target:
    """What is called, and how the caller gets there."""

    port: int
    function: str
    # Put before the command, for a caller in another network namespace.
    prefix: tuple = ()


def load(target: Target, connections: int, seconds: int, watched: dict, method: str = "GET") -> dict:
    """What wrk says, and the CPU microseconds per request of the `watched` processes, of wrk and of all together.
    `watched` has lists of process ids by who they are; fails when a request does."""
    command = [*target.prefix, "wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    url = f"http://127.0.0.1:{target.port}/fn/{target.function}"
    own = children_seconds()
    usage = machine.Usage()
    before = {who: machine.Cpu(pids) for who, pids in watched.items()}
    done = subprocess.run(
        [*command, "--header", f"Host: {target.function}.localhost", "--script", str(SCRIPT), url, "--", method],
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=False,
    )
    after = {who: machine.Cpu(pids) for who, pids in watched.items()}
    total = {who: cpu.seconds_since(before[who]) for who, cpu in after.items()}
    user = {who: cpu.user_seconds_since(before[who]) for who, cpu in after.items()}
    total["all"] = usage.busy_seconds()
    total["wrk"] = children_seconds() - own
    if done.returncode:
        raise RuntimeError(f"wrk: {done.stderr or done.stdout}")
    said = json.loads(done.stdout.splitlines()[-1])
    if not said["requests"] or said["not_2xx"] or said["broken"]:
        raise RuntimeError(f"wrk, {method} with {connections} connections to {url}: requests failed: {done.stdout}")
    return {
        "connections": connections,
        "method": method,
        **said,
        "cpu_us": per_request(total, said["requests"]),
        "user_us": per_request(user, said["requests"]),
    }


def per_request(seconds: dict, requests: int) -> dict:
    return {who: round(value * 1e6 / requests, 2) for who, value in seconds.items()}


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
