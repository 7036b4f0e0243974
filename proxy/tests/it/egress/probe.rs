//! Programs that try connections from within a container, one for each runtime.

use std::net::IpAddr;

/// Protocol, address (or name), port.
pub(super) type Attempt = (&'static str, String, u16);

pub(super) fn tcp(to: impl Into<IpAddr>, port: u16) -> Attempt {
    ("tcp", to.into().to_string(), port)
}

pub(super) fn udp(to: impl Into<IpAddr>, port: u16) -> Attempt {
    ("udp", to.into().to_string(), port)
}

/// Both protocols.
pub(super) fn both(to: impl Into<IpAddr>, port: u16) -> [Attempt; 2] {
    let to = to.into();
    [tcp(to, port), udp(to, port)]
}

/// Takes attempts and gives outcomes: `answered` with what was asked for, `connected` to somebody
/// who says nothing, `silence`, or the error's code.
pub(super) const NODE: &str = r#"
const net = require('net'), dgram = require('dgram');
const WAIT = 1500, REQUEST = 'GET / HTTP/1.1\r\nhost: probe\r\n\r\n';
const tcp = (host, port) => new Promise((done) => {
  let state = 'silence';
  const socket = net.connect({ host, port });
  const end = (outcome) => { socket.destroy(); done(outcome); };
  socket.setTimeout(WAIT, () => end(state));
  socket.on('connect', () => { state = 'connected'; socket.write(REQUEST); });
  socket.on('data', () => end('answered'));
  socket.on('end', () => end(state));
  socket.on('error', (error) => end(error.code));
});
const udp = (host, port) => new Promise((done) => {
  const socket = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4');
  let over = false;
  const end = (outcome) => { if (!over) { over = true; socket.close(); done(outcome); } };
  setTimeout(() => end('silence'), WAIT);
  socket.on('message', () => end('answered'));
  socket.on('error', (error) => end(error.code));
  socket.bind(0, () => {
    if (!host.includes(':')) socket.setBroadcast(true);
    socket.send(REQUEST, port, host, (error) => { if (error) end(error.code); });
  });
});
const attempts = JSON.parse(require('fs').readFileSync(0, 'utf8'));
Promise.all(attempts.map(([kind, host, port]) => (kind === 'tcp' ? tcp : udp)(host, port)))
  .then((outcomes) => console.log(JSON.stringify(outcomes)));
"#;

/// As [`NODE`].
pub(super) const PYTHON: &str = r#"
import errno, json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def attempt(what):
    protocol, host, port = what
    state = "silence"
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(family, kind) as s:
            s.settimeout(1.5)
            if protocol == "udp":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            s.connect((host, port))
            if protocol == "tcp":
                state = "connected"
            s.sendall(b"GET / HTTP/1.1\r\nhost: probe\r\n\r\n")
            return "answered" if s.recv(4096) else state
    except socket.timeout:
        return state
    except socket.gaierror:
        return "ENOTFOUND"
    except OSError as e:
        return errno.errorcode[e.errno]
with ThreadPoolExecutor(40) as pool:
    print(json.dumps(list(pool.map(attempt, json.load(sys.stdin)))))
"#;

/// A server that answers at a port, TCP and UDP, and writes who came to `/tmp/seen`. Takes the port;
/// `/tmp/serving` is there when it serves.
pub(super) const SERVER: &str = r#"
import json, socket, sys, threading
port = json.load(sys.stdin)
tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
tcp.bind(("0.0.0.0", port)); udp.bind(("0.0.0.0", port)); tcp.listen(64)
def note(who):
    with open("/tmp/seen", "a") as f: f.write("%s\n" % who[0])
def datagrams():
    while True:
        _, who = udp.recvfrom(4096)
        note(who)
        udp.sendto(b"sibling", who)
threading.Thread(target=datagrams, daemon=True).start()
open("/tmp/serving", "w").close()
while True:
    connection, who = tcp.accept()
    note(who)
    connection.sendall(b"sibling")
    connection.close()
"#;

/// Keeps on trying, from several processes, until the container ends; writes how often into
/// `/tmp/attempts.N`. Takes `[protocol, host, port]` lists.
pub(super) const ATTACKER: &str = r#"
import json, os, socket, sys
targets = json.load(sys.stdin)
worker = 0
for worker in range(1, 3):
    if os.fork() == 0: break
else: worker = 0
tried = 0
while True:
    for protocol, host, port in targets:
        try:
            kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
            with socket.socket(type=kind) as s:
                s.settimeout(0.05)
                s.connect((host, port))
                s.sendall(b"GET / HTTP/1.1\r\n\r\n")
        except OSError:
            pass
        tried += 1
    with open("/tmp/attempts.%d" % worker, "w") as f: f.write("%d\n" % tried)
"#;
