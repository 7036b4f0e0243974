//! Who may call, methods, paths.

use serde_json::json;

use super::client::{Grid, TOKEN};

const SERVICES: &str = "/api/v1/services/";
const ID: &str = "9c8b4b1a-7d1c-4a2b-9a55-2e8c3d4f9b21";

#[tokio::test]
async fn only_the_token_opens() {
    let grid = Grid::start().await;
    let cases = [
        (None, "Authentication credentials were not provided."),
        (Some("Bearer x"), "Authentication credentials were not provided."),
        (Some("Token"), "Invalid token header. No credentials provided."),
        (Some("Token a b"), "Invalid token header. Token string should not contain spaces."),
        (Some("Token wrong"), "Invalid token."),
    ];
    let one = format!("{SERVICES}{ID}/");
    for (value, detail) in cases {
        let headers: Vec<_> = value.iter().map(|value| ("authorization", *value)).collect();
        for (method, path) in
            [("GET", SERVICES), ("POST", SERVICES), ("DELETE", &*one), ("TRACE", &*one)]
        {
            let answer = grid.raw(method, path, &headers, b"").await;
            answer.is(401, &json!({ "detail": detail }));
            assert_eq!(answer.headers["www-authenticate"], "Token");
        }
    }
    let headers = [("Authorization", &*format!("Token {TOKEN}"))];
    assert_eq!(grid.raw("GET", SERVICES, &headers, b"").await.status, 200);
}

#[tokio::test]
async fn paths_that_name_nothing() {
    let grid = Grid::start().await;
    let not_found = json!({"detail": "Not found."});
    for path in [
        "/".to_owned(),
        "/api/v1/".to_owned(),
        "/api/v1/nothing/".to_owned(),
        format!("{SERVICES}{ID}/"),
        format!("{SERVICES}{ID}/deployments/"),
        format!("{SERVICES}{ID}/deployments/{ID}/"),
        format!("{SERVICES}{ID}/logs/"),
        format!("{SERVICES}not-an-id/"),
        format!("{SERVICES}%ff/"),
        format!("{SERVICES}{ID}/deployments/not-an-id/"),
        format!("{SERVICES}{ID}/nothing/"),
    ] {
        grid.get(&path).await.is(404, &not_found);
    }
}

#[tokio::test]
async fn a_method_that_does_not_fit_is_told_what_does() {
    let grid = Grid::start().await;
    let one = format!("{SERVICES}{ID}/");
    let cases = [
        ("PUT", SERVICES, vec!["GET", "POST"]),
        ("POST", &one, vec!["GET", "PUT", "PATCH", "DELETE"]),
        ("DELETE", "/api/v1/runtimes/", vec!["GET"]),
        ("POST", "/healthz", vec!["GET"]),
    ];
    for (method, path, allowed) in cases {
        let answer = grid.send(method, path, "").await;
        answer.is(405, &json!({"detail": format!("Method \"{method}\" not allowed.")}));
        let allow = &answer.headers["allow"];
        for method in allowed {
            assert!(allow.split(',').any(|m| m.trim() == method), "{path}: {allow}");
        }
    }
}

#[tokio::test]
async fn a_missing_slash_is_noticed() {
    let grid = Grid::start().await;
    let answer = grid.get("/api/v1/services?page=2").await;
    assert_eq!(answer.status, 301);
    assert_eq!(answer.headers["location"], "/api/v1/services/?page=2");
    answer.json();
    let detail =
        format!("Not found. The path lacks its trailing slash: use /api/v1/services/{ID}/");
    let path = format!("/api/v1/services/{ID}");
    grid.patch(&path, &json!({})).await.is(404, &json!({ "detail": detail }));
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let grid = Grid::start().await;
    let answer = grid.send("HEAD", SERVICES, "").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, ""));
}

#[tokio::test]
async fn a_parameter_that_is_given_twice_says_nothing() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    for (path, name) in [
        (format!("{SERVICES}?page_size=x&page_size="), "page_size"),
        (format!("{SERVICES}?page=1&page_size=5&page=2"), "page"),
        (format!("{SERVICES}?name=a&n%61me=b"), "name"),
        (format!("{path}?owner=admin&owner=bob"), "owner"),
        (format!("{path}logs/?tail=1&tail=1"), "tail"),
        ("/api/v1/audit_log/?action=a&action=".to_owned(), "action"),
    ] {
        grid.get(&path).await.is(400, &json!({ name: ["This parameter may be given once only."] }));
    }
    assert_eq!(grid.get(&format!("{SERVICES}?page=1&page_size=&name=a&x=1")).await.status, 200);
    let owned = format!("{path}?owner=admin&owner=admin");
    grid.patch(&owned, &json!({}))
        .await
        .is(400, &json!({"owner": ["This parameter may be given once only."]}));
}

#[tokio::test]
async fn who_can_read_no_answer_is_told_so_and_nothing_is_done() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    let refused = json!({"detail": "Could not satisfy the request Accept header."});
    let ask = async |accept: &str, method: &str, path: &str| {
        grid.send_with(TOKEN, &[("accept", accept)], method, path, "").await
    };
    for accept in ["text/html", "application/xml", "text/plain", "application/json;q=0"] {
        ask(accept, "GET", SERVICES).await.is(406, &refused);
        ask(accept, "DELETE", &path).await.is(406, &refused);
    }
    ask("text/html", "GET", &format!("{path}logs/")).await.is(406, &refused);
    ask("application/xml", "GET", "/api/v1/backup/").await.is(406, &refused);
    for (accept, path) in [
        ("*/*", SERVICES),
        ("text/html,application/xhtml+xml,*/*;q=0.8", SERVICES),
        ("application/json; indent=4", SERVICES),
        ("text/plain", &*format!("{path}logs/")),
        ("application/x-ndjson", "/api/v1/backup/"),
    ] {
        assert_eq!(ask(accept, "GET", path).await.status, 200, "{accept}");
    }
    // What needs no token is no part of it.
    assert_eq!(ask("text/html", "GET", "/healthz").await.status, 200);
}
