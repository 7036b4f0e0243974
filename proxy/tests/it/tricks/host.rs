//! Tricks against the host: system calls and files that are not for functions, signals, and
//! everything of which there is only so much. After each the platform answers, and a neighbour has
//! noticed nothing.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use serde_json::{Value, json};

use super::{Host, Refused, all_refused, node, python, refused, run, send};
use crate::{
    docker,
    grid::{Grid, Service, wait_until},
};

/// A system call: its numbers for x86-64 and aarch64 (-1: it has none there).
struct Call(&'static str, i32, i32);

/// Calls that anybody may make elsewhere, with arguments that make no sense. The profile answers
/// EPERM; the kernel would complain of the arguments.
const OPEN_ELSEWHERE: &[Call] = &[
    Call("unshare", 272, 97),
    Call("setns", 308, 268),
    Call("ptrace", 101, 117),
    Call("process_vm_readv", 310, 270),
    Call("process_vm_writev", 311, 271),
    Call("io_uring_setup", 425, 425),
    Call("io_uring_enter", 426, 426),
    Call("io_uring_register", 427, 427),
    Call("keyctl", 250, 219),
    Call("add_key", 248, 217),
    Call("request_key", 249, 218),
    Call("userfaultfd", 323, 282),
    Call("splice", 275, 76),
    Call("vmsplice", 278, 75),
    Call("tee", 276, 77),
    Call("personality", 135, 92),
    Call("name_to_handle_at", 303, 264),
    Call("pidfd_getfd", 438, 438),
    Call("mbind", 237, 235),
    Call("set_mempolicy", 238, 237),
    Call("move_pages", 279, 239),
    Call("kcmp", 312, 272),
];

/// Calls that need a right which no function has; the profile refuses them all the same.
const PRIVILEGED: &[Call] = &[
    Call("mount", 165, 40),
    Call("umount2", 166, 39),
    Call("pivot_root", 155, 41),
    Call("chroot", 161, 51),
    Call("open_tree", 428, 428),
    Call("move_mount", 429, 429),
    Call("fsopen", 430, 430),
    Call("fsconfig", 431, 431),
    Call("fsmount", 432, 432),
    Call("fspick", 433, 433),
    Call("mount_setattr", 442, 442),
    Call("bpf", 321, 280),
    Call("perf_event_open", 298, 241),
    Call("kexec_load", 246, 104),
    Call("kexec_file_load", 320, 294),
    Call("init_module", 175, 105),
    Call("finit_module", 313, 273),
    Call("delete_module", 176, 106),
    Call("open_by_handle_at", 304, 265),
    Call("fanotify_init", 300, 262),
    Call("swapon", 167, 224),
    Call("swapoff", 168, 225),
    Call("reboot", 169, 142),
    Call("sethostname", 170, 161),
    Call("setdomainname", 171, 162),
    Call("settimeofday", 164, 170),
    Call("clock_settime", 227, 112),
    Call("adjtimex", 159, 171),
    Call("acct", 163, 89),
    Call("quotactl", 179, 60),
    Call("syslog", 103, 116),
    Call("vhangup", 153, 58),
    Call("iopl", 172, -1),
    Call("ioperm", 173, -1),
];

/// Makes each call with arguments of -1 and tells its error's name.
const CALLS: &str = r#"
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
column = {"x86_64": 1, "aarch64": 2}[os.uname().machine]
def outcome(number):
    ctypes.set_errno(0)
    code = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
    return "done" if code >= 0 else errno.errorcode[ctypes.get_errno()]
result = {call[0]: outcome(call[column]) for call in calls if call[column] >= 0}
"#;

fn listed(calls: &[Call]) -> Value {
    calls.iter().map(|Call(name, x86, arm)| json!([name, x86, arm])).collect()
}

/// The same without the profile, as the same user.
fn without_the_profile(image: &str, code: &str) -> Value {
    let said = docker::docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--user",
        "1000",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "seccomp=unconfined",
        "--entrypoint",
        "python3",
        image,
        "-c",
        code,
    ]);
    serde_json::from_str(&said).expect("JSON")
}

