//! Deployments that succeed: what triggers one, many in a row, deletion.

use serde_json::{Value, json};

use crate::{
    docker,
    grid::{Grid, wait_until},
};

fn says(text: &str) -> String {
    format!("exports.handler = async () => '{text}'")
}

#[test]
fn twenty_changes_in_a_row_end_with_the_last_one_live() {
    let grid = Grid::with(&[("GRID_IMAGES_KEPT", "2")]);
    let service = grid.create("many", "node18", &says("v0"), json!({}));
    assert_eq!(grid.get("many", "").json(), "v0");
    let mut deployments = vec![service.deployment["id"].clone()];
    for n in 1..=20 {
        let change = json!({"function_code": says(&format!("v{n}"))});
        let answer = grid.api("PATCH", &service.path(""), Some(&change));
        assert_eq!(answer.status, 200, "{}", answer.text());
        deployments.push(answer.json()["deployment"]["id"].clone());
    }
    let last = deployments.last().and_then(Value::as_str).expect("an id").to_owned();
    assert_eq!(grid.settled(&service.id, &last)["phase"], "live");
    wait_until("the last version", || grid.get("many", "").json() == "v20");

    let list = grid.api("GET", &service.path("deployments/?page_size=100"), None).json();
    let listed = list["results"].as_array().expect("a list");
    assert_eq!(listed.len(), 21, "none is lost");
    for (at, deployment) in listed.iter().rev().enumerate() {
        assert_eq!(deployment["id"], deployments[at], "in their order");
        let expected = if at == 20 { "live" } else { "superseded" };
        assert_eq!(deployment["phase"], expected, "{deployment}");
    }
    wait_until("one container", || docker::containers(&service.id, true).len() == 1);
    wait_until("as many images as are kept", || docker::images(&service.id).len() <= 3);
    let container = docker::containers(&service.id, false).pop().expect("a container");
    assert_eq!(docker::label(&container, "grid.deployment"), last);
    assert_eq!(grid.get("many", "").json(), "v20");
}

#[test]
fn only_what_ends_in_a_container_is_deployed() {
    let grid = Grid::start();
    let code = "exports.handler = async (event, context) => context.memoryLimitInMB";
    let service = grid.create("change", "node18", code, json!({}));
    assert_eq!(grid.get("change", "").json(), "128");
    let container = docker::containers(&service.id, false);

    for change in
        [json!({}), json!({"memory_mb": 128}), json!({"min_replicas": 1, "max_replicas": 2})]
    {
        assert_eq!(grid.patch(&service, &change), Value::Null, "{change}");
    }
    assert_eq!(docker::containers(&service.id, false), container);

    // Another address: at once, without a new container.
    let change = json!({"public_domain": "Other.Example.com", "function_name": "renamed"});
    assert_eq!(grid.patch(&service, &change), Value::Null);
    let at =
        |host: &str, path: &str| grid.connect().request("GET", path, &[("host", host)], b"").status;
    wait_until("the new address", || at("other.example.com", "/fn/renamed") == 200);
    wait_until("the end of the old one", || at("change.localhost", "/fn/change") == 404);
    assert_eq!(docker::containers(&service.id, false), container);

    let deployment = grid.patch(&service, &json!({"memory_mb": 256, "cpu_shares": 512}));
    assert_eq!(deployment["phase"], "live");
    let memory = || {
        grid.connect().request("GET", "/fn/renamed", &[("host", "other.example.com")], b"").json()
    };
    wait_until("the new memory", || memory() == "256");

    // The same code once more, and another runtime.
    let answer = grid.api("POST", &service.path("deployments/"), None);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let again = grid.settled(&service.id, answer.json()["id"].as_str().expect("an id"));
    assert_eq!(again["phase"], "live");
    let change = json!({"function_runtime": "python3.9", "function_code": "def handler(e, c):\n    return 'python'\n"});
    assert_eq!(grid.patch(&service, &change)["phase"], "live");
    wait_until("the other runtime", || memory() == "python");
}

