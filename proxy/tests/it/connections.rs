//! Client connections: kept after errors that leave them usable, pipelined, closed when asked, and
//! clients that hang up before their answer.

use std::net::Shutdown;

use serde_json::{Value, json};

use crate::{
    docker,
    grid::{Grid, wait_until},
};

const HOST: [(&str, &str); 1] = [("host", "conn.localhost")];
const CODE: &str = r#"let n = 0;
exports.handler = async (event) => {
  if (event.path === "/throw") throw new Error("no");
  if (event.path === "/exit") process.exit(1);
  if (event.path === "/count") return n;
  n += 1;
  return "ok";
};"#;

#[test]
fn one_connection_survives_every_error_that_leaves_it_usable() {
    let grid = Grid::start();
    grid.create("conn", "node18", CODE, json!({"max_replicas": 1}));
    let mut connection = grid.connect();
    let steps: [(&str, &str, &[u8], u16); 11] = [
        ("GET", "/fn/conn", b"", 200),
        ("GET", "/fn/none", b"", 404),
        ("POST", "/fn/none", b"with a body", 404),
        ("TRACE", "/fn/conn", b"", 405),
        ("POST", "/fn/conn/throw", b"{}", 502),
        ("GET", "/fn/conn/exit", b"", 502),
        ("POST", "/fn/conn", b"after a crash", 200),
        ("DELETE", "/fn/conn/throw", b"", 502),
        ("HEAD", "/fn/none", b"", 404),
        ("POST", "/fn/conn", &[b'x'; 300_000], 200),
        ("GET", "/fn/conn", b"", 200),
    ];
    for (method, target, body, status) in steps {
        let answer = connection.request(method, target, &HOST, body);
        assert_eq!(answer.status, status, "{method} {target}");
        assert_ne!(answer.header("connection"), Some("close"), "{method} {target}");
    }
}

#[test]
fn an_answer_before_the_body_reaches_whoever_still_sends() {
    let grid = Grid::start();
    grid.create("conn", "node18", CODE, json!({"max_replicas": 1}));
    // The body looks like requests, and it is all under way before the answer is read.
    let body = "GET /fn/conn HTTP/1.1\r\nhost: conn.localhost\r\n\r\n".repeat(40_000);
    for (method, target, length, status) in [
        ("POST", "/fn/none", 11, 404),
        ("POST", "/fn/none", 1_000_000, 404),
        ("TRACE", "/fn/conn", 1_000_000, 405),
        ("POST", "/fn/conn", 1_100_000, 413),
        ("POST", "/fn/conn", 1_500_000, 413),
    ] {
        let mut connection = grid.connect();
        let answer = connection.request(method, target, &HOST, &body.as_bytes()[..length]);
        assert_eq!(answer.status, status, "{method} {target} {length}");
        // Then the connection goes on with the next request or is closed.
        let next = "GET /fn/conn/count HTTP/1.1\r\nhost: conn.localhost\r\n\r\n";
        if connection.try_send(next).is_ok()
            && let Ok(answer) = connection.try_answer(false)
        {
            assert_eq!((answer.status, answer.json()), (200, json!(0)));
        }
    }
    assert_eq!(grid.get("conn", "/count").json(), 0, "a body was taken for requests");
}

#[test]
fn a_client_that_does_not_read_costs_no_replica() {
    let grid = Grid::start();
    let code = "exports.handler = async (e) => \
        e.path === '/large' ? {statusCode: 200, body: 'x'.repeat(6 << 20)} : 'ok'";
    grid.create("conn", "node18", code, json!({"max_replicas": 1}));
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let mut connection = grid.connect();
            connection.send("GET /fn/conn/large HTTP/1.1\r\nhost: conn.localhost\r\n\r\n");
            connection
        })
        .collect();
    assert_eq!(grid.get("conn", "").json(), "ok");
    for mut connection in slow {
        assert_eq!(connection.answer().body.len(), 6 << 20);
    }
}

#[test]
fn pipelining_closing_and_old_clients() {
    let grid = Grid::start();
    grid.create("conn", "node18", CODE, json!({"max_replicas": 1}));
    let mut connection = grid.connect();
    let get = "GET /fn/conn HTTP/1.1\r\nhost: conn.localhost\r\n\r\n";
    let post =
        "POST /fn/conn/count HTTP/1.1\r\nhost: conn.localhost\r\ncontent-length: 2\r\n\r\n{}";
    connection.send(format!("{get}{post}{get}{post}"));
    let bodies: Vec<Value> = (0..4).map(|_| connection.answer().json()).collect();
    assert_eq!(bodies, [json!("ok"), json!(1), json!("ok"), json!(2)]);

    let close = [HOST[0], ("connection", "close")];
    let mut connection = grid.connect();
    assert_eq!(connection.request("GET", "/fn/conn", &close, b"").json(), "ok");
    assert!(connection.is_closed());

    let mut old = grid.connect();
    old.send("GET /fn/conn HTTP/1.0\r\nhost: conn.localhost\r\n\r\n");
    assert_eq!(old.answer().json(), "ok");
    assert!(old.is_closed());
}

#[test]
fn a_client_that_hangs_up_costs_no_replica() {
    let grid = Grid::with(&[("GRID_QUEUE_LENGTH", "1")]);
    let handler = "const runs = []; exports.handler = async (event) => { \
        if (event.path === '/runs') return runs; \
        if (event.path === '/slow') await gate(); runs.push(event.path); return 'ok' };";
    let code = format!("{}\n{handler}", docker::GATE);
    let service = grid.create("conn", "node18", &code, json!({"max_replicas": 1}));
    let begin = |path: &str| {
        let mut connection = grid.connect();
        let head = format!("GET /fn/conn/{path} HTTP/1.1\r\nhost: conn.localhost\r\n");
        connection.send(format!("{head}x-request-id: {path}\r\n\r\n"));
        connection
    };

    // While its request runs: the run goes to its end.
    let gone = begin("slow");
    let container = docker::at_gate(&service.id);
    gone.shutdown(Shutdown::Both);
    drop(gone);
    // While its request waits for the replica: that one is never run. There is one place, so of two
    // requests the one that is not refused has it.
    let (first, second) = (begin("first"), begin("second"));
    wait_until("one to be refused", || first.has_news() || second.has_news());
    drop((first, second));
    wait_until("the edge to notice", || grid.log().contains("denial=ClientGone"));
    docker::open_gate(&container);

    wait_until("an answer", || grid.get("conn", "/runs").status == 200);
    assert_eq!(grid.get("conn", "/runs").json(), json!(["/slow"]));
    assert_eq!(docker::containers(&service.id, true), [container], "the same container");
    let record = grid.api("GET", &service.path(""), None).json();
    assert_eq!(record["replicas"].as_array().map(Vec::len), Some(1), "{record}");
}