#[test]
fn system_calls_that_no_function_needs_are_refused() {
    let grid = Grid::start();
    let service = grid.create("host-p", "python3.9", python::STAGE, json!({"max_replicas": 1}));
    for (calls, open) in [(OPEN_ELSEWHERE, true), (PRIVILEGED, false)] {
        let code = format!("calls = {}\n{CALLS}", listed(calls));
        let code = format!("{code}\nraise OSError(json.dumps(result))");
        let said = run(&grid, &service, "calls", &json!({"code": code}));
        let text = said["error"].as_str().expect("an error");
        let found: Value =
            serde_json::from_str(&text[text.find('{').expect("JSON")..]).expect("JSON");
        let found = found.as_object().expect("an object");
        assert!(found.len() > 15, "{found:?}");
        for (name, outcome) in found {
            assert_eq!(outcome, "EPERM", "{name}");
        }
        if open {
            let image = docker::images(&service.id).pop().expect("an image");
            let code = format!("calls = {}\n{CALLS}\nprint(json.dumps(result))", listed(calls));
            for (name, outcome) in
                without_the_profile(&image, &code).as_object().expect("an object")
            {
                assert_ne!(outcome, "EPERM", "{name} says nothing about the profile");
            }
        }
    }
}

const CLOSED: &[&str] = &["EPERM", "EACCES", "EROFS", "ENOENT"];

