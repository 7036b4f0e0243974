//! Handlers that fail, or answer what is no answer: a short error for the public, the details in
//! the log, and a good answer right after.

use serde_json::{Value, json};

use crate::{
    docker,
    grid::{Grid, Service, wait_until},
};

const NODE: &str = r#"
const boot = Math.random();
exports.handler = async (event) => {
  switch (event.path) {
    case "/throw": throw new Error("secret-detail");
    case "/reject": return Promise.reject(new Error("secret-detail"));
    case "/reject-nothing": return Promise.reject();
    case "/circular": { const a = {secret: "secret-detail"}; a.a = a; return a; }
    case "/bigint": return {n: 1n};
    case "/nothing": return undefined;
    case "/status-99": return {statusCode: 99, body: "secret-detail"};
    case "/status-text": return {statusCode: "200", body: "secret-detail"};
    case "/crlf": return {statusCode: 200, headers: {"x-a": "b\r\nset-cookie: evil=1"}, body: "secret-detail"};
    case "/crlf-name": return {statusCode: 200, headers: {"x-a: b\r\nx-c": "d"}, body: "secret-detail"};
    case "/large": return {statusCode: 200, body: "x".repeat(7 * 1024 * 1024)};
    case "/largest": return {statusCode: 200, body: "x".repeat(6 * 1024 * 1024)};
    case "/reserved": return {statusCode: 200, headers: {"content-length": "3", "connection": "close", "transfer-encoding": "chunked", "x-grid-outcome": "error", "x-request-id": "forged"}, body: "reserved"};
    case "/empty": return {statusCode: 204};
  }
  return {statusCode: 200, body: "good " + boot};
};"#;

const PYTHON: &str = r#"
import random
boot = random.random()
async def rejected():
    raise ValueError("secret-detail")
def handler(event, context):
    path = event["path"]
    if path == "/throw": raise ValueError("secret-detail")
    if path == "/reject": return rejected()
    if path == "/reject-nothing": raise KeyboardInterrupt
    if path == "/circular":
        a = {"secret": "secret-detail"}
        a["a"] = a
        return a
    if path == "/bigint": return {1, 2}
    if path == "/nothing": return None
    if path == "/status-99": return {"statusCode": 99, "body": "secret-detail"}
    if path == "/status-text": return {"statusCode": "200", "body": "secret-detail"}
    if path == "/crlf": return {"statusCode": 200, "headers": {"x-a": "b\r\nset-cookie: evil=1"}, "body": "secret-detail"}
    if path == "/crlf-name": return {"statusCode": 200, "headers": {"x-a: b\r\nx-c": "d"}, "body": "secret-detail"}
    if path == "/large": return {"statusCode": 200, "body": "x" * (7 * 1024 * 1024)}
    if path == "/largest": return {"statusCode": 200, "body": "x" * (6 * 1024 * 1024)}
    if path == "/reserved": return {"statusCode": 200, "headers": {"content-length": "3", "connection": "close", "transfer-encoding": "chunked", "x-grid-outcome": "error", "x-request-id": "forged"}, "body": "reserved"}
    if path == "/empty": return {"statusCode": 204}
    return {"statusCode": 200, "body": "good %r" % boot}
"#;

fn check(grid: &Grid, service: &Service) {
    let name = service.name.as_str();
    let good = grid.get(name, "").text();
    assert!(good.starts_with("good "), "{good}");
    let container = docker::containers(&service.id, false);

    let bad = [
        ("/throw", "function_error"),
        ("/reject", "function_error"),
        ("/reject-nothing", "function_error"),
        ("/circular", "invalid_response"),
        ("/bigint", "invalid_response"),
        ("/status-99", "invalid_response"),
        ("/status-text", "invalid_response"),
        ("/crlf", "invalid_response"),
        ("/crlf-name", "invalid_response"),
        ("/large", "response_too_large"),
    ];
    for (path, code) in bad {
        let answer = grid.get(name, path);
        assert_eq!(answer.status, 502, "{name}{path}: {}", answer.text());
        assert_eq!(answer.code(), code, "{name}{path}");
        assert!(!answer.text().contains("secret-detail"), "{name}{path}: {}", answer.text());
        assert_eq!(answer.header("set-cookie"), None);
        assert_eq!(grid.get(name, "").text(), good, "the process stays after {path}");
    }
    assert_eq!(docker::containers(&service.id, false), container);

    assert_eq!(grid.get(name, "/nothing").json(), Value::Null);
    assert_eq!(grid.get(name, "/largest").body.len(), 6 * 1024 * 1024);
    let answer = grid.get(name, "/reserved");
    assert_eq!((answer.status, answer.text().as_str()), (200, "reserved"));
    assert_eq!(answer.all("content-length"), ["8"]);
    assert_eq!(answer.all("x-request-id").len(), 1);
    assert_ne!(answer.header("x-request-id"), Some("forged"));
    assert_eq!((answer.header("transfer-encoding"), answer.header("x-grid-outcome")), (None, None));
    let empty = grid.get(name, "/empty");
    assert_eq!((empty.status, empty.body.len(), empty.header("content-length")), (204, 0, None));

    // What the public does not see is in the log, under the same id.
    let answer =
        grid.call(name, "GET", &format!("/fn/{name}/throw"), &[("x-request-id", "look-me-up")], "");
    assert_eq!(answer.json()["request_id"], "look-me-up");
    wait_until("the stack in the log", || {
        let lines = grid.logs(service, "?request_id=look-me-up");
        let text = |line: &Value| line["line"].as_str().unwrap_or_default().to_owned();
        lines.iter().any(|line| text(line).contains("secret-detail"))
    });
}

#[test]
fn bad_results_of_node_handlers() {
    let grid = Grid::start();
    let service = grid.create("bad-node", "node18", NODE, json!({"max_replicas": 1}));
    check(&grid, &service);
}

#[test]
fn bad_results_of_python_handlers() {
    let grid = Grid::start();
    let service = grid.create("bad-python", "python3.9", PYTHON, json!({"max_replicas": 1}));
    check(&grid, &service);
}
