//! Pages, history, logs and the lists beside them.

use control::health::Dependency;
use serde_json::{Value, json};

use super::client::{Grid, TOKEN};

#[tokio::test]
async fn services_come_in_pages_in_the_order_of_their_making() {
    let grid = Grid::start().await;
    let empty = json!({"count": 0, "next": null, "previous": null, "results": []});
    grid.get("/api/v1/services/").await.is(200, &empty);
    for number in 0..21 {
        grid.service(&format!("s{number}")).await;
    }
    let names = |page: &Value| -> Vec<String> {
        let results = page["results"].as_array().expect("results");
        results.iter().map(|r| r["name"].as_str().expect("a name").to_owned()).collect()
    };
    let base = format!("http://{}/api/v1/services/", grid.address);
    let first = grid.get("/api/v1/services/").await.json();
    assert_eq!(first["count"], 21);
    assert_eq!(first["next"], format!("{base}?page=2"));
    assert_eq!(first["previous"], Value::Null);
    assert_eq!(names(&first), (0..20).map(|n| format!("s{n}")).collect::<Vec<_>>());
    let second = grid.get("/api/v1/services/?page=2").await.json();
    assert_eq!((&second["next"], &second["previous"]), (&Value::Null, &json!(base)));
    assert_eq!(names(&second), ["s20"]);
    let middle = grid.get("/api/v1/services/?page=3&page_size=2").await.json();
    assert_eq!(middle["next"], format!("{base}?page_size=2&page=4"));
    assert_eq!(middle["previous"], format!("{base}?page_size=2&page=2"));
    assert_eq!(names(&middle), ["s4", "s5"]);

    let invalid = json!({"detail": "Invalid page."});
    for page in ["3", "0", "-1", "x", "99999999999999999999"] {
        grid.get(&format!("/api/v1/services/?page={page}")).await.is(404, &invalid);
    }
}

#[tokio::test]
async fn deployments_are_listed_newest_first_without_code_and_log() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    let other = grid.service("b").await;
    for number in 0..3 {
        grid.patch(&path, &json!({"function_code": format!("v{number}")})).await;
    }
    let page = grid.get(&format!("{path}deployments/?page_size=3")).await.json();
    assert_eq!(page["count"], 4);
    let results = page["results"].as_array().expect("results");
    let latest = grid.get(&path).await.json()["latest_deployment"].clone();
    assert_eq!(results[0]["id"], latest);
    assert!(results[0]["id"].as_str() > results[1]["id"].as_str());
    assert!(results[0].get("function_code").is_none() && results[0].get("log").is_none());
    let id = latest.as_str().expect("an id");
    let not_found = json!({"detail": "Not found."});
    grid.get(&format!("{other}deployments/{id}/")).await.is(404, &not_found);
}

#[tokio::test]
async fn logs_are_json_or_text() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    grid.get(&format!("{path}logs/?tail=10&request_id=r1")).await.is(200, &json!({"results": []}));
    let text = grid.get(&format!("{path}logs/?format=text")).await;
    assert_eq!((text.status, text.text.as_str()), (200, ""));
    assert_eq!(text.headers["content-type"], "text/plain; charset=utf-8");
    let authorization = format!("Token {TOKEN}");
    let headers = [("authorization", &*authorization), ("accept", "text/plain")];
    let text = grid.raw("GET", &format!("{path}logs/"), &headers, b"").await;
    assert_eq!(text.headers["content-type"], "text/plain; charset=utf-8");
    let wrong = json!({"tail": ["Ensure this value is less than or equal to 10000."]});
    grid.get(&format!("{path}logs/?tail=10001")).await.is(400, &wrong);
}

#[tokio::test]
async fn the_runtimes_that_there_are() {
    let grid = Grid::start().await;
    let expected = json!({
        "count": 2, "next": null, "previous": null,
        "results": [{"name": "node18"}, {"name": "python3.9"}],
    });
    grid.get("/api/v1/runtimes/").await.is(200, &expected);
}

#[tokio::test]
async fn probes_need_no_token() {
    let grid = Grid::start().await;
    let probe = async |path| grid.raw("GET", path, &[], b"").await;
    probe("/healthz").await.is(200, &json!({"status": "ok"}));
    for dependency in Dependency::ALL {
        grid.health.set(dependency, None);
    }
    let mut checks = json!({
        "containers": "ok", "engine": "ok", "firewall": "ok", "images": "ok", "resolver": "ok", "store": "ok"
    });
    probe("/readyz").await.is(200, &json!({"status": "ok", "checks": checks}));
    grid.health.set(Dependency::Engine, Some("Docker Engine does not answer".to_owned()));
    let away = probe("/readyz").await;
    checks["engine"] = json!("Docker Engine does not answer");
    away.is(503, &json!({"status": "unavailable", "checks": checks}));
    assert!(away.headers.contains_key("retry-after"));
    assert_eq!(probe("/healthz").await.status, 200);
}
