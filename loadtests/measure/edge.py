"""The edge beside nginx and HAProxy: CPU time and latency of a request to one and the same replica."""

import contextlib
import os
import pathlib

from engine import Engine
from functions import NODE, turns
from grid import Grid
from rivals import Haproxy, Nginx
from wrk import Target, load

NAME = "edge"
DOOR = "/tmp/direct.sock"
CONNECTIONS = (1, 16)
METHODS = ("GET", "POST")
# In the order of the report. `haproxy_1` gives the replica one request at a time, as Grid does.
WAYS = ("grid", "nginx", "haproxy_1", "haproxy", "direct")

# The function that the other measurements use, with a second door: called with the path /door, it lets the runner's
# own server take connections from a Unix socket. So nginx and HAProxy reach the very process that has called Grid.
SOURCE = """\
const http = require('http');
const net = require('net');

const answer = { statusCode: 200, headers: { 'content-type': 'text/plain' }, body: 'hello' };
const runner = () => process._getActiveHandles().find((handle) => handle instanceof http.Server);
const open = () => new Promise((opened, failed) => {
  const server = runner();
  const door = net.createServer({ allowHalfOpen: true }, (socket) => server.emit('connection', socket));
  door.on('error', failed);
  door.listen('%s', opened);
});

exports.handler = async (event) => {
  if (event.path === '/door') await open();
  return answer;
};
""" % DOOR


def obstacle() -> str:
    """Why this cannot be measured here; empty when it can."""
    return "" if os.geteuid() == 0 else "it needs root, to reach a socket and the loopback device inside a container"


def measure(grid: Grid, engine: Engine, counts: dict, scratch: pathlib.Path) -> dict:
    service = grid.create(NAME, NODE.name, SOURCE, least=1)
    with grid.client(NAME) as call:
        status, text, _ = call("/door")
        if (status, text) != (200, "hello"):
            raise RuntimeError(f"the replica does not open its second door: {status} {text}")
    replica = engine.inspect(service)["State"]["Pid"]
    door = pathlib.Path(f"/proc/{replica}/root{DOOR}")
    function = engine.pids(engine.inspect(service)["Id"])
    with contextlib.ExitStack() as stack:
        nginx = stack.enter_context(Nginx(scratch, door))
        haproxy = stack.enter_context(Haproxy(scratch, door))
        inside = ("nsenter", f"--net=/proc/{replica}/ns/net")
        targets = {
            "grid": (Target(grid.public_port, NAME), [grid.pid]),
            "nginx": (Target(nginx.port, NAME), nginx.pids()),
            "haproxy_1": (Target(haproxy.one, NAME), haproxy.pids()),
            "haproxy": (Target(haproxy.many, NAME), haproxy.pids()),
            "direct": (Target(8000, NAME, inside), []),
        }
        for target, pids in targets.values():  # the first requests find cold caches
            load(target, 16, 1, {"edge": pids})
        samples = []
        for connections in CONNECTIONS:
            for method in METHODS:
                for _, way in turns(counts["edge_runs"], list(WAYS)):
                    target, pids = targets[way]
                    watched = {"edge": pids, "function": function}
                    sample = load(target, connections, counts["edge_seconds"], watched, method)
                    samples.append({"way": way, **sample})
        versions = {"nginx": nginx.version(), "haproxy": haproxy.version()}
    grid.delete(service)
    return {"versions": versions, "samples": samples}
