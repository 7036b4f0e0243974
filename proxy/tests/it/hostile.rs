//! Functions that exit, hang, fork, hoard or flood: the answer is honest, the container goes, the
//! next answer is good, and the host keeps its memory and its disk.

use serde_json::{Value, json};

use crate::{
    docker,
    grid::{Grid, Service, wait_until},
};

const NODE: &str = r#"
const {spawn} = require("child_process");
exports.handler = async (event) => {
  switch (event.path) {
    case "/exit": process.exit(3);
    case "/abort": process.abort();
    case "/block": for (;;);
    case "/never": return new Promise(() => {});
    case "/fork": for (;;) spawn("/bin/sh", ["-c", "f() { f | f & }; f; sleep 600"]).on("error", () => {});
    case "/hoard": { const all = []; for (;;) all.push(Buffer.alloc(4 << 20, 1)); }
    case "/flood": {
      const line = Buffer.from("x".repeat(1023) + "\n");
      const fs = require("fs");
      const write = (b) => { while (b.length) try { b = b.subarray(fs.writeSync(1, b)); } catch (e) { if (e.code !== "EAGAIN") throw e; } };
      for (let i = 0; i < 100 * 1024; i++) write(line);
      return "flooded";
    }
  }
  return "good";
};"#;

const PYTHON: &str = r#"
import asyncio, os, sys
def handler(event, context):
    path = event["path"]
    if path == "/exit": os._exit(3)
    if path == "/abort": os.abort()
    if path == "/block":
        while True: pass
    if path == "/never": return asyncio.Event().wait()
    if path == "/fork":
        while True:
            try: os.fork()
            except OSError: pass
    if path == "/hoard":
        everything = []
        while True: everything.append(b"x" * (4 << 20))
    if path == "/flood":
        line = "x" * 1023 + "\n"
        for _ in range(100 * 1024): sys.stdout.write(line)
        return "flooded"
    return "good"
"#;

const RUNTIMES: [(&str, &str); 2] = [("node18", NODE), ("python3.9", PYTHON)];

fn deploy(grid: &Grid, runtime: &str, code: &str) -> Service {
    let name = if runtime == "node18" { "hostile-n" } else { "hostile-p" };
    grid.create(name, runtime, code, json!({"max_replicas": 1}))
}

/// Calls a path that ends its container; then everything must be as before.
fn survives(grid: &Grid, service: &Service, path: &str, outcomes: &[(u16, &str)]) {
    let name = service.name.as_str();
    assert_eq!(grid.get(name, "").json(), "good");
    let before = docker::containers(&service.id, false);
    assert_eq!(before.len(), 1);
    let answer = grid.get(name, path);
    let outcome = (answer.status, answer.code());
    let allowed = outcomes.iter().any(|(status, code)| (*status, *code) == (outcome.0, &outcome.1));
    assert!(allowed, "{name}{path}: {outcome:?}");
    assert_eq!(grid.get(name, "").json(), "good", "after {path}");
    wait_until("the end of the container", || {
        !docker::containers(&service.id, true).contains(&before[0])
    });
}

fn platform_lines(grid: &Grid, service: &Service) -> String {
    let lines = grid.logs(service, "?tail=10000");
    let platform = lines.iter().filter(|line| line["stream"] == "platform");
    platform.map(|line| line["line"].as_str().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_process_that_ends_is_replaced() {
    let grid = Grid::start();
    for (runtime, code) in RUNTIMES {
        let service = deploy(&grid, runtime, code);
        survives(&grid, &service, "/exit", &[(502, "function_crashed")]);
        survives(&grid, &service, "/abort", &[(502, "function_crashed")]);
        let said = platform_lines(&grid, &service);
        assert!(said.contains("status 3"), "{said}");
    }
}

#[test]
fn a_handler_that_never_returns_is_cut_off() {
    let grid = Grid::with(&[("FUNCTION_TIMEOUT_SECONDS", "2")]);
    for (runtime, code) in RUNTIMES {
        let service = deploy(&grid, runtime, code);
        survives(&grid, &service, "/block", &[(504, "timeout")]);
        survives(&grid, &service, "/never", &[(504, "timeout")]);
        let answer = grid.get(&service.name, "/never");
        assert_eq!(answer.json()["message"], "Execution timed out after 2s");
    }
}

#[test]
fn processes_and_memory_are_bounded() {
    let grid = Grid::with(&[("FUNCTION_TIMEOUT_SECONDS", "4")]);
    for (runtime, code) in RUNTIMES {
        let service = deploy(&grid, runtime, code);
        survives(
            &grid,
            &service,
            "/hoard",
            &[(502, "function_crashed"), (502, "function_error"), (504, "timeout")],
        );
        // Either the deadline comes first, or the processes outgrow the memory, or one of them
        // answers in the name of all and makes nonsense of it.
        let outcomes = [(504, "timeout"), (502, "function_crashed"), (502, "invalid_response")];
        survives(&grid, &service, "/fork", &outcomes);
    }
}

#[test]
fn an_allocation_without_end_is_named_in_the_log() {
    let grid = Grid::start();
    let service = deploy(&grid, "node18", NODE);
    survives(&grid, &service, "/hoard", &[(502, "function_crashed")]);
    wait_until("the reason in the log", || {
        platform_lines(&grid, &service).contains("used more memory than")
    });
}

#[test]
fn a_flood_of_output_costs_a_known_amount() {
    let grid = Grid::with(&[("FUNCTION_TIMEOUT_SECONDS", "60")]);
    for (runtime, code) in RUNTIMES {
        let service = deploy(&grid, runtime, code);
        let answer = grid.get(&service.name, "/flood");
        assert_eq!((answer.status, answer.json()), (200, json!("flooded")), "{runtime}");
        let container = docker::containers(&service.id, false).pop().expect("a container");
        let kept = docker::docker(&["logs", &container]).len();
        assert!((1..=4 << 20).contains(&kept), "{kept} bytes kept");
        let lines = grid.logs(&service, "?tail=10000");
        assert!((1..=10_000).contains(&lines.len()), "{} lines", lines.len());
        assert_eq!(grid.get(&service.name, "").json(), "good");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", grid.pid())).expect("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: Value = peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number").into();
    assert!(peak.as_u64() < Some(300 * 1024), "{peak} kB");
}
