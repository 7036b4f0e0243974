//! Functions do not reach each other, neither in one Grid nor across two.

use std::{
    net::{SocketAddr, TcpStream},
    thread,
};

use serde_json::json;

use super::{Function, probe};
use crate::grid::{Grid, wait_until};

/// A function in which a server waits at port 9999 for whoever can reach it.
pub(super) fn server(grid: &Grid, name: &str) -> Function {
    let function = Function::python(grid, name);
    function.spawn(grid, probe::SERVER, &json!(9999));
    wait_until("the server", || {
        let container = function.container();
        crate::docker::try_docker(&["exec", &container, "test", "-e", "/tmp/serving"]).is_ok()
    });
    function
}

/// The server is there, and nobody but this test has come to it.
pub(super) fn assert_untouched(server: &Function) {
    assert_eq!(server.file("/tmp/seen"), "", "somebody reached it");
    let (address, gateway) = server.addresses();
    TcpStream::connect(SocketAddr::from((address, 9999))).expect("the platform reaches it");
    wait_until("our own visit", || server.file("/tmp/seen") == gateway.to_string());
}

#[test]
fn functions_do_not_reach_each_other() {
    let grids = thread::scope(|scope| {
        [scope.spawn(Grid::start), scope.spawn(Grid::start)]
            .map(|grid| grid.join().expect("a Grid"))
    });
    let servers = [server(&grids[0], "serve-a"), server(&grids[1], "serve-b")];
    for function in [Function::node(&grids[0], "peer-n"), Function::python(&grids[0], "peer-p")] {
        let mut attempts = Vec::new();
        for server in &servers {
            let (address, gateway) = server.addresses();
            for port in [9999, 8000, 22] {
                attempts.extend(probe::both(address, port));
            }
            // The gateway of the other Grid is this machine, too.
            attempts.extend(probe::both(gateway, 9999));
        }
        let own_gateway = probe::tcp(servers[1].addresses().1, 53);
        attempts.push(own_gateway);
        for (attempt, outcome) in attempts.iter().zip(function.attempts(&grids[0], &attempts)) {
            assert!(
                !["answered", "connected"].contains(&outcome.as_str()),
                "{attempt:?}: {outcome}"
            );
        }
    }
    servers.iter().for_each(assert_untouched);
}
