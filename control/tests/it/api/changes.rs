//! Changing and deleting services.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::client::Grid;

#[tokio::test]
async fn a_patch_changes_only_what_it_names() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    let before = grid.get(&path).await.json();
    let answer = grid.patch(&path, &json!({"max_replicas": 7, "name": "b"})).await;
    let mut expected = before.clone();
    expected["max_replicas"] = json!(7);
    expected["name"] = json!("b");
    expected["updated_at"] = answer.json()["updated_at"].clone();
    expected["deployment"] = Value::Null;
    answer.is(200, &expected);
    assert_ne!(expected["updated_at"], before["updated_at"]);
}

#[tokio::test]
async fn a_record_that_is_sent_back_changes_nothing() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    let mut record = grid.get(&path).await.json();
    for method in ["PATCH", "PUT"] {
        let answer = grid.send(method, &path, &record.to_string()).await;
        record["deployment"] = Value::Null;
        answer.is(200, &record);
    }
    let history = grid.get(&format!("{path}deployments/")).await.json();
    assert_eq!(history["count"], 1);
}

#[tokio::test]
async fn a_put_needs_a_complete_description_and_keeps_what_is_optional() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    grid.patch(&path, &json!({"memory_mb": 256})).await;
    let missing = json!({
        "name": ["This field is required."],
        "function_runtime": ["This field is required."],
        "function_code": ["This field is required."],
    });
    grid.send("PUT", &path, "{}").await.is(400, &missing);
    let body = json!({"name": "b", "function_runtime": "python3.9", "function_code": "y"});
    let record = grid.send("PUT", &path, &body.to_string()).await.json();
    assert_eq!(record["function_runtime"], "python3.9");
    assert_eq!(record["memory_mb"], 256);
    assert_eq!(record["deployment"]["memory_mb"], 256);
}

#[tokio::test]
async fn changes_are_checked_with_what_is_there() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    grid.service("taken").await;
    let min = json!({"min_replicas": ["Must not be greater than max_replicas, which is 4."]});
    grid.patch(&path, &json!({"min_replicas": 5})).await.is(409, &min);
    assert_eq!(grid.patch(&path, &json!({"min_replicas": 3})).await.status, 200);
    let max = json!({"max_replicas": ["Must not be less than min_replicas, which is 3."]});
    grid.patch(&path, &json!({"max_replicas": 2})).await.is(409, &max);
    let answer = grid.patch(&path, &json!({"name": "taken", "function_code": "y"})).await;
    assert_eq!(answer.status, 409);
    assert!(answer.json()["name"].is_array());
    assert_eq!(grid.get(&path).await.json()["function_code"], "x", "all of it or nothing");
}

#[tokio::test]
async fn concurrent_patches_are_all_made() {
    const EDITORS: usize = 24;
    let grid = Arc::new(Grid::start().await);
    let path = grid.service("a").await;
    let editors: Vec<_> = (0..EDITORS)
        .map(|editor| {
            let (grid, path) = (Arc::clone(&grid), path.clone());
            tokio::spawn(async move {
                // Half of them change one field, the others another.
                let body = match editor % 2 {
                    0 => json!({"function_code": format!("code {editor}")}),
                    _ => json!({"memory_mb": 200 + editor}),
                };
                let answer = grid.patch(&path, &body).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                answer.json()
            })
        })
        .collect();
    let mut answers = Vec::new();
    for editor in editors {
        answers.push(editor.await.expect("an answer"));
    }
    let ids: BTreeSet<String> =
        answers.iter().map(|a| a["deployment"]["id"].as_str().expect("an id").into()).collect();
    assert_eq!(ids.len(), EDITORS, "each has its deployment");

    let history = grid.get(&format!("{path}deployments/?page_size=100")).await.json();
    assert_eq!(history["count"], json!(EDITORS + 1));
    let newest = &history["results"][0]["id"];
    let record = grid.get(&path).await.json();
    assert_eq!(&record["latest_deployment"], newest);
    assert_eq!(ids.last().map(String::as_str), newest.as_str(), "ids tell the order");
    let winner = answers.iter().find(|a| &a["deployment"]["id"] == newest).expect("the last one");
    assert_eq!(winner["function_code"], record["function_code"]);
    assert_eq!(winner["memory_mb"], record["memory_mb"]);
    assert_ne!(record["function_code"], "x", "the other field's changes were kept");
    assert_ne!(record["memory_mb"], 128, "the other field's changes were kept");
}

#[tokio::test]
async fn the_same_can_be_deployed_again() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    let first = grid.get(&path).await.json()["latest_deployment"].clone();
    let answer = grid.send("POST", &format!("{path}deployments/"), "").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let deployment = answer.json();
    assert_ne!(deployment["id"], first);
    assert_eq!(deployment["phase"], "queued");
    assert_eq!(grid.get(&path).await.json()["latest_deployment"], deployment["id"]);
    let full = grid.get(&answer.headers["location"]).await.json();
    assert_eq!(full["function_code"], "x");
}

#[tokio::test]
async fn only_another_code_or_runtime_needs_another_image() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    let first = grid.get(&path).await.json()["latest_deployment"].clone();
    let deploy = async |change: Value| {
        let answer = grid.patch(&path, &change).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["deployment"].clone()
    };
    let shared = [
        json!({"memory_mb": 256}),
        json!({"function_handler": "index.handler", "event_format": "lambda-v2"}),
        json!({"cpu_shares": 512, "egress": "none", "oci_runtime": "runsc"}),
    ];
    for change in shared {
        assert_eq!(deploy(change).await["image"], first);
    }
    let second = deploy(json!({"function_code": "y", "memory_mb": 512})).await;
    assert_eq!(second["image"], second["id"]);
    assert_eq!(deploy(json!({"memory_mb": 256})).await["image"], second["id"]);
    let python = deploy(json!({"function_runtime": "python3.9"})).await;
    assert_eq!(python["image"], python["id"]);
    // Who deploys the same again wants it made again.
    let again = grid.post(&format!("{path}deployments/"), &json!({})).await.json();
    assert_eq!(again["image"], again["id"]);
}

#[tokio::test]
async fn what_was_deleted_is_gone() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    let deployment = grid.get(&path).await.json()["latest_deployment"].clone();
    let deployment = deployment.as_str().expect("an id");
    let answer = grid.send("DELETE", &path, "").await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    let gone = json!({"detail": "Not found."});
    for rest in ["", "deployments/", &format!("deployments/{deployment}/"), "logs/"] {
        grid.get(&format!("{path}{rest}")).await.is(404, &gone);
    }
    grid.send("DELETE", &path, "").await.is(404, &gone);
    grid.patch(&path, &json!({"name": 1})).await.is(404, &gone);
    grid.send("POST", &format!("{path}deployments/"), "{}").await.is(404, &gone);
    grid.service("a").await; // its name and address are free again
}
