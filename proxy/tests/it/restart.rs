//! Grid's own end and start: nothing acknowledged is lost, what runs is adopted, what belongs to
//! nobody is removed, and what belongs to others is left alone.

use serde_json::json;

use crate::{
    docker,
    grid::{Grid, wait_until},
};

const NODE: &str = "const boot = require('os').hostname(); let n = 0; \
    exports.handler = async (event) => { if (event.path === '/slow') { console.log('begins'); await new Promise((d) => setTimeout(d, 1500)); } return boot + ' ' + ++n; }";
const PYTHON: &str = "import os\nn = 0\ndef handler(event, context):\n    global n\n    n += 1\n    return f'{os.uname().nodename} {n}'\n";

#[test]
fn services_and_running_replicas_survive_both_ends() {
    let mut grid = Grid::start();
    let node = grid.create("stay-n", "node18", NODE, json!({"max_replicas": 1}));
    let python =
        grid.create("stay-p", "python3.9", PYTHON, json!({"min_replicas": 1, "max_replicas": 1}));
    let asleep = grid.create("stay-s", "node18", NODE, json!({"max_replicas": 1}));
    let services = [&node, &python, &asleep];
    let records = |grid: &Grid| {
        services.map(|service| {
            let mut record = grid.api("GET", &service.path(""), None).json();
            let object = record.as_object_mut().expect("an object");
            object.remove("replicas"); // moving
            object.remove("url"); // names the port
            record
        })
    };
    let boots: Vec<_> = services.map(|service| grid.get(&service.name, "").json()).into();
    let containers = services.map(|service| docker::containers(&service.id, true));
    let before = records(&grid);
    assert!(boots.iter().all(|boot| boot.as_str().is_some_and(|boot| boot.ends_with(" 1"))));

    for (turn, end) in [Grid::stop as fn(&mut Grid), Grid::kill9].into_iter().enumerate() {
        end(&mut grid);
        if turn == 1 {
            // This one's container ends while nobody looks.
            docker::docker(&["kill", &containers[2][0]]);
        }
        grid.restart();
        assert_eq!(records(&grid), before);
        for (at, service) in services.iter().enumerate() {
            let answer = grid.get(&service.name, "").json();
            if (turn, at) == (1, 2) {
                assert!(answer.as_str().is_some_and(|text| text.ends_with(" 1")), "{answer}");
                continue;
            }
            let boot = boots[at].as_str().expect("text").replace(" 1", &format!(" {}", turn + 2));
            assert_eq!(answer, boot.as_str(), "the same process goes on");
            assert_eq!(docker::containers(&service.id, true), containers[at]);
        }
        let logs = grid.logs(&node, "");
        assert!(logs.iter().all(|line| line["stream"] != "platform"), "{logs:?}");
    }
    wait_until("the dead container's end", || {
        !docker::containers(&asleep.id, true).contains(&containers[2][0])
    });
}

#[test]
fn a_stop_waits_for_the_requests_that_run() {
    let mut grid = Grid::start();
    let service = grid.create("last", "node18", NODE, json!({}));
    assert_eq!(grid.get("last", "").status, 200);
    let mut connection = grid.connect();
    connection.send("GET /fn/last/slow HTTP/1.1\r\nhost: last.localhost\r\n\r\n");
    wait_until("the slow run", || {
        let container = docker::containers(&service.id, false).remove(0);
        docker::docker(&["logs", &container]).contains("begins")
    });
    grid.stop();
    assert_eq!(connection.answer().status, 200);
}

#[test]
fn a_replica_that_works_when_grid_is_killed_still_runs_one_request_at_a_time() {
    let mut grid = Grid::start();
    let node = "let running = 0; exports.handler = async (event) => { const overlap = ++running > 1; \
        if (event.path === '/slow') { console.log('begins'); await new Promise((d) => setTimeout(d, 3000)); } \
        running -= 1; return {overlap, boot: require('os').hostname()}; }";
    let python = "import os, time\nrunning = 0\ndef handler(event, context):\n    global running\n    \
        running += 1\n    overlap = running > 1\n    if event['path'] == '/slow':\n        print('begins', flush=True)\n        \
        time.sleep(3)\n    running -= 1\n    return {'overlap': overlap, 'boot': os.uname().nodename}\n";
    for (name, runtime, code) in [("busy-n", "node18", node), ("busy-p", "python3.9", python)] {
        let service = grid.create(name, runtime, code, json!({"max_replicas": 1}));
        let before = grid.get(name, "").json();
        let mut connection = grid.connect();
        connection.send(format!("GET /fn/{name}/slow HTTP/1.1\r\nhost: {name}.localhost\r\n\r\n"));
        let container = docker::containers(&service.id, false).remove(0);
        wait_until("the slow run", || docker::docker(&["logs", &container]).contains("begins"));
        grid.kill9();
        grid.restart();
        assert_eq!(grid.get(name, "").json(), before, "adopted, and not before its run was over");
    }
}