#[test]
fn a_change_of_settings_runs_in_the_image_that_is_there() {
    let grid = Grid::start();
    let code = "exports.handler = async (event, context) => context.memoryLimitInMB";
    let service = grid.create("keep", "node18", code, json!({}));
    let tag = |deployment: &Value| {
        let id = deployment["image"].as_str().expect("an id");
        format!("smsly/function-{}:{id}", service.id)
    };
    let first = service.deployment.clone();
    let images = docker::images(&service.id);
    let mut memory = 128;
    let mut change = || {
        memory += 1;
        let deployment = grid.patch(&service, &json!({ "memory_mb": memory }));
        assert_eq!(deployment["phase"], "live", "{deployment}");
        wait_until("the new memory", || grid.get("keep", "").json() == memory.to_string().as_str());
        deployment
    };
    let log = |deployment: &Value| deployment["log"].to_string();
    for _ in 0..3 {
        let deployment = change();
        assert_eq!(deployment["image"], first["id"]);
        let phases = deployment["phases"].as_array().expect("a list");
        assert_eq!(phases.len(), 5, "{phases:?}");
        let shared =
            format!("uses the image of deployment {}", first["id"].as_str().expect("an id"));
        assert!(log(&deployment).contains(&shared), "{deployment}");
        assert_eq!(docker::images(&service.id), images);
    }

    // One that somebody removed is made again, under its name.
    docker::docker(&["rmi", "-f", &tag(&first)]);
    let deployment = change();
    assert_eq!(deployment["image"], first["id"]);
    assert!(!log(&deployment).contains("uses the image"), "{deployment}");
    wait_until("one image", || docker::images(&service.id).len() == 1);

    // One whose runner is that of an earlier Grid is left to those who run in it.
    let before = docker::images(&service.id);
    relabel(&tag(&first), "LABEL grid.runner=earlier");
    assert_ne!(docker::images(&service.id), before);
    let own = change();
    assert_eq!(own["image"], own["id"]);
    assert_eq!(docker::images(&service.id).len(), 2, "the one before it is kept as well");
    // What worked once is gone back to as it was.
    let back = json!({ "deployment": deployment["id"] });
    let answer = grid.api("POST", &service.path("rollback/"), Some(&back));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let back = grid.settled(&service.id, answer.json()["id"].as_str().expect("an id"));
    assert_eq!((&back["phase"], &back["image"]), (&json!("live"), &first["id"]));
    assert!(log(&back).contains("uses the image"), "{back}");
}

/// Puts another image in the place of one: the same with one more line.
fn relabel(tag: &str, line: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("Dockerfile"), format!("FROM {tag}\n{line}\n"))
        .expect("written");
    docker::docker(&["build", "-q", "-t", tag, &dir.path().display().to_string()]);
}

#[test]
fn a_rollback_takes_up_what_was_live_without_a_build() {
    let grid = Grid::with(&[("GRID_IMAGES_KEPT", "1")]);
    let service = grid.create("back", "node18", &says("v1"), json!({}));
    let mut versions = vec![service.deployment["id"].clone()];
    for version in ["v2", "v3"] {
        let change = json!({"function_code": says(version), "memory_mb": 256});
        versions.push(grid.patch(&service, &change)["id"].clone());
    }
    wait_until("v3", || grid.get("back", "").json() == "v3");
    wait_until("two images", || docker::images(&service.id).len() == 2);
    let roll_back = |to: &Value| {
        let body = json!({ "deployment": to });
        let answer = grid.api("POST", &service.path("rollback/"), Some(&body));
        assert_eq!(answer.status, 201, "{}", answer.text());
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        grid.settled(&service.id, &id)
    };
    let log = |deployment: &Value| deployment["log"].to_string();
    let back = roll_back(&versions[1]);
    assert_eq!((&back["phase"], &back["rolled_back_to"]), (&json!("live"), &json!(versions[1])));
    assert!(log(&back).contains("uses the image of deployment"), "{back}");
    wait_until("v2", || grid.get("back", "").json() == "v2");

    // Its image is gone; it is built anew, and everything else is as it was.
    let back = roll_back(&versions[0]);
    assert_eq!(back["phase"], "live", "{back}");
    assert!(!log(&back).contains("uses the image"), "{back}");
    wait_until("v1", || grid.get("back", "").json() == "v1");
    let record = grid.api("GET", &service.path(""), None).json();
    assert_eq!((&record["memory_mb"], &record["status"]), (&json!(128), &json!("live")));
}

