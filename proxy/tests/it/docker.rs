//! What Docker Engine itself says, through its command line: the tests' view behind Grid's back.

use serde_json::Value;

use crate::{
    lab::{assert_inside, rules_of},
    process::output_of,
};

/// Runs `docker` and gives what it printed. A failure is part of the test's outcome.
pub(crate) fn docker(args: &[&str]) -> String {
    try_docker(args).unwrap_or_else(|error| panic!("docker {args:?}: {error}"))
}

/// As [`docker`], for calls that may find nothing.
pub(crate) fn try_docker(args: &[&str]) -> Result<String, String> {
    assert_inside();
    output_of("docker", args)
}

/// Full ids of a service's containers, `all`: also of those that have ended.
pub(crate) fn containers(service: &str, all: bool) -> Vec<String> {
    let filter = format!("label=grid.service={service}");
    let mut args = vec!["ps", "-q", "--no-trunc", "--filter", &filter];
    if all {
        args.push("-a");
    }
    docker(&args).lines().map(str::to_owned).collect()
}

/// Ids of a service's images.
pub(crate) fn images(service: &str) -> Vec<String> {
    let filter = format!("label=grid.service={service}");
    let listed = docker(&["images", "-q", "--no-trunc", "--filter", &filter]);
    listed.lines().map(str::to_owned).collect()
}

/// All that the engine knows of a container or image.
pub(crate) fn inspect(id: &str) -> Value {
    let list: Value = serde_json::from_str(&docker(&["inspect", id])).expect("JSON");
    list[0].clone()
}

/// One label of a container or image.
pub(crate) fn label(id: &str, name: &str) -> String {
    inspect(id)["Config"]["Labels"][name].as_str().unwrap_or_default().to_owned()
}

/// JavaScript of an async `gate()` in a handler that waits until [`open_gate`] is called for its
/// container. Nothing of the host can be reached from there, so a file is the sign.
pub(crate) const GATE: &str = "const gate = async () => { console.log('at the gate'); \
    while (!require('fs').existsSync('/tmp/gate')) await new Promise((d) => setTimeout(d, 10)); };";

/// Lets go whoever waits at the gate in a container.
pub(crate) fn open_gate(container: &str) {
    docker(&["exec", container, "touch", "/tmp/gate"]);
}

/// Waits until a run of a service's only container is at its gate; gives the container.
pub(crate) fn at_gate(service: &str) -> String {
    let container = containers(service, false).pop().expect("a container");
    crate::grid::wait_until("somebody at the gate", || {
        docker(&["logs", &container]).contains("at the gate")
    });
    container
}

/// The interface and the tables of a Grid's network: 15 bytes is what an interface's name may have.
pub(crate) fn bridge_of(network: &str) -> &str {
    network.get(..15).unwrap_or(network)
}

/// Removes a Grid's network with everything that came with it: containers, filter tables, routes.
pub(crate) fn remove_network(network: &str) {
    let bridge = bridge_of(network);
    let filter = format!("network={network}");
    let attached = try_docker(&["ps", "-a", "-q", "--filter", &filter]).unwrap_or_default();
    for container in attached.lines() {
        drop(try_docker(&["rm", "-f", "-v", container]));
    }
    drop(try_docker(&["network", "rm", network]));
    for family in ["inet", "bridge"] {
        drop(output_of("nft", &["delete", "table", family, &bridge.replace('-', "_")]));
    }
    for (family, table) in rules_of(bridge) {
        drop(output_of("ip", &[family, "rule", "del", "iif", bridge, "pref", "1"]));
        if let Some(table) = table {
            drop(output_of("ip", &[family, "route", "flush", "table", &table]));
        }
    }
}

/// Removes everything that was made for a service.
pub(crate) fn remove_all(service: &str) {
    for container in containers(service, true) {
        drop(try_docker(&["rm", "-f", "-v", &container]));
    }
    for image in images(service) {
        drop(try_docker(&["rmi", "-f", &image]));
    }
}
