//! Creating services, and what a record looks like.

use control::{
    name::ServiceId,
    service::{Obstacle, Phase},
    store::{Durable, Volatile},
};
use serde_json::json;

use super::client::Grid;

/// The example of the product's documentation, with quotes that JSON accepts.
const SEED_CREATE: &str = r#"{
    "name": "hello",
    "deploy_type": "FUNCTION",
    "function_runtime": "node18",
    "function_code": "module.exports.handler = async (event) => ({ statusCode: 200, body: \"hello, \" + (event.queryStringParameters?.name || \"world\") });",
    "public_domain": "hello.example.com"
  }"#;
const SEED_UPDATE: &str = r#"{"function_code": "module.exports.handler = async () => ({ statusCode: 200, body: \"v2\" });"}"#;

#[tokio::test]
async fn the_documented_example_creates_a_service_with_its_first_deployment() {
    let grid = Grid::start().await;
    let answer = grid.send("POST", "/api/v1/services/", SEED_CREATE).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let record = answer.json();
    let id = record["id"].as_str().expect("an id");
    assert_eq!(answer.headers["location"], format!("/api/v1/services/{id}/"));
    let deployment = &record["deployment"];
    let at = &deployment["created_at"];
    let expected = json!({
        "id": id,
        "owner": "admin",
        "name": "hello",
        "deploy_type": "FUNCTION",
        "function_name": "hello",
        "function_runtime": "node18",
        "function_handler": "handler",
        "function_code": "module.exports.handler = async (event) => ({ statusCode: 200, body: \"hello, \" + (event.queryStringParameters?.name || \"world\") });",
        "event_format": "grid",
        "public_domain": "hello.example.com",
        "url": "http://hello.example.com:8080/fn/hello",
        "memory_mb": 128,
        "cpu_shares": 1024,
        "egress": "public",
        "oci_runtime": "default",
        "env_vars": [],
        "min_replicas": 0,
        "max_replicas": 4,
        "rate_limit": null,
        "rate_burst": null,
        "status": "deploying",
        "problem": null,
        "live_deployment": null,
        "latest_deployment": deployment["id"],
        "latest_deployment_phase": "queued",
        "replicas": [],
        "egress_denied": {"count": 0, "targets": []},
        "created_at": at,
        "updated_at": at,
        "deployment": {
            "id": deployment["id"],
            "service": id,
            "phase": "queued",
            "phases": [{"phase": "queued", "at": at}],
            "created_by": "admin",
            "reason": "created",
            "rolled_back_to": null,
            "image": deployment["id"],
            "error": null,
            "function_runtime": "node18",
            "function_handler": "handler",
            "event_format": "grid",
            "memory_mb": 128,
            "cpu_shares": 1024,
            "egress": "public",
            "oci_runtime": "default",
        "env_vars": [],
            "created_at": at,
        },
    });
    assert_eq!(record, expected);

    let mut read = grid.get(&answer.headers["location"]).await.json();
    read["deployment"] = record["deployment"].clone();
    assert_eq!(read, record, "what is read is what was answered");
    let id: ServiceId = id.parse().expect("a UUID");
    let claimed = grid.store.claim_deployment(id, jiff::Timestamp::now()).await.expect("a store");
    assert_eq!(claimed.map(|d| d.function.code), record["function_code"].as_str().map(Into::into));
}

#[tokio::test]
async fn the_documented_update_makes_a_deployment_of_the_new_code() {
    let grid = Grid::start().await;
    let created = grid.send("POST", "/api/v1/services/", SEED_CREATE).await;
    let path = &created.headers["location"];
    let updated = grid.send("PATCH", path, SEED_UPDATE).await;
    assert_eq!(updated.status, 200, "{updated:?}");
    let (before, after) = (created.json(), updated.json());
    assert_ne!(after["deployment"]["id"], before["deployment"]["id"]);
    assert_eq!(after["latest_deployment"], after["deployment"]["id"]);
    let deployment = after["deployment"]["id"].as_str().expect("an id");
    let full = grid.get(&format!("{path}deployments/{deployment}/")).await.json();
    assert_eq!(full["function_code"], after["function_code"]);
    assert_eq!(full["log"], json!([]));
}