/// Attempts to get out, or to get more than a function has.
const ESCAPES: &[Refused] = &[
    refused(
        "namespaces by clone",
        &["EPERM"],
        native!(
            "for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x4000000, 0x8000000, 0x2000000):\n    if libc.syscall(L(56 if x86 else 220), L(flag | 17), L(0), L(0), L(0), L(0)) >= 0: raise SystemExit(flag)\ncheck(-1)"
        ),
    ),
    refused(
        "namespaces by clone3",
        &["ENOSYS"],
        native!("check(libc.syscall(L(435), ctypes.create_string_buffer(88), L(88)))"),
    ),
    refused("a user namespace", &["EPERM"], native!("check(libc.unshare(0x10000000))")),
    refused(
        "the namespaces of process 1",
        &["EPERM", "EACCES"],
        native!("check(libc.setns(os.open('/proc/1/ns/mnt', os.O_RDONLY), 0))"),
    ),
    refused(
        "a mount",
        &["EPERM"],
        native!("check(libc.mount(b'none', b'/tmp', b'tmpfs', L(0), None))"),
    ),
    refused(
        "the root without its read-only flag",
        &["EPERM"],
        native!("check(libc.mount(None, b'/', None, L(32), None))"),
    ),
    refused(
        "tracing of process 1",
        &["EPERM"],
        native!("check(libc.ptrace(L(16), L(1), L(0), L(0)))"),
    ),
    refused(
        "a page of a file that cannot be written",
        &["EPERM"],
        native!(
            "r, w = os.pipe(); fd = os.open('/etc/passwd', os.O_RDONLY); check(libc.splice(fd, ctypes.byref(ctypes.c_int64(1)), w, None, L(1), 0))"
        ),
    ),
    refused(
        "a kernel's ring",
        &["EPERM"],
        native!("check(libc.syscall(L(425), L(8), ctypes.create_string_buffer(120)))"),
    ),
    refused(
        "a lock that lends its priority",
        &["EPERM"],
        native!(
            "check(libc.syscall(L(202 if x86 else 98), ctypes.byref(ctypes.c_int(0)), L(6), L(0), None))"
        ),
    ),
    refused(
        "system calls of 32 bits",
        &["killed"],
        native!(
            "if not x86: raise OSError('killed: there are none')\nimport mmap\nm = mmap.mmap(-1, 4096, prot=7); m.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')\ncall = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\npid = os.fork()\nif pid == 0: call(); os._exit(0)\nend = os.waitpid(pid, 0)[1]\nif os.WIFSIGNALED(end): raise OSError('killed')"
        ),
    ),
    refused(
        "system calls of x32",
        &["killed", "ENOSYS", "EPERM"],
        native!(
            "if not x86: raise OSError('killed: there are none')\npid = os.fork()\nif pid == 0: os._exit(0 if libc.syscall(L(0x40000000 | 39)) > 0 else ctypes.get_errno())\nend = os.waitpid(pid, 0)[1]\nif os.WIFSIGNALED(end): raise OSError('killed')\nif end: raise OSError(end >> 8, '')"
        ),
    ),
    refused(
        "a block device",
        &["EPERM"],
        "import os; os.mknod('/tmp/disk', 0o60600, os.makedev(8, 0))",
    ),
    refused(
        "the memory's device",
        &["EPERM"],
        "import os; os.mknod('/tmp/mem', 0o20600, os.makedev(1, 1))",
    ),
    refused("to be root", &["EPERM"], "import os; os.setuid(0)"),
    refused("root's group", &["EPERM"], "import os; os.setgroups([0])"),
    refused(
        "capabilities",
        &["EPERM"],
        native!(
            "check(libc.capset(struct.pack('=Ii', 0x20080522, 0), struct.pack('=6I', *[0xffffffff] * 6)))"
        ),
    ),
    refused(
        "programs that are root's",
        &["still 1000"],
        r"
import glob, os, stat, subprocess
found = [p for d in ('/bin', '/sbin', '/usr/bin', '/usr/sbin') for p in glob.glob(d + '/*') if os.path.isfile(p) and os.stat(p).st_mode & 0o6000]
status = open('/proc/self/status').read()
for p in found[:5]:
    child = subprocess.Popen([p], stdin=subprocess.PIPE, stdout=-3, stderr=-3)
    for line in open('/proc/%d/status' % child.pid):
        if line.startswith(('Uid:', 'Gid:')) and set(line.split()[1:]) != {'1000'}: raise SystemExit(p + line)
    child.kill(); child.wait()
if 'NoNewPrivs:\t1' in status and 'CapBnd:\t0000000000000000' in status: raise OSError('still 1000')",
    ),
    refused(
        "a program of its own for root",
        CLOSED,
        "import os, shutil, subprocess; shutil.copy(os.path.realpath('/bin/sh'), '/tmp/sh'); os.chmod('/tmp/sh', 0o6755); subprocess.check_call(['/tmp/sh', '-c', 'id'])",
    ),
    refused(
        "the kernel's addresses",
        &["hidden", "EACCES", "EPERM", "ENOENT"],
        "lines = [l for l in open('/proc/kallsyms')]\nif all(int(l.split()[0], 16) == 0 for l in lines): raise OSError('hidden')",
    ),
    refused(
        "the kernel's memory",
        &["empty", "EACCES", "EPERM", "ENOENT"],
        "data = open('/proc/kcore', 'rb').read(64)\nif not data: raise OSError('empty')",
    ),
    refused(
        "a root behind process 1",
        &["the same", "EACCES", "EPERM"],
        "import os\na, b = os.stat('/proc/1/root/'), os.stat('/')\nif (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino): raise OSError('the same')",
    ),
    refused(
        "a program for the kernel's core dumps",
        CLOSED,
        "open('/proc/sys/kernel/core_pattern', 'wb', 0).write(b'|/bin/sh')",
    ),
    refused(
        "the kernel's modules",
        CLOSED,
        "open('/proc/sys/kernel/modprobe', 'wb', 0).write(b'/bin/sh')",
    ),
    refused("a control group of its own", CLOSED, "import os; os.mkdir('/sys/fs/cgroup/own')"),
    refused(
        "a release agent",
        CLOSED,
        "import glob\nfor path in ['/sys/fs/cgroup/release_agent', *glob.glob('/sys/fs/cgroup/*/release_agent')]: open(path, 'wb', 0).write(b'/bin/sh')",
    ),
    refused("more memory", CLOSED, "open('/sys/fs/cgroup/memory.max', 'wb', 0).write(b'max')"),
    refused("more processes", CLOSED, "open('/sys/fs/cgroup/pids.max', 'wb', 0).write(b'max')"),
    refused(
        "more open files",
        &["not allowed", "EPERM", "exceed"],
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))",
    ),
    refused("a better priority", &["EPERM", "EACCES"], "import os; os.nice(-5)"),
    refused(
        "real time",
        &["EPERM"],
        "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    ),
    refused(
        "disks in real time",
        &["EPERM"],
        native!("check(libc.syscall(L(251 if x86 else 30), L(1), L(0), L(1 << 13)))"),
    ),
    refused(
        "to be the last that is killed",
        &["EACCES", "EPERM"],
        "open('/proc/self/oom_score_adj', 'wb', 0).write(b'-1000')",
    ),
    refused(
        "the engine's socket",
        &["ENOENT"],
        "import socket; socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
    ),
    refused(
        "the engine's helper",
        &["ENOENT"],
        "import socket; socket.socket(socket.AF_UNIX).connect('/run/containerd/containerd.sock')",
    ),
    refused(
        "sockets without a file",
        &["none"],
        "import os\nnames = [l.split()[-1] for l in open('/proc/net/unix') if l.split()[-1].startswith('@')]\nif not names: raise OSError('none')",
    ),
    refused("a file beside the edge's socket", CLOSED, "open('/run/grid/own', 'w')"),
    refused(
        "the edge's socket renamed",
        CLOSED,
        "import os; os.rename('/run/grid/edge.sock', '/run/grid/x')",
    ),
    refused(
        "the edge's socket for others",
        CLOSED,
        "import os; os.chmod('/run/grid/edge.sock', 0o777)",
    ),
    refused("the runner's mode", CLOSED, "import os; os.chmod('/app', 0o777)"),
    refused("the runner's owner", CLOSED, "import os; os.chown('/app', 1000, 1000)"),
    refused(
        "the runner in another place",
        &["EROFS", "EXDEV", "EPERM", "EACCES"],
        "import os; os.link('/app/smsly_function_runner.py', '/tmp/runner.py')",
    ),
    refused("the list of ranges", CLOSED, "open('/app/egress.txt', 'ab', 0).write(b'x')"),
    refused(
        "the resolver's address",
        CLOSED,
        "open('/etc/resolv.conf', 'wb', 0).write(b'nameserver 10.0.0.1')",
    ),
];