#[test]
fn a_deployment_in_progress_is_finished_by_the_next_start() {
    let mut grid = Grid::with(&[("GRID_IMAGES_KEPT", "1")]);
    let service = grid.create("half", "node18", "exports.handler = () => 'v0'", json!({}));
    for version in 1..=4 {
        let code = format!("exports.handler = () => 'v{version}'");
        let answer = grid.api("PATCH", &service.path(""), Some(&json!({"function_code": code})));
        assert_eq!(answer.status, 200);
        let deployment = answer.json()["deployment"]["id"].as_str().expect("an id").to_owned();
        if version % 2 == 0 {
            // At another point of its way.
            wait_until("the build", || {
                let path = service.path(&format!("deployments/{deployment}/"));
                grid.api("GET", &path, None).json()["phase"] != "queued"
            });
        }
        grid.kill9();
        grid.restart();
        let ended = grid.settled(&service.id, &deployment);
        assert_eq!(ended["phase"], "live", "{ended}");
        wait_until("its answer", || grid.get("half", "").json() == format!("v{version}").as_str());
    }
    wait_until("one container", || docker::containers(&service.id, true).len() == 1);
    wait_until("two images at most", || docker::images(&service.id).len() <= 2);
}

#[test]
fn a_start_removes_its_own_orphans_and_nothing_else() {
    let mut grid = Grid::start();
    let other = Grid::start();
    let mine = grid.create("mine", "node18", NODE, json!({"min_replicas": 1}));
    let theirs = other.create("mine", "node18", NODE, json!({"min_replicas": 1}));
    assert_eq!(grid.get("mine", "").status, 200);
    assert_eq!(other.get("mine", "").status, 200);
    let their_containers = docker::containers(&theirs.id, true);
    let my_container = docker::containers(&mine.id, true).remove(0);
    let instance = docker::label(&my_container, "grid.instance");
    assert_ne!(instance, docker::label(&their_containers[0], "grid.instance"));
    let image = docker::inspect(&my_container)["Image"].as_str().expect("an image").to_owned();
    let deleted = grid.create("deleted", "node18", NODE, json!({"min_replicas": 1}));
    grid.kill9();

    // Of a service that nobody knows: one that runs, one that was never started. And one that has
    // nothing to do with Grid.
    let unknown = "11111111-2222-4333-8444-555555555555";
    let leave = |verb: &[&str], replica: &str, managed: bool| {
        let name = format!("grid-{instance}-{replica}");
        let labels = [
            "grid.managed=true".to_owned(),
            format!("grid.instance={instance}"),
            format!("grid.service={unknown}"),
            "grid.deployment=01920000-0000-7000-8000-000000000000".to_owned(),
            format!("grid.replica={replica}"),
        ];
        let mut args = [verb, &["--network", "none", "--name", &name]].concat();
        if managed {
            args.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
        }
        args.extend(["--entrypoint", "sleep", &image, "600"]);
        docker::docker(&args)
    };
    let orphans =
        [leave(&["run", "-d"], "orphan000001", true), leave(&["create"], "orphan000002", true)];
    let stranger = leave(&["run", "-d"], "stranger0001", false);
    grid.restart();
    wait_until("the orphans' end", || {
        let all = docker::docker(&["ps", "-aq", "--no-trunc"]);
        orphans.iter().all(|orphan| !all.contains(orphan.as_str()))
    });
    let all = docker::docker(&["ps", "-q", "--no-trunc"]);
    let alive = all.contains(&stranger);
    docker::docker(&["rm", "-f", &stranger]);
    assert!(alive, "a container without our labels is none of our business");
    assert_eq!(docker::containers(&theirs.id, true), their_containers, "another Grid's");
    assert!(other.get("mine", "").text().ends_with(" 2\""), "the same process");
    assert!(all.contains(&my_container));
    assert_eq!(grid.get("deleted", "").status, 200);
    assert_eq!(docker::containers(&deleted.id, true).len(), 1);
}
