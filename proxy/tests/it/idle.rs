//! Clients that connect and say nothing.

use std::{fs, net::TcpStream};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::{grid::Grid, http::Connection};

const HOST: [(&str, &str); 1] = [("host", "idle.localhost")];

/// Bytes of memory that a process has.
fn resident(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// Opens so many connections, lets each ask once, and lets them rest. Everybody is served meanwhile.
fn rest(connections: usize) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("raised");
    let grid = Grid::start();
    grid.create("idle", "node18", "exports.handler = () => 'ok';", json!({"max_replicas": 1}));
    let open = || TcpStream::connect(grid.public).expect("connects");
    assert_eq!(grid.connect().request("GET", "/fn/idle", &HOST, b"").status, 200);

    let before = resident(grid.pid());
    let silent: Vec<_> = (0..connections).map(|_| open()).collect();
    let mut good = grid.connect();
    assert_eq!(good.request("GET", "/fn/idle", &HOST, b"").status, 200);
    let silent_bytes = resident(grid.pid()).saturating_sub(before) / connections;

    let before = resident(grid.pid());
    let mut used: Vec<Connection> = (0..connections)
        .map(|_| {
            let mut connection = grid.connect();
            assert_eq!(connection.request("GET", "/fn/none", &HOST, b"").status, 404);
            connection
        })
        .collect();
    assert_eq!(good.request("GET", "/fn/idle", &HOST, b"").status, 200);
    let used_bytes = resident(grid.pid()).saturating_sub(before) / connections;
    println!(
        "{silent_bytes} bytes for a connection that said nothing, {used_bytes} for one that asked"
    );
    assert!(silent_bytes < 16 * 1024 && used_bytes < 24 * 1024);

    for connection in &mut used {
        assert_eq!(connection.request("GET", "/fn/none", &HOST, b"").status, 404);
    }
    drop((silent, used));
    assert_eq!(good.request("GET", "/fn/idle", &HOST, b"").status, 200);
}

#[test]
fn a_thousand_idle_connections_are_no_burden() {
    rest(500);
}

/// By hand: needs a hard limit of 11,000 open files or more.
#[test]
#[ignore = "takes a while, and many ports"]
fn ten_thousand_idle_connections_are_no_burden() {
    rest(5000);
}
