//! Deployments that fail: the old version keeps serving, and the deployment says what is wrong.

use std::thread;

use serde_json::{Value, json};

use crate::{
    docker,
    grid::{Grid, Service, wait_until},
    process::short_dir,
};

const GOOD_NODE: &str = "exports.handler = async () => 'v1'";
const GOOD_PYTHON: &str = "def handler(event, context):\n    return 'v1'\n";

/// Code that does not deploy, and what its author must be told.
const BAD_NODE: [(&str, &[&str]); 5] = [
    ("exports.handler = async () => {", &["SyntaxError", "index.js"]),
    ("exports.other = async () => 1", &["handler"]),
    ("exports.handler = 'not a function'", &["handler"]),
    ("null.property; exports.handler = () => 1", &["TypeError", "property"]),
    ("process.exit(7)", &["ended while it loaded"]),
];
const BAD_PYTHON: [(&str, &[&str]); 5] = [
    ("def handler(event, context)\n    return 1\n", &["SyntaxError", "line 1"]),
    ("def other(event, context):\n    return 1\n", &["handler"]),
    ("handler = 'not a function'\n", &["handler"]),
    ("import nothing_of_that_name\n", &["ModuleNotFoundError", "nothing_of_that_name"]),
    ("import os\nos._exit(7)\n", &["ended while it loaded"]),
];

fn fails(grid: &Grid, service: &Service, code: &str, told: &[&str]) -> Value {
    let deployment = grid.patch(service, &json!({"function_code": code}));
    assert_eq!(deployment["phase"], "failed", "{code}: {deployment}");
    let error = deployment["error"].as_str().expect("an error");
    for part in told {
        assert!(error.contains(part), "{code}: {error}");
    }
    assert_eq!(grid.get(&service.name, "").json(), "v1", "after {code}");
    deployment
}

#[test]
fn a_candidate_that_fails_leaves_the_old_version_serving() {
    let grid = Grid::start();
    thread::scope(|scope| {
        for (name, runtime, good, bad) in [
            ("fail-n", "node18", GOOD_NODE, BAD_NODE),
            ("fail-p", "python3.9", GOOD_PYTHON, BAD_PYTHON),
        ] {
            let grid = &grid;
            scope.spawn(move || {
                let service = grid.create(name, runtime, good, json!({}));
                let live = service.deployment["id"].clone();
                for (code, told) in bad {
                    let deployment = fails(grid, &service, code, told);
                    let phases = deployment["phases"].as_array().expect("a list");
                    let last = phases.iter().rev().map(|entry| entry["phase"].as_str()).nth(1);
                    assert_eq!(last, Some(Some("health_checking")), "{deployment}");
                }
                let record = grid.api("GET", &service.path(""), None).json();
                assert_eq!(record["live_deployment"], live);
                assert_eq!(record["status"], "live");
                assert_eq!(record["latest_deployment_phase"], "failed");
                wait_until("one container", || docker::containers(&service.id, true).len() == 1);
                wait_until("two images at most", || docker::images(&service.id).len() <= 2);
                assert_eq!(
                    grid.patch(&service, &json!({"function_code": format!("{good}\n")}))["phase"],
                    "live"
                );
            });
        }
    });
}

#[test]
fn a_module_that_hangs_while_it_loads_is_given_up() {
    let grid = Grid::start();
    thread::scope(|scope| {
        for (name, runtime, good, bad) in [
            ("hang-n", "node18", GOOD_NODE, "for (;;);"),
            ("hang-p", "python3.9", GOOD_PYTHON, "while True: pass\n"),
        ] {
            let grid = &grid;
            scope.spawn(move || {
                let service = grid.create(name, runtime, good, json!({}));
                fails(grid, &service, bad, &["did not finish loading"]);
                wait_until("one container", || docker::containers(&service.id, true).len() == 1);
            });
        }
    });
}

#[test]
fn a_function_that_was_never_live_says_so_at_once() {
    // So long that a request which only waits for a replica would outlast the client's patience.
    let grid = Grid::with(&[("GRID_QUEUE_SECONDS", "300")]);
    let service = grid.try_create("never", "node18", "syntax error", json!({"min_replicas": 1}));
    assert_eq!(service.deployment["phase"], "failed");
    let record = grid.api("GET", &service.path(""), None).json();
    assert_eq!((&record["status"], &record["live_deployment"]), (&json!("failed"), &Value::Null));
    let answer = grid.get("never", "");
    assert_eq!(answer.status, 503, "{}", answer.text());
    answer.code();
    assert!(!answer.text().contains("SyntaxError"), "not for the public: {}", answer.text());

    assert_eq!(grid.patch(&service, &json!({"function_code": GOOD_NODE}))["phase"], "live");
    wait_until("an answer", || grid.get("never", "").status == 200);
}

#[test]
fn code_that_loads_no_more_backs_off_and_keeps_its_secrets() {
    let grid = Grid::with(&[("GRID_QUEUE_SECONDS", "40"), ("GRID_IDLE_SECONDS", "1")]);
    let service = grid.create("loop", "node18", GOOD_NODE, json!({}));
    wait_until("sleep", || docker::containers(&service.id, true).is_empty());
    // From now on the same image holds code that does not load.
    let image = &docker::inspect(&docker::images(&service.id)[0])["RepoTags"][0];
    let image = image.as_str().expect("a tag");
    let dir = short_dir();
    std::fs::write(dir.path().join("index.js"), "throw new Error('secret-detail')")
        .expect("written");
    let dockerfile = format!("FROM {image}\nCOPY index.js /app/function/index.js\n");
    std::fs::write(dir.path().join("Dockerfile"), dockerfile).expect("written");
    docker::docker(&["build", "-q", "-t", image, dir.path().to_str().expect("UTF-8")]);

    let answer = grid.get("loop", "");
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    assert!(!answer.text().contains("secret-detail"), "not for the public: {}", answer.text());
    let record = grid.api("GET", &service.path(""), None).json();
    assert_eq!(record["status"], "failing", "{record}");
    let logs = grid.logs(&service, "");
    let in_log =
        |line: &Value| line["line"].as_str().is_some_and(|line| line.contains("secret-detail"));
    assert!(logs.iter().any(in_log), "for the owner: {logs:?}");
    let good = format!("{GOOD_NODE};");
    assert_eq!(grid.patch(&service, &json!({"function_code": good}))["phase"], "live");
    wait_until("a good answer", || grid.get("loop", "").status == 200);
}
