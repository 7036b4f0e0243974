//! Environment variables: as a field of their service and one by one, and secrets that nothing shows.

use std::{fs, path::Path};

use control::{
    name::{DeploymentId, ServiceId},
    store::Durable as _,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{Answer, Grid};

const MASK: &str = "********";
const SECRET: &str = "planted-s3cret-value";

fn vars() -> Value {
    json!([
        {"key": "API_URL", "value": "https://api.example.com", "is_secret": false},
        {"key": "API_KEY", "value": SECRET, "is_secret": true},
    ])
}

fn shown() -> Value {
    json!([
        {"key": "API_KEY", "value": MASK, "is_secret": true},
        {"key": "API_URL", "value": "https://api.example.com", "is_secret": false},
    ])
}

async fn service(grid: &Grid) -> (String, Value) {
    let body = json!({
        "name": "a", "function_runtime": "node18", "function_code": "x", "env_vars": vars(),
    });
    let answer = grid.post("/api/v1/services/", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    (answer.headers["location"].clone(), answer.json())
}

/// Whether a file below `dir` holds these bytes.
fn holds(dir: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(dir).expect("a directory").any(|entry| {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => holds(&path, bytes),
            false => {
                let content = fs::read(&path).expect("read");
                content.windows(bytes.len()).any(|window| window == bytes)
            }
        }
    })
}

#[tokio::test]
async fn a_service_is_shown_with_its_variables_and_without_its_secrets() {
    let grid = Grid::start().await;
    let (path, made) = service(&grid).await;
    assert_eq!(made["env_vars"], shown());
    assert_eq!(made["deployment"]["env_vars"], shown());
    let record = grid.get(&path).await.json();
    assert_eq!(record["env_vars"], shown());
    let list = grid.get("/api/v1/services/").await.json();
    assert_eq!(list["results"][0]["env_vars"], shown());
    let history = grid.get(&format!("{path}deployments/")).await.json();
    assert_eq!(history["results"][0]["env_vars"], shown());
    let without = grid.get(&grid.service("b").await).await.json();
    assert_eq!(without["env_vars"], json!([]));
}

#[tokio::test]
async fn a_record_that_is_sent_back_changes_nothing() {
    let grid = Grid::start().await;
    let (path, _) = service(&grid).await;
    let mut record = grid.get(&path).await.json();
    for method in ["PATCH", "PUT"] {
        let answer = grid.send(method, &path, &record.to_string()).await;
        record["deployment"] = Value::Null;
        answer.is(200, &record);
    }
    // The whole set is what it says, whatever the order.
    let other = json!({"env_vars": [shown()[1], {"key": "API_KEY", "value": SECRET}]});
    let answer = grid.patch(&path, &other).await.json();
    assert_eq!((&answer["deployment"], &answer["env_vars"]), (&Value::Null, &shown()));
    let history = grid.get(&format!("{path}deployments/")).await.json();
    assert_eq!(history["count"], 1);
}

#[tokio::test]
async fn a_set_takes_the_place_of_the_one_before_in_the_image_that_is_there() {
    let grid = Grid::start().await;
    let (path, made) = service(&grid).await;
    let set = json!([{"key": "API_KEY", "value": MASK}, {"key": "NEW", "value": ""}]);
    let answer = grid.patch(&path, &json!({ "env_vars": set })).await.json();
    let expected = json!([
        {"key": "API_KEY", "value": MASK, "is_secret": true},
        {"key": "NEW", "value": "", "is_secret": false},
    ]);
    assert_eq!(answer["env_vars"], expected);
    let deployment = &answer["deployment"];
    assert_eq!(deployment["image"], made["deployment"]["id"]);
    let id = deployment["id"].as_str().expect("an id");
    let full = grid.get(&format!("{path}deployments/{id}/")).await.json();
    assert_eq!(full["env_vars"], expected);
    let changed = json!({"added": ["NEW"], "removed": ["API_URL"], "changed": []});
    assert_eq!(full["changes"]["env_vars"], changed);
    // Fields that are not named stay as they are.
    let answer = grid.patch(&path, &json!({"memory_mb": 256})).await.json();
    assert_eq!(answer["env_vars"], expected);
    let answer = grid.patch(&path, &json!({"env_vars": []})).await.json();
    assert_eq!(answer["env_vars"], json!([]));
}

#[tokio::test]
async fn what_is_wrong_is_told_at_its_entry() {
    let grid = Grid::start().await;
    let (path, _) = service(&grid).await;
    let set = json!([{"key": "A", "value": "1"}, {"key": "PATH", "value": "1"}]);
    let reserved = json!({"env_vars": [{}, {"key": ["\"PATH\" is reserved for the platform."]}]});
    let body = json!({
        "name": "b", "function_runtime": "node18", "function_code": "x", "env_vars": set,
    });
    grid.post("/api/v1/services/", &body).await.is(400, &reserved);
    grid.patch(&path, &json!({ "env_vars": set })).await.is(400, &reserved);
    let many: Vec<_> = (0..101).map(|n| json!({"key": format!("A{n}"), "value": ""})).collect();
    let limit = "Ensure this field has no more than 100 elements.";
    let errors = json!({"env_vars": {"non_field_errors": [limit]}});
    grid.patch(&path, &json!({ "env_vars": many })).await.is(400, &errors);
    // What conflicts with another entry, or with what is there.
    let set = json!([{"key": "A", "value": "1"}, {"key": "A", "value": SECRET}]);
    let twice = json!({"env_vars": [{}, {"key": ["Another entry has this key."]}]});
    grid.patch(&path, &json!({ "env_vars": set })).await.is(409, &twice);
    let set = json!([{"key": "API_KEY", "value": MASK, "is_secret": false}]);
    let message = "A secret is not shown again: give a new value with it.";
    let hidden = json!({"env_vars": [{"value": [message]}]});
    grid.patch(&path, &json!({ "env_vars": set })).await.is(409, &hidden);
    assert_eq!(grid.get(&path).await.json()["env_vars"], shown());
}

#[tokio::test]
async fn variables_are_made_read_changed_and_removed_one_by_one() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    let vars = format!("{path}env_vars/");
    let body = json!({"key": "API_KEY", "value": SECRET, "is_secret": true});
    let answer = grid.post(&vars, &body).await;
    assert_eq!((answer.status, &answer.headers["location"]), (201, &format!("{vars}API_KEY/")));
    let mut record = json!({"key": "API_KEY", "value": MASK, "is_secret": true});
    let made = answer.json();
    assert_eq!(made["deployment"]["reason"], "changed");
    assert_eq!(made["deployment"]["env_vars"], json!([record]));
    let one = format!("{vars}API_KEY/");
    let read = grid.get(&one).await;
    read.is(200, &record);
    assert_eq!(read.headers["etag"], answer.headers["etag"]);
    assert_eq!(grid.get(&path).await.headers["etag"], answer.headers["etag"]);

    let exists = json!({"key": ["An environment variable with this key already exists."]});
    grid.post(&vars, &body).await.is(409, &exists);
    let missing = json!({"key": ["This field is required."], "value": ["This field is required."]});
    grid.post(&vars, &json!({})).await.is(400, &missing);

    assert_eq!(grid.post(&vars, &json!({"key": "A", "value": "1"})).await.status, 201);
    grid.get(&vars).await.is(
        200,
        &json!({
            "count": 2, "next": null, "previous": null,
            "results": [{"key": "A", "value": "1", "is_secret": false}, record],
        }),
    );
    let second = grid.get(&format!("{vars}?page=2&page_size=1")).await.json();
    assert_eq!((&second["count"], &second["results"]), (&json!(2), &json!([record])));
    assert_eq!(grid.get(&format!("{vars}?page=3&page_size=1")).await.status, 404);

    // What was shown, sent back.
    record["deployment"] = Value::Null;
    grid.send("PUT", &one, &record.to_string()).await.is(200, &record);
    grid.patch(&one, &json!({})).await.is(200, &record);
    let value = json!({"value": ["This field is required."]});
    grid.send("PUT", &one, "{}").await.is(400, &value);
    let answer = grid.send("PUT", &one, &json!({"value": "other"}).to_string()).await.json();
    assert_eq!((&answer["value"], &answer["is_secret"]), (&json!(MASK), &json!(true)));
    assert_eq!(answer["deployment"]["phase"], "queued");
    let refused = json!({"value": ["A secret is not shown again: give a new value with it."]});
    grid.patch(&one, &json!({"is_secret": false})).await.is(409, &refused);
    let answer = grid.patch(&one, &json!({"is_secret": false, "value": "open"})).await.json();
    assert_eq!((&answer["value"], &answer["is_secret"]), (&json!("open"), &json!(false)));
    // It was not a secret before; now it is, whatever is looked at.
    let answer = grid.patch(&one, &json!({"is_secret": true})).await.json();
    assert_eq!((&answer["value"], &answer["is_secret"]), (&json!(MASK), &json!(true)));
    let history = grid.get(&format!("{path}deployments/")).await.text;
    assert!(!history.contains("\"open\""), "{history}");
    let named = json!({"key": ["It stays as it is: delete this variable and make another one."]});
    grid.patch(&one, &json!({"key": "B"})).await.is(409, &named);

    let answer = grid.send("DELETE", &one, "").await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    let gone = json!({"detail": "Not found."});
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        grid.send(method, &one, "").await.is(404, &gone);
    }
    grid.get(&format!("{vars}no-key/")).await.is(404, &gone);
    let record = grid.get(&path).await.json();
    assert_eq!(record["env_vars"], json!([{"key": "A", "value": "1", "is_secret": false}]));
}