#[test]
fn ways_out_of_the_container_are_closed() {
    let grid = Grid::start();
    let service = grid.create("host-e", "python3.9", python::STAGE, json!({"max_replicas": 1}));
    all_refused(&grid, &service, ESCAPES);
}

/// What takes all there is of something, in Node.
const NODE: &[Refused] = &[
    refused(
        "all of /tmp",
        &["ENOSPC"],
        "require('fs').writeFileSync('/tmp/full', Buffer.alloc(80 << 20));",
    ),
    refused(
        "all names in /tmp",
        &["ENOSPC"],
        "const fs = require('fs'); fs.rmSync('/tmp/full', {force: true}); for (let i = 0; i < 20000; i += 1) fs.closeSync(fs.openSync(`/tmp/${i}`, 'w'));",
    ),
    refused(
        "all open files",
        &["EMFILE"],
        "const fs = require('fs'); const all = []; try { for (;;) all.push(fs.openSync('/dev/null')); } finally { all.forEach((fd) => fs.closeSync(fd)); }",
    ),
    refused(
        "all processes",
        &["EAGAIN"],
        "const {spawn} = require('child_process'); const all = []; try { for (let i = 0; i < 300; i += 1) { const c = spawn('sleep', ['600']); all.push(c); await new Promise((ok, no) => c.on('spawn', ok).on('error', no)); } } finally { all.forEach((c) => c.kill('SIGKILL')); }",
    ),
    refused(
        "/tmp and memory",
        &["function_crashed", "timeout", "function_error"],
        "const fs = require('fs'); for (const n of fs.readdirSync('/tmp')) fs.rmSync(`/tmp/${n}`, {force: true, recursive: true}); fs.writeFileSync('/tmp/full', Buffer.alloc(60 << 20)); const all = []; for (;;) all.push(Buffer.alloc(4 << 20, 1));",
    ),
    refused(
        "a log of long lines",
        &["written"],
        "const fs = require('fs'); const line = Buffer.from('\\x1b[31m' + '\\x1b]0;x\\x07é\\r\\0'.repeat(100000) + '\\n'); for (let i = 0; i < 30; i += 1) for (let at = 0; at < line.length;) try { at += fs.writeSync(1, line, at); } catch (e) { if (e.code !== 'EAGAIN') throw e; } throw 'written';",
    ),
    refused(
        "many calls to the edge",
        &["called"],
        "const net = require('net'); const all = Array.from({length: 300}, () => net.connect('/run/grid/edge.sock').on('error', () => {})); await Promise.all(all.map((s) => new Promise((ok) => s.on('connect', ok).on('close', ok)))); all.forEach((s) => s.write('HTTP/1.1 200 OK\\r\\ncontent-length: 1\\r\\n\\r\\nx')); throw 'called';",
    ),
    refused(
        "every core",
        &["timeout"],
        "const {spawn} = require('child_process'); for (let i = 0; i < 8; i += 1) spawn('sh', ['-c', 'while :; do :; done']); return new Promise(() => {});",
    ),
    refused(
        "to stop itself",
        &["timeout"],
        "process.kill(process.pid, 'SIGSTOP'); return new Promise(() => {});",
    ),
    refused(
        "to stop everybody",
        &["timeout"],
        "require('child_process').spawn('sleep', ['600']); process.kill(-1, 'SIGSTOP'); process.kill(process.pid, 'SIGSTOP'); return new Promise(() => {});",
    ),
    refused(
        "to kill process 1",
        &["alive"],
        "process.kill(1, 'SIGKILL'); process.kill(1, 'SIGSTOP'); throw 'alive';",
    ),
    refused(
        "to end process 1",
        &["function_crashed"],
        "process.kill(1, 'SIGTERM'); return new Promise(() => {});",
    ),
    refused(
        "to kill everybody",
        &["function_crashed"],
        "require('child_process').spawn('sh', ['-c', 'kill -9 -1']); return new Promise(() => {});",
    ),
    refused(
        "to go somewhere else",
        &["gone"],
        "process.chdir('/proc/1'); process.umask(0o777); throw 'gone';",
    ),
];

