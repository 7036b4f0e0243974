//! One request at a time in a container, one queue per function, at most `max_replicas` containers.

use std::{collections::BTreeMap, sync::Mutex, thread, time::Instant};

use serde_json::json;

use crate::{
    docker,
    grid::{Grid, PATIENCE, wait_until},
    http::{Answer, Connection},
};

const NODE: &str = r#"const id = require("os").hostname(); let running = 0;
exports.handler = async () => {
  const overlap = ++running > 1, start = process.hrtime.bigint();
  await new Promise((done) => setTimeout(done, 20));
  const end = process.hrtime.bigint(); running -= 1;
  return {id, overlap, start: Number(start), end: Number(end)};
};"#;
const PYTHON: &str = "import os, time\nid = os.uname().nodename\nrunning = 0\ndef handler(event, context):\n    \
    global running\n    running += 1\n    overlap, start = running > 1, time.monotonic_ns()\n    time.sleep(0.02)\n    \
    running -= 1\n    return {'id': id, 'overlap': overlap, 'start': start, 'end': time.monotonic_ns()}\n";

#[test]
fn eight_clients_share_three_replicas_without_overlap() {
    let grid = Grid::start();
    for (name, runtime, code) in [("over-n", "node18", NODE), ("over-p", "python3.9", PYTHON)] {
        let service = grid.create(name, runtime, code, json!({"max_replicas": 3}));
        let runs: Mutex<BTreeMap<String, Vec<(u64, u64)>>> = Mutex::default();
        let until = Instant::now() + PATIENCE;
        let most_containers = thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        // At least ten each, and until all three replicas have worked.
                        for turn in 0.. {
                            let answer = grid.get(name, "");
                            assert_eq!(answer.status, 200, "{}", answer.text());
                            let run = answer.json();
                            assert_eq!(run["overlap"], false);
                            let time = |key: &str| run[key].as_f64().expect("a time") as u64;
                            let id = run["id"].as_str().expect("an id").to_owned();
                            let mut runs = runs.lock().expect("a lock");
                            runs.entry(id).or_default().push((time("start"), time("end")));
                            if (turn >= 10 && runs.len() >= 3) || Instant::now() > until {
                                return;
                            }
                        }
                    })
                })
                .collect();
            let mut most = 0;
            while clients.iter().any(|client| !client.is_finished()) {
                most = most.max(docker::containers(&service.id, true).len());
            }
            most
        });
        let mut runs = runs.into_inner().expect("a lock");
        assert_eq!(runs.len(), 3, "three containers worked: {:?}", runs.keys());
        assert!(most_containers <= 3, "{most_containers} containers");
        for (id, intervals) in &mut runs {
            intervals.sort_unstable();
            for pair in intervals.windows(2) {
                assert!(pair[0].1 <= pair[1].0, "overlap in {id}: {pair:?}");
            }
        }
        let replicas = grid.api("GET", &service.path(""), None).json()["replicas"].clone();
        assert_eq!(replicas.as_array().map(Vec::len), Some(3), "{replicas}");
    }
}

fn slow() -> String {
    let handler = "exports.handler = async (event) => { \
        if (event.path === '/quick') return 'quick'; await gate(); return 'slow'; };";
    format!("{}\n{handler}", docker::GATE)
}

/// Runs `during` while the function's only replica is busy; the answer to the busy call.
fn while_busy(grid: &Grid, during: impl FnOnce()) -> Answer {
    let service = grid.create("slow", "node18", &slow(), json!({"max_replicas": 1}));
    thread::scope(|scope| {
        let busy = scope.spawn(|| grid.get("slow", ""));
        let container = docker::at_gate(&service.id);
        during();
        docker::open_gate(&container);
        busy.join().expect("an answer")
    })
}

