//! Without a firewall nothing with a network runs, and Grid says so.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    docker,
    grid::{Grid, wait_for, wait_until},
    http::{Answer, Connection},
    process::short_dir,
};

const CODE: &str = "exports.handler = async () => 'awake'";

/// An `nft` that is found before the real one, until it is taken away.
struct Fake {
    dir: TempDir,
    path: String,
}

impl Fake {
    fn new(script: &str) -> Self {
        let dir = short_dir();
        let file = dir.path().join("nft");
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("executable");
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", dir.path().display());
        Self { dir, path }
    }

    fn setting(&self) -> (&str, &str) {
        ("PATH", &self.path)
    }

    fn take_away(&self) {
        let file: PathBuf = self.dir.path().join("nft");
        fs::remove_file(file).expect("removed");
    }
}

fn readiness(grid: &Grid) -> Answer {
    Connection::open(grid.admin).request("GET", "/readyz", &[("host", "localhost")], b"")
}

/// Waits until a check says something that holds these words.
fn wait_for_check(grid: &Grid, check: &str, words: &str) {
    wait_for(&format!("{check}: {words}"), || {
        let answer = readiness(grid);
        let said = answer.json()["checks"][check].as_str().unwrap_or_default().to_owned();
        (answer.status == 503 && said.contains(words)).then_some(())
    });
}

fn wait_until_ready(grid: &Grid) {
    wait_until("readiness", || readiness(grid).status == 200);
}

#[test]
fn without_nft_only_functions_without_a_network_run() {
    let fake =
        Fake::new("echo 'Error: Could not process rule: Operation not permitted' >&2; exit 1");
    let grid = Grid::unready(&[fake.setting()]);
    wait_for_check(&grid, "firewall", "CAP_NET_ADMIN");
    assert_eq!(readiness(&grid).json()["checks"]["engine"], "ok");

    let open = grid.try_create("open", "node18", CODE, json!({}));
    assert_eq!(open.deployment["phase"], "failed", "{}", open.deployment);
    assert!(open.deployment.to_string().contains("CAP_NET_ADMIN"), "{}", open.deployment);
    assert!(docker::containers(&open.id, true).is_empty());
    let bare = grid.create("bare", "node18", CODE, json!({"egress": "none"}));
    assert_eq!(grid.get("bare", "").json(), "awake");

    fake.take_away();
    wait_until_ready(&grid);
    let again = grid.patch(&open, &json!({"memory_mb": 192}));
    assert_eq!(again["phase"], "live", "{again}");
    assert_eq!(grid.get("open", "").json(), "awake");
    let now_open = grid.patch(&bare, &json!({"egress": "public"}));
    assert_eq!(now_open["phase"], "live", "{now_open}");
}

#[test]
fn a_live_function_waits_for_the_firewall_and_wakes_by_itself() {
    let dir = short_dir();
    let fake = Fake::new(
        "[ -e \"${0%/*}/broken\" ] && { echo broken >&2; exit 1; }; PATH=/usr/sbin:/sbin:/usr/bin:/bin exec nft \"$@\"",
    );
    drop(dir);
    let mut grid = Grid::with(&[fake.setting(), ("GRID_IDLE_SECONDS", "1")]);
    let service = grid.create("later", "node18", CODE, json!({}));
    grid.stop();
    for container in docker::containers(&service.id, true) {
        docker::docker(&["rm", "-f", &container]);
    }
    fs::write(fake.dir.path().join("broken"), "").expect("written");
    grid.restart_unready();
    wait_for_check(&grid, "firewall", "broken");
    let refused = wait_for("a refusal", || {
        let answer = grid.get("later", "");
        (answer.status == 503).then_some(answer)
    });
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert!(docker::containers(&service.id, false).is_empty());
    fs::remove_file(fake.dir.path().join("broken")).expect("removed");
    wait_until("an answer", || grid.get("later", "").status == 200);
    wait_until_ready(&grid);
}

#[test]
fn an_nft_that_only_pretends_is_found_out() {
    for (script, words) in
        [("exit 0", "nft"), ("echo garbage", "nft"), (r#"echo '{"nftables": []}'"#, "a container")]
    {
        let fake = Fake::new(script);
        let grid = Grid::unready(&[fake.setting()]);
        wait_for_check(&grid, "firewall", words);
        let service = grid.try_create("open", "node18", CODE, json!({}));
        assert_eq!(service.deployment["phase"], "failed", "{}", service.deployment);
        assert!(docker::containers(&service.id, true).is_empty());
    }
}

#[test]
fn who_says_so_goes_without_a_firewall() {
    let fake = Fake::new("exit 1");
    let grid = Grid::with(&[fake.setting(), ("GRID_EGRESS_ENFORCEMENT", "guard-only")]);
    let warned = grid.log().lines().any(|l| l.contains("WARN") && l.contains("guard-only"));
    assert!(warned, "{}", grid.log());
    wait_until_ready(&grid);
    for (name, runtime, code) in
        [("lax-n", "node18", super::NODE), ("lax-p", "python3.9", super::PYTHON)]
    {
        let service = grid.create(name, runtime, code, json!({}));
        let answer = grid.call(
            &service.name,
            "POST",
            &format!("/fn/{name}"),
            &[],
            json!({"url": "http://10.20.30.46/"}).to_string(),
        );
        assert_eq!(answer.status, 452, "the guard is there");
    }
}

#[test]
fn a_name_server_in_the_way_is_named() {
    let mut grid = Grid::start();
    let network = grid.network().expect("a network");
    let found: Value =
        serde_json::from_str(&docker::docker(&["network", "inspect", &network])).expect("JSON");
    let gateway: Ipv4Addr = found[0]["IPAM"]["Config"][0]["Gateway"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a gateway");
    grid.stop();
    let taken = (
        UdpSocket::bind((gateway, 53)).expect("a port"),
        TcpListener::bind((gateway, 53)).expect("a port"),
    );
    grid.restart_unready();
    wait_for_check(&grid, "resolver", &format!("{gateway}:53"));
    let service = grid.try_create("dumb", "node18", CODE, json!({}));
    assert_eq!(service.deployment["phase"], "failed", "{}", service.deployment);
    drop(taken);
    wait_until_ready(&grid);
    assert_eq!(grid.patch(&service, &json!({"memory_mb": 192}))["phase"], "live");
}
