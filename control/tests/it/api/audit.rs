//! What the audit log has of whom, and who sees it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::client::{Answer, Grid, TOKEN, User};

const LOG: &str = "/api/v1/audit_log/";
const SERVICES: &str = "/api/v1/services/";
/// Far beyond what it takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Action, status and detail of each entry of a page.
fn told(page: &Answer) -> Vec<(String, u64, Value)> {
    let page = page.json();
    let entries = page["results"].as_array().expect("a page").iter();
    let told = entries.map(|entry| {
        let action = entry["action"].as_str().expect("an action").to_owned();
        (action, entry["status"].as_u64().expect("a status"), entry["detail"].clone())
    });
    told.collect()
}

async fn actions(user: &User<'_>, query: &str) -> Vec<String> {
    let page = user.get(&format!("{LOG}{query}")).await;
    assert_eq!(page.status, 200, "{page:?}");
    told(&page).into_iter().map(|(action, ..)| action).collect()
}

#[tokio::test]
async fn calls_that_change_something_are_written_down() {
    let grid = Grid::start().await;
    let alice = grid.user("alice", &json!({})).await;
    let path = alice.service("hello", "hello.example.com").await;
    let id = path.rsplit('/').nth(1).expect("an id");
    let secret = json!({"function_code": "const password = 'hunter2'"});
    let changed = alice.send("PATCH", &path, &secret).await.json();
    let again = alice.post(&format!("{path}deployments/"), &json!({})).await.json();
    alice.send("PATCH", &path, &json!({"memory_mb": 1})).await;
    alice.send("PATCH", &path, &json!({"memory_mb": 128})).await; // as it was
    alice.get(&path).await;
    assert_eq!(alice.send("DELETE", &path, &json!({})).await.status, 204);
    let token = alice.post("/api/v1/tokens/", &json!({"name": "more"})).await;
    let (token_id, token_path) = (token.json()["id"].clone(), token.headers["location"].clone());
    alice.send("DELETE", &token_path, &json!({})).await;

    let page = alice.get(LOG).await;
    assert!(!page.text.contains("hunter2") && !page.text.contains(&alice.token));
    let first = page.json()["results"][7].clone();
    let expected = json!({
        "id": first["id"], "at": first["at"], "user": "alice", "owner": "alice",
        "token": alice.path.rsplit('/').nth(1), "address": "127.0.0.1",
        "action": "service.create", "service": id, "status": 201,
        "detail": {
            "name": "hello", "deployment": first["detail"]["deployment"],
            "fields": ["function_code", "function_runtime", "name", "public_domain"],
        },
    });
    assert_eq!(first, expected);
    let entry = |action: &str, status: u64, detail: Value| (action.to_owned(), status, detail);
    let hello = json!({"name": "hello", "fields": ["memory_mb"]});
    let mut all = told(&page);
    all.remove(7);
    let expected = [
        entry("token.revoke", 204, json!({"token": token_id, "name": "more"})),
        entry("token.create", 201, json!({"token": token_id, "fields": ["name"]})),
        entry("service.delete", 204, json!({"name": "hello"})),
        entry("service.update", 200, hello.clone()),
        entry("service.update", 400, hello),
        entry(
            "service.deploy",
            201,
            json!({
                "name": "hello", "fields": [], "deployment": again["id"],
            }),
        ),
        entry(
            "service.update",
            200,
            json!({
                "name": "hello", "fields": ["function_code"],
                "deployment": changed["deployment"]["id"],
            }),
        ),
        // The operator made the token for her.
        entry(
            "token.create",
            201,
            json!({
                "token": alice.path.rsplit('/').nth(1), "fields": ["name", "user"],
            }),
        ),
    ];
    assert_eq!(all, expected);
}

