//! What is kept of a log: through the end of Grid, of containers, and of their services; within its
//! bound.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::json;

use super::{follower::Follower, texts};
use crate::{
    docker,
    grid::{Grid, wait_until},
};

const CODE: &str =
    "exports.handler = async (event) => { console.log('ran ' + event.path); return 'ok'; };";

fn files(grid: &Grid) -> Vec<(String, u64, u32)> {
    let dir = grid.data_dir().join("logs");
    let listed = fs::read_dir(dir).into_iter().flatten();
    let describe = |path: &Path| {
        let metadata = path.metadata().expect("a file");
        (path.display().to_string(), metadata.len(), metadata.permissions().mode() & 0o777)
    };
    listed.map(|entry| describe(&entry.expect("an entry").path())).collect()
}

#[test]
fn lines_outlive_grid_and_containers_that_somebody_removes() {
    let mut grid = Grid::start();
    let service = grid.create("outlives", "node18", CODE, json!({"max_replicas": 1}));
    let called = |grid: &Grid, path: &str| {
        assert_eq!(grid.get("outlives", path).status, 200);
    };
    called(&grid, "/a");
    let read = |grid: &Grid| texts(&grid.logs(&service, ""), "stdout");
    grid.kill9();
    grid.restart();
    assert_eq!(read(&grid), ["ran /a"]);
    let mut follower = Follower::new(&grid, &service, "");
    called(&grid, "/b");

    // After a while they are kept; then nobody can take them away.
    let kept = |text: &str| {
        files(&grid)
            .iter()
            .any(|(path, ..)| fs::read_to_string(path).is_ok_and(|found| found.contains(text)))
    };
    wait_until("its keeping", || kept("ran /b"));
    called(&grid, "/c");
    wait_until("its keeping", || kept("ran /c"));
    docker::docker(&["rm", "-f", &docker::containers(&service.id, false)[0]]);
    assert_eq!(read(&grid), ["ran /a", "ran /b", "ran /c"], "each once");
    called(&grid, "/d");
    let all = ["ran /a", "ran /b", "ran /c", "ran /d"];
    assert_eq!(read(&grid), all);
    // Longer than any other answer of the admin API may take.
    let followed = follower.until("ran /d");
    let said: Vec<_> = followed.iter().filter(|line| line.starts_with("ran")).collect();
    assert_eq!(said, all);
    for (path, _, mode) in files(&grid) {
        assert_eq!(mode, 0o600, "{path}");
    }

    assert_eq!(grid.api("DELETE", &service.path(""), None).status, 204);
    wait_until("the end of its files", || files(&grid).is_empty());
}

#[test]
fn a_flood_keeps_within_its_bound_and_holds_nobody_up() {
    let grid = Grid::with(&[("GRID_LOG_BYTES_PER_SERVICE", "262144")]);
    let code = "exports.handler = async () => { const line = '\\u0001'.repeat(5000); \
        for (let n = 0; n < 2000; n++) console.log(n + line); console.log('the last'); return 'ok'; };";
    let service = grid.create("flood", "node18", code, json!({"max_replicas": 1}));
    for _ in 0..3 {
        assert_eq!(grid.get("flood", "").status, 200);
        let last = || texts(&grid.logs(&service, "?tail=1"), "stdout") == ["the last"];
        wait_until("the last line", last);
        docker::docker(&["kill", &docker::containers(&service.id, false)[0]]);
        wait_until("its end", || docker::containers(&service.id, true).is_empty());
        let sum: u64 = files(&grid).iter().map(|(_, size, _)| size).sum();
        assert!((100_000..=262_144).contains(&sum), "{sum} bytes");
        let kept = texts(&grid.logs(&service, ""), "stdout");
        assert_eq!(kept.last().map(String::as_str), Some("the last"));
    }
}

#[test]
fn a_line_belongs_to_its_request_wherever_the_reading_begins() {
    let grid = Grid::start();
    let code = "exports.handler = async () => { for (let n = 0; n < 2000; n++) console.log('line ' + n); return 'ok'; };";
    let service = grid.create("long", "node18", code, json!({"max_replicas": 1}));
    for id in ["first", "second"] {
        let answer = grid.call("long", "GET", "/fn/long", &[("x-request-id", id)], "");
        assert_eq!(answer.status, 200);
    }
    wait_until("the last line", || grid.logs(&service, "?tail=10000").len() == 4000);
    let newest = grid.logs(&service, "?tail=3");
    assert!(newest.iter().all(|line| line["request_id"] == "second"), "{newest:?}");
    assert_eq!(grid.logs(&service, "?request_id=first&tail=10000").len(), 2000);
    let at = newest[0]["at"].as_str().expect("a time");
    assert_eq!(grid.logs(&service, &format!("?since={at}")), newest);
    // The one that runs has no end mark yet.
    let code = format!(
        "{} exports.handler = async () => {{ for (let n = 0; n < 2000; n++) console.log('line ' + n); await gate(); return 'ok'; }};",
        docker::GATE
    );
    grid.patch(&service, &json!({"function_code": code}));
    wait_until("the end of the one before", || docker::containers(&service.id, true).len() == 1);
    std::thread::scope(|scope| {
        scope.spawn(|| grid.call("long", "GET", "/fn/long", &[("x-request-id", "third")], ""));
        let container = docker::at_gate(&service.id);
        let newest = grid.logs(&service, "?tail=3");
        assert!(newest.iter().all(|line| line["request_id"] == "third"), "{newest:?}");
        docker::open_gate(&container);
    });
}
