//! The public edge: routing, methods, request ids, timings, error answers.

use serde_json::json;

use crate::{grid::Grid, http::Connection};

const HELLO: &str = "exports.handler = async (event) => { if (event.path === '/throw') throw 1; \
    return {statusCode: 200, headers: {'x-method': event.httpMethod}, body: 'hello'}; }";

fn deployed() -> Grid {
    let grid = Grid::start();
    grid.create("hello", "node18", HELLO, json!({}));
    grid
}

#[test]
fn addresses_that_lead_to_no_function() {
    let grid = deployed();
    let get = |host: &str, target: &str| {
        Connection::open(grid.public).request("GET", target, &[("host", host)], b"")
    };
    for host in ["hello.localhost", "hello.localhost:8080", "HELLO.localhost", "hello.localhost."] {
        assert_eq!(get(host, "/fn/hello").text(), "hello", "{host}");
    }
    for target in ["/fn/hello/", "/fn/hello/x", "/fn/hello?x"] {
        assert_eq!(get("hello.localhost", target).status, 200, "{target}");
    }
    for (host, target) in [
        ("other.localhost", "/fn/hello"),
        ("localhost", "/fn/hello"),
        ("127.0.0.1", "/fn/hello"),
        ("hello.localhost", "/"),
        ("hello.localhost", "/fn"),
        ("hello.localhost", "/fn/"),
        ("hello.localhost", "/fn/other"),
        ("hello.localhost", "/fn/Hello"),
        ("hello.localhost", "/fn/hello2"),
        ("hello.localhost", "/healthz"),
        ("hello.localhost", "/api/v1/services/"),
    ] {
        let answer = get(host, target);
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{host}{target}");
    }
    assert_eq!(get("hello.localhost", "/fn/../fn/hello").code(), "bad_request");
    let answer = Connection::open(grid.public).request("GET", "/fn/hello", &[], b"");
    assert!([400, 404].contains(&answer.status), "no Host: {}", answer.status);
    let target = "http://hello.localhost/fn/hello";
    let answer =
        Connection::open(grid.public).request("GET", target, &[("host", "hello.localhost")], b"");
    assert_eq!(answer.text(), "hello", "absolute form");
}

#[test]
fn methods() {
    let grid = deployed();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let answer = grid.call("hello", method, "/fn/hello", &[], "");
        assert_eq!((answer.status, answer.header("x-method")), (200, Some(method)));
    }
    let mut connection = grid.connect();
    let host = [("host", "hello.localhost")];
    let answer = connection.request("HEAD", "/fn/hello", &host, b"");
    assert_eq!((answer.status, answer.header("x-method")), (200, Some("HEAD")));
    assert_eq!(
        connection.request("GET", "/fn/hello", &host, b"").text(),
        "hello",
        "HEAD has no body"
    );

    for (method, target) in [
        ("TRACE", "/fn/hello"),
        ("CONNECT", "hello.localhost:80"),
        ("CONNECT", "/fn/hello"),
        ("PROPFIND", "/fn/hello"),
        ("get", "/fn/hello"),
    ] {
        let answer = grid.call("hello", method, target, &[], "");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (405, "method_not_allowed"),
            "{method} {target}"
        );
        assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
}

#[test]
fn request_ids_and_timings_are_on_every_answer() {
    let grid = deployed();
    let long = "x".repeat(129);
    for (target, status) in [("/fn/hello", 200), ("/fn/hello/throw", 502), ("/fn/none", 404)] {
        let with = |headers: &[(&str, &str)]| {
            let answer = grid.call("hello", "GET", target, headers, "");
            assert_eq!(answer.status, status, "{target}");
            assert_eq!(answer.all("x-request-id").len(), 1);
            if status != 200 {
                answer.code(); // checks the shape, and that the body names the same id
            }
            answer.header("x-request-id").expect("an id").to_owned()
        };
        assert_eq!(with(&[("x-request-id", "my-id.1:2/3=4@5+6_7")]), "my-id.1:2/3=4@5+6_7");
        let (first, second) = (with(&[]), with(&[]));
        assert_ne!(first, second);
        for odd in ["", "two words", "quote\"", "<script>", long.as_str()] {
            let made = with(&[("x-request-id", odd)]);
            assert_ne!(made, odd);
            assert_eq!(made.len(), first.len(), "made by Grid");
        }
    }
    let answer = grid.get("hello", "");
    let exec = answer
        .header("server-timing")
        .and_then(|t| t.split("exec;dur=").nth(1)?.parse::<f64>().ok());
    assert!(exec.is_some_and(|ms| ms > 0.0), "{answer:?}");
}

#[test]
fn heads_beyond_the_bounds_are_refused() {
    let grid = deployed();
    let long = format!("/fn/hello?{}", "x".repeat(8 * 1024));
    let answer = grid.call("hello", "GET", &long, &[], "");
    assert_eq!((answer.status, answer.code().as_str()), (414, "target_too_long"));
    let longest = format!("/fn/hello?{}", "x".repeat(8 * 1024 - 10));
    assert_eq!(grid.call("hello", "GET", &longest, &[], "").status, 200);

    let names: Vec<_> = (0..101).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    let answer = grid.call("hello", "GET", "/fn/hello", &many, "");
    assert_eq!((answer.status, answer.code().as_str()), (431, "headers_too_large"));
    let value = "v".repeat(33 * 1024);
    let answer = grid.call("hello", "GET", "/fn/hello", &[("x-large", &value)], "");
    assert_eq!((answer.status, answer.code().as_str()), (431, "headers_too_large"));
    let answer = grid.call(
        "hello",
        "GET",
        "/fn/hello",
        &[("upgrade", "websocket"), ("connection", "upgrade")],
        "",
    );
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"));
    assert_eq!(grid.get("hello", "").text(), "hello");
}
