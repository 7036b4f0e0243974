//! Tricks of Node functions.

use serde_json::json;

use super::{GUARD, Stage, Trick, all_refused, run};
use crate::grid::{Grid, Service, wait_until};

/// Runs the body's code. `reach` waits for a connection, `whole` for an answer.
pub(super) const STAGE: &str = r#"
const reach = (socket) => new Promise((ok, no) => {
  socket.on("error", no).once("connect", () => { socket.destroy(); ok("connected"); });
});
const whole = (request) => new Promise((ok, no) => {
  request.on("error", no).on("response", (r) => { r.resume(); r.on("end", () => ok(r.statusCode)); });
});
const tell = (e, deep = 0) => (e && deep < 4 ? [e.code, e.message || e, e.stderr, tell(e.cause, deep + 1)].filter(Boolean).join(" ") : "");
const Code = (async () => {}).constructor;
exports.handler = async ({body}) => {
  if (body.exit) process.exit(3);
  try {
    const code = new Code("host", "port", "cover", "require", "module", "reach", "whole", body.code);
    return {done: String(await code(body.host, body.port, body.cover, require, module, reach, whole))};
  } catch (e) { return {error: tell(e) || "nothing"}; }
};"#;

/// What gets past the guard.
const PAST: &str = include_str!("node/past.js");

fn deploy(grid: &Grid) -> Service {
    grid.create("tricks-n", "node18", STAGE, json!({"max_replicas": 1}))
}

#[test]
fn nodes_ways_to_connect_are_guarded() {
    let grid = Grid::start();
    let witness = Trick::named(PAST, "a shell's curl that posts");
    Stage::new(&grid, &deploy(&grid)).guarded(include_str!("node/calls.js"), &witness);
}

#[test]
fn lies_of_node_code_are_not_believed() {
    let grid = Grid::start();
    let witness = Trick::named(PAST, "a shell's curl that posts");
    Stage::new(&grid, &deploy(&grid)).guarded(include_str!("node/lies.js"), &witness);
}

#[test]
fn beneath_nodes_modules_the_guard_stands_too() {
    let grid = Grid::start();
    let witness = Trick::named(PAST, "a shell's curl that posts");
    Stage::new(&grid, &deploy(&grid)).guarded(include_str!("node/deep.js"), &witness);
}

#[test]
fn the_firewall_stops_what_gets_past_nodes_guard() {
    let grid = Grid::start();
    Stage::new(&grid, &deploy(&grid)).unguarded(PAST);
}

#[test]
fn node_code_is_refused_what_it_does_not_need() {
    let grid = Grid::start();
    all_refused(&grid, &deploy(&grid), include_str!("node/refused.js"));
}

/// Tries what a module can do before any request: connects while it is loaded, by names that it
/// imported.
const MODULE: &str = r#"
import net, {connect, Socket} from "node:net";
import {get} from "http";
import {Worker} from "worker_threads";
import {createSocket} from "dgram";
import {Resolver} from "dns/promises";
const tell = (e) => `${e.code} ${e.message}`;
const settle = (start) => new Promise((ok) => { try { start(ok); } catch (e) { ok(tell(e)); } });
const reach = (socket, ok) => socket.on("error", (e) => ok(tell(e))).once("connect", () => { socket.destroy(); ok("connected"); });
const all = (host, port) => Promise.all([
  settle((ok) => reach(connect(port, host), ok)),
  settle((ok) => reach(net.createConnection(port, host), ok)),
  settle((ok) => reach(new Socket().connect({port, host}), ok)),
  settle((ok) => get({host, port}, (r) => { r.resume(); ok("connected"); }).on("error", (e) => ok(tell(e)))),
  settle((ok) => new Worker(`require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`, {eval: true}).on("error", (e) => ok(tell(e))).on("exit", () => ok("connected"))),
  settle((ok) => createSocket("udp4").send("x", port, host, (e) => ok(e ? tell(e) : "connected"))),
  settle((ok) => { new Resolver().setServers([`${host}:${port}`]); ok("connected"); }),
]);
const early = await Promise.all([all("PUBLIC", 80), all("PRIVATE", 80)]);
export const handler = async ({body}) => body.early ? early : all(body.host, body.port);
"#;

#[test]
fn a_module_that_connects_while_it_loads_is_guarded() {
    let grid = Grid::start();
    let (private, public) =
        (super::Host::at("10.66.0.1".parse().expect("an address")), super::Host::public());
    let (there, _canary) = (super::Canary::at(&public, 80), super::Canary::at(&private, 80));
    let code = MODULE
        .replace("PUBLIC", &public.address().to_string())
        .replace("PRIVATE", &private.address().to_string());
    let service = grid.create("tricks-esm", "node18", &code, json!({"max_replicas": 1}));
    let early = run(&grid, &service, "while it loads", &json!({"early": true}));
    let later = json!([
        run(&grid, &service, "later", &json!({"host": public.address(), "port": 80})),
        run(&grid, &service, "later", &json!({"host": private.address(), "port": 80})),
    ]);
    for said in [early, later] {
        for (open, closed) in
            said[0].as_array().expect("a list").iter().zip(said[1].as_array().expect("a list"))
        {
            assert_eq!(open, "connected", "{said}");
            let told = closed.as_str().unwrap_or_default();
            assert!(told.contains(GUARD) || told.contains("EACCES"), "{said}");
        }
    }
    wait_until("those who got through", || {
        there.tcp.seen().len() >= 10 && there.udp.seen().len() >= 2
    });
    assert_eq!(private.packets(), 0);
}
