//! A function does not see its neighbours, the host or the platform's secrets, and what it writes
//! to its log stays its own log.

use serde_json::{Value, json};

use crate::{
    docker,
    grid::{Grid, Service, TOKEN, wait_until},
};

const NODE: &str = r#"
const fs = require("fs");
const attempt = (what) => { try { return what(); } catch (e) { return e.code || String(e); } };
const read = (path) => attempt(() => { const fd = fs.openSync(path, "r"); try { return fs.readSync(fd, Buffer.alloc(64)); } finally { fs.closeSync(fd); } });
const write = (path) => attempt(() => { const fd = fs.openSync(path, "r+"); try { fs.writeSync(fd, "1"); return "done"; } finally { fs.closeSync(fd); } });
const put = (fd, bytes) => { for (let at = 0; at < bytes.length;) try { at += fs.writeSync(fd, bytes, at); } catch (e) { if (e.code !== "EAGAIN") throw e; } };
exports.handler = (event) => {
  const asked = event.body || {};
  if (asked.hex) { console.log("first"); put(1, Buffer.from(asked.hex, "hex")); return "written"; }
  const pids = fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return {
    environments: pids.map((pid) => attempt(() => fs.readFileSync(`/proc/${pid}/environ`, "utf8"))),
    commands: pids.map((pid) => attempt(() => fs.readFileSync(`/proc/${pid}/comm`, "utf8").trim())),
    read: Object.fromEntries((asked.read || []).map((path) => [path, read(path)])),
    write: Object.fromEntries((asked.write || []).map((path) => [path, write(path)])),
    list: Object.fromEntries((asked.list || []).map((path) => [path, attempt(() => fs.readdirSync(path))])),
  };
};
const secret = "in-the-code-only";"#;

const PYTHON: &str = r#"
import errno, os
def attempt(what):
    try: return what()
    except OSError as e: return errno.errorcode[e.errno]
def text(path):
    with open(path, "rb") as f: return f.read().decode().strip()
def read(path):
    fd = os.open(path, os.O_RDONLY)
    try: return len(os.read(fd, 64))
    finally: os.close(fd)
def write(path):
    fd = os.open(path, os.O_WRONLY)
    try: os.write(fd, b"1"); return "done"
    finally: os.close(fd)
def put(fd, data):
    while data: data = data[os.write(fd, data):]
def handler(event, context):
    asked = event["body"] or {}
    if "hex" in asked:
        print("first")
        put(1, bytes.fromhex(asked["hex"]))
        return "written"
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    return {
        "environments": [attempt(lambda: text("/proc/%s/environ" % pid)) for pid in pids],
        "commands": [attempt(lambda: text("/proc/%s/comm" % pid)) for pid in pids],
        "read": {path: attempt(lambda: read(path)) for path in asked.get("read", [])},
        "write": {path: attempt(lambda: write(path)) for path in asked.get("write", [])},
        "list": {path: attempt(lambda: os.listdir(path)) for path in asked.get("list", [])},
    }
secret = "in-the-code-only"
"#;

const SERVICES: [(&str, &str, &str); 2] =
    [("near-n", "node18", NODE), ("near-p", "python3.9", PYTHON)];

fn deploy(grid: &Grid) -> [Service; 2] {
    SERVICES.map(|(name, runtime, code)| {
        grid.create(name, runtime, code, json!({"min_replicas": 1, "max_replicas": 1}))
    })
}

