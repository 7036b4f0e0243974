//! The admin API's door: tokens, methods, paths.

use serde_json::json;

use crate::{
    grid::{Grid, TOKEN},
    http::Connection,
};

#[test]
fn who_may_call_and_what() {
    let grid = Grid::start();
    let call = |method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]| {
        let all = [&[("host", "localhost")], headers].concat();
        Connection::open(grid.admin).request(method, path, &all, body)
    };
    let services = "/api/v1/services/";
    for headers in [
        &[][..],
        &[("authorization", "Token wrong-wrong-wrong-wrong")],
        &[("authorization", "Bearer x")],
    ] {
        for (method, body) in [("GET", &b""[..]), ("POST", b"{}")] {
            let answer = call(method, services, headers, body);
            assert_eq!(answer.status, 401);
            assert_eq!(answer.header("www-authenticate"), Some("Token"));
            assert!(answer.json()["detail"].is_string());
        }
    }
    assert_eq!(call("GET", "/healthz", &[], b"").status, 200);
    assert_eq!(call("GET", "/readyz", &[], b"").status, 200);
    let token = format!("Token {}", TOKEN);
    let known = [("authorization", token.as_str())];
    let answer = call("POST", services, &[known[0], ("content-type", "text/plain")], b"{}");
    assert_eq!(answer.status, 415);
    assert_eq!(call("PUT", services, &known, b"").status, 405);
    for path in [
        "/api/v1/services/1/",
        "/api/v1/services/00000000-0000-4000-8000-000000000000/",
        "/api/v1/none/",
    ] {
        let answer = call("GET", path, &known, b"");
        assert_eq!((answer.status, answer.json()["detail"].clone()), (404, json!("Not found.")));
    }
    let answer = grid.api("GET", "/api/v1/runtimes/", None).json();
    assert_eq!(answer["count"], 2, "{answer}");
}
