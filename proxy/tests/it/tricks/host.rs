//! Tricks against the host: system calls and files that are not for functions, signals, and
//! everything of which there is only so much. After each the platform answers, and a neighbour has
//! noticed nothing.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use serde_json::{Value, json};

use super::{Host, Trick, all_refused, node, python, run, send};
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

#[test]
fn ways_out_of_the_container_are_closed() {
    let grid = Grid::start();
    let service = grid.create("host-e", "python3.9", python::STAGE, json!({"max_replicas": 1}));
    all_refused(&grid, &service, include_str!("python/escapes.py"));
}

/// Does one of them; then everything must be as before.
fn endure(grid: &Grid, service: &Service, case: &Trick) {
    let name = format!("{} of {}", case.name, service.name);
    let good = || {
        assert_eq!(run(grid, service, &name, &json!({"code": ""}))["error"], Value::Null, "{name}")
    };
    good();
    let before = docker::containers(&service.id, false);
    let answer = send(grid, service, &json!({"code": case.code}));
    let told = answer.text();
    assert!(case.is_shown_by(&told), "{name}: {told}");
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
fn endure_all(runtime: &str, stage: &str, other: (&str, &str), file: &str) {
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
        for case in &Trick::all(file) {
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
    endure_all("node18", node::STAGE, ("python3.9", python::STAGE), include_str!("node/uses.js"));
}

#[test]
fn what_python_code_uses_up_is_its_own() {
    endure_all("python3.9", python::STAGE, ("node18", node::STAGE), include_str!("python/uses.py"));
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
        "
import ctypes, socket, struct, threading, time
libc = ctypes.CDLL(None)
def native(s, to):
    a = struct.pack('=H', 2) + struct.pack('!H', port) + socket.inet_aton(to) + bytes(8)
    libc.connect(s.fileno(), a, len(a))
def go():
    while True:
        for to in (host, cover):
            for dial in (native, lambda s, to: s.connect((to, port))):
                with socket.socket() as s:
                    try: dial(s, to)
                    except OSError: pass
        time.sleep(0.02)
threading.Thread(target=go, daemon=True).start()",
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
