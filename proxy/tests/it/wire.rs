//! Functions that take over the runner's own connection: what comes out of a container is not
//! trusted, and whatever it is, the next answer is good.

use serde_json::json;

use crate::{
    docker,
    grid::{Grid, wait_until},
};

/// Finds the call-home connection among the process's descriptors and writes to it.
const CODE: &str = r#"
import os, socket, stat
def link():
    for fd in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found = socket.socket(fileno=os.dup(fd))
                if found.family == socket.AF_UNIX and str(found.getpeername()).endswith("/edge.sock"): return found
        except OSError: pass
def send(data):
    found = link()
    found.setblocking(True)
    try: found.sendall(data)
    except OSError: pass
    os._exit(0)
def handler(event, context):
    path = event["path"]
    if path == "/": return "good"
    if path == "/dial":
        try: socket.socket(socket.AF_UNIX).connect("/run/grid/edge.sock")
        except ConnectionRefusedError: return "refused"
    if path == "/whole": send(b"HTTP/1.1 200 OK\r\nx-grid-outcome: ok\r\ncontent-length: 5\r\n\r\nwhole")
    if path == "/twice":
        answer = b"HTTP/1.1 200 OK\r\nx-grid-outcome: ok\r\ncontent-length: 5\r\n\r\ntwice"
        link().sendall(answer + answer)
        return "late"
    if path == "/nonsense": send(b"\x00\xff nonsense\r\n\r\n")
    if path == "/short": send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    if path == "/length": send(b"HTTP/1.1 200 OK\r\ncontent-length: ten\r\n\r\nten")
    if path == "/lengths": send(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab")
    if path == "/chunk": send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
    if path == "/status": send(b"HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n")
    if path == "/upgrade": send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
    if path == "/interim": send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100000)
    if path == "/headers": send(b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(5000)) + b"content-length: 0\r\n\r\n")
    if path == "/head": send(b"HTTP/1.1 200 OK\r\nx-a: " + b"y" * (20 << 20))
    if path == "/endless": send(b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * (20 << 20))
    if path == "/declared": send(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n" + b"y" * (20 << 20))
"#;

#[test]
fn nonsense_from_a_container_is_an_honest_502() {
    let grid = Grid::with(&[("FUNCTION_TIMEOUT_SECONDS", "10")]);
    let service = grid.create("wire", "python3.9", CODE, json!({"max_replicas": 1}));
    let first = docker::containers(&service.id, false).remove(0);
    let good = || assert_eq!(grid.get("wire", "").json(), "good");
    good();
    assert_eq!(grid.get("wire", "/dial").json(), "refused", "one connection is the lease");
    good();
    assert_eq!(grid.get("wire", "/whole").text(), "whole", "it may well answer by itself");
    // Its process has ended then, which is no fault of the next request.
    wait_until("its end", || !docker::containers(&service.id, false).contains(&first));
    good();
    // An answer that nobody asked for is not the next request's.
    assert_eq!(grid.get("wire", "/twice").text(), "twice");
    for _ in 0..3 {
        good();
    }
    for path in [
        "/nonsense",
        "/short",
        "/length",
        "/lengths",
        "/chunk",
        "/status",
        "/upgrade",
        "/interim",
        "/headers",
        "/head",
        "/endless",
        "/declared",
    ] {
        let answer = grid.get("wire", path);
        assert_eq!(answer.status, 502, "{path}: {}", answer.text());
        let code = answer.code();
        let expected = ["invalid_response", "function_crashed", "response_too_large"];
        assert!(expected.contains(&code.as_str()), "{path}: {code}");
        good();
    }
}
