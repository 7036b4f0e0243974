//! Request bodies: sizes around the limit, odd framing, slow and vanishing senders.

use serde_json::{Value, json};

use crate::{
    grid::{Grid, Service},
    http::Connection,
};

const MB: usize = 1024 * 1024;
/// Counts its own invocations; the path `/count` is not one.
const COUNTER: &str = r#"let n = 0;
exports.handler = async (event) => {
  if (event.path === "/count") return n;
  n += 1;
  const raw = event.isBase64Encoded ? Buffer.from(event.rawBody, "base64") : Buffer.from(event.rawBody || "");
  return {bytes: raw.length, base64: event.isBase64Encoded, kind: event.body === null ? "null" : typeof event.body};
};"#;

fn deploy(grid: &Grid) -> Service {
    grid.create("body", "node18", COUNTER, json!({"max_replicas": 1}))
}

fn count(grid: &Grid) -> u64 {
    grid.get("body", "/count").json().as_u64().expect("a count")
}

fn post(grid: &Grid, headers: &[(&str, &str)], body: &[u8]) -> crate::http::Answer {
    grid.call("body", "POST", "/fn/body", headers, body)
}

fn head(extra: &str) -> String {
    format!("POST /fn/body HTTP/1.1\r\nhost: body.localhost\r\n{extra}\r\n")
}

/// A body in chunks of 64 KiB.
fn chunked(body: &[u8]) -> Vec<u8> {
    let mut framed = Vec::new();
    for chunk in body.chunks(64 * 1024) {
        framed.extend(format!("{:x}\r\n", chunk.len()).bytes());
        framed.extend(chunk);
        framed.extend(b"\r\n");
    }
    framed.extend(b"0\r\n\r\n");
    framed
}

#[test]
fn bodies_of_every_kind_and_size() {
    let grid = Grid::start();
    deploy(&grid);
    let seen = |bytes: usize, base64: bool, kind: &str| -> Value {
        json!({"bytes": bytes, "base64": base64, "kind": kind})
    };
    assert_eq!(post(&grid, &[], b"").json(), seen(0, false, "null"));
    assert_eq!(post(&grid, &[], b"{\"a\":").json(), seen(5, false, "string"));
    assert_eq!(post(&grid, &[], b"{\"a\":1}").json(), seen(7, false, "object"));
    assert_eq!(post(&grid, &[], b"\xc3\x28\xff").json(), seen(3, true, "string"));
    assert_eq!(post(&grid, &[], &vec![b'x'; MB]).json(), seen(MB, false, "string"));
    assert_eq!(post(&grid, &[], &vec![0xff; MB]).json(), seen(MB, true, "string"));

    let mut connection = grid.connect();
    connection.send(head("transfer-encoding: chunked\r\n"));
    connection.send(chunked(&vec![b'y'; MB]));
    assert_eq!(connection.answer().json(), seen(MB, false, "string"));
    assert_eq!(count(&grid), 7);
}

#[test]
fn a_body_over_the_limit_is_refused_without_an_invocation() {
    let grid = Grid::start();
    deploy(&grid);
    let too_large = vec![b'x'; MB + 1];

    // Declared and sent.
    let answer = post(&grid, &[], &too_large);
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    // Declared and never sent: nobody waits for it.
    let mut connection = grid.connect();
    connection.send(head("content-length: 1048577\r\n"));
    let answer = connection.answer();
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    // Declared beyond any number.
    let mut connection = grid.connect();
    connection.send(head("content-length: 99999999999999999999999\r\n"));
    let status = connection.answer().status;
    assert!([400, 413].contains(&status), "{status}");
    // Chunked, so that only counting tells. The server may hang up on what is too much.
    let mut connection = grid.connect();
    connection.send(head("transfer-encoding: chunked\r\n"));
    let _ = connection.try_send(chunked(&too_large));
    let answer = connection.answer();
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    // Chunked without end.
    let mut connection = grid.connect();
    connection.send(head("transfer-encoding: chunked\r\n"));
    let chunk = [b"10000\r\n".as_slice(), &[b'z'; 0x10000], b"\r\n"].concat();
    for _ in 0..64 {
        if connection.try_send(&chunk).is_err() {
            break;
        }
    }
    assert_eq!(connection.answer().status, 413);

    assert_eq!(count(&grid), 0, "the function was not called");
    assert_eq!(post(&grid, &[], b"1").status, 200);
    assert_eq!(count(&grid), 1);
}

#[test]
fn a_client_may_ask_before_it_sends() {
    let grid = Grid::start();
    deploy(&grid);
    let mut connection = grid.connect();
    connection.send(head("content-length: 5\r\nexpect: 100-continue\r\n"));
    assert!(connection.line().starts_with("HTTP/1.1 100"), "asked to go on");
    while !connection.line().is_empty() {}
    connection.send("hello");
    assert_eq!(connection.answer().json()["bytes"], 5);

    let mut connection = grid.connect();
    connection.send(head("content-length: 1048577\r\nexpect: 100-continue\r\n"));
    let answer = connection.answer();
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    assert_eq!(count(&grid), 1);
}

#[test]
fn a_body_that_dribbles_or_breaks_off_is_given_up() {
    let grid = Grid::with(&[("GRID_BODY_SECONDS", "1")]);
    deploy(&grid);
    for framing in ["content-length: 10\r\n", "transfer-encoding: chunked\r\n"] {
        let mut connection = grid.connect();
        connection.send(head(framing));
        connection.send(if framing.starts_with('c') { "half" } else { "4\r\nhalf\r\n" });
        let answer = connection.answer();
        assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"));
        assert!(connection.is_closed(), "the rest of the body is no request");
    }
    let mut connection = grid.connect();
    connection.send(head("content-length: 10\r\n"));
    connection.send("half");
    drop(connection);
    assert_eq!(count(&grid), 0);
}

#[test]
fn odd_framing_is_refused_and_never_read_as_a_second_request() {
    let grid = Grid::start();
    deploy(&grid);
    let smuggled = "GET /fn/body/smuggled HTTP/1.1\r\nhost: body.localhost\r\n\r\n";
    let odd = [
        head("transfer-encoding: chunked\r\n") + "zz\r\nnot a chunk\r\n\r\n",
        head("content-length: 3\r\ncontent-length: 4\r\n") + "abcd" + smuggled,
        head("content-length: -1\r\n") + "a" + smuggled,
        head("transfer-encoding: identity, gzip\r\n") + "abc" + smuggled,
        head("content-length: 1\r\ntransfer-encoding: chunked\r\n") + "0\r\n\r\n" + smuggled,
        head("transfer-encoding: chunked\r\n") + "ffffffffffffffffff\r\nabc" + smuggled,
        "POST /fn/body HTTP/1.1\r\nhost: body.localhost\r\ncontent-length : 3\r\n\r\nabc"
            .to_owned()
            + smuggled,
    ];
    for bytes in odd {
        let mut connection = Connection::open(grid.public);
        let _ = connection.try_send(&bytes);
        let mut answers = Vec::new();
        while let Ok(answer) = connection.try_answer(false) {
            answers.push(answer.status);
            if answers.len() == 2 || answer.header("connection") == Some("close") {
                break;
            }
        }
        let refusal = if bytes.contains("gzip") { 501 } else { 400 };
        assert_eq!(answers, [refusal], "{bytes:?}");
    }
    assert_eq!(count(&grid), 0, "nothing of that reached the function");
}