#[test]
fn a_full_queue_refuses_and_keeps_its_places() {
    let grid = Grid::with(&[("GRID_QUEUE_LENGTH", "2")]);
    let get = "GET /fn/slow/quick HTTP/1.1\r\nhost: slow.localhost\r\n\r\n";
    let mut clients: Vec<_> = (0..6).map(|_| grid.connect()).collect();
    let mut refused = Vec::new();
    let busy = while_busy(&grid, || {
        clients.iter_mut().for_each(|client| client.send(get));
        wait_until("four to be refused", || {
            let (answered, waiting) =
                std::mem::take(&mut clients).into_iter().partition(Connection::has_news);
            clients = waiting;
            refused.extend(answered);
            refused.len() >= 4
        });
    });
    assert_eq!(busy.json(), "slow");
    assert_eq!((clients.len(), refused.len()), (2, 4), "two wait, four were refused");
    for mut client in refused {
        let answer = client.answer();
        assert_eq!((answer.status, answer.code().as_str()), (429, "queue_full"));
        let wait = answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
        assert!(wait.is_some_and(|seconds| seconds >= 1), "{answer:?}");
    }
    for mut client in clients {
        assert_eq!(client.answer().json(), "quick");
    }
}

#[test]
fn a_wait_without_end_is_ended() {
    let grid = Grid::with(&[("GRID_QUEUE_SECONDS", "1")]);
    let busy = while_busy(&grid, || {
        let answer = grid.get("slow", "/quick");
        assert_eq!((answer.status, answer.code().as_str()), (503, "no_replica"));
        assert!(answer.header("retry-after").is_some());
    });
    assert_eq!(busy.json(), "slow");
    assert_eq!(grid.get("slow", "/quick").json(), "quick", "the place in the queue was given up");
}

/// Quick, but for the paths that wait at the gate; each run leaves a line.
fn mixed() -> String {
    let handler = "exports.handler = async (event) => { console.log('run ' + event.path); \
        if (event.path === '/slow') await gate(); return event.path; };";
    format!("{}\n{handler}", docker::GATE)
}

/// A replica whose requests are quick gets the next ones while it works: then one is slow, which
/// `quick` requests follow.
fn behind_a_slow_one(most: u32, meanwhile: impl FnOnce(&str, &mut [Connection])) {
    let grid = Grid::start();
    let service = grid.create("mixed", "node18", &mixed(), json!({"max_replicas": most}));
    for _ in 0..10 {
        assert_eq!(grid.get("mixed", "/warm").status, 200);
    }
    let get = |client: &mut Connection, path: &str| {
        client.send(format!("GET /fn/mixed/{path} HTTP/1.1\r\nhost: mixed.localhost\r\n\r\n"));
    };
    let mut slow = grid.connect();
    get(&mut slow, "slow");
    let container = docker::at_gate(&service.id);
    let mut quick: Vec<_> = (0..6).map(|_| grid.connect()).collect();
    for (number, client) in quick.iter_mut().enumerate() {
        get(client, &format!("quick-{number}"));
    }
    meanwhile(&container, &mut quick);
    drop(slow);
    let lines = grid.logs(&service, "?tail=1000");
    for number in 0..6 {
        let run = format!("run /quick-{number}");
        let runs = lines.iter().filter(|line| line["line"] == *run).count();
        assert_eq!(runs, 1, "of {run}: {lines:?}");
    }
}

fn all_answered(quick: &mut [Connection]) {
    for (number, client) in quick.iter_mut().enumerate() {
        let answer = client.answer();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json(), format!("/quick-{number}"));
    }
}

#[test]
fn what_waits_behind_a_slow_request_runs_in_another_container_once() {
    // While the slow one still waits at its gate.
    behind_a_slow_one(2, |_, quick| all_answered(quick));
}

#[test]
fn what_waits_behind_a_request_that_crashes_runs_in_the_next_container_once() {
    behind_a_slow_one(1, |container, quick| {
        docker::docker(&["kill", container]);
        all_answered(quick);
    });
}

#[test]
fn what_waits_behind_a_slow_request_runs_in_its_container_once() {
    behind_a_slow_one(1, |container, quick| {
        docker::open_gate(container);
        all_answered(quick);
    });
}
