//! Several users: everybody has their own services, and admins those that they ask for.

use serde_json::json;

use super::client::Grid;

const SERVICES: &str = "/api/v1/services/";

#[tokio::test]
async fn what_is_somebody_elses_is_not_there() {
    let grid = Grid::start().await;
    let (alice, bob) = (grid.user("alice", &json!({})).await, grid.user("bob", &json!({})).await);
    let path = alice.service("a", "a.example.com").await;
    let record = alice.get(&path).await.json();
    let deployment = record["latest_deployment"].as_str().expect("an id");
    let gone = json!({"detail": "Not found."});
    let complete = json!({"name": "b", "function_runtime": "node18", "function_code": "stolen"});
    for (method, rest, body) in [
        ("GET", String::new(), json!({})),
        ("PUT", String::new(), complete.clone()),
        ("PATCH", String::new(), complete.clone()),
        // Not even whether what is sent fits.
        ("PATCH", String::new(), json!({"nonsense": 1})),
        ("DELETE", String::new(), json!({})),
        ("GET", "deployments/".to_owned(), json!({})),
        ("POST", "deployments/".to_owned(), json!({})),
        ("POST", "rollback/".to_owned(), json!({})),
        ("GET", format!("deployments/{deployment}/"), json!({})),
        ("GET", "logs/".to_owned(), json!({})),
        ("GET", "logs/?format=text".to_owned(), json!({})),
    ] {
        let path = format!("{path}{rest}");
        bob.send(method, &path, &body).await.is(404, &gone);
        // An admin, too, works on its own unless it says otherwise.
        grid.send(method, &path, &body.to_string()).await.is(404, &gone);
    }
    // Nor by way of what is his.
    let his = bob.service("b", "b.example.com").await;
    bob.get(&format!("{his}deployments/{deployment}/")).await.is(404, &gone);
    let back = bob.post(&format!("{his}rollback/"), &json!({"deployment": deployment})).await;
    assert_eq!(back.status, 409, "{back:?}");
    assert_eq!(alice.get(&path).await.json(), record, "nothing has changed");
    assert_eq!(alice.get(SERVICES).await.names(), ["a"]);
    assert_eq!(bob.get(SERVICES).await.names(), ["b"]);
    assert_eq!(bob.get(&format!("{SERVICES}?name=a")).await.json()["count"], 0);
    assert_eq!(grid.get(SERVICES).await.json()["count"], 0);
}

#[tokio::test]
async fn names_are_their_owners_and_addresses_are_everybodys() {
    let grid = Grid::start().await;
    let (alice, bob) = (grid.user("alice", &json!({})).await, grid.user("bob", &json!({})).await);
    alice.service("hello", "a.example.com").await;
    let his = bob.service("hello", "b.example.com").await;
    let create = async |domain: &str| {
        let body = json!({
            "name": "other", "public_domain": domain, "function_name": "hello",
            "function_runtime": "node18", "function_code": "x",
        });
        bob.post(SERVICES, &body).await
    };
    let taken = json!({
        "function_name": ["Another service has this public_domain and function_name."],
    });
    create("a.example.com").await.is(409, &taken);
    bob.send("PATCH", &his, &json!({"public_domain": "a.example.com"})).await.is(409, &taken);
    assert_eq!(create("c.example.com").await.status, 201);
    let again = bob.send("PATCH", &his, &json!({"name": "other"})).await;
    again.is(409, &json!({"name": ["A service with this name already exists."]}));
}

#[tokio::test]
async fn an_admin_acts_for_whom_it_names() {
    let grid = Grid::start().await;
    let (alice, bob) = (grid.user("alice", &json!({})).await, grid.user("bob", &json!({})).await);
    let boss = grid.user("boss", &json!({"is_admin": true})).await;
    let path = alice.service("a", "a.example.com").await;
    bob.service("b", "b.example.com").await;
    boss.service("c", "c.example.com").await;
    for (query, expected) in [
        ("", &["c"][..]),
        ("?owner=boss", &["c"]),
        ("?owner=alice", &["a"]),
        ("?owner=nobody", &[]),
        ("?owner=*", &["a", "b", "c"]),
        ("?owner=*&name=b", &["b"]),
    ] {
        assert_eq!(boss.get(&format!("{SERVICES}{query}")).await.names(), expected, "{query}");
    }
    let page = boss.get(&format!("{SERVICES}?owner=*&page_size=1")).await.json();
    assert!(page["next"].as_str().is_some_and(|next| next.contains("owner=*")), "{page}");

    assert_eq!(boss.get(&path).await.status, 404);
    assert_eq!(boss.get(&format!("{path}?owner=bob")).await.status, 404);
    for owner in ["alice", "*"] {
        let path = format!("{path}?owner={owner}");
        let memory = json!({"memory_mb": if owner == "*" { 200 } else { 201 }});
        let changed = boss.send("PATCH", &path, &memory).await;
        assert_eq!((changed.status, &changed.json()["owner"]), (200, &json!("alice")));
    }

    let body = json!({"name": "d", "function_runtime": "node18", "function_code": "x"});
    let created = boss.post(&format!("{SERVICES}?owner=bob"), &body).await;
    assert_eq!((created.status, &created.json()["owner"]), (201, &json!("bob")));
    assert_eq!(bob.get(SERVICES).await.names(), ["b", "d"]);
    let nobody = json!({"owner": ["Name the user for whom the service is made."]});
    boss.post(&format!("{SERVICES}?owner=*"), &body).await.is(400, &nobody);
    let wrong = boss.get(&format!("{SERVICES}?owner=a%20b")).await;
    assert_eq!((wrong.status, wrong.json()["owner"].is_array()), (400, true));

    let forbidden = json!({"detail": "You do not have permission to perform this action."});
    for owner in ["bob", "*"] {
        alice.get(&format!("{SERVICES}?owner={owner}")).await.is(403, &forbidden);
        alice.post(&format!("{SERVICES}?owner={owner}"), &body).await.is(403, &forbidden);
    }
    assert_eq!(alice.get(&format!("{SERVICES}?owner=alice")).await.names(), ["a"]);
}
