//! How many containers there are: none when idle, `min_replicas` always, replaced when they die.

use serde_json::{Value, json};

use crate::{
    docker,
    grid::{Grid, Service, wait_until},
    http::Answer,
};

const NODE: &str = "exports.handler = async () => 'awake'";
const PYTHON: &str = "def handler(event, context):\n    return 'awake'\n";

fn running(service: &Service) -> usize {
    docker::containers(&service.id, false).len()
}

/// Milliseconds that an answer waited for a replica to start.
fn wake(answer: &Answer) -> f64 {
    let timing = answer.header("server-timing").expect("timings");
    let part = timing.split("wake;dur=").nth(1).and_then(|rest| rest.split(',').next());
    part.and_then(|ms| ms.parse().ok()).expect("a time")
}

#[test]
fn an_idle_function_sleeps_and_wakes() {
    let grid = Grid::with(&[("GRID_IDLE_SECONDS", "1")]);
    for (name, runtime, code) in [("nap-n", "node18", NODE), ("nap-p", "python3.9", PYTHON)] {
        let service = grid.create(name, runtime, code, json!({}));
        for _ in 0..2 {
            wait_until("sleep", || docker::containers(&service.id, true).is_empty());
            let answer = grid.get(name, "");
            assert_eq!((answer.status, answer.json()), (200, json!("awake")));
            assert!(wake(&answer) > 0.0, "{answer:?}");
        }
        assert!(docker::images(&service.id).len() == 1, "its image stays");
        let record = grid.api("GET", &service.path(""), None).json();
        assert_eq!(record["status"], "live");
    }
}

#[test]
fn the_least_number_of_replicas_is_kept() {
    let grid = Grid::with(&[("GRID_IDLE_SECONDS", "1")]);
    let service =
        grid.create("keep", "node18", NODE, json!({"min_replicas": 2, "max_replicas": 3}));
    // One that is killed while it loads is a start that failed, which is another story.
    let ready = || {
        let record = grid.api("GET", &service.path(""), None).json();
        let replicas = record["replicas"].as_array().cloned().unwrap_or_default();
        let loaded = |state: &Value| state == "ready" || state == "idle";
        replicas.iter().filter(|replica| loaded(&replica["state"])).count()
    };
    wait_until("two replicas", || ready() == 2);
    assert_eq!(wake(&grid.get("keep", "")), 0.0, "nobody waits");

    for how in [&["kill"][..], &["rm", "-f"]] {
        let victim = docker::containers(&service.id, false).remove(0);
        docker::docker(&[how, &[&victim]].concat());
        assert_eq!(grid.get("keep", "").json(), "awake", "after docker {how:?}");
        wait_until("its replacement", || {
            let now = docker::containers(&service.id, false);
            now.len() == 2 && !now.contains(&victim) && ready() == 2
        });
    }
    // Both at once.
    let victims = docker::containers(&service.id, false);
    docker::docker(&["kill", &victims[0], &victims[1]]);
    assert_eq!(grid.get("keep", "").json(), "awake");
    wait_until("two new ones", || {
        let now = docker::containers(&service.id, false);
        now.len() == 2 && now.iter().all(|id| !victims.contains(id))
    });

    grid.patch(&service, &json!({"min_replicas": 0}));
    wait_until("sleep", || docker::containers(&service.id, true).is_empty());
    grid.patch(&service, &json!({"min_replicas": 1}));
    wait_until("one replica", || running(&service) == 1);
}

#[test]
fn a_killed_container_is_replaced_when_it_is_needed() {
    let grid = Grid::start();
    for (name, runtime, code) in [("kill-n", "node18", NODE), ("kill-p", "python3.9", PYTHON)] {
        let service = grid.create(name, runtime, code, json!({}));
        for _ in 0..3 {
            assert_eq!(grid.get(name, "").json(), "awake");
            let container = docker::containers(&service.id, false).pop().expect("a container");
            docker::docker(&["kill", &container]);
            assert_eq!(grid.get(name, "").json(), "awake");
            assert!(!docker::containers(&service.id, false).contains(&container));
        }
        let logs = grid.logs(&service, "");
        let ended = |line: &&serde_json::Value| {
            line["line"].as_str().is_some_and(|line| line.contains("killed (status 137)"))
        };
        assert_eq!(logs.iter().filter(ended).count(), 3, "{logs:?}");
    }
}

#[test]
fn who_works_longer_than_the_idle_time_is_not_idle() {
    let grid = Grid::with(&[("GRID_IDLE_SECONDS", "1")]);
    let code =
        "exports.handler = () => new Promise((done) => setTimeout(() => done('worked'), 3500))";
    let service = grid.create("work", "node18", code, json!({}));
    assert_eq!(grid.get("work", "").json(), "worked");
    wait_until("sleep", || docker::containers(&service.id, true).is_empty());
}

#[test]
fn the_host_has_a_ceiling() {
    let grid = Grid::with(&[
        ("GRID_MAX_REPLICAS", "2"),
        ("GRID_QUEUE_SECONDS", "2"),
        ("GRID_IDLE_SECONDS", "1"),
    ]);
    let keep = json!({"min_replicas": 1});
    grid.create("one", "node18", NODE, keep.clone());
    grid.create("two", "node18", NODE, keep);
    let third = grid.try_create("three", "node18", NODE, json!({}));
    assert_eq!(third.deployment["phase"], "failed", "{}", third.deployment);
    let error = third.deployment["error"].as_str().expect("an error");
    assert!(error.contains("GRID_MAX_REPLICAS"), "{error}");
    assert_eq!(grid.get("one", "").json(), "awake");
    assert_eq!(grid.get("two", "").json(), "awake");
}