#[tokio::test]
async fn two_editors_of_variables_do_not_overwrite_each_other() {
    let grid = Grid::start().await;
    let (path, _) = service(&grid).await;
    let tag = grid.get(&path).await.headers["etag"].clone();
    let authorization = format!("Token {}", super::client::TOKEN);
    let send = async |method: &str, rest: &str, body: Value| {
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
            ("if-match", tag.as_str()),
        ];
        let path = format!("{path}env_vars/{rest}");
        grid.raw(method, &path, &headers, body.to_string().as_bytes()).await.status
    };
    assert_eq!(send("PATCH", "API_URL/", json!({"value": "1"})).await, 200);
    assert_eq!(send("PATCH", "API_URL/", json!({"value": "2"})).await, 412);
    assert_eq!(send("POST", "", json!({"key": "B", "value": "2"})).await, 412);
    assert_eq!(send("DELETE", "API_URL/", json!({})).await, 412);
    // Who does not ask for it changes one variable and leaves the others.
    for key in ["X", "Y"] {
        let body = json!({"key": key, "value": key});
        assert_eq!(grid.post(&format!("{path}env_vars/"), &body).await.status, 201);
    }
    assert_eq!(grid.get(&format!("{path}env_vars/")).await.json()["count"], 4);
}

#[tokio::test]
async fn one_variable_too_many_or_too_large_names_the_limit() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    let vars = format!("{path}env_vars/");
    let long = "x".repeat(16 * 1024);
    let most = json!({"value": ["Ensure this field has no more than 16384 bytes."]});
    let body = json!({"key": "A", "value": format!("{long}x")});
    grid.post(&vars, &body).await.is(400, &most);
    for key in ["A", "B", "C"] {
        assert_eq!(grid.post(&vars, &json!({"key": key, "value": long})).await.status, 201);
    }
    let limit = "Ensure all names and values together have no more than 65536 bytes (64 KB).";
    let errors = json!({"non_field_errors": [limit]});
    grid.post(&vars, &json!({"key": "D", "value": long})).await.is(409, &errors);
    let many: Vec<_> = (0..100).map(|n| json!({"key": format!("A{n}"), "value": ""})).collect();
    assert_eq!(grid.patch(&path, &json!({ "env_vars": many })).await.status, 200);
    let errors = json!({"non_field_errors": ["A function may have no more than 100 variables."]});
    grid.post(&vars, &json!({"key": "D", "value": ""})).await.is(409, &errors);
}