#[tokio::test]
async fn names_and_addresses_are_given_once() {
    let grid = Grid::start().await;
    grid.service("hello").await;
    let create = async |name: &str, domain: &str, function: &str| {
        let body = json!({
            "name": name, "public_domain": domain, "function_name": function,
            "function_runtime": "python3.9", "function_code": "x",
        });
        grid.post("/api/v1/services/", &body).await
    };
    let same_name = create("hello", "other.example.com", "other").await;
    assert_eq!(same_name.status, 409);
    assert!(same_name.json()["name"][0].as_str().is_some_and(|m| m.contains("already exists")));
    let same_address = create("other", "HELLO.localhost.", "hello").await;
    assert_eq!(same_address.status, 409, "{same_address:?}");
    assert!(same_address.json()["function_name"][0].is_string());
    assert_eq!(create("other", "hello.localhost", "other").await.status, 201);
}

#[tokio::test]
async fn text_comes_back_as_it_was_sent() {
    let grid = Grid::start().await;
    let code = "\u{feff}// \u{1F980} é \"\\\r\n\t\u{7f}\u{2028}`${x}`</script>\n";
    let body = json!({"name": "u", "function_runtime": "node18", "function_code": code});
    let escaped: String = body.to_string().chars().fold(String::new(), |mut text, c| {
        if c.is_ascii() {
            text.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|u| text += &format!("\\u{u:04x}"));
        }
        text
    });
    let answer = grid.send("POST", "/api/v1/services/", &escaped).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["function_code"], code);
    assert_eq!(grid.get(&answer.headers["location"]).await.json()["function_code"], code);
}

#[tokio::test]
async fn the_status_follows_the_deployments() {
    let grid = Grid::start().await;
    let path = grid.service("s").await;
    let status = async || {
        let record = grid.get(&path).await.json();
        (record["status"].clone(), record["latest_deployment_phase"].clone())
    };
    let settle = async |phase: Phase| {
        let record = grid.get(&path).await.json();
        let id = record["id"].as_str().expect("an id").parse().expect("a UUID");
        let latest = record["latest_deployment"].as_str().expect("an id").parse().expect("a UUID");
        let now = jiff::Timestamp::now();
        if phase == Phase::Live {
            grid.store.activate_deployment(id, latest, now).await.expect("activated");
        } else {
            let error = Some("SyntaxError: line 1".to_owned());
            let recorded = grid.store.record_phase(id, latest, phase, now, Vec::new(), error);
            recorded.await.expect("recorded");
        }
        latest.to_string()
    };
    assert_eq!(status().await, (json!("deploying"), json!("queued")));
    let failed = settle(Phase::Failed).await;
    assert_eq!(status().await, (json!("failed"), json!("failed")));
    let shown = grid.get(&format!("{path}deployments/{failed}/")).await.json();
    assert_eq!(shown["error"], "SyntaxError: line 1");

    grid.patch(&path, &json!({"function_code": "y"})).await;
    assert_eq!(status().await, (json!("deploying"), json!("queued")));
    let live = settle(Phase::Live).await;
    assert_eq!(status().await, (json!("live"), json!("live")));

    grid.patch(&path, &json!({"function_code": "z"})).await;
    settle(Phase::Failed).await;
    assert_eq!(status().await, (json!("live"), json!("failed")));
    let record = grid.get(&path).await.json();
    assert_eq!(record["live_deployment"], live);
    assert_eq!(record["problem"], json!(null));

    let id = record["id"].as_str().expect("an id").parse().expect("a UUID");
    let obstacle = Obstacle {
        message: "The function's containers stop before they are ready.".to_owned(),
        retry_at: jiff::Timestamp::now(),
    };
    grid.store.set_obstacle(id, Some(obstacle.clone())).await.expect("a store");
    let record = grid.get(&path).await.json();
    assert_eq!(record["status"], "failing");
    assert_eq!(record["problem"], obstacle.message);
}