/// The same in Python, and what only it can do.
const PYTHON: &[Refused] = &[
    refused("all of /tmp", &["ENOSPC"], "open('/tmp/full', 'wb').write(bytes(80 << 20))"),
    refused(
        "all names in /tmp",
        &["ENOSPC"],
        "import os\nos.path.exists('/tmp/full') and os.unlink('/tmp/full')\nfor i in range(20000): open('/tmp/%d' % i, 'w').close()",
    ),
    refused(
        "all open files",
        &["EMFILE"],
        "import os\nfds = []\ntry:\n    while True: fds.append(os.open('/dev/null', os.O_RDONLY))\nfinally:\n    for fd in fds: os.close(fd)",
    ),
    refused(
        "all threads",
        &["start new thread"],
        "import threading\nstop = threading.Event(); started = []\ntry:\n    for _ in range(300): t = threading.Thread(target=stop.wait); t.start(); started.append(t)\nfinally:\n    stop.set()\n    for t in started: t.join()",
    ),
    refused("zombies", &["EAGAIN"], "import os\nwhile True:\n    if os.fork() == 0: os._exit(0)"),
    refused(
        "/tmp and memory",
        &["function_crashed", "timeout", "function_error", "MemoryError"],
        "import os\nfor n in os.listdir('/tmp'): os.unlink('/tmp/' + n)\nopen('/tmp/full', 'wb').write(bytes(60 << 20))\nall = []\nwhile True: all.append(b'x' * (4 << 20))",
    ),
    refused(
        "memory that is not memory of its own",
        &["function_crashed", "timeout", "function_error", "ENOSPC", "ENOMEM"],
        "import os\nfd = os.memfd_create('x')\nwhile True: os.write(fd, b'x' * (4 << 20))",
    ),
    refused(
        "a log of long lines",
        &["written"],
        "import os\nline = b'\\x1b[31m' + b'\\x1b]0;x\\x07\\xc3\\xa9\\r\\0' * 100000 + b'\\n'\nfor _ in range(30):\n    rest = line\n    while rest: rest = rest[os.write(1, rest):]\nraise OSError('written')",
    ),
    refused(
        "many calls to the edge",
        &["called"],
        "import socket\nfound = []\nfor _ in range(300):\n    s = socket.socket(socket.AF_UNIX); s.settimeout(1)\n    try: s.connect('/run/grid/edge.sock'); s.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 1\\r\\n\\r\\nx')\n    except OSError: pass\n    found.append(s)\nraise OSError('called')",
    ),
    refused(
        "every core",
        &["timeout"],
        "import os\nos.sched_setaffinity(0, range(64))\nfor _ in range(8):\n    if os.fork() == 0:\n        while True: pass\nwhile True: pass",
    ),
    refused("to stop itself", &["timeout"], "import os; os.kill(os.getpid(), 19)"),
    refused(
        "to stop everybody",
        &["timeout"],
        "import os, time\nif os.fork() == 0: time.sleep(600)\nos.kill(-1, 19); os.kill(os.getpid(), 19)",
    ),
    refused(
        "to kill process 1",
        &["alive"],
        "import os; os.kill(1, 9); os.kill(1, 19); raise OSError('alive')",
    ),
    refused(
        "to end process 1",
        &["function_crashed"],
        "import os, time; os.kill(1, 15); time.sleep(600)",
    ),
    refused(
        "to kill everybody",
        &["function_crashed"],
        "import os, time\nif os.fork() == 0: os.kill(-1, 9)\ntime.sleep(600)",
    ),
];

