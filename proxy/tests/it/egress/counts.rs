//! What was denied is counted for the service that tried, and told in its log, within bounds.

use std::thread;

use serde_json::{Value, json};

use super::Function;
use crate::grid::{Grid, wait_for, wait_until};

/// Connects `times` to each of `[host, port]`, one after the other; each must be refused.
const MANY: &str = r#"
import json, socket, sys
times, targets = json.load(sys.stdin)
refused = 0
for host, port in targets:
    for _ in range(times):
        with socket.socket() as s:
            s.settimeout(5)
            try: s.connect((host, port))
            except ConnectionRefusedError: refused += 1
print(refused)
"#;

fn count(denied: &Value) -> u64 {
    denied["count"].as_u64().expect("a count")
}

/// The record when it has counted so many.
fn counted(grid: &Grid, function: &Function, attempts: u64) -> Value {
    wait_for(&format!("{attempts} denied attempts"), || {
        let denied = function.denied(grid);
        assert!(count(&denied) <= attempts, "{denied}");
        (count(&denied) == attempts).then_some(denied)
    })
}

fn told(grid: &Grid, function: &Function) -> Vec<String> {
    let lines = grid.logs(&function.service, "?tail=1000");
    let ours = lines.iter().filter(|line| line["stream"] == "platform");
    let text = |line: &Value| line["line"].as_str().expect("text").to_owned();
    ours.map(text).filter(|line| line.starts_with("egress denied: ")).collect()
}

#[test]
fn denied_attempts_are_counted_and_logged() {
    let grid = Grid::start();
    let function = Function::python(&grid, "count-p");
    assert_eq!(function.denied(&grid), json!({"count": 0, "targets": []}));
    let done = function.run(&grid, MANY, &json!([3, [["10.20.30.50", 443]]]));
    assert_eq!(done, 3);
    let denied = counted(&grid, &function, 3);
    let target = &denied["targets"][0];
    assert_eq!(
        (&target["protocol"], &target["to"], &target["port"], &target["count"]),
        (&json!("tcp"), &json!("10.20.30.50"), &json!(443), &json!(3))
    );
    assert!(target["last_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{target}");
    let udp = super::probe::udp([192, 168, 250, 1], 514);
    function.attempts(&grid, std::slice::from_ref(&udp));
    let denied = counted(&grid, &function, 4);
    assert_eq!(denied["targets"].as_array().map(Vec::len), Some(2));
    wait_until("the lines", || {
        let lines = told(&grid, &function).join("\n");
        lines.contains("tcp 10.20.30.50:443") && lines.contains("udp 192.168.250.1:514")
    });
    // What the guard stops in the process is said by the function itself, and does not get here.
    let answer = function.fetch(&grid, "http://10.20.30.51/");
    assert_eq!(answer.status, 452);
    function.run(&grid, MANY, &json!([1, [["10.20.30.52", 80]]]));
    let denied = counted(&grid, &function, 5);
    assert!(!denied.to_string().contains("10.20.30.51"), "{denied}");
}

#[test]
fn a_flood_is_counted_in_bounded_space() {
    let grid = Grid::start();
    let function = Function::python(&grid, "flood-p");
    // Few enough for the set to hold them all: then nothing is lost.
    let targets: Vec<_> = (0..1000).map(|port| json!(["10.20.30.50", 1000 + port])).collect();
    assert_eq!(function.run(&grid, MANY, &json!([10, targets])), 10_000);
    let denied = counted(&grid, &function, 10_000);
    assert_eq!(denied["targets"].as_array().map(Vec::len), Some(32));
    // More than it holds: what it cannot hold is refused as well.
    let targets: Vec<_> = (0..10_000).map(|port| json!(["10.20.30.51", 1000 + port])).collect();
    assert_eq!(function.run(&grid, MANY, &json!([1, targets])), 10_000);
    wait_until("a full set", || {
        // Some places of the set stay empty.
        count(&function.denied(&grid)) >= 10_000 + 4000 - 1000
    });
    assert_eq!(function.run(&grid, MANY, &json!([1, [["10.20.30.50", 1000]]])), 1);
    let denied = function.denied(&grid);
    assert!(count(&denied) <= 20_001, "{denied}");
    assert_eq!(denied["targets"].as_array().map(Vec::len), Some(32));
    let lines = told(&grid, &function);
    // Twenty a minute, and this takes less than two.
    assert!((20..=60).contains(&lines.len()), "{}: {lines:?}", lines.len());
    assert!(lines.iter().any(|line| line.contains("not written here for a minute")), "{lines:?}");
}

#[test]
fn each_attempt_counts_for_the_service_that_made_it() {
    let grid = Grid::start();
    let (one, two) = (Function::python(&grid, "mine-p"), Function::python(&grid, "yours-p"));
    thread::scope(|scope| {
        for (function, host, times) in [(&one, "10.20.30.50", 700), (&two, "10.20.30.51", 300)] {
            let grid = &grid;
            scope.spawn(move || {
                let input = json!([times, [["192.0.2.9", 80], [host, 80]]]);
                assert_eq!(function.run(grid, MANY, &input), times * 2);
            });
        }
    });
    for (function, host, times) in [(&one, "10.20.30.50", 700), (&two, "10.20.30.51", 300)] {
        let denied = counted(&grid, function, times * 2);
        let mut seen: Vec<_> = denied["targets"].as_array().expect("a list").iter().collect();
        seen.sort_by_key(|target| target["to"].as_str());
        assert_eq!(
            seen.iter().map(|t| (&t["to"], &t["count"])).collect::<Vec<_>>(),
            [(&json!(host), &json!(times)), (&json!("192.0.2.9"), &json!(times))]
        );
    }
}
