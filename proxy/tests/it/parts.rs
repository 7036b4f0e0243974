//! Edge and control in two processes over a Redis, when one of the three is away.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    grid::{Grid, Service, wait_until},
    http::Connection,
    process::short_dir,
    relay::Relay,
};

const CODE: &str = "exports.handler = async () => 'one';";
const NEXT: &str = "exports.handler = async () => 'two';";

fn code(code: &str) -> Value {
    json!({"function_code": code})
}

/// What `/readyz` of control says of the store.
fn says_of_store(grid: &Grid) -> String {
    let answer =
        Connection::open(grid.admin).request("GET", "/readyz", &[("host", "localhost")], b"");
    answer.json()["checks"]["store"].as_str().expect("a check").to_owned()
}

/// Everything that takes the store is refused, and told apart from what is not there.
fn changes_nothing(grid: &Grid, service: &Service) {
    for (method, path, body) in [
        ("PATCH", service.path(""), Some(code(NEXT))),
        ("GET", service.path(""), None),
        ("GET", "/api/v1/services/".to_owned(), None),
        ("DELETE", service.path(""), None),
    ] {
        let answer = grid.api(method, &path, body.as_ref());
        assert_eq!(answer.status, 503, "{method} {path}: {}", answer.text());
        assert!(answer.header("retry-after").is_some(), "{method} {path}");
    }
}

#[test]
fn while_redis_is_away_ready_functions_answer_and_nothing_is_lost() {
    let mut grid = Grid::in_parts(&[("GRID_IDLE_SECONDS", "1")]);
    let awake = grid.create("awake", "node18", CODE, json!({"min_replicas": 1}));
    let asleep = grid.create("asleep", "node18", CODE, json!({"min_replicas": 0}));
    wait_until("sleep", || {
        let record = grid.api("GET", &asleep.path(""), None).json();
        record["replicas"].as_array().is_some_and(Vec::is_empty)
    });
    // Killed, then one that does not answer.
    for paused in [false, true] {
        match paused {
            true => grid.redis().signal("STOP"),
            false => grid.redis().kill9(),
        }
        wait_until("word of it", || says_of_store(&grid) != "ok");
        for _ in 0..20 {
            let answer = grid.get("awake", "");
            assert_eq!((answer.status, answer.text().as_str()), (200, "\"one\""));
        }
        changes_nothing(&grid, &awake);
        match paused {
            true => grid.redis().signal("CONT"),
            false => grid.redis().start_again(),
        }
        wait_until("the store", || says_of_store(&grid) == "ok");
        let woken = grid.get("asleep", "");
        assert_eq!((woken.status, woken.text().as_str()), (200, "\"one\""));
    }
    assert_eq!(grid.patch(&awake, &code(NEXT))["phase"], "live");
    wait_until("the new code", || grid.get("awake", "").text() == "\"two\"");
}

#[test]
fn who_waits_for_a_function_to_wake_while_control_starts_again_is_served() {
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    let mut grid = Grid::in_parts(&[("DOCKER_HOST", &relay.host()), ("GRID_IDLE_SECONDS", "1")]);
    let asleep = grid.create("asleep", "node18", CODE, json!({"min_replicas": 0}));
    wait_until("sleep", || {
        let record = grid.api("GET", &asleep.path(""), None).json();
        record["replicas"].as_array().is_some_and(Vec::is_empty)
    });
    grid.kill9_part("control");
    // So that it takes seconds until control has heard of it; and each call tells control of the demand.
    relay.slow(Duration::from_secs(1));
    let call = |number: u32| {
        let mut line = grid.connect();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(200) * number);
            line.request("GET", "/fn/asleep", &[("host", "asleep.localhost")], b"")
        })
    };
    let calls: Vec<_> = (0..20).map(call).collect();
    grid.start_part("control");
    relay.slow(Duration::ZERO);
    for call in calls {
        let answer = call.join().expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "\"one\""));
    }
}

#[test]
fn an_emptied_redis_is_not_taken_for_no_services() {
    let mut grid = Grid::in_parts(&[]);
    let service = grid.create("kept", "node18", CODE, json!({"min_replicas": 1}));
    assert_eq!(grid.redis().command("FLUSHALL"), "+OK");
    wait_until("word of it", || says_of_store(&grid).contains("has lost the state of this Grid"));
    changes_nothing(&grid, &service);
    thread::sleep(Duration::from_secs(1)); // whoever took it for a deletion would act by now
    let answer = grid.get("kept", "");
    assert_eq!((answer.status, answer.text().as_str()), (200, "\"one\""));
}

#[test]
fn each_part_is_killed_in_the_middle_of_a_deployment_and_the_other_goes_on() {
    let mut grid = Grid::in_parts(&[]);
    let service = grid.create("part", "node18", CODE, json!({"min_replicas": 1}));
    for (round, role) in ["control", "edge", "control", "edge"].into_iter().enumerate() {
        let text = format!("{round} {role}");
        let change = code(&format!("exports.handler = async () => '{text}';"));
        let answer = grid.api("PATCH", &service.path(""), Some(&change));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let deployment = answer.json()["deployment"]["id"].as_str().expect("an id").to_owned();
        thread::sleep(Duration::from_millis(150 * round as u64));
        grid.kill9_part(role);
        if role == "control" {
            assert_eq!(grid.get("part", "").status, 200, "the edge serves alone");
        }
        grid.start_part(role);
        assert_eq!(grid.settled(&service.id, &deployment)["phase"], "live");
        wait_until("the new code", || grid.get("part", "").text() == format!("\"{text}\""));
    }
}
