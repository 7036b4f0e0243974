//! `If-Match` and `Idempotency-Key`; filters and orders of lists.

use std::{collections::BTreeSet, sync::Arc};

use control::{service::Phase, store::Durable};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{Answer, Grid, TOKEN};

const SERVICES: &str = "/api/v1/services/";

async fn create(grid: &Grid, token: &str, key: &str, body: &Value) -> Answer {
    let headers = [("idempotency-key", key)];
    grid.send_with(token, &headers, "POST", SERVICES, &body.to_string()).await
}

fn body(name: &str, code: &str) -> Value {
    json!({"name": name, "function_runtime": "node18", "function_code": code})
}

#[tokio::test]
async fn who_names_an_old_version_changes_nothing() {
    let grid = Grid::start().await;
    let created = grid.post(SERVICES, &body("a", "x")).await;
    let path = created.headers["location"].clone();
    let old = created.headers["etag"].clone();
    assert_eq!(grid.get(&path).await.headers["etag"], old);
    let send = async |method: &str, rest: &str, tag: &str, body: Value| {
        let headers = [("if-match", tag)];
        let path = format!("{path}{rest}");
        grid.send_with(TOKEN, &headers, method, &path, &body.to_string()).await
    };
    let changed = send("PATCH", "", &old, json!({"function_code": "y"})).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let new = changed.headers["etag"].clone();
    assert_ne!(new, old);
    let before = grid.get(&path).await;
    assert_eq!(before.headers["etag"], new);

    let detail =
        "It was changed since it was read: If-Match names an older version. Read it again.";
    for (method, rest, sent) in [
        ("PATCH", "", json!({"function_code": "z"})),
        ("PATCH", "", json!({"function_code": "y"})), // also when nothing would change
        ("PUT", "", body("a", "z")),
        ("POST", "deployments/", json!({})),
        ("DELETE", "", json!({})),
    ] {
        for tag in [old.as_str(), "\"x\"", &format!("W/{new}")] {
            send(method, rest, tag, sent.clone()).await.is(412, &json!({ "detail": detail }));
        }
    }
    assert_eq!(grid.get(&path).await.text, before.text);

    // What happens to a service by itself is no change of its owner's.
    let record = before.json();
    let id = |field: &str| record[field].as_str().expect("an id").to_owned();
    let (service, latest) = (id("id").parse().expect("an id"), id("latest_deployment"));
    let latest = latest.parse().expect("an id");
    grid.store.activate_deployment(service, latest, Timestamp::now()).await.expect("activates");
    assert_eq!(grid.get(&path).await.headers["etag"], new);

    let any = send("PATCH", "", "*", json!({"memory_mb": 200})).await;
    assert_eq!(any.status, 200);
    let either = format!("{old}, {}", any.headers["etag"]);
    assert_eq!(send("POST", "deployments/", &either, json!({})).await.status, 201);
    assert_eq!(send("DELETE", "", "*", json!({})).await.status, 204);
    // There is no version of what is not there.
    assert_eq!(send("DELETE", "", "*", json!({})).await.status, 404);
}

