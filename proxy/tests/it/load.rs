//! New versions under load: no request fails, and none that comes after the switch sees the old one.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use serde_json::json;

use crate::{
    docker,
    grid::{Grid, wait_until},
};

fn code(runtime: &str, version: usize) -> String {
    match runtime {
        "node18" => format!(
            "exports.handler = async () => {{ await new Promise(d => setTimeout(d, 10)); return {version} }}"
        ),
        _ => format!(
            "import time\ndef handler(event, context):\n    time.sleep(0.01)\n    return {version}\n"
        ),
    }
}

#[test]
fn changes_under_load_fail_no_request() {
    let grid = Grid::start();
    for (name, runtime) in [("load-n", "node18"), ("load-p", "python3.9")] {
        let service = grid.create(name, runtime, &code(runtime, 0), json!({"max_replicas": 2}));
        let (done, answers, newest_live) =
            (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let host = format!("{name}.localhost");
        let target = format!("/fn/{name}");
        thread::scope(|scope| {
            for client in 0..4 {
                let (grid, done, answers, newest_live) = (&grid, &done, &answers, &newest_live);
                let (host, target) = (host.as_str(), target.as_str());
                scope.spawn(move || {
                    let mut connection = grid.connect();
                    while !done.load(Ordering::SeqCst) {
                        let at_least = newest_live.load(Ordering::SeqCst);
                        let answer = if client % 2 == 0 {
                            connection.request("GET", target, &[("host", host)], b"")
                        } else {
                            grid.connect().request("POST", target, &[("host", host)], b"{}")
                        };
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        let version = answer.json().as_u64().expect("a version") as usize;
                        assert!(version >= at_least, "{version} after {at_least} was live");
                        answers.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            for version in 1..=4 {
                let before = answers.load(Ordering::SeqCst);
                wait_until("load", || answers.load(Ordering::SeqCst) > before + 20);
                let deployment =
                    grid.patch(&service, &json!({"function_code": code(runtime, version)}));
                assert_eq!(deployment["phase"], "live", "{deployment}");
                wait_until("the new version", || grid.get(name, "").json() == version);
                newest_live.store(version, Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
        });
        wait_until("the old containers' end", || {
            let live = grid.api("GET", &service.path(""), None).json()["live_deployment"].clone();
            let containers = docker::containers(&service.id, true);
            containers.iter().all(|id| {
                docker::try_docker(&["inspect", id]).is_err()
                    || live == docker::label(id, "grid.deployment")
            })
        });
    }
}
