//! Tricks of Python functions.

use serde_json::json;

use super::{Host, Stage, Trick, all_refused, run};
use crate::grid::{Grid, Service, wait_until};

/// Runs the body's code.
pub(super) const STAGE: &str = r#"
import errno, os
def tell(error):
    told = []
    while error is not None and len(told) < 4:
        number = getattr(error, "errno", None)
        told.append("%s %s %s" % (type(error).__name__, errno.errorcode.get(number, number), error))
        error = error.__cause__ or error.__context__
    return "; ".join(told)
def handler(event, context):
    body = event["body"]
    if body.get("exit"): os._exit(3)
    scope = {name: body.get(name) for name in ("host", "port", "cover")}
    try:
        exec(body["code"], scope)
        return {"done": repr(scope.get("result"))}
    except BaseException as error:
        return {"error": tell(error)}
"#;

/// What gets past the guard.
const PAST: &str = include_str!("python/past.py");

fn deploy(grid: &Grid) -> Service {
    grid.create("tricks-p", "python3.9", STAGE, json!({"max_replicas": 1}))
}

#[test]
fn pythons_ways_to_connect_are_guarded() {
    let grid = Grid::start();
    let witness = Trick::named(PAST, "posix_spawn");
    Stage::new(&grid, &deploy(&grid)).guarded(include_str!("python/calls.py"), &witness);
}

#[test]
fn beneath_pythons_modules_the_guard_stands_too() {
    let grid = Grid::start();
    let witness = Trick::named(PAST, "posix_spawn");
    Stage::new(&grid, &deploy(&grid)).guarded(include_str!("python/deep.py"), &witness);
}

#[test]
fn the_firewall_stops_what_gets_past_pythons_guard() {
    let grid = Grid::start();
    Stage::new(&grid, &deploy(&grid)).unguarded(PAST);
}

#[test]
fn python_code_is_refused_what_it_does_not_need() {
    let grid = Grid::start();
    all_refused(&grid, &deploy(&grid), include_str!("python/sockets.py"));
}

/// The kernel sends such packets to `host`, whatever the code says that it connects to.
const ROUTE: &str = "
import socket
s = socket.socket()
s.settimeout(1)
s.setsockopt(socket.IPPROTO_IP, 4, bytes([131, 7, 4]) + socket.inet_aton(host) + bytes(1))
s.connect((cover, 80))";

#[test]
fn a_source_route_leads_past_the_guard_only() {
    let grid = Grid::start();
    let service = deploy(&grid);
    let stage = Stage::new(&grid, &service);
    let ask = |host: &Host| {
        let (host, cover) = (host.address(), stage.cover.address());
        run(&grid, &service, "a route", &json!({"code": ROUTE, "host": host, "cover": cover}))
    };
    let said = ask(&stage.public);
    for host in &stage.private {
        ask(host);
    }
    // Newer kernels let nobody ask for a route without a right that functions do not have.
    if !said.to_string().contains("EPERM") {
        wait_until(&format!("the public host, which {said}"), || stage.public.packets() > 0);
        wait_until("the routes in the record", || stage.is_refused(80));
    }
    stage.assert_unseen("a route");
}
