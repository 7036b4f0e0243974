//! Nothing of an invocation stays: whoever leaves first, the caller, Grid or the engine.

use std::{thread, time::Instant};

use serde_json::json;

use super::{invoke, invoke_code, sandboxes, wait_until_gone};
use crate::{
    docker,
    grid::{Grid, PATIENCE, Service, TOKEN, wait_until},
    http::Connection,
    process::short_dir,
    relay::Relay,
};

const SLOW: &str = "exports.handler = () => new Promise((done) => { \
    console.log('begins'); setTimeout(done, 20000); })";

fn slow(grid: &Grid, name: &str) -> Service {
    grid.create(name, "node18", SLOW, json!({"max_replicas": 1}))
}

/// Begins an invocation, and gives its connection as soon as the function runs.
fn begin(grid: &Grid, service: &Service) -> Connection {
    let mut connection = Connection::open(grid.admin);
    let path = service.path("invoke/");
    connection.send(format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Token {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    ));
    wait_until("the function to run", || {
        let logs = |id: &String| docker::try_docker(&["logs", id]).unwrap_or_default();
        sandboxes(service).first().is_some_and(|id| logs(id).contains("begins"))
    });
    connection
}

#[test]
fn a_caller_who_leaves_leaves_nothing_behind() {
    let grid = Grid::start();
    let service = slow(&grid, "leaves");
    let connection = begin(&grid, &service);
    let before = Instant::now();
    drop(connection);
    wait_until_gone(&grid, &service);
    assert!(before.elapsed() < PATIENCE / 4, "not when its time was over");
}

#[test]
fn no_more_run_at_a_time_than_may() {
    let grid = Grid::with(&[("GRID_INVOKE_CONCURRENCY", "1")]);
    let service = slow(&grid, "crowd");
    let connection = begin(&grid, &service);
    let answer = grid.api("POST", &service.path("invoke/"), Some(&json!({})));
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    let detail = answer.json()["detail"].as_str().expect("a text").to_owned();
    assert!(detail.starts_with("As many functions"), "{detail}");
    assert_eq!(sandboxes(&service).len(), 1);
    // Who waits for a short time gets a place.
    thread::scope(|scope| {
        let waits = scope.spawn(|| invoke_code(&grid, &service, "exports.handler = () => 'next'"));
        drop(connection);
        assert_eq!(waits.join().expect("a report")["body"], "\"next\"");
    });
    // Calls of the public have nothing to do with it.
    wait_until_gone(&grid, &service);
}

#[test]
fn what_was_left_by_a_crash_is_removed_at_the_next_start() {
    let mut grid = Grid::start();
    let service = slow(&grid, "crash");
    let connection = begin(&grid, &service);
    grid.kill9();
    drop(connection);
    assert_eq!(sandboxes(&service).len(), 1, "nobody was left to remove it");
    grid.restart();
    wait_until_gone(&grid, &service);
    let record = grid.api("GET", &service.path(""), None).json();
    assert_eq!(record["status"], "live", "{record}");
    let report = invoke_code(&grid, &service, "exports.handler = () => 'again'");
    assert_eq!(report["body"], "\"again\"", "{report}");
}

#[test]
fn a_stop_waits_for_an_invocation_but_not_for_long() {
    let mut grid = Grid::start();
    let service = slow(&grid, "stops");
    let mut connection = begin(&grid, &service);
    grid.stop();
    let answer = connection.answer();
    assert_eq!(answer.status, 503, "{}", answer.text());
    let detail = answer.json()["detail"].as_str().expect("a text").to_owned();
    assert!(detail.contains("stopped or replaced"), "{detail}");
    assert_eq!(sandboxes(&service), Vec::<String>::new());
}

#[test]
fn an_engine_that_goes_away_is_cleaned_up_when_it_is_back() {
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    let grid = Grid::with(&[("DOCKER_HOST", &relay.host()), ("FUNCTION_TIMEOUT_SECONDS", "5")]);
    let service = slow(&grid, "away");
    let mut connection = begin(&grid, &service);
    relay.cut();
    let answer = connection.answer();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(sandboxes(&service).len(), 1);
    relay.mend();
    wait_until_gone(&grid, &service);
    let report =
        invoke(&grid, &service, &json!({"function_code": "exports.handler = () => 'back'"}));
    assert_eq!(report["body"], "\"back\"", "{report}");
}