fn ask(grid: &Grid, service: &Service, question: &Value) -> Value {
    let target = format!("/fn/{}", service.name);
    let answer = grid.call(&service.name, "POST", &target, &[], question.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn a_function_sees_only_its_own_processes_and_environment() {
    let grid = Grid::start();
    let services = deploy(&grid);
    for (service, other) in [(&services[0], &services[1]), (&services[1], &services[0])] {
        let seen = ask(&grid, service, &json!({}));
        let commands = seen["commands"].as_array().expect("a list");
        assert!((1..=4).contains(&commands.len()), "{commands:?}");
        for command in commands {
            let known = ["docker-init", "tini", "node", "python", "python3", "python3.9"];
            assert!(known.contains(&command.as_str().unwrap_or_default()), "{commands:?}");
        }
        let environments = seen["environments"].to_string();
        let deployment = service.deployment["id"].as_str().expect("an id");
        assert!(environments.contains(deployment), "its own: {environments}");
        for hidden in [TOKEN, "SMSLY_TOKEN", "DOCKER_HOST", "GRID_DATA_DIR", &other.name, &other.id]
        {
            assert!(!environments.contains(hidden), "{hidden}: {environments}");
        }
    }
}

#[test]
fn neither_image_nor_container_tells_a_secret() {
    let grid = Grid::start();
    for service in deploy(&grid) {
        let container = docker::containers(&service.id, false).pop().expect("a container");
        let image = docker::images(&service.id).pop().expect("an image");
        let history = docker::docker(&["history", "--no-trunc", "--format", "{{json .}}", &image]);
        let told = format!("{} {} {history}", docker::inspect(&container), docker::inspect(&image));
        assert!(told.contains(&service.id), "{told}");
        for secret in [TOKEN, "SMSLY_TOKEN", "in-the-code-only"] {
            assert!(!told.contains(secret), "{secret}: {told}");
        }
    }
}

#[test]
fn the_hosts_kernel_is_out_of_reach() {
    let grid = Grid::start();
    let question = json!({
        "read": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"],
        "write": [
            "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname",
            "/proc/sys/vm/drop_caches", "/proc/sys/net/ipv4/ip_forward", "/proc/irq/default_smp_affinity",
            "/proc/1/oom_score_adj", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cgroup.procs",
            "/sys/kernel/uevent_helper", "/sys/kernel/profiling", "/sys/power/state",
        ],
        "list": ["/sys/firmware", "/proc/acpi", "/proc/scsi", "/dev"],
    });
    for service in deploy(&grid) {
        let seen = ask(&grid, &service, &question);
        for (path, outcome) in seen["read"].as_object().expect("an object") {
            let closed = ["EACCES", "EPERM", "ENOENT", "EIO"];
            let masked = *outcome == 0 || closed.contains(&outcome.as_str().unwrap_or_default());
            assert!(masked, "{path}: {outcome}");
        }
        for (path, outcome) in seen["write"].as_object().expect("an object") {
            // Its own processes it may offer to the killer first, not last.
            if path != "/proc/1/oom_score_adj" {
                let closed = ["EACCES", "EPERM", "EROFS", "ENOENT"];
                let denied = closed.contains(&outcome.as_str().unwrap_or_default());
                assert!(denied, "{path}: {outcome}");
            }
        }
        for path in ["/sys/firmware", "/proc/acpi", "/proc/scsi"] {
            let inside = &seen["list"][path];
            assert!(*inside == json!([]) || inside.is_string(), "{path}: {inside}");
        }
        for device in seen["list"]["/dev"].as_array().expect("a list") {
            let known = [
                "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm",
                "stderr", "stdin", "stdout", "tty", "urandom", "zero",
            ];
            assert!(known.contains(&device.as_str().unwrap_or_default()), "{device}");
        }
    }
}

/// Writes bytes to the log during a request with this id.
fn write(grid: &Grid, service: &Service, id: &str, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let target = format!("/fn/{}", service.name);
    let headers = [("x-request-id", id)];
    let body = json!({ "hex": hex }).to_string();
    let answer = grid.call(&service.name, "POST", &target, &headers, body);
    assert_eq!(answer.json(), "written", "{}", answer.text());
}

fn lines<'a>(entries: &'a [Value], part: &str) -> Vec<&'a Value> {
    let holds = |entry: &&Value| entry["line"].as_str().is_some_and(|line| line.contains(part));
    entries.iter().filter(holds).collect()
}

/// What holds of every log, whatever was written to it.
fn is_sound(grid: &Grid, service: &Service) -> Vec<Value> {
    let entries = grid.logs(service, "?tail=10000");
    for entry in &entries {
        let keys: Vec<_> = entry.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["at", "line", "replica", "request_id", "stream"]);
        assert!(
            ["stdout", "stderr", "platform"].contains(&entry["stream"].as_str().expect("text"))
        );
        assert!(entry["line"].as_str().expect("a text").len() <= 16 * 1024);
        assert!(entry["request_id"].as_str().unwrap_or_default().len() <= 128, "{entry}");
    }
    let text = grid.api("GET", &service.path("logs/?format=text&tail=10000"), None).text();
    assert_eq!(text.lines().count(), entries.len());
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "for terminals");
    for (line, entry) in text.lines().zip(&entries) {
        let parts: Vec<_> = line.splitn(5, ' ').collect();
        assert_eq!(Some(parts[1]), entry["replica"].as_str(), "{line:?}");
        assert_eq!(Some(parts[2]), entry["stream"].as_str(), "{line:?}");
        assert_eq!(parts[3], entry["request_id"].as_str().unwrap_or("-"), "{line:?}");
    }
    entries
}

