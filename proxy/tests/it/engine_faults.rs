//! Docker Engine that hangs, is slow, loses answers, vanishes in the middle, or is full; and what
//! somebody removes behind Grid's back. No client gets a wrong answer, correct code goes live in the
//! end, and nothing is left over.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    docker,
    grid::{Grid, Service, wait_until},
    http::{Answer, Connection},
    process::short_dir,
    relay::{Fault, Relay},
};

/// What Docker Engine 20.10 said when its disk was full: while it took the build's context in (in a 500
/// answer), in a step of the build (in the stream of a 200 answer), and asked for a container.
const FULL_AT_ONCE: &str = r#"{"message":"Error processing tar file(exit status 1): write /Dockerfile: no space left on device"}"#;
const FULL_IN_A_STEP: &str = concat!(
    r#"{"stream":"Step 2/2 : COPY index.js /function/index.js"}"#,
    "\r\n",
    r#"{"errorDetail":{"message":"Error processing tar file(exit status 1): write /function/index.js: no space left on device"},"error":"Error processing tar file(exit status 1): write /function/index.js: no space left on device"}"#,
    "\r\n",
);
const FULL_FOR_A_CONTAINER: &str = r#"{"message":"write /var/lib/docker/overlay2/1aa5e843c561-init/link: no space left on device"}"#;
/// And of its containerd, when that was killed.
const NO_CONTAINERD: &str = r#"{"message":"connection error: desc = \"transport: Error while dialing dial unix /run/containerd/containerd.sock: connect: connection refused\": unavailable"}"#;

fn code(says: &str) -> String {
    format!("exports.handler = async () => '{says}'")
}

fn admin(grid: &Grid, path: &str) -> Answer {
    Connection::open(grid.admin).request("GET", path, &[("host", "localhost")], b"")
}

fn is_ready(grid: &Grid) -> bool {
    admin(grid, "/readyz").status == 200
}

/// What `/readyz` says of something, and what the metrics do.
fn told(grid: &Grid, what: &str) -> (Value, bool) {
    let check = admin(grid, "/readyz").json()["checks"][what].clone();
    let metrics = admin(grid, "/metrics").text();
    (check, metrics.contains(&format!("grid_dependency_up{{dependency=\"{what}\"}} 1")))
}

fn asleep(service: &Service) {
    wait_until("sleep", || docker::containers(&service.id, true).is_empty());
}

/// Nothing exists of a service but the replicas that Grid knows, in the end.
fn assert_nothing_leaked(grid: &Grid, service: &Service) {
    wait_until("nothing left over", || {
        let record = grid.api("GET", &service.path(""), None).json();
        let known = record["replicas"].as_array().map_or(0, Vec::len);
        docker::containers(&service.id, true).len() == known
    });
}

/// Begins to deploy other code; the deployment's id.
fn change(grid: &Grid, service: &Service, says: &str) -> String {
    let change = json!({"function_code": code(says)});
    let answer = grid.api("PATCH", &service.path(""), Some(&change));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["deployment"]["id"].as_str().expect("an id").to_owned()
}

fn assert_live(grid: &Grid, service: &Service, deployment: &str, says: &str) {
    let settled = grid.settled(&service.id, deployment);
    assert_eq!(settled["phase"], "live", "{says}: {settled}");
    let answer = grid.get(&service.name, "");
    assert_eq!((answer.status, answer.json()), (200, json!(says)));
}

