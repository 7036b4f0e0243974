//! Request bodies that are not what they should be.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::client::{Grid, TOKEN};

const SERVICES: &str = "/api/v1/services/";

#[tokio::test]
async fn what_is_not_json_is_told_where() {
    let grid = Grid::start().await;
    let unescaped = r#"{"function_code": "body: "hello" });"}"#;
    for body in ["{", "nul", "{'name': 1}", unescaped, "{\"a\": \"line\nend\"}"] {
        let answer = grid.send("POST", SERVICES, body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.starts_with("JSON parse error - "), "{detail}");
        assert!(detail.contains("line 1 column") || detail.contains("line 2 column"), "{detail}");
    }
    let authorization = format!("Token {TOKEN}");
    let headers = [("authorization", &*authorization), ("content-type", "application/json")];
    let answer = grid.raw("POST", SERVICES, &headers, b"{\"name\": \"\xff\"}").await;
    let detail = "JSON parse error - the body is not UTF-8 (first invalid byte at position 10)";
    answer.is(400, &json!({ "detail": detail }));
}

#[tokio::test]
async fn what_is_not_an_object_is_named() {
    let grid = Grid::start().await;
    let expected =
        json!({"non_field_errors": ["Invalid data. Expected a dictionary, but got list."]});
    grid.send("POST", SERVICES, "[1]").await.is(400, &expected);
}

#[tokio::test]
async fn other_media_types_are_refused() {
    let grid = Grid::start().await;
    let authorization = format!("Token {TOKEN}");
    let expected = json!({"detail": "Unsupported media type \"text/plain\" in request."});
    let headers = [("authorization", &*authorization), ("content-type", "text/plain")];
    grid.raw("POST", SERVICES, &headers, b"{}").await.is(415, &expected);
    let expected = json!({"detail": "Unsupported media type \"\" in request."});
    grid.raw("POST", SERVICES, &headers[..1], b"{}").await.is(415, &expected);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_the_limit() {
    let grid = Grid::start().await;
    let limit = 6 * (262_144 + 65_536) + 65_536;
    let body = json!({"function_code": "x".repeat(8 * 1024 * 1024)}).to_string();
    let expected = json!({"detail": format!("The request's body is larger than {limit} bytes.")});
    grid.send("POST", SERVICES, &body).await.is(413, &expected);

    // The same without a declared length.
    let mut stream = TcpStream::connect(grid.address).await.expect("a connection");
    let head = format!(
        "POST {SERVICES} HTTP/1.1\r\nhost: a\r\nauthorization: Token {TOKEN}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
    for _ in 0..=limit / 65_536 {
        stream.write_all(chunk.as_bytes()).await.expect("sent");
    }
    stream.write_all(b"0\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_body_that_ends_early_changes_nothing() {
    let grid = Grid::start().await;
    let mut stream = TcpStream::connect(grid.address).await.expect("a connection");
    let head = format!(
        "POST {SERVICES} HTTP/1.1\r\nhost: a\r\nauthorization: Token {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    );
    let body = r#"{"name": "a", "function_runtime": "node18", "function_code": "x"}"#;
    stream.write_all((head + body).as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("shut down");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(grid.get(SERVICES).await.json()["results"], Value::Array(Vec::new()));
}