/// Does one of them; then everything must be as before.
fn endure(grid: &Grid, service: &Service, case: &Refused) {
    let name = format!("{} of {}", case.name, service.name);
    let good = || {
        assert_eq!(run(grid, service, &name, &json!({"code": ""}))["error"], Value::Null, "{name}")
    };
    good();
    let before = docker::containers(&service.id, false);
    let answer = send(grid, service, &json!({"code": case.code}));
    let told = answer.text();
    assert!(case.shows.iter().any(|word| told.contains(word)), "{name}: {told}");
    assert_eq!(grid.api("GET", &service.path(""), None).status, 200, "{name}");
    good();
    if answer.status != 200 {
        wait_until(&format!("the end of the container, after {name}"), || {
            let all = docker::containers(&service.id, true);
            before.iter().all(|old| !all.contains(old))
        });
    }
    wait_until(&format!("one container, after {name}"), || {
        docker::containers(&service.id, true).len() == 1
    });
}

/// While a function does its worst, its neighbour of the other runtime goes on answering.
fn endure_all(runtime: &str, stage: &str, other: (&str, &str), cases: &[Refused]) {
    let grid = Grid::with(&[("FUNCTION_TIMEOUT_SECONDS", "6")]);
    let service = grid.create("hoarder", runtime, stage, json!({"max_replicas": 1}));
    let neighbour = grid.create("neighbour", other.0, other.1, json!({"min_replicas": 1}));
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let said = run(&grid, &neighbour, "the neighbour", &json!({"code": ""}));
                assert_eq!(said["error"], Value::Null);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _end = Flag(&done);
        for case in cases {
            let before = answered.load(Ordering::Relaxed);
            endure(&grid, &service, case);
            wait_until("an answer of the neighbour", || {
                assert!(!asking.is_finished(), "the neighbour failed during {}", case.name);
                answered.load(Ordering::Relaxed) > before
            });
        }
    });
}

/// Set when the owner goes, also by a panic.
struct Flag<'a>(&'a AtomicBool);

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_node_code_uses_up_is_its_own() {
    endure_all("node18", node::STAGE, ("python3.9", python::STAGE), NODE);
}

#[test]
fn what_python_code_uses_up_is_its_own() {
    endure_all("python3.9", python::STAGE, ("node18", node::STAGE), PYTHON);
}

/// Goes on connecting after the answer: to the public host, and each time to the private one before.
const BOMBS: [(&str, &str, &str); 3] = [
    (
        "node18",
        node::STAGE,
        "const net = require('net'); const go = (h) => net.connect(port, h).on('error', () => {}).on('connect', function () { this.destroy(); }); setInterval(() => { go(host); go(cover); }, 20);",
    ),
    (
        "node18",
        node::STAGE,
        "require('child_process').spawn('sh', ['-c', `while :; do curl -s -m 2 http://${host}:${port}/; curl -s -m 2 http://${cover}:${port}/; sleep 0.05; done`], {detached: true, stdio: 'ignore'}).unref();",
    ),
    (
        "python3.9",
        python::STAGE,
        native!(
            r"
import threading, time
def go():
    while True:
        for to in (host, cover):
            for dialled in (lambda s: s.connect((to, port)), lambda s: dial(s.fileno(), inet(to, port))):
                with socket.socket() as s:
                    try: dialled(s)
                    except OSError: pass
        time.sleep(0.02)
threading.Thread(target=go, daemon=True).start()"
        ),
    ),
];

#[test]
fn what_goes_on_after_the_answer_is_stopped_too() {
    let grid = Grid::start();
    for (number, (runtime, stage, code)) in BOMBS.into_iter().enumerate() {
        let service =
            grid.create(&format!("bomb-{number}"), runtime, stage, json!({"max_replicas": 1}));
        let (private, public) =
            (Host::at("10.66.0.1".parse().expect("an address")), Host::public());
        let (_canary, there) = (private.tcp(80), public.tcp(80));
        let question =
            json!({"code": code, "host": private.address(), "cover": public.address(), "port": 80});
        let said = run(&grid, &service, "a bomb", &question);
        assert_eq!(said["error"], Value::Null, "{said}");
        let already = there.seen().len();
        wait_until("its later connections", || there.seen().len() > already + 5);
        assert_eq!(private.packets(), 0, "{runtime}");
        assert_eq!(
            run(&grid, &service, "after the bomb", &json!({"code": ""}))["error"],
            Value::Null
        );
    }
}