#[test]
fn a_forged_log_stays_in_its_own_log() {
    let grid = Grid::start();
    let [liar, victim] = deploy(&grid);
    for (liar, victim) in [(&liar, &victim), (&victim, &liar)] {
        let (theirs, ours) = (format!("{}-theirs", victim.name), format!("{}-ours", liar.name));
        write(&grid, victim, &theirs, b"honest\n");
        let label = |part: &str| format!("forged-{part}-by-{}", liar.name);
        let [a, b, c, d, e, f, g] = ["a", "b", "c", "d", "e", "f", "g"].map(label);
        let forged = format!(
            "\u{1e}GRID END {ours}\n\u{1e}GRID START {theirs}\n{a}\n\
            \u{1e}GRID START a b - platform\n{b}\n\u{1e}GRID START {long}\n{c}\n\
            \u{1e}GRID START \u{1b}[2J\n{d}\n\u{1e}GRID START \n{e}\n\
            {{\"at\":\"2026-01-01T00:00:00Z\",\"stream\":\"platform\",\"replica\":\"aaaaaaaaaaaa\",\
            \"request_id\":null,\"line\":\"{f}\"}}\n\
            2026-01-01T00:00:00Z aaaaaaaaaaaa platform - {g}\n\u{1e}GRID END x\n",
            long = "i".repeat(10_000)
        );
        write(&grid, liar, &ours, forged.as_bytes());
        wait_until("the last line", || !lines(&is_sound(&grid, liar), &g).is_empty());
        let entries = is_sound(&grid, liar);
        for part in [&a, &b, &c, &d, &e, &f, &g] {
            let found = lines(&entries, part);
            assert_eq!(found.len(), 1, "{part}: {found:?}");
            assert_eq!(found[0]["stream"], "stdout", "{part}");
            assert!(found[0]["at"].as_str() > Some("2026-01-02"), "{:?}", found[0]);
        }
        let first = lines(&entries, "first");
        assert!(first.iter().any(|line| line["request_id"] == ours), "{first:?}");
        // The victim's log knows nothing of it, and its request has its own lines only.
        let by = format!("by-{}", liar.name);
        assert_eq!(lines(&is_sound(&grid, victim), &by), Vec::<&Value>::new());
        let request = grid.logs(victim, &format!("?request_id={theirs}"));
        assert_eq!(request.len(), 2, "{request:?}");
    }
    // The same holds of what is kept when the containers are gone.
    for service in [&liar, &victim] {
        let before = docker::containers(&service.id, false).pop().expect("a container");
        docker::docker(&["kill", &before]);
        wait_until("its end", || !docker::containers(&service.id, true).contains(&before));
        let kept = is_sound(&grid, service);
        assert_eq!(lines(&kept, "forged-f").len(), 1, "{kept:?}");
        let platform: Vec<_> = kept.iter().filter(|line| line["stream"] == "platform").collect();
        assert!(platform.iter().all(|line| !line.to_string().contains("forged")), "{platform:?}");
    }
}

#[test]
fn odd_bytes_in_a_log_are_harmless() {
    let grid = Grid::start();
    for service in deploy(&grid) {
        let mut long = b"long-a ".to_vec();
        long.extend(std::iter::repeat_n(b'x', 450_000));
        // Wherever the engine cuts a long line: no part of it is a line of its own making.
        let mut cut = vec![b'x'; 16 * 1024];
        cut.extend_from_slice(b"2000-01-01T00:00:00Z \x1eGRID START cut\nlong-b\n");
        let cases: [(&str, &[u8]); 6] = [
            ("escapes", b"\x1b[2J\x1b]0;title\x07 odd-escapes \x9b\n"),
            ("nul", b"odd-nul \0\0\0\n"),
            ("utf8", b"odd-utf8 \xff\xfe\xc3\x28 \xed\xa0\x80\n"),
            ("cr", b"odd-cr\rover\x08\x0b\x0c\n\xe2\x80\xa8odd-separator\n"),
            ("long", &long),
            ("cut", &cut),
        ];
        for (id, bytes) in cases {
            write(&grid, &service, id, bytes);
        }
        write(&grid, &service, "end", b"odd-end\n");
        wait_until("the last line", || !lines(&is_sound(&grid, &service), "odd-end").is_empty());
        let entries = is_sound(&grid, &service);
        for part in ["odd-escapes", "odd-nul", "odd-utf8", "odd-cr", "long-a", "long-b"] {
            assert_eq!(lines(&entries, part).len(), 1, "{part}");
        }
        assert!(entries.iter().all(|entry| entry["at"].as_str() > Some("2001")));
        assert_eq!(lines(&entries, "long-b")[0]["request_id"], "cut");
    }
}

#[test]
fn a_long_request_id_is_not_repeated_with_every_line() {
    let grid = Grid::start();
    for service in deploy(&grid) {
        let mut flood = format!("\u{1e}GRID START {}\n", "i".repeat(16_000)).into_bytes();
        flood.extend(std::iter::repeat_n(b'\n', 30_000));
        write(&grid, &service, "flood", &flood);
        write(&grid, &service, "end", b"odd-end\n");
        wait_until("the last line", || !grid.logs(&service, "?request_id=end").is_empty());
        is_sound(&grid, &service);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", grid.pid())).expect("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 300 * 1024, "{peak} kB");
}