#[tokio::test]
async fn going_back_opens_no_secret() {
    let grid = Grid::start().await;
    let path = grid.service("a").await;
    let vars = format!("{path}env_vars/");
    grid.post(&vars, &json!({"key": "A", "value": SECRET})).await;
    let record = grid.get(&path).await.json();
    let id: ServiceId = record["id"].as_str().expect("an id").parse().expect("an id");
    let plain = record["latest_deployment"].as_str().expect("an id").to_owned();
    let deployment: DeploymentId = plain.parse().expect("an id");
    grid.store.activate_deployment(id, deployment, Timestamp::now()).await.expect("activates");
    grid.patch(&format!("{vars}A/"), &json!({"is_secret": true})).await;

    let answer = grid.post(&format!("{path}rollback/"), &json!({ "deployment": plain })).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let masked = json!([{"key": "A", "value": MASK, "is_secret": true}]);
    assert_eq!(answer.json()["env_vars"], masked);
    assert_eq!(grid.get(&path).await.json()["env_vars"], masked);
}

#[tokio::test]
async fn a_secret_is_in_no_answer_and_in_no_file() {
    let grid = Grid::start().await;
    let authorization = format!("Token {}", super::client::TOKEN);
    let mut answers: Vec<Answer> = Vec::new();
    let body = json!({
        "name": "a", "function_runtime": "node18", "function_code": "x", "env_vars": vars(),
    });
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("idempotency-key", "k"),
    ];
    for _ in 0..2 {
        let body = body.to_string();
        answers.push(grid.raw("POST", "/api/v1/services/", &headers, body.as_bytes()).await);
    }
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    let path = answers[0].headers["location"].clone();
    let set = |value: Value| json!({ "env_vars": value });
    let secret = |key: &str| json!({"key": key, "value": SECRET, "is_secret": true});
    let nul = format!("{SECRET}\0");
    let long = SECRET.repeat(1000);
    for change in [
        set(json!([secret("API_KEY"), secret("API_KEY")])),
        set(json!([{"key": "A", "value": nul}, {"key": "B", "value": long}])),
        set(json!([{"key": "A", "value": [SECRET]}, SECRET, {"key": "A", "value": {SECRET: 1}}])),
        set(json!(SECRET)),
        set(json!([{"key": "A", "value": "", "is_secret": SECRET}])),
        set(json!([secret("A"), secret("B")])),
    ] {
        answers.push(grid.patch(&path, &change).await);
    }
    assert_eq!(answers.last().map(|answer| answer.status), Some(200));
    answers.push(grid.post(&format!("{path}env_vars/"), &secret("C")).await);
    answers.push(grid.post(&format!("{path}env_vars/"), &secret("C")).await);
    for rest in ["", "deployments/", "env_vars/", "env_vars/C/", "logs/"] {
        answers.push(grid.get(&format!("{path}{rest}")).await);
    }
    let history = grid.get(&format!("{path}deployments/")).await.json();
    for deployment in history["results"].as_array().expect("a list") {
        let id = deployment["id"].as_str().expect("an id");
        answers.push(grid.get(&format!("{path}deployments/{id}/")).await);
    }
    for answer in &answers {
        assert!(!answer.text.contains(SECRET), "{answer:?}");
    }
    assert!(!holds(grid.dir.path(), SECRET.as_bytes()));
    assert!(holds(grid.dir.path(), b"API_KEY"), "what is looked for would be found");
}
