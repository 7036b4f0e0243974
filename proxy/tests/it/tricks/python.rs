//! Tricks of Python functions.

use serde_json::json;

use super::{GUARD, Refused, Stage, Trick, all_refused, dirty, refused, trick};
use crate::grid::{Grid, Service};

/// Runs the body's code.
pub(super) const STAGE: &str = r#"
import errno, os
def tell(error):
    told = []
    while error is not None and len(told) < 4:
        number = getattr(error, "errno", None)
        told.append("%s %s %s" % (type(error).__name__, errno.errorcode.get(number, number), error))
        error = error.__cause__ or error.__context__
    return "; ".join(told)
def handler(event, context):
    body = event["body"]
    if body.get("exit"): os._exit(3)
    scope = {name: body.get(name) for name in ("host", "port", "cover")}
    try:
        exec(body["code"], scope)
        return {"done": repr(scope.get("result"))}
    except BaseException as error:
        return {"error": tell(error)}
"#;

const WITNESS: Trick = trick(
    "curl",
    "status 7",
    "import subprocess; subprocess.check_call(['curl', '-sS', '-m', '5', 'http://%s:%d/' % (host, port)])",
);

/// Finds the guard's table of denied ranges, lets code change it, and connects.
macro_rules! table {
    ($code:expr) => {
        concat!(
            "import socket\n",
            "try: socket.socket().connect(('127.0.0.1', 9))\n",
            "except OSError as e: trace = e.__traceback__\n",
            "while trace and '_refused' not in trace.tb_frame.f_locals: trace = trace.tb_next\n",
            "if trace:\n", // or it has been emptied already
            "    table = trace.tb_frame.f_locals['_refused'].__defaults__[0]\n    ",
            $code,
            "\nsocket.socket().connect((host, port))"
        )
    };
}