#[tokio::test]
async fn editors_who_name_a_version_do_not_overwrite_each_other() {
    let grid = Arc::new(Grid::start().await);
    let created = grid.post(SERVICES, &body("a", "x")).await;
    let (path, tag) = (created.headers["location"].clone(), created.headers["etag"].clone());
    let editors: Vec<_> = (0..8)
        .map(|editor| {
            let (grid, path, tag) = (Arc::clone(&grid), path.clone(), tag.clone());
            tokio::spawn(async move {
                let code = format!("code {editor}");
                let sent = json!({ "function_code": code }).to_string();
                let headers = [("if-match", tag.as_str())];
                (grid.send_with(TOKEN, &headers, "PATCH", &path, &sent).await.status, code)
            })
        })
        .collect();
    let mut made = Vec::new();
    for editor in editors {
        match editor.await.expect("an answer") {
            (200, code) => made.push(code),
            (status, _) => assert_eq!(status, 412),
        }
    }
    assert_eq!(grid.get(&path).await.json()["function_code"], made.concat(), "one of them won");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_deletes_a_version_does_not_delete_another() {
    let grid = Arc::new(Grid::start().await);
    // Either may be faster; both at the same version it cannot be.
    for _ in 0..30 {
        let created = grid.post(SERVICES, &body("a", "x")).await;
        let (path, tag) = (created.headers["location"].clone(), created.headers["etag"].clone());
        let send = |method: &'static str, sent: Value| {
            let (grid, path, tag) = (Arc::clone(&grid), path.clone(), tag.clone());
            tokio::spawn(async move {
                let headers = [("if-match", tag.as_str())];
                grid.send_with(TOKEN, &headers, method, &path, &sent.to_string()).await.status
            })
        };
        let (changed, deleted) =
            (send("PATCH", json!({"max_replicas": 9})), send("DELETE", json!({})));
        let ended = (changed.await.expect("an answer"), deleted.await.expect("an answer"));
        match ended {
            (200, 412) => assert_eq!(grid.send("DELETE", &path, "").await.status, 204),
            (404, 204) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_repeated_attempt_gets_what_the_first_one_made() {
    let grid = Grid::start().await;
    let alice = grid.user("alice", &json!({})).await;
    let first = create(&grid, TOKEN, "k1", &body("a", "x")).await;
    assert_eq!(first.status, 201, "{first:?}");
    let again = create(&grid, TOKEN, "k1", &body("a", "x")).await;
    assert_eq!((again.status, again.json()), (201, first.json()));
    assert_eq!(again.headers["location"], first.headers["location"]);
    assert_eq!(grid.get(SERVICES).await.names(), ["a"]);

    let other = json!({"detail": "This Idempotency-Key was used for another request."});
    create(&grid, TOKEN, "k1", &body("a", "y")).await.is(409, &other);
    create(&grid, TOKEN, "k1", &body("b", "x")).await.is(409, &other);
    let taken = create(&grid, TOKEN, "k2", &body("a", "x")).await;
    taken.is(409, &json!({"name": ["A service with this name already exists."]}));
    let wrong = json!({
        "Idempotency-Key": ["Use visible ASCII characters without spaces only."],
    });
    create(&grid, TOKEN, "a b", &body("b", "x")).await.is(400, &wrong);

    // A key is its user's. One that made nothing is free.
    let mut hers = body("a", "x");
    hers["public_domain"] = json!("alice.example.com");
    let created = create(&grid, &alice.token, "k1", &hers).await;
    assert_eq!((created.status, &created.json()["owner"]), (201, &json!("alice")));
    assert_eq!(create(&grid, TOKEN, "k2", &body("c", "x")).await.status, 201);

    // The service as it is by now, and a clear word when it is gone.
    let path = &first.headers["location"];
    grid.patch(path, &json!({"memory_mb": 200})).await;
    let again = create(&grid, TOKEN, "k1", &body("a", "x")).await;
    assert_eq!((again.status, &again.json()["memory_mb"]), (201, &json!(200)));
    grid.send("DELETE", path, "").await;
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    let detail =
        format!("The service that was created with this Idempotency-Key, {id}, was deleted.");
    create(&grid, TOKEN, "k1", &body("a", "x")).await.is(409, &json!({ "detail": detail }));
}

#[tokio::test]
async fn attempts_at_the_same_time_make_one_service() {
    let grid = Arc::new(Grid::start().await);
    let attempts: Vec<_> = (0..16)
        .map(|_| {
            let grid = Arc::clone(&grid);
            tokio::spawn(async move { create(&grid, TOKEN, "k", &body("a", "x")).await })
        })
        .collect();
    let mut ids = BTreeSet::new();
    for attempt in attempts {
        let answer = attempt.await.expect("an answer");
        assert_eq!(answer.status, 201, "{answer:?}");
        ids.insert(answer.json()["id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(grid.get(SERVICES).await.names(), ["a"]);
}

#[tokio::test]
async fn lists_are_filtered_and_ordered() {
    let grid = Grid::start().await;
    let mut paths = Vec::new();
    for name in ["b", "c", "a"] {
        paths.push(grid.service(name).await);
    }
    grid.patch(&paths[0], &json!({"memory_mb": 200})).await;
    let record = grid.get(&paths[1]).await.json();
    let id = |field: &str| record[field].as_str().expect("an id").to_owned();
    let (service, latest) = (id("id").parse().expect("id"), id("latest_deployment"));
    let failed = grid.store.record_phase(
        service,
        latest.parse().expect("an id"),
        Phase::Failed,
        Timestamp::now(),
        Vec::new(),
        Some("SyntaxError".to_owned()),
    );
    failed.await.expect("records");

    for (query, expected) in [
        ("", &["b", "c", "a"][..]),
        ("ordering=name", &["a", "b", "c"]),
        ("ordering=-name", &["c", "b", "a"]),
        ("ordering=-created_at", &["a", "c", "b"]),
        ("ordering=-updated_at,name", &["b", "a", "c"]),
        ("ordering=name&page_size=1&page=2", &["b"]),
        ("name=a", &["a"]),
        ("name=A", &[]),
        ("status=failed", &["c"]),
        ("status=deploying&ordering=name", &["a", "b"]),
        ("status=live", &[]),
        ("status=failed&name=a", &[]),
        ("deploy_type=FUNCTION&status=&name=", &["b", "c", "a"]),
    ] {
        assert_eq!(grid.get(&format!("{SERVICES}?{query}")).await.names(), expected, "{query}");
    }
    let page = grid.get(&format!("{SERVICES}?ordering=-name&status=deploying&page_size=1")).await;
    let next = page.json()["next"].as_str().expect("another page").to_owned();
    let rest = next.split_once(SERVICES).expect("a link").1;
    assert_eq!(grid.get(&format!("{SERVICES}{rest}")).await.names(), ["a"]);
    for (field, value) in [("status", "running"), ("deploy_type", "GIT"), ("ordering", "size")] {
        let message =
            format!("Select a valid choice. {value} is not one of the available choices.");
        let answer = grid.get(&format!("{SERVICES}?{field}={value}")).await;
        answer.is(400, &json!({ field: [message] }));
    }
}
