//! What a function wrote, as its owner reads it, also when the container is gone.

mod follow;
mod follower;
mod kept;
mod secret;

use serde_json::{Value, json};

use crate::{
    docker,
    grid::{Grid, Service, wait_until},
};

const NODE: &str = r#"console.log("loading");
exports.handler = async (event) => {
  const name = event.path.slice(1);
  console.log("out " + name); console.error("err " + name); process.stdout.write("no line end " + name);
  if (name === "fails") { const e = new Error("deep-reason"); throw e; }
  return "ok";
};"#;
const PYTHON: &str = r#"import sys
print("loading")
def handler(event, context):
    name = event["path"][1:]
    print("out " + name); print("err " + name, file=sys.stderr); sys.stdout.write("no line end " + name)
    if name == "fails": raise ValueError("deep-reason")
    return "ok"
"#;

pub(crate) fn texts(lines: &[Value], stream: &str) -> Vec<String> {
    let of_stream = lines.iter().filter(|line| line["stream"] == stream);
    of_stream.map(|line| line["line"].as_str().expect("a text").to_owned()).collect()
}

fn check(grid: &Grid, service: &Service) {
    let name = service.name.as_str();
    for path in ["one", "two", "fails"] {
        let answer =
            grid.call(name, "GET", &format!("/fn/{name}/{path}"), &[("x-request-id", path)], "");
        assert_eq!(answer.status, if path == "fails" { 502 } else { 200 });
        assert!(!answer.text().contains("deep-reason"));
    }
    wait_until("the last line", || {
        let lines = grid.logs(service, "?request_id=fails");
        texts(&lines, "stderr").iter().any(|line| line.contains("deep-reason"))
    });
    for id in ["one", "two"] {
        let lines = grid.logs(service, &format!("?request_id={id}"));
        assert_eq!(texts(&lines, "stdout"), [format!("out {id}"), format!("no line end {id}")]);
        assert_eq!(texts(&lines, "stderr"), [format!("err {id}")]);
        assert!(lines.iter().all(|line| line["request_id"] == id));
    }
    let failed = texts(&grid.logs(service, "?request_id=fails"), "stderr").join("\n");
    let place = if name.ends_with('n') { "index.js:5" } else { "line 6" };
    assert!(failed.contains(place), "the stack names the line: {failed}");

    let all = grid.logs(service, "");
    assert_eq!(all[0]["line"], "loading");
    assert_eq!(all[0]["request_id"], Value::Null);
    assert!(
        !all.iter().any(|line| line["line"].as_str().is_some_and(|l| l.contains("GRID"))),
        "{all:?}"
    );
    let times: Vec<_> = all.iter().map(|line| line["at"].as_str().expect("a time")).collect();
    assert!(times.is_sorted(), "newest last: {times:?}");
    assert_eq!(grid.logs(service, "?tail=2"), all[all.len() - 2..]);
    assert_eq!(grid.logs(service, "?request_id=none"), Vec::<Value>::new());
    let text = grid.api("GET", &service.path("logs/?format=text&request_id=one"), None);
    assert_eq!(text.text().lines().count(), 3, "{}", text.text());
    for (query, status, field) in [
        ("?tail=none", 400, "tail"),
        ("?since=yesterday", 400, "since"),
        ("?until=5", 400, "until"),
        ("?follow=maybe", 400, "follow"),
        ("?since=1m&until=2m", 409, "since"),
    ] {
        let refused = grid.api("GET", &service.path(&format!("logs/{query}")), None);
        assert_eq!((refused.status, refused.json()[field].is_array()), (status, true), "{query}");
    }

    // Both ends belong to it.
    let (from, to) = (times[1], times[times.len() - 2]);
    let between = &all[1..all.len() - 1];
    assert_eq!(grid.logs(service, &format!("?since={from}&until={to}")), between);
    assert_eq!(grid.logs(service, &format!("?until={to}&tail=2")), between[between.len() - 2..]);
    assert_eq!(grid.logs(service, "?since=1d"), all);
    assert_eq!(grid.logs(service, "?since=1d&until=1h"), Vec::<Value>::new());

    // They outlive the container.
    let container = docker::containers(&service.id, false).remove(0);
    docker::docker(&["kill", &container]);
    wait_until("its end", || docker::containers(&service.id, true).is_empty());
    let after = grid.logs(service, "?request_id=one");
    assert_eq!(after.len(), 3, "{after:?}");
    assert_eq!(texts(&grid.logs(service, ""), "platform").len(), 1);
}

#[test]
fn the_log_belongs_to_requests_and_outlives_containers() {
    let grid = Grid::start();
    for (name, runtime, code) in [("log-n", "node18", NODE), ("log-p", "python3.9", PYTHON)] {
        let service = grid.create(name, runtime, code, json!({"max_replicas": 1}));
        check(&grid, &service);
    }
}