const CALLS: &[Trick] = &[
    trick("socket", GUARD, "import socket; socket.socket().connect((host, port))"),
    trick("connect_ex", GUARD, "import socket; result = socket.socket().connect_ex((host, port))"),
    trick("create_connection", GUARD, "import socket; socket.create_connection((host, port))"),
    trick(
        "sendto",
        GUARD,
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', (host, port))",
    ),
    trick(
        "sendmsg",
        GUARD,
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, (host, port))",
    ),
    trick(
        "datagrams over a connection",
        GUARD,
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect((host, port)); s.send(b'x')",
    ),
    trick(
        "TCP fast open",
        GUARD,
        "import socket; socket.socket().sendto(b'x', 0x20000000, (host, port))",
    ),
    trick(
        "sendmsg with fast open",
        GUARD,
        "import socket; socket.socket().sendmsg([b'x'], [], 0x20000000, (host, port))",
    ),
    trick("_socket", GUARD, "import _socket; _socket.socket().connect((host, port))"),
    trick(
        "a descriptor of its own",
        GUARD,
        "import socket, os; s = socket.socket(); socket.socket(fileno=os.dup(s.fileno())).connect((host, port))",
    ),
    trick(
        "a socket bound to the device",
        GUARD,
        "import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0'); s.connect((host, port))",
    ),
    trick(
        "tls",
        GUARD,
        "import socket, ssl; ssl._create_unverified_context().wrap_socket(socket.socket(), do_handshake_on_connect=False).connect((host, port))",
    ),
    trick(
        "http.client",
        GUARD,
        "import http.client; c = http.client.HTTPConnection(host, port); c.request('GET', '/'); result = c.getresponse().status",
    ),
    trick(
        "urllib",
        GUARD,
        "import urllib.request; urllib.request.urlopen('http://%s:%d/' % (host, port)).read()",
    ),
    trick(
        "a proxy",
        GUARD,
        "import urllib.request as u; u.build_opener(u.ProxyHandler({'http': 'http://%s:%d' % (host, port)})).open('http://%s/' % cover).read()",
    ),
    trick(
        "a proxy in the environment",
        GUARD,
        "import os, urllib.request as u\nos.environ['http_proxy'] = 'http://%s:%d' % (host, port)\ntry: u.build_opener().open('http://%s/' % cover).read()\nfinally: del os.environ['http_proxy']",
    ),
    trick(
        "a redirect",
        GUARD,
        "import urllib.request; urllib.request.urlopen('http://%s/302/%s/%d' % (cover, host, port)).read()",
    ),
    trick(
        "a redirected POST",
        GUARD,
        "import urllib.request; urllib.request.urlopen('http://%s/301/%s/%d' % (cover, host, port), data=b'x').read()",
    ),
    trick(
        "ftp",
        GUARD,
        "import ftplib\nf = ftplib.FTP(); f.getresp = lambda: '220'\nf.connect(host, port)",
    ),
    trick(
        "ftp's data connection",
        GUARD,
        "import ftplib, socket\nf = ftplib.FTP(); f.af = socket.AF_INET; f.makepasv = lambda: (host, port); f.sendcmd = lambda *_: '150'; f.ntransfercmd('RETR x')",
    ),
    trick(
        "smtp",
        GUARD,
        "import smtplib\ns = smtplib.SMTP(); s.getreply = lambda: (220, b'')\ns.connect(host, port)",
    ),
    trick(
        "asyncio's streams",
        GUARD,
        "import asyncio\nasync def go(): return await asyncio.open_connection(host, port)\nasyncio.new_event_loop().run_until_complete(go())",
    ),
    trick(
        "asyncio's sock_connect",
        GUARD,
        "import asyncio, socket\ns = socket.socket(); s.setblocking(False)\nloop = asyncio.new_event_loop(); loop.run_until_complete(loop.sock_connect(s, (host, port)))",
    ),
    trick(
        "asyncio's datagrams",
        GUARD,
        "import asyncio\nasync def go():\n    t, _ = await asyncio.get_event_loop().create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(host, port))\n    t.sendto(b'x')\nasyncio.new_event_loop().run_until_complete(go())",
    ),
    trick(
        "a fork",
        "guarded",
        "import os, socket\npid = os.fork()\nif pid == 0:\n    try: socket.socket().connect((host, port)); os._exit(0)\n    except BaseException as e: os._exit(7 if 'SSRF guard' in str(e) else 8)\nif os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 7: raise OSError('guarded')",
    ),
    trick(
        "multiprocessing by fork",
        "guarded",
        "import multiprocessing, os, socket\ndef go(host, port):\n    try: socket.socket().connect((host, port)); os._exit(0)\n    except OSError as e: os._exit(7 if 'SSRF guard' in str(e) else 8)\np = multiprocessing.get_context('fork').Process(target=go, args=(host, port)); p.start(); p.join()\nif p.exitcode == 7: raise OSError('guarded')",
    ),
    trick(
        "a thread",
        GUARD,
        "import socket, concurrent.futures as f\nwith f.ThreadPoolExecutor() as pool: pool.submit(lambda: socket.socket().connect((host, port))).result()",
    ),
];