#[tokio::test]
async fn a_variable_is_named_and_its_value_is_not() {
    let grid = Grid::start().await;
    let alice = grid.user("alice", &json!({})).await;
    let path = alice.service("a", "a.example.com").await;
    let vars = format!("{path}env_vars/");
    let made = json!({"key": "PASSWORD", "value": "hunter2", "is_secret": true});
    let deployment = alice.post(&vars, &made).await.json()["deployment"]["id"].clone();
    alice.post(&vars, &made).await;
    let var = format!("{vars}PASSWORD/");
    alice.send("PATCH", &var, &json!({"is_secret": true})).await;
    alice.send("DELETE", &format!("{vars}OTHER/"), &json!({})).await;
    let page = alice.get(&format!("{LOG}?page_size=4")).await;
    assert!(!page.text.contains("hunter2"), "{page:?}");
    let fields = json!(["is_secret", "key", "value"]);
    let expected = [
        ("env_var.delete", 404, json!({"name": "a", "env_var": "OTHER"})),
        (
            "env_var.update",
            200,
            json!({
                "name": "a", "env_var": "PASSWORD", "fields": ["is_secret"],
            }),
        ),
        ("env_var.create", 409, json!({"name": "a", "env_var": "PASSWORD", "fields": fields})),
        (
            "env_var.create",
            201,
            json!({
                "name": "a", "env_var": "PASSWORD", "fields": fields, "deployment": deployment,
            }),
        ),
    ];
    let expected = expected.map(|(action, status, detail)| (action.to_owned(), status, detail));
    assert_eq!(told(&page), expected);
}

#[tokio::test]
async fn what_was_refused_is_written_down_unless_nobody_knows_who_asked() {
    let grid = Grid::start().await;
    let (alice, bob) = (grid.user("alice", &json!({})).await, grid.user("bob", &json!({})).await);
    let path = alice.service("a", "a.example.com").await;
    let id = path.rsplit('/').nth(1).expect("an id");
    bob.send("PATCH", &path, &json!({"function_code": "x"})).await;
    bob.post(&format!("{SERVICES}?owner=alice"), &json!({})).await;
    bob.post(SERVICES, &json!([1])).await;
    bob.send("DELETE", &alice.path, &json!({})).await;
    bob.post(&format!("{path}nothing/"), &json!({})).await; // no route
    bob.send("PUT", SERVICES, &json!({})).await; // no method
    grid.send_with("wrong", &[], "DELETE", &path, "").await;
    let token = alice.path.rsplit('/').nth(1).expect("an id");
    let expected = [
        ("token.revoke".to_owned(), 404, json!({ "token": token })),
        ("service.create".to_owned(), 400, json!({})),
        ("service.create".to_owned(), 403, json!({})),
        ("service.update".to_owned(), 404, json!({"fields": ["function_code"]})),
        (
            "token.create".to_owned(),
            201,
            json!({
                "token": bob.path.rsplit('/').nth(1), "fields": ["name", "user"],
            }),
        ),
    ];
    let page = bob.get(LOG).await;
    assert_eq!(told(&page), expected);
    assert_eq!(page.json()["results"][3]["service"], id, "that he tried it can be seen");
    // But she need not care for what he could not do.
    assert_eq!(actions(&alice, "").await, ["service.create", "token.create"]);
    let all = grid.get(&format!("{LOG}?owner=*")).await.json();
    assert_eq!(all["count"], 7);
}

