//! OCI runtimes: those of the setting can be chosen, and only those. The lab's engine knows runc by a
//! second name, `runc-again`.

use serde_json::json;

use crate::{
    docker,
    grid::{Grid, wait_until},
    http::Connection,
};

const CODE: &str = "exports.handler = () => 'ran'";

fn runtime_of(service: &str) -> String {
    let container = docker::containers(service, false).pop().expect("a container");
    let runtime = &docker::inspect(&container)["HostConfig"]["Runtime"];
    runtime.as_str().expect("a name").to_owned()
}

#[test]
fn the_first_runtime_is_the_default_and_services_choose_among_all() {
    let grid = Grid::with(&[("GRID_OCI_RUNTIMES", "runc-again,runc")]);
    let service = grid.create("plain", "node18", CODE, json!({"min_replicas": 1}));
    assert_eq!(grid.get("plain", "").json(), "ran");
    assert_eq!(runtime_of(&service.id), "runc-again");

    let other = json!({"min_replicas": 1, "oci_runtime": "runc"});
    let other = grid.create("other", "python3.9", "def handler(e, c): return 'ran'\n", other);
    assert_eq!(grid.get("other", "").json(), "ran");
    assert_eq!(runtime_of(&other.id), "runc");
    let record = grid.api("GET", &other.path(""), None).json();
    assert_eq!(record["oci_runtime"], "runc");

    let change = grid.api("PATCH", &other.path(""), Some(&json!({"oci_runtime": "runsc"})));
    assert_eq!(change.status, 400);
    assert_eq!(change.json()["oci_runtime"], json!(["\"runsc\" is not a valid choice."]));
}

#[test]
fn a_runtime_that_the_engine_does_not_know_is_told_before_anything_runs() {
    let grid = Grid::unready(&[("GRID_OCI_RUNTIMES", "runsc-of-nobody")]);
    let mut problem = String::new();
    wait_until("the problem", || {
        let ready =
            Connection::open(grid.admin).request("GET", "/readyz", &[("host", "localhost")], b"");
        problem = ready.json()["checks"]["engine"].as_str().unwrap_or_default().to_owned();
        ready.status == 503 && problem.contains("runsc-of-nobody")
    });
    assert!(problem.contains("GRID_OCI_RUNTIMES") && problem.contains("runc-again"), "{problem}");
}