const DEEP: &[Trick] = &[
    dirty(
        "socket reloaded",
        GUARD,
        "import socket, importlib; importlib.reload(socket).socket().connect((host, port))",
    ),
    dirty(
        "socket imported anew",
        GUARD,
        "import sys\nfor name in ('socket', '_socket', 'grid_guard', 'grid_guard_hook', 'grid_guard_socket', 'grid_guard_http'): sys.modules.pop(name, None)\nsys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != '_Finder']\nimport socket; socket.socket().connect((host, port))",
    ),
    dirty(
        "methods put back",
        GUARD,
        "import socket, _socket\nfor name in ('connect', 'connect_ex', 'sendto', 'sendmsg'): setattr(socket.socket, name, getattr(_socket.socket, name))\nsocket.socket().connect((host, port))",
    ),
    dirty(
        "the guard's names replaced",
        GUARD,
        "import grid_guard, grid_guard_hook, _socket, sys\nclass Yes:\n    def __getattr__(self, n): return lambda *a, **k: None\nfor m in (grid_guard, grid_guard_hook):\n    for name in list(vars(m)):\n        if not name.startswith('__') and name != 'SsrfBlocked': setattr(m, name, Yes())\nimport builtins\nkept = builtins.isinstance, builtins.len\nbuiltins.isinstance = lambda *a: False\ntry: _socket.socket().connect((host, port))\nfinally: builtins.isinstance = kept[0]",
    ),
    dirty(
        "an error that raises nothing",
        GUARD,
        "import _socket, grid_guard\ngrid_guard.SsrfBlocked.__str__ = lambda self: 'SSRF guard blocked'\ngrid_guard.SsrfBlocked.__init__ = lambda self, *a: None\n_socket.socket().connect((host, port))",
    ),
    dirty(
        "defaults of the hook's functions",
        GUARD,
        r"
import gc, types, _socket, grid_guard_hook
own = vars(grid_guard_hook)
for f in [o for o in gc.get_objects() if isinstance(o, types.FunctionType) and o.__globals__ is own]:
    for name, value in (('__defaults__', ()), ('__kwdefaults__', {}), ('__code__', (lambda *a: None).__code__)):
        try: setattr(f, name, value)
        except Exception: pass
_socket.socket().connect((host, port))",
    ),
    dirty(
        "cells and frames of a blocked call",
        GUARD,
        r"
import _socket, ctypes, sys
try: _socket.socket().connect(('127.0.0.1', 9))
except OSError as e: trace = e.__traceback__
while trace:
    for name in list(trace.tb_frame.f_locals):
        if name.startswith('_') and trace.tb_frame.f_globals is not globals(): trace.tb_frame.f_locals[name] = lambda *a, **k: None
    trace = trace.tb_next
_socket.socket().connect((host, port))",
    ),
    dirty(
        "tracing",
        GUARD,
        r"
import sys, threading, _socket
def trace(frame, event, arg):
    if frame.f_globals.get('__name__') == 'grid_guard_hook': raise SystemExit('traced')
    return trace
sys.settrace(trace); sys.setprofile(trace)
try: _socket.socket().connect((host, port))
finally: sys.settrace(None); sys.setprofile(None)",
    ),
    dirty(
        "audit hooks of its own",
        GUARD,
        r"
import sys, _socket
seen = []
sys.addaudithook(lambda event, args: seen.append(args) if event.startswith('socket') else None)
_socket.socket().connect((host, port))",
    ),
    trick(
        "a host that lies",
        GUARD,
        r"
import _socket, socket
class Lie(str):
    def __str__(self): return '20.0.0.1'
    def __contains__(self, x): return False
    def __eq__(self, other): return True
    __hash__ = str.__hash__
    def partition(self, x): return ('20.0.0.1', '', '')
    def encode(self, *a): return b'20.0.0.1'
socket.socket().connect((Lie(host), port))",
    ),
    trick(
        "an address that lies",
        GUARD,
        r"
import _socket
class Lie(tuple):
    def __getitem__(self, n): return ('20.0.0.1', 80)[n]
    def __len__(self): return 0
    def __iter__(self): return iter(('20.0.0.1', 80))
_socket.socket().connect(Lie((host, port)))",
    ),
    trick(
        "bytes instead of text",
        GUARD,
        "import _socket; _socket.socket().connect((host.encode(), port))",
    ),
    trick(
        "bytes that another thread changes",
        "",
        r"
import socket, threading, sys
name = bytearray(host, 'ascii'); stop = []
def flip():
    while not stop:
        for text in (cover, host):
            try: name[:] = text.encode()
            except BufferError: pass
kept = sys.getswitchinterval(); sys.setswitchinterval(1e-6)
thread = threading.Thread(target=flip); thread.start()
try:
    for _ in range(100):
        with socket.socket() as s:
            s.settimeout(1)
            try: s.connect((name, port))
            except OSError: pass
finally: stop.append(1); thread.join(); sys.setswitchinterval(kept)",
    ),
    trick(
        "no room left on the stack",
        GUARD,
        r"
import _socket, sys
found = []
def deep(n):
    try: return deep(n + 1)
    except RecursionError: pass
    try: s = _socket.socket(); s.connect((host, port)); found.append(s)
    except (RecursionError, OSError) as e: last.append(e)
last = []
deep(0)
if not found: raise last[-1]",
    ),
];