#[test]
fn an_engine_that_hangs_is_noticed_and_goes_on_where_it_was() {
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    let grid = Grid::with(&[("DOCKER_HOST", &relay.host()), ("GRID_IDLE_SECONDS", "1")]);
    let sleeper = grid.create("sleeper", "node18", &code("v1"), json!({}));
    let keeper = grid.create("keeper", "node18", &code("kept"), json!({"min_replicas": 1}));
    asleep(&sleeper);
    let kept = docker::containers(&keeper.id, true);
    assert_eq!(told(&grid, "engine"), (json!("ok"), true));

    relay.hang(true);
    // It waits until it is known that nobody will start anything.
    let answer = grid.get("sleeper", "");
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    let (check, up) = told(&grid, "engine");
    assert!(check.as_str().is_some_and(|text| text.contains("no answer")) && !up, "{check}");
    assert_eq!(grid.get("keeper", "").json(), "kept", "what runs goes on");
    let waiting = change(&grid, &sleeper, "v2");

    relay.hang(false);
    assert_live(&grid, &sleeper, &waiting, "v2");
    wait_until("readiness", || is_ready(&grid));
    assert_eq!(told(&grid, "engine"), (json!("ok"), true));
    assert_eq!(docker::containers(&keeper.id, true), kept, "nothing was started anew");
    assert_nothing_leaked(&grid, &sleeper);
}

#[test]
fn an_engine_that_hangs_at_the_start_fails_no_deployment() {
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    relay.hang(true);
    let grid = Grid::unready(&[("DOCKER_HOST", &relay.host())]);
    wait_until("the engine to be missed", || {
        told(&grid, "engine").0.as_str().is_some_and(|text| text.contains("no answer"))
    });
    let create = json!({"name": "early", "deploy_type": "FUNCTION", "function_runtime": "node18",
        "function_code": code("early")});
    let created = grid.api("POST", "/api/v1/services/", Some(&create));
    assert_eq!(created.status, 201, "{}", created.text());
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let service = Service {
        id: text(&created.json()["id"]),
        name: "early".to_owned(),
        deployment: Value::Null,
    };

    relay.hang(false);
    assert_live(&grid, &service, &text(&created.json()["deployment"]["id"]), "early");
    wait_until("readiness", || is_ready(&grid));
}

#[test]
fn an_engine_that_is_slow_is_not_taken_for_one_that_is_away() {
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    let grid = Grid::with(&[("DOCKER_HOST", &relay.host()), ("GRID_IDLE_SECONDS", "1")]);
    let sleeper = grid.create("sleeper", "node18", &code("v1"), json!({}));
    let other = grid.create("other", "node18", &code("v1"), json!({}));
    asleep(&sleeper);
    relay.slow(Duration::from_secs(2));
    let deployment = change(&grid, &other, "v2");
    assert_eq!(grid.get("sleeper", "").json(), "v1");
    assert_live(&grid, &other, &deployment, "v2");
    assert!(is_ready(&grid));
    assert!(!grid.log().contains("does not answer"), "{}", grid.log());
    relay.slow(Duration::ZERO);
    assert_nothing_leaked(&grid, &sleeper);
    assert_nothing_leaked(&grid, &other);
}

