//! Docker Engine is away and functions go on running: without rules they have no network.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    Function,
    lifecycle::{self, is_ready},
    probe,
};
use crate::{
    docker,
    grid::{Grid, wait_until},
    internet::Host,
    lab::{ip, nft},
    process::{output_of, short_dir},
    relay::Relay,
};

/// Longer than this Grid may pause after many failures of other kinds.
const LONG: Duration = Duration::from_secs(12);

#[test]
fn who_loses_the_rules_as_well_loses_the_network_until_the_engine_is_back() {
    let (host, private) = (Host::public(), Host::at([10, 20, 30, 63].into()));
    let (web, trap) = (host.tcp(80), private.tcp(80));
    let dir = short_dir();
    let relay = Relay::start(dir.path());
    let grid = Grid::with(&[("DOCKER_HOST", &relay.host())]);
    let function = Function::python(&grid, "away-p");
    let bridge = docker::bridge_of(&grid.network().expect("a network")).to_owned();
    let table = bridge.replace('-', "_");
    let attempts = [probe::tcp(host.address(), 80), probe::tcp(private.address(), 80)];
    let works = || assert_eq!(function.attempts(&grid, &attempts), ["answered", "ECONNREFUSED"]);
    works();

    relay.cut();
    wait_until("the engine to be missed", || !is_ready(&grid));
    nft(&["delete", "table", "inet", &table]);
    wait_until("the loss to be noticed", || grid.log().contains("it is put back"));
    works();
    // The second copy is what is left; without it there is to be no network.
    let holder = lifecycle::holder(&grid).expect("a process").to_string();
    output_of("kill", &["-9", &holder]).expect("killed");
    wait_until("the bridge down", || !ip(&["-o", "link", "show", "dev", &bridge]).contains(",UP"));
    assert_eq!(function.attempts(&grid, &attempts), ["silence", "silence"]);
    std::thread::sleep(LONG);

    relay.mend();
    let mended = Instant::now();
    wait_until("readiness", || is_ready(&grid));
    let took = mended.elapsed();
    assert!(took < LONG / 2, "not noticed for {took:?}");
    works();
    let again = grid.patch(&function.service, &json!({"memory_mb": 192}));
    assert_eq!(again["phase"], "live", "{again}");
    works();
    drop(web);
    assert_eq!(private.packets(), 0);
    drop(trap);
}
