//! Docker Engine that goes away and comes back, and images that somebody removed.

use serde_json::json;

use crate::{
    docker,
    grid::{Grid, wait_for, wait_until},
    http::Connection,
    process::short_dir,
    relay::Relay,
};

const CODE: &str = "exports.handler = async () => 'awake'";

fn ready(grid: &Grid) -> crate::http::Answer {
    Connection::open(grid.admin).request("GET", "/readyz", &[("host", "localhost")], b"")
}

#[test]
fn grid_outlasts_an_engine_that_goes_away() {
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    let grid = Grid::with(&[("DOCKER_HOST", &relay.host()), ("GRID_IDLE_SECONDS", "2")]);
    let sleeper = grid.create("sleeper", "node18", CODE, json!({}));
    let keeper = grid.create("keeper", "node18", CODE, json!({"min_replicas": 1}));
    wait_until("sleep", || docker::containers(&sleeper.id, true).is_empty());
    assert_eq!((ready(&grid).status, ready(&grid).json()["status"].clone()), (200, json!("ok")));
    let kept = docker::containers(&keeper.id, true);

    relay.cut();
    wait_until("the engine to be missed", || ready(&grid).status == 503);
    let report = ready(&grid);
    assert_eq!(report.json()["status"], "unavailable");
    let check = report.json()["checks"]["engine"].as_str().expect("a text").to_owned();
    assert!(check.contains("DOCKER_HOST"), "{check}");
    assert_eq!(report.json()["checks"]["store"], "ok");
    for _ in 0..2 {
        let answer = grid.get("sleeper", "");
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
        let wait = answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
        assert!(wait.is_some_and(|seconds| (1..=60).contains(&seconds)), "{answer:?}");
    }
    assert_eq!(grid.get("keeper", "").json(), "awake", "what runs goes on");
    // Changes are taken, and made when the engine is back.
    let change = json!({"function_code": "exports.handler = async () => 'v2'"});
    let answer = grid.api("PATCH", &sleeper.path(""), Some(&change));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let waiting = answer.json()["deployment"]["id"].as_str().expect("an id").to_owned();

    relay.mend();
    wait_until("the engine to be found again", || ready(&grid).status == 200);
    wait_until("an answer", || grid.get("sleeper", "").status == 200);
    assert_eq!(grid.settled(&sleeper.id, &waiting)["phase"], "live");
    wait_until("the change", || grid.get("sleeper", "").json() == "v2");
    assert_eq!(docker::containers(&keeper.id, true), kept, "nothing was started anew");

    // A death that nobody could report is found when the engine is back.
    relay.cut();
    docker::docker(&["kill", &kept[0]]);
    wait_until("the engine to be missed", || ready(&grid).status == 503);
    relay.mend();
    wait_until("a replacement", || {
        let now = docker::containers(&keeper.id, true);
        now.len() == 1 && now != kept
    });
    wait_until("an answer", || grid.get("keeper", "").status == 200);
}

#[test]
fn grid_waits_for_an_engine_that_is_not_there_yet() {
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    let mut grid = Grid::with(&[("DOCKER_HOST", &relay.host()), ("GRID_IDLE_SECONDS", "1")]);
    let service = grid.create("early", "node18", CODE, json!({}));
    grid.stop();
    relay.cut();
    // The ready line comes when a request would be served, so: after the engine.
    let mender = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        relay.mend();
        relay
    });
    grid.restart();
    assert_eq!(grid.get("early", "").json(), "awake");
    assert_eq!(docker::containers(&service.id, false).len(), 1);
    drop(mender.join());
}

#[test]
fn an_image_that_somebody_removed_is_built_again() {
    let grid = Grid::with(&[("GRID_IDLE_SECONDS", "1")]);
    let service = grid.create("bare", "node18", CODE, json!({}));
    wait_until("sleep", || docker::containers(&service.id, true).is_empty());
    for image in docker::images(&service.id) {
        docker::docker(&["rmi", "-f", &image]);
    }
    assert!(docker::images(&service.id).is_empty());
    let answer = grid.get("bare", "");
    assert_eq!((answer.status, answer.json()), (200, json!("awake")));
    assert_eq!(docker::images(&service.id).len(), 1);
}

/// Python, so that loading takes its time and no CPU.
const SLOW: &str = "import time\ntime.sleep(2)\ndef handler(event, context):\n    return 'one'";

#[test]
fn a_container_that_somebody_removes_while_it_loads_is_no_fault_of_the_code() {
    let grid = Grid::with(&[]);
    let service = grid.create("taken", "python3.9", SLOW, json!({"min_replicas": 1}));
    let kept = docker::containers(&service.id, true);
    let change = json!({"function_code": SLOW.replace("one", "two")});
    let answer = grid.api("PATCH", &service.path(""), Some(&change));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let deployment = answer.json()["deployment"]["id"].as_str().expect("an id").to_owned();
    let running = |but: &[String]| {
        let found = docker::containers(&service.id, false);
        found.into_iter().find(|container| !but.contains(container))
    };
    docker::docker(&["rm", "-f", &wait_for("a candidate", || running(&kept))]);
    let settled = grid.settled(&service.id, &deployment);
    assert_eq!(settled["phase"], "live", "{settled}");
    assert!(settled["log"].to_string().contains("Somebody removed the container"), "{settled}");

    wait_until("the old version's end", || docker::containers(&service.id, true).len() == 1);
    let mut gone = Vec::new();
    for _ in 0..4 {
        gone.push(wait_for("a replica that starts", || running(&gone)));
        docker::docker(&["rm", "-f", gone.last().expect("one")]);
    }
    let record = grid.api("GET", &service.path(""), None).json();
    assert_eq!((&record["status"], &record["problem"]), (&json!("live"), &json!(null)), "{record}");
    let answer = grid.get("taken", "");
    assert_eq!((answer.status, answer.json()), (200, json!("two")));
}