/// What no code in the same process can stop.
const PAST: &[Trick] = &[
    trick(
        "ctypes",
        "ECONNREFUSED",
        native!("s = socket.socket(); dial(s.fileno(), inet(host, port))"),
    ),
    trick(
        "ctypes without Python's socket",
        "ECONNREFUSED",
        native!("dial(check(libc.socket(2, 1, 0)), inet(host, port))"),
    ),
    trick(
        "datagrams by ctypes",
        "",
        native!(
            "a = inet(host, port); check(libc.sendto(check(libc.socket(2, 2, 0)), b'x', 1, 0, a, len(a)))"
        ),
    ),
    trick(
        "an IPv4 address in an IPv6 one",
        "ECONNREFUSED",
        native!(
            "dial(check(libc.socket(10, 1, 0)), struct.pack('=H', 10) + struct.pack('!HI', port, 0) + bytes(10) + b'\\xff\\xff' + socket.inet_aton(host) + bytes(4))"
        ),
    ),
    trick(
        "fast open by ctypes",
        "ECONNREFUSED",
        native!(
            "a = inet(host, port); fd = check(libc.socket(2, 1, 0)); check(libc.sendto(fd, b'x', 1, 0x20000000, a, len(a)))"
        ),
    ),
    trick(
        "a device by ctypes",
        "ECONNREFUSED",
        native!(
            "fd = check(libc.socket(2, 1, 0)); check(libc.setsockopt(fd, 1, 25, b'eth0', 4)); dial(fd, inet(host, port))"
        ),
    ),
    trick(
        "python in a child process",
        "status 1",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import socket; socket.create_connection((%r, %d))' % (host, port)], check=True, stderr=-3)",
    ),
    trick(
        "posix_spawn",
        "status 7",
        "import os\npid = os.posix_spawnp('curl', ['curl', '-s', '-m', '5', 'http://%s:%d/' % (host, port)], os.environ)\ncode = os.waitpid(pid, 0)[1] >> 8\nif code: raise OSError('status %d' % code)",
    ),
    trick(
        "multiprocessing by spawn",
        "status 1",
        "import multiprocessing, socket, os\np = multiprocessing.get_context('spawn').Process(target=socket.create_connection, args=((host, port),)); p.start(); p.join()\nif p.exitcode: raise OSError('status %d' % p.exitcode)",
    ),
    dirty(
        "the guard's table emptied by ctypes",
        "ECONNREFUSED",
        table!("import ctypes; ctypes.c_ssize_t.from_address(id(table) + 16).value = 0"),
    ),
    dirty(
        "the guard's table emptied through /proc/self/mem",
        "ECONNREFUSED",
        table!(
            "memory = open('/proc/self/mem', 'r+b', 0); memory.seek(id(table) + 16); memory.write(bytes(8))"
        ),
    ),
];

const CLOSED: &[&str] = &["EPERM", "EAFNOSUPPORT", "EPROTONOSUPPORT", "EACCES", GUARD];

