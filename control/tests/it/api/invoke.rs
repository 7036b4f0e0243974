//! `invoke/` as far as it gets without an engine.

use serde_json::json;

use super::client::{Grid, INVOKE_RATE};

#[tokio::test]
async fn who_invokes_too_often_is_told_when_to_come_back() {
    let grid = Grid::start().await;
    let path = format!("{}invoke/", grid.service("a").await);
    for _ in 0..INVOKE_RATE {
        let answer = grid.post(&path, &json!({"event": {}})).await;
        assert_eq!(answer.status, 503, "{answer:?}"); // there is no control plane
        assert_eq!(answer.headers["retry-after"], "5");
    }
    let answer = grid.post(&path, &json!({"event": {}})).await;
    assert_eq!(answer.status, 429, "{answer:?}");
    let seconds: u64 = answer.headers["retry-after"].parse().expect("seconds");
    assert!((1..=60 / u64::from(INVOKE_RATE)).contains(&seconds), "{seconds}");
    let unit = if seconds == 1 { "second" } else { "seconds" };
    let detail = format!("Request was throttled. Expected available in {seconds} {unit}.");
    assert_eq!(answer.json(), json!({ "detail": detail }));
    // Everything else is as before.
    assert_eq!(grid.get("/api/v1/services/").await.status, 200);
}

#[tokio::test]
async fn wrong_requests_are_told_what_is_wrong() {
    let grid = Grid::start().await;
    let service = grid.service("a").await;
    let path = format!("{service}invoke/");
    let unknown = "/api/v1/services/01a20b2a-fba8-7081-96f3-93eda2d141ff/invoke/";
    assert_eq!(grid.post(unknown, &json!({})).await.status, 404);
    let answer = grid.post(&path, &json!({"event": {}, "memory_mb": 64})).await;
    assert_eq!((answer.status, answer.json()), (400, json!({"memory_mb": ["Unknown field."]})));
    assert_eq!(grid.get(&path).await.status, 405);
    let answer = grid.send("POST", path.trim_end_matches('/'), "{}").await;
    assert_eq!(answer.status, 404, "{answer:?}");
}