#[test]
fn a_lost_answer_fails_no_deployment() {
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    let grid = Grid::with(&[("DOCKER_HOST", &relay.host()), ("GRID_IDLE_SECONDS", "1")]);
    let service = grid.create("lost", "node18", &code("v0"), json!({}));
    let steps = [
        ("/build?", Fault::LoseAnswer),
        ("/build?", Fault::Break(300)),
        ("/containers/create", Fault::LoseAnswer),
        ("/start", Fault::LoseAnswer),
        ("/start", Fault::Break(10)),
        ("/start", Fault::Answer("404 Not Found", r#"{"message":"network grid-x not found"}"#)),
        ("/start", Fault::Answer("500 Internal Server Error", NO_CONTAINERD)),
        ("/containers/grid- /json", Fault::LoseAnswer),
    ];
    for (turn, (step, fault)) in steps.into_iter().enumerate() {
        let says = format!("v{}", turn + 1);
        relay.once(step, fault);
        let deployment = change(&grid, &service, &says);
        assert_live(&grid, &service, &deployment, &says);
        assert!(relay.is_done(), "{step}: {fault:?}");
    }
    assert_nothing_leaked(&grid, &service);
}

#[test]
fn a_lost_answer_fails_no_wake_and_leaks_nothing_and_no_deployment_tries_for_ever() {
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    let grid = Grid::with(&[("DOCKER_HOST", &relay.host()), ("GRID_IDLE_SECONDS", "1")]);
    let unlucky = grid.create("unlucky", "node18", &code("v0"), json!({}));
    let builds = format!("/build? function-{}", unlucky.id);
    let before = relay.calls(&builds);
    relay.always(&builds, Fault::Answer("503 Service Unavailable", r#"{"message":"not now"}"#));
    let doomed = change(&grid, &unlucky, "v1");

    let service = grid.create("lost", "node18", &code("awake"), json!({}));
    let invoke = service.path("invoke/");
    for (step, fault) in [
        ("/containers/create", Fault::LoseAnswer),
        ("/start", Fault::LoseAnswer),
        ("/start", Fault::Break(10)),
        ("/containers/grid- /json", Fault::LoseAnswer),
        // Made when the removal has found nothing to remove.
        ("/containers/create", Fault::Late(Duration::from_millis(1500))),
    ] {
        relay.once(step, fault);
        let answer = grid.api("POST", &invoke, Some(&json!({})));
        match answer.status {
            200 => assert_eq!(answer.json()["body"], "\"awake\"", "{}", answer.text()),
            status => assert_eq!(status, 503, "{step}, {fault:?}: {}", answer.text()),
        }
        asleep(&service);
        relay.once(step, fault);
        let answer = grid.get("lost", "");
        assert_eq!((answer.status, answer.json()), (200, json!("awake")), "{step}: {fault:?}");
        // The container is inspected while it answers already.
        wait_until("the fault", || relay.is_done());
    }
    asleep(&service);

    // It does not go on for ever when the engine answers, but never does its part.
    let failed = grid.settled(&unlucky.id, &doomed);
    assert_eq!(failed["phase"], "failed", "{failed}");
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("not now")), "{failed}");
    assert!(failed.to_string().contains("interrupted, it will be run again"), "{failed}");
    assert_eq!(relay.calls(&builds) - before, 6);
    assert_eq!(grid.get("unlucky", "").json(), "v0");
}

#[test]
fn an_engine_that_vanishes_in_the_middle_of_a_step_takes_it_up_again() {
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    let grid = Grid::with(&[("DOCKER_HOST", &relay.host()), ("GRID_IDLE_SECONDS", "1")]);
    let service = grid.create("vanish", "node18", &code("v0"), json!({}));
    for (turn, words) in ["/build?", "/containers/create", "/start"].into_iter().enumerate() {
        let says = format!("v{}", turn + 1);
        relay.once(words, Fault::Vanish);
        let deployment = change(&grid, &service, &says);
        wait_until("the engine to be missed", || relay.is_done() && !is_ready(&grid));
        relay.mend();
        assert_live(&grid, &service, &deployment, &says);
        wait_until("readiness", || is_ready(&grid));
        let counts = admin(&grid, "/metrics").text();
        assert!(counts.contains("grid_deployments_total{outcome=\"failed\"} 0"), "{words}");

        if words == "/build?" {
            continue;
        }
        asleep(&service);
        relay.once(words, Fault::Vanish);
        let answer = thread::scope(|scope| {
            let answer = scope.spawn(|| grid.get("vanish", ""));
            wait_until("the engine to be missed", || relay.is_done() && !is_ready(&grid));
            relay.mend();
            answer.join().expect("an answer")
        });
        // Who was told to come again does.
        match answer.status {
            200 => assert_eq!(answer.json(), says.as_str()),
            status => assert_eq!((status, answer.code().as_str()), (503, "unavailable")),
        }
        wait_until("an answer", || grid.get("vanish", "").status == 200);
        assert_eq!(grid.get("vanish", "").json(), says.as_str());
    }
    asleep(&service);
}

/// Whether the function, which gives its parameter back, answered; everything else says so.
fn answered(grid: &Grid, n: &str) -> bool {
    let answer = grid.get("gone", &format!("?n={n}"));
    match answer.status {
        200 => assert_eq!(answer.json(), n),
        502 => assert_eq!(answer.code(), "function_crashed"),
        status => assert_eq!((status, answer.code().as_str()), (503, "unavailable")),
    }
    answer.status == 200
}

#[test]
fn what_is_removed_behind_its_back_is_made_again() {
    let grid = Grid::with(&[("GRID_IDLE_SECONDS", "60")]);
    let echo = "exports.handler = async (event) => { await new Promise((d) => setTimeout(d, 20)); \
        return event.queryStringParameters.n; }";
    let service = grid.create("gone", "node18", echo, json!({"max_replicas": 3}));
    let remove_containers = || {
        for container in docker::containers(&service.id, true) {
            drop(docker::try_docker(&["rm", "-f", &container]));
        }
    };
    thread::scope(|scope| {
        for client in 0..4 {
            let grid = &grid;
            scope.spawn(move || {
                for turn in 0..60 {
                    answered(grid, &format!("{client}-{turn}"));
                }
            });
        }
        for _ in 0..4 {
            remove_containers();
            thread::sleep(Duration::from_millis(300));
        }
    });
    wait_until("an answer", || answered(&grid, "1"));
    assert_nothing_leaked(&grid, &service);

    // Everything there is, and the network; then a wake.
    let network = grid.network().expect("a network");
    remove_containers();
    docker::docker(&["network", "rm", &network]);
    wait_until("an answer", || answered(&grid, "2"));
    wait_until("readiness", || is_ready(&grid));

    // The same, and a deployment.
    remove_containers();
    docker::docker(&["network", "rm", &network]);
    for image in docker::images(&service.id) {
        docker::docker(&["rmi", "-f", &image]);
    }
    let other = grid.patch(&service, &json!({"memory_mb": 192}));
    assert_eq!(other["phase"], "live", "{other}");
    wait_until("an answer", || answered(&grid, "3"));
    assert_nothing_leaked(&grid, &service);
}

#[test]
fn a_full_disk_fails_the_deployment_with_its_reason_and_nothing_else() {
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    let grid = Grid::with(&[("DOCKER_HOST", &relay.host()), ("GRID_IDLE_SECONDS", "1")]);
    let service = grid.create("full", "node18", &code("v1"), json!({}));
    for (status, body) in [("500 Internal Server Error", FULL_AT_ONCE), ("200 OK", FULL_IN_A_STEP)]
    {
        relay.once("/build?", Fault::Answer(status, body));
        let builds = relay.calls("/build?");
        let failed = grid.settled(&service.id, &change(&grid, &service, status));
        assert_eq!(failed["phase"], "failed", "{failed}");
        let error = failed["error"].as_str().expect("an error");
        assert!(error.contains("no space left on device"), "{error}");
        assert_eq!(relay.calls("/build?"), builds + 1, "not again and again");
        let (check, up) = told(&grid, "containers");
        assert!(
            check.as_str().is_some_and(|text| text.contains("no space left")) && !up,
            "{check}"
        );
        assert_eq!(grid.get("full", "").json(), "v1");
    }

    asleep(&service);
    relay.once(
        "/containers/create",
        Fault::Answer("500 Internal Server Error", FULL_FOR_A_CONTAINER),
    );
    let answer = grid.get("full", "");
    assert_eq!((answer.status, answer.json()), (200, json!("v1")), "the next start may have room");
    assert!(relay.is_done());
    let deployment = change(&grid, &service, "v3");
    assert_live(&grid, &service, &deployment, "v3");
    assert_eq!(told(&grid, "containers"), (json!("ok"), true));
    assert_nothing_leaked(&grid, &service);
}
