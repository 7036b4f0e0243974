//! Who follows a log sees each line once: across replicas, deployments and sleep.

use std::{net::Shutdown, thread};

use serde_json::{Value, json};

use super::{
    follower::{Follower, fill},
    texts,
};
use crate::{
    docker::{self, GATE, at_gate, open_gate},
    grid::{Grid, Service, TOKEN, wait_until},
    process::short_dir,
    relay::Relay,
};

/// Says its version and the path, at the gate when the path wants it.
fn code(version: &str) -> String {
    format!(
        "{GATE} console.log('{version} loads'); exports.handler = async (event) => {{ \
         const name = event.path.slice(1); console.log('{version} ' + name); \
         if (name.startsWith('gate')) {{ await gate(); console.log('{version} past ' + name); }} \
         if (name.startsWith('many')) for (let n = 0; n < 3000; n++) console.log('{version} ' + name + ' ' + n); \
         return 'ok'; }};"
    )
}

fn call(grid: &Grid, service: &Service, path: &str) {
    let name = &service.name;
    let target = format!("/fn/{name}/{path}");
    let answer = grid.call(name, "GET", &target, &[("x-request-id", path)], "");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_log_is_followed_across_deployments_and_replicas() {
    let grid = Grid::start();
    let service = grid.create("moves", "node18", &code("v1"), json!({"max_replicas": 2}));
    call(&grid, &service, "a");
    let mut follower = Follower::new(&grid, &service, "&tail=1");
    assert!(follower.head.contains(&"content-type: application/x-ndjson".to_owned()));
    let first = follower.entry().expect("the tail");
    assert_eq!((&first["line"], &first["request_id"]), (&json!("v1 a"), &json!("a")));
    let mut other = Follower::new(&grid, &service, "&tail=0&request_id=b");

    // A second replica, while the first one is busy, and then a new version.
    thread::scope(|scope| {
        scope.spawn(|| call(&grid, &service, "gate"));
        assert_eq!(follower.until("at the gate"), ["v1 gate", "at the gate"]);
        let busy = at_gate(&service.id);
        call(&grid, &service, "b");
        assert_eq!(follower.until("v1 b"), ["v1 loads", "v1 b"]);
        open_gate(&busy);
        follower.until("v1 past gate");
    });
    let deployment = grid.patch(&service, &json!({"function_code": code("v2")}));
    assert_eq!(deployment["phase"], "live", "{deployment}");
    assert_eq!(follower.until("v2 loads"), ["v2 loads"]);
    wait_until("the end of v1", || docker::containers(&service.id, true).len() == 1);
    call(&grid, &service, "c");
    assert_eq!(follower.until("v2 c"), ["v2 c"]);

    // A version that does not load, and a container that somebody kills.
    let broken = "console.log('v3 loads'); throw new Error('v3 breaks')";
    assert_eq!(grid.patch(&service, &json!({"function_code": broken}))["phase"], "failed");
    let said = loop {
        let entry = follower.entry().expect("more");
        if entry["stream"] == "platform" {
            break entry["line"].as_str().expect("a text").to_owned();
        }
        assert_ne!(entry["line"], "v2 c", "{entry}");
    };
    assert!(said.contains("v3 breaks"), "{said}");
    docker::docker(&["kill", &docker::containers(&service.id, false)[0]]);
    let killed = follower.entry().expect("more");
    assert_eq!(killed["stream"], "platform", "{killed}");

    // What was followed is what can be read.
    call(&grid, &service, "d");
    assert_eq!(follower.until("v2 d"), ["v2 loads", "v2 d"]);
    assert_eq!(texts(&grid.logs(&service, "?tail=2"), "stdout"), ["v2 loads", "v2 d"]);
    call(&grid, &service, "b");
    let of_b: Vec<_> = ["v1 b", "v2 b"].iter().map(|_| other.entry().expect("more")).collect();
    assert_eq!(texts(&of_b, "stdout"), ["v1 b", "v2 b"]);

    let deleted = grid.api("DELETE", &service.path(""), None);
    assert_eq!(deleted.status, 204);
    assert_eq!(follower.rest().last().map(String::as_str), Some("The service was deleted."));
    assert_eq!(other.rest(), ["The service was deleted."]);
}

#[test]
fn a_log_is_followed_while_there_is_no_container() {
    let grid = Grid::with(&[("GRID_IDLE_SECONDS", "1")]);
    let service = grid.create("asleep", "node18", &code("v1"), json!({"max_replicas": 1}));
    wait_until("sleep", || docker::containers(&service.id, true).is_empty());
    let mut follower = Follower::new(&grid, &service, "");
    assert_eq!(follower.until("v1 loads"), ["v1 loads"], "of the candidate");
    for turn in ["a", "b"] {
        let path = format!("many-{turn}");
        call(&grid, &service, &path);
        // It may be gone before its stream has brought all.
        docker::docker(&["kill", &docker::containers(&service.id, false)[0]]);
        let last = format!("v1 {path} 2999");
        let mut lines = vec!["v1 loads".to_owned(), format!("v1 {path}")];
        lines.extend((0..3000).map(|n| format!("v1 {path} {n}")));
        assert_eq!(follower.until(&last), lines);
        let killed = follower.entry().expect("more");
        assert_eq!(killed["stream"], "platform", "{killed}");
        wait_until("its end", || docker::containers(&service.id, true).is_empty());
    }
}

#[test]
fn a_log_is_followed_as_text_and_as_events() {
    let grid = Grid::start();
    let service = grid.create("forms", "node18", &code("v1"), json!({"max_replicas": 1}));
    call(&grid, &service, "a");
    let mut text = Follower::with(&grid, &service, "&tail=0", "accept: text/plain\r\n");
    let events = "accept: text/event-stream\r\n";
    let mut stream = Follower::with(&grid, &service, "&tail=1", events);
    assert!(text.head.contains(&"content-type: text/plain; charset=utf-8".to_owned()));
    assert!(stream.head.contains(&"content-type: text/event-stream".to_owned()));
    let mut event = |expected: &str| {
        let id = stream.line().expect("an id");
        let data = stream.line().expect("data");
        let entry: Value =
            serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(
            (id.strip_prefix("id: "), &entry["line"]),
            (entry["at"].as_str(), &json!(expected))
        );
        entry
    };
    let first = event("v1 a");
    call(&grid, &service, "b");
    event("v1 b");
    call(&grid, &service, "c");
    let last = event("v1 c");
    for name in ["b", "c"] {
        let line = text.line().expect("a line");
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!(words[2..], ["stdout", name, "v1", name], "{line}");
    }
    // Who comes back goes on where it was.
    let id = first["at"].as_str().expect("a time");
    let headers = format!("{events}last-event-id: {id}\r\n");
    let mut again = Follower::with(&grid, &service, "&tail=1", &headers);
    let lines: Vec<_> = (0..4).map(|_| again.line().expect("a line")).collect();
    assert!(lines[1].contains("v1 b") && lines[3].contains("v1 c"), "{lines:?}");

    // With an end that has come, and one that comes.
    let at = last["at"].as_str().expect("a time");
    assert_eq!(Follower::new(&grid, &service, &format!("&until={at}&tail=1")).rest(), ["v1 c"]);
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let until = format!("&until={soon}&tail=1");
    assert_eq!(Follower::new(&grid, &service, &until).rest(), ["v1 c"]);
}

#[test]
fn who_reads_too_slowly_is_dropped_and_holds_nobody_up() {
    let grid = Grid::start();
    // More than the sockets between hold, and not faster than it is given out.
    let talk = "exports.handler = async () => { for (let n = 0; n < 120; n++) { \
        for (let m = 0; m < 10; m++) console.log('x'.repeat(9990)); \
        await new Promise((d) => setTimeout(d, 100)); } console.log('the last'); return 'ok'; };";
    let service = grid.create("talks", "node18", talk, json!({"max_replicas": 1}));
    let mut slow = Follower::new(&grid, &service, "&tail=0").stall();
    let mut fast = Follower::new(&grid, &service, "&tail=0");
    thread::scope(|scope| {
        scope.spawn(|| call(&grid, &service, "a"));
        assert_eq!(fast.until("the last").len(), 1201, "each line, whoever else follows");
    });
    let mut last = Vec::new();
    while let Some(chunk) = slow.try_chunk().ok().filter(|chunk| !chunk.is_empty()) {
        last = chunk;
    }
    let last: Value = serde_json::from_slice(&last).expect("one line");
    let said = last["line"].as_str().expect("a text");
    assert!(said.contains("too slowly"), "{said}");
}

#[test]
fn a_flood_holds_up_neither_the_function_nor_who_follows() {
    let grid = Grid::start();
    let flood = "exports.handler = async () => { const line = 'x'.repeat(1000); \
        for (let n = 0; n < 50000; n++) { \
          if (!process.stdout.write(line + '\\n')) await new Promise((d) => process.stdout.once('drain', d)); } \
        console.log('the last'); return 'ok'; };";
    let service = grid.create("floods", "node18", flood, json!({"max_replicas": 1}));
    let mut follower = Follower::new(&grid, &service, "&tail=0");
    call(&grid, &service, "a");
    // The engine keeps less than it wrote, so this is not all.
    assert!(follower.until("the last").len() > 1000);
    assert_eq!(grid.logs(&service, "?tail=1").len(), 1, "and logs are read meanwhile");
}

#[test]
fn followers_are_bounded() {
    let grid = Grid::start();
    let services: Vec<_> = (0..5)
        .map(|nth| {
            let name = format!("crowd-{nth}");
            grid.create(&name, "node18", "exports.handler = () => 'ok'", json!({}))
        })
        .collect();
    let (of_one, refusal) = fill(TOKEN, &grid, &[&services[0]]);
    assert_eq!(of_one.len(), 16);
    assert!(refusal.contains("16 clients follow the log of this service"), "{refusal}");
    let others: Vec<_> = services[1..].iter().collect();
    let (of_others, refusal) = fill(TOKEN, &grid, &others);
    assert_eq!(of_one.len() + of_others.len(), 32);
    assert!(refusal.contains("You follow 32 logs already"), "{refusal}");
    let body = json!({"user": "boss", "name": "reads too", "is_admin": true});
    let made = grid.api("POST", "/api/v1/tokens/", Some(&body)).json();
    let token = made["token"].as_str().expect("a token");
    let (of_boss, refusal) = fill(token, &grid, &others);
    assert_eq!(of_boss.len(), 32);
    assert!(refusal.contains("64 clients follow logs"), "{refusal}");
    // Whoever hangs up makes room, and so does the end of a service.
    of_one.into_iter().next().expect("one").stall().shutdown(Shutdown::Both);
    wait_until("room", || {
        let mut follower = Follower::with(&grid, &services[0], "&tail=0", "");
        follower.head[0].ends_with("200 OK") && {
            assert_eq!(grid.api("DELETE", &services[0].path(""), None).status, 204);
            follower.rest() == ["The service was deleted."]
        }
    });
    drop((of_others, of_boss));
}

#[test]
fn following_ends_with_grid_and_with_the_token() {
    let mut grid = Grid::start();
    let service =
        grid.create("ends", "node18", &code("v1"), json!({"min_replicas": 1, "max_replicas": 1}));
    call(&grid, &service, "a");
    let mut follower = Follower::new(&grid, &service, "&tail=1");
    assert_eq!(follower.until("v1 a"), ["v1 a"]);
    grid.stop();
    assert_eq!(follower.rest(), ["Grid is stopped or replaced. Ask again."]);
    assert!(!grid.log().contains("were cut off"), "{}", grid.log());
    grid.restart();
    let mut follower = Follower::new(&grid, &service, "&tail=1");
    assert_eq!(follower.until("v1 a"), ["v1 a"]);
    call(&grid, &service, "b");
    assert_eq!(follower.until("v1 b"), ["v1 b"], "of the container that was found again");

    // Nobody else reads along, and nobody whose token was revoked.
    let body = json!({"user": "boss", "name": "for a while", "is_admin": true});
    let made = grid.api("POST", "/api/v1/tokens/", Some(&body)).json();
    let token = made["token"].as_str().expect("a token").to_owned();
    let stranger = Follower::of(&format!("{token}x"), &grid, &service, "", "");
    assert_eq!(stranger.head[0], "HTTP/1.1 401 Unauthorized");
    let mut boss = Follower::of(&token, &grid, &service, "&tail=1&owner=*", "");
    assert_eq!(boss.until("v1 b"), ["v1 b"]);
    let path = format!("/api/v1/tokens/{}/?owner=*", made["id"].as_str().expect("an id"));
    assert_eq!(grid.api("DELETE", &path, None).status, 204);
    assert_eq!(boss.rest(), ["This token does not open this log any more."]);
}

#[test]
fn following_ends_with_the_process_that_is_replaced() {
    let grid = Grid::replaceable(&[]);
    let settings = json!({"min_replicas": 1, "max_replicas": 1});
    let service = grid.create("replaced", "node18", &code("v1"), settings);
    call(&grid, &service, "a");
    let mut follower = Follower::new(&grid, &service, "&tail=1");
    assert_eq!(follower.until("v1 a"), ["v1 a"]);
    let (upgraded, said) = grid.upgrade();
    assert!(upgraded, "{said}");
    assert_eq!(follower.rest(), ["Grid is stopped or replaced. Ask again."]);
    let mut follower = Follower::new(&grid, &service, "&tail=1");
    assert_eq!(follower.until("v1 a"), ["v1 a"]);
    call(&grid, &service, "b");
    assert_eq!(follower.until("v1 b"), ["v1 b"]);
}

#[test]
fn following_outlasts_an_engine_that_goes_away() {
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    let grid = Grid::with(&[("DOCKER_HOST", &relay.host())]);
    let settings = json!({"min_replicas": 1, "max_replicas": 1});
    let service = grid.create("outlasts", "node18", &code("v1"), settings);
    call(&grid, &service, "a");
    let mut follower = Follower::new(&grid, &service, "&tail=1");
    assert_eq!(follower.until("v1 a"), ["v1 a"]);
    relay.cut();
    call(&grid, &service, "b");
    let mut late = Follower::new(&grid, &service, "");
    grid.logs(&service, ""); // it answers, with what is kept until now
    relay.mend();
    assert_eq!(follower.until("v1 b"), ["v1 b"]);
    assert_eq!(late.until("v1 b"), ["v1 loads", "v1 a", "v1 b"]);
    call(&grid, &service, "c");
    assert_eq!(follower.until("v1 c"), ["v1 c"]);
    assert_eq!(late.until("v1 c"), ["v1 c"]);
}