#[tokio::test]
async fn everybody_sees_what_concerns_them() {
    let grid = Grid::start().await;
    let (alice, bob) = (grid.user("alice", &json!({})).await, grid.user("bob", &json!({})).await);
    let boss = grid.user("boss", &json!({"is_admin": true})).await;
    let path = alice.service("a", "a.example.com").await;
    bob.service("b", "b.example.com").await;
    boss.send("PATCH", &format!("{path}?owner=*"), &json!({"memory_mb": 200})).await;
    boss.post(&format!("{SERVICES}?owner=bob"), &json!({})).await;

    assert_eq!(actions(&alice, "").await, ["service.update", "service.create", "token.create"],);
    let done = alice.get(LOG).await.json()["results"][0].clone();
    assert_eq!((&done["user"], &done["owner"]), (&json!("boss"), &json!("alice")));
    assert_eq!(actions(&bob, "").await, ["service.create", "service.create", "token.create"],);
    assert_eq!(actions(&alice, "?user=alice").await, ["service.create"]);
    let forbidden = json!({"detail": "You do not have permission to perform this action."});
    for query in ["?user=bob", "?owner=bob", "?owner=*"] {
        alice.get(&format!("{LOG}{query}")).await.is(403, &forbidden);
    }

    let id = path.rsplit('/').nth(1).expect("an id");
    assert_eq!(
        actions(&alice, &format!("?service={id}")).await,
        ["service.update", "service.create"],
    );
    assert_eq!(actions(&alice, "?action=token.create").await, ["token.create"]);
    assert!(actions(&bob, &format!("?service={id}")).await.is_empty());

    assert_eq!(actions(&boss, "").await, ["service.create", "service.update", "token.create"],);
    assert_eq!(actions(&boss, "?user=alice").await, ["service.create"]);
    assert_eq!(actions(&boss, "?user=boss&owner=bob").await, ["service.create"]);
    assert_eq!(actions(&boss, "?owner=*").await.len(), 7);
    let query = format!("?owner=*&service={id}&action=service.update");
    assert_eq!(actions(&boss, &query).await, ["service.update"]);
    let wrong = json!({"service": ["Must be a valid UUID."]});
    boss.get(&format!("{LOG}?service=a")).await.is(400, &wrong);
}

#[tokio::test]
async fn it_is_paged_and_changed_by_nobody() {
    let grid = Grid::start().await;
    for name in ["a", "b", "c"] {
        grid.service(name).await;
    }
    let page = grid.get(&format!("{LOG}?page=2&page_size=2&action=service.create")).await;
    assert_eq!(told(&page)[0].2["name"], "a");
    let page = page.json();
    assert_eq!((&page["count"], &page["next"]), (&json!(3), &Value::Null));
    assert!(page["previous"].as_str().is_some_and(|link| link.contains("action=service.create")));
    grid.get(&format!("{LOG}?page=3&page_size=2"))
        .await
        .is(404, &json!({"detail": "Invalid page."}));
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = grid.send(method, LOG, "").await;
        answer.is(405, &json!({"detail": format!("Method \"{method}\" not allowed.")}));
    }
    assert_eq!(grid.get(LOG).await.json()["count"], 3);
}

#[tokio::test]
async fn what_a_client_did_that_hung_up_is_written_down() {
    const CLIENTS: usize = 16;
    let grid = Grid::start().await;
    let send = async |body: &str, length: usize| {
        let mut stream = TcpStream::connect(grid.address).await.expect("a connection");
        let head = format!(
            "POST {SERVICES} HTTP/1.1\r\nhost: a\r\nauthorization: Token {TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\
             expect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        // The handler has begun when it asks for the body.
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).await.expect("an answer");
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(body.as_bytes()).await.expect("sent");
    };
    for number in 0..CLIENTS {
        let name = format!("s{number}");
        let body = json!({"name": name, "function_runtime": "node18", "function_code": "x"});
        let body = body.to_string();
        send(&body, body.len()).await;
    }
    send("{", 1000).await; // and one that hangs up while it sends
    let until = Instant::now() + PATIENCE;
    let entries = loop {
        let page = grid.get(&format!("{LOG}?page_size=100")).await;
        let entries = told(&page);
        if entries.len() > CLIENTS {
            break entries;
        }
        assert!(Instant::now() < until, "{entries:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let with = |status| entries.iter().filter(|(_, known, _)| *known == status).count();
    assert_eq!((with(201), with(400)), (CLIENTS, 1), "{entries:?}");
    assert_eq!(grid.get(SERVICES).await.json()["count"], json!(CLIENTS));
}

#[tokio::test]
async fn a_call_is_answered_as_it_went_when_its_entry_cannot_be_written() {
    let grid = Grid::start().await;
    grid.store.close().await;
    let answer = grid.post("/api/v1/tokens/", &json!({})).await;
    answer.is(400, &json!({"name": ["This field is required."]}));
}
