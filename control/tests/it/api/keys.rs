//! Rotation of keys through the API, also while others write.

use std::{fs, sync::Arc};

use control::{
    account::AccessToken,
    environment::Environment,
    name::{ServiceId, TokenId, UserName},
    secret::Keyring,
    store::Durable as _,
    token::Token,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::Grid;

const ROTATE: &str = "/api/v1/keys/rotate/";

fn id(record: &Value) -> ServiceId {
    record["id"].as_str().expect("an id").parse().expect("an id")
}

#[tokio::test]
async fn keys_are_rotated_while_others_write() {
    const WRITERS: usize = 8;
    let grid = Arc::new(Grid::start().await);
    let before = fs::read_to_string(grid.dir.path().join("fernet_keys")).expect("keys");
    let mut paths = Vec::new();
    for writer in 0..WRITERS {
        let path = grid.service(&format!("s{writer}")).await;
        let vars = json!([{"key": "KEY", "value": "v0", "is_secret": true}]);
        assert_eq!(grid.patch(&path, &json!({ "env_vars": vars })).await.status, 200);
        paths.push(path);
    }
    let writers: Vec<_> = paths
        .iter()
        .cloned()
        .enumerate()
        .map(|(writer, path)| {
            let grid = grid.clone();
            tokio::spawn(async move {
                for turn in 1..=20 {
                    // Some put another value, some carry on the one that they read, some are new.
                    let answer = match writer % 4 {
                        0 => {
                            let body = json!({"value": format!("v{turn}")});
                            grid.patch(&format!("{path}env_vars/KEY/"), &body).await
                        }
                        1 => grid.patch(&path, &json!({"memory_mb": 128 + turn})).await,
                        2 => grid.patch(&path, &json!({"max_replicas": turn})).await,
                        _ => {
                            let vars = json!([{"key": "KEY", "value": "v"}]);
                            let body = json!({
                                "name": format!("new-{writer}-{turn}"), "env_vars": vars,
                                "function_runtime": "node18", "function_code": "x",
                            });
                            grid.post("/api/v1/services/", &body).await
                        }
                    };
                    assert!([200, 201].contains(&answer.status), "{answer:?}");
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let answer = grid.post(ROTATE, &json!({})).await;
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("done")), "{answer:?}");
        assert_eq!(answer.json()["lost"], 0);
    }
    for writer in writers {
        writer.await.expect("every change was made");
    }
    let last = grid.post(ROTATE, &json!({})).await.json();
    grid.get(ROTATE).await.is(200, &last);

    // What the next process finds: one key, which is another one, and opens everything.
    let after = fs::read_to_string(grid.dir.path().join("fernet_keys")).expect("keys");
    assert!(after.lines().count() == 1 && after != before, "{} keys", after.lines().count());
    let keyring = Keyring::load_or_create(grid.dir.path(), None).expect("keys");
    let ids = grid.store.service_ids().await.expect("lists");
    assert!(ids.len() > WRITERS);
    for service in ids {
        let kept = grid.store.service(service).await.expect("reads").expect("is there");
        Environment::open(&kept.function.env_vars, &keyring).expect("opens");
        let history = grid.store.deployments(service, 0, 1000).await.expect("lists").items;
        for deployment in history {
            Environment::open(&deployment.function.env_vars, &keyring).expect("opens");
        }
    }
    let record = grid.get(&paths[0]).await.json();
    let kept = grid.store.service(id(&record)).await.expect("reads").expect("is there");
    let opened = Environment::open(&kept.function.env_vars, &keyring).expect("opens");
    assert_eq!(opened.variables[0].1, "v20");
}

#[tokio::test]
async fn only_an_admin_rotates() {
    let grid = Grid::start().await;
    let text = "a-token-of-alice-0123456789";
    let alice = AccessToken {
        id: TokenId::new(),
        user: UserName::parse("alice").expect("valid"),
        is_admin: false,
        digest: *Token::presented(text).digest(),
        name: String::new(),
        created_at: Timestamp::now(),
        expires_at: None,
        last_used_at: None,
    };
    grid.store.add_token(&alice).await.expect("adds");
    let authorization = format!("Token {text}");
    for method in ["GET", "POST"] {
        let headers = [("authorization", authorization.as_str())];
        let answer = grid.raw(method, ROTATE, &headers, b"").await;
        let refused = json!({"detail": "You do not have permission to perform this action."});
        answer.is(403, &refused);
    }
    let idle = json!({"state": "idle", "detail": "No rotation since Grid started."});
    grid.get(ROTATE).await.is(200, &idle);
}