/// Sockets that a function does not need, asked for by Python and without it.
const SOCKETS: &[Refused] = &[
    refused("raw", CLOSED, "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)"),
    refused("raw ICMP", CLOSED, "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
    refused(
        "packet",
        CLOSED,
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300)",
    ),
    refused(
        "AF_ALG",
        CLOSED,
        "import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0)",
    ),
    refused(
        "AF_VSOCK",
        CLOSED,
        "import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).connect((2, 1))",
    ),
    refused(
        "SCTP",
        CLOSED,
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)",
    ),
    refused(
        "MPTCP",
        CLOSED,
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)",
    ),
    refused("ping", CLOSED, "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)"),
    refused("DCCP", CLOSED, "import socket; socket.socket(socket.AF_INET, 6, 33)"),
    refused(
        "UDP-Lite",
        CLOSED,
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)",
    ),
    refused("raw, natively", &["EPERM"], native!("check(libc.socket(2, 3, 255))")),
    refused("packet, natively", &["EPERM"], native!("check(libc.socket(17, 3, 0x0300))")),
    refused("cooked packet, natively", &["EPERM"], native!("check(libc.socket(17, 2, 0x0300))")),
    refused("SOCK_PACKET, natively", &["EPERM"], native!("check(libc.socket(2, 10, 0x0300))")),
    refused("AF_ALG, natively", &["EPERM"], native!("check(libc.socket(38, 5, 0))")),
    refused("AF_VSOCK, natively", &["EPERM"], native!("check(libc.socket(40, 1, 0))")),
    refused("AF_KEY, natively", &["EPERM"], native!("check(libc.socket(15, 3, 2))")),
    refused("AF_XDP, natively", &["EPERM"], native!("check(libc.socket(44, 3, 0))")),
    refused("AF_TIPC, natively", &["EPERM"], native!("check(libc.socket(30, 1, 0))")),
    refused("AF_RDS, natively", &["EPERM"], native!("check(libc.socket(21, 5, 0))")),
    refused("AF_BLUETOOTH, natively", &["EPERM"], native!("check(libc.socket(31, 3, 0))")),
    refused("AF_CAN, natively", &["EPERM"], native!("check(libc.socket(29, 3, 1))")),
    refused("AF_SMC, natively", &["EPERM"], native!("check(libc.socket(43, 1, 0))")),
    refused("AF_QIPCRTR, natively", &["EPERM"], native!("check(libc.socket(42, 2, 0))")),
    refused("netfilter's netlink, natively", &["EPERM"], native!("check(libc.socket(16, 3, 12))")),
    refused("audit's netlink, natively", &["EPERM"], native!("check(libc.socket(16, 3, 9))")),
    refused("SCTP, natively", &["EPERM"], native!("check(libc.socket(2, 1, 132))")),
    refused("SCTP of IPv6, natively", &["EPERM"], native!("check(libc.socket(10, 5, 132))")),
    refused("MPTCP, natively", &["EPERM"], native!("check(libc.socket(2, 1, 262))")),
    refused("ping, natively", &["EPERM"], native!("check(libc.socket(2, 2, 1))")),
    refused(
        "a family with high bits",
        &["EPERM"],
        native!(
            "check(libc.syscall(41 if os.uname().machine == 'x86_64' else 198, ctypes.c_long((1 << 32) | 17), 3, 0))"
        ),
    ),
    refused(
        "headers of its own",
        &["ENOPROTOOPT", "EPERM"],
        native!(
            "fd = check(libc.socket(2, 2, 0)); check(libc.setsockopt(fd, 0, 3, struct.pack('=i', 1), 4))"
        ),
    ),
    refused(
        "someone else's address",
        &["EPERM", "EADDRNOTAVAIL"],
        native!(
            "fd = check(libc.socket(2, 2, 0)); check(libc.setsockopt(fd, 0, 19, struct.pack('=i', 1), 4))"
        ),
    ),
    refused(
        "a mark for the host's routes",
        &["EPERM"],
        native!(
            "fd = check(libc.socket(2, 2, 0)); check(libc.setsockopt(fd, 1, 36, struct.pack('=i', 1), 4))"
        ),
    ),
    refused(
        "broadcast",
        &[GUARD],
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.setsockopt(1, 6, 1); s.sendto(b'x', ('<broadcast>', 9))",
    ),
    refused(
        "multicast",
        &[GUARD],
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('224.0.0.251', 5353))",
    ),
    refused(
        "another interpreter",
        &["PermissionError", "ModuleNotFound"],
        "import _xxsubinterpreters",
    ),
    refused(
        "a library in /tmp",
        &["Operation not permitted", "failed to map segment"],
        "import ctypes, shutil\npath = next(l.split()[-1] for l in open('/proc/self/maps') if 'libc' in l or 'musl' in l)\nshutil.copy(path, '/tmp/lib.so'); ctypes.CDLL('/tmp/lib.so')",
    ),
];

fn deploy(grid: &Grid) -> Service {
    grid.create("tricks-p", "python3.9", STAGE, json!({"max_replicas": 1}))
}

#[test]
fn pythons_ways_to_connect_are_guarded() {
    let grid = Grid::start();
    Stage::new(&grid, &deploy(&grid)).guarded(CALLS, &WITNESS);
}

#[test]
fn beneath_pythons_modules_the_guard_stands_too() {
    let grid = Grid::start();
    Stage::new(&grid, &deploy(&grid)).guarded(DEEP, &WITNESS);
}

#[test]
fn the_firewall_stops_what_gets_past_pythons_guard() {
    let grid = Grid::start();
    Stage::new(&grid, &deploy(&grid)).unguarded(PAST);
}

#[test]
fn python_code_is_refused_what_it_does_not_need() {
    let grid = Grid::start();
    all_refused(&grid, &deploy(&grid), SOCKETS);
}