/// When two images share an intermediate one of the builder's cache, the removal of one image takes
/// it away under the build of the other, which then fails now and then.
#[test]
fn services_with_the_same_code_have_nothing_in_common() {
    let grid = Grid::start();
    let [first, second] = ["same-1", "same-2"].map(|name| {
        let service = grid.create(name, "node18", &says("the same"), json!({}));
        let image = docker::images(&service.id).remove(0);
        let steps = docker::docker(&[
            "history",
            "--no-trunc",
            "--format",
            "{{.ID}} {{.CreatedBy}}",
            &image,
        ]);
        let copy = steps.lines().find(|step| step.contains("/app/function/")).expect("the code");
        copy.split(' ').next().expect("an id").to_owned()
    });
    // A builder without such images tells none.
    assert!(first != second || first == "<missing>", "{first}");
}

#[test]
fn a_request_that_runs_outlives_its_version_and_its_service() {
    let grid = Grid::start();
    let code = |version: &str| {
        let handler = format!(
            "exports.handler = async (e) => {{ if (e.path === '/slow') await gate(); return '{version}' }};"
        );
        format!("{}\n{handler}", docker::GATE)
    };
    let service = grid.create("drain", "node18", &code("v1"), json!({"max_replicas": 1}));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| grid.get("drain", "/slow"));
        let old = docker::at_gate(&service.id);
        assert_eq!(grid.patch(&service, &json!({"function_code": code("v2")}))["phase"], "live");
        wait_until("the new version", || grid.get("drain", "").json() == "v2");
        docker::open_gate(&old);
        let first = first.join().expect("an answer");
        assert_eq!((first.status, first.json()), (200, json!("v1")));
        wait_until("the old one's end", || docker::containers(&service.id, true).len() == 1);

        let second = scope.spawn(|| grid.get("drain", "/slow"));
        let new = docker::at_gate(&service.id);
        assert_eq!(grid.api("DELETE", &service.path(""), None).status, 204);
        wait_until("404", || grid.get("drain", "").status == 404);
        docker::open_gate(&new);
        let second = second.join().expect("an answer");
        assert_eq!((second.status, second.json()), (200, json!("v2")));
    });
    wait_until("no container", || docker::containers(&service.id, true).is_empty());
}

#[test]
fn a_deleted_service_leaves_nothing() {
    let grid = Grid::start();
    let service = grid.create("gone", "node18", &says("here"), json!({"min_replicas": 1}));
    assert_eq!(grid.get("gone", "").json(), "here");
    assert_eq!(grid.patch(&service, &json!({"function_code": says("there")}))["phase"], "live");
    // One more is on its way when it is deleted.
    let change = json!({"function_code": says("nowhere")});
    assert_eq!(grid.api("PATCH", &service.path(""), Some(&change)).status, 200);
    assert_eq!(grid.api("DELETE", &service.path(""), None).status, 204);

    wait_until("404", || grid.get("gone", "").status == 404);
    assert_eq!(grid.api("GET", &service.path(""), None).status, 404);
    assert_eq!(grid.api("GET", &service.path("logs/"), None).status, 404);
    assert_eq!(grid.api("DELETE", &service.path(""), None).status, 404);
    wait_until("no container", || docker::containers(&service.id, true).is_empty());
    wait_until("no image", || docker::images(&service.id).is_empty());
    wait_until("no run directory", || {
        let run = grid.data_dir().join("run");
        std::fs::read_dir(run).expect("a directory").next().is_none()
    });
    // The name is free again.
    grid.create("gone", "node18", &says("again"), json!({}));
    assert_eq!(grid.get("gone", "").json(), "again");
}
