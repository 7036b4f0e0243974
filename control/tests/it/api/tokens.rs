//! Making, listing, using and revoking tokens.

use std::time::Duration;

use control::{
    account::AccessToken,
    limits,
    name::{TokenId, UserName},
    store::Durable,
    token::Token,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::client::{Grid, TOKEN};

const TOKENS: &str = "/api/v1/tokens/";
const SERVICES: &str = "/api/v1/services/";

/// Adds a token of alice's that has expired.
async fn expired(grid: &Grid, text: &str) -> TokenId {
    let now = Timestamp::now();
    let token = AccessToken {
        id: TokenId::new(),
        user: UserName::parse("alice").expect("valid"),
        is_admin: false,
        name: "old".to_owned(),
        digest: *Token::presented(text).digest(),
        created_at: now - SignedDuration::from_secs(2),
        expires_at: Some(now - SignedDuration::from_secs(1)),
        last_used_at: None,
    };
    grid.store.add_token(&token).await.expect("adds");
    token.id
}

#[tokio::test]
async fn a_token_is_shown_once_and_opens_until_it_is_revoked() {
    let grid = Grid::start().await;
    let body = json!({"name": "laptop", "user": "alice", "expires_at": null});
    let answer = grid.post(TOKENS, &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let mut record = answer.json();
    let token = record["token"].as_str().expect("a token").to_owned();
    assert!(token.len() == 40 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    let expected = json!({
        "id": record["id"], "user": "alice", "is_admin": false, "name": "laptop",
        "created_at": record["created_at"], "expires_at": null, "last_used_at": null,
        "expired": false, "token": token,
    });
    assert_eq!(record, expected);
    let path = &answer.headers["location"];
    assert_eq!(path, &format!("{TOKENS}{}/", record["id"].as_str().expect("an id")));

    // Read by itself it looks the same, without its secret, and its use shows: to the minute.
    record.as_object_mut().expect("an object").remove("token");
    let own = async || grid.send_with(&token, &[], "GET", path, "").await;
    let first = own().await.json();
    assert!(first["last_used_at"].is_string(), "{first}");
    assert_eq!(own().await.json()["last_used_at"], first["last_used_at"]);
    record["last_used_at"] = first["last_used_at"].clone();
    assert_eq!(first, record);
    let listed = grid.send_with(&token, &[], "GET", TOKENS, "").await;
    listed.is(200, &json!({"count": 1, "next": null, "previous": null, "results": [record]}));
    assert_eq!(grid.get(TOKENS).await.json()["count"], 0, "the bootstrap token is not in a list");

    // Also for a connection that is open.
    let mut stream = TcpStream::connect(grid.address).await.expect("a connection");
    let request =
        format!("GET {TOKENS} HTTP/1.1\r\nhost: a\r\nauthorization: Token {token}\r\n\r\n");
    let mut buffer = [0; 4096];
    for status in ["200", "401"] {
        stream.write_all(request.as_bytes()).await.expect("sent");
        let count = stream.read(&mut buffer).await.expect("an answer");
        let answer = String::from_utf8_lossy(&buffer[..count]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        if status == "200" {
            let revoked = grid.send_with(&token, &[], "DELETE", path, "").await;
            assert_eq!((revoked.status, revoked.text.as_str()), (204, ""), "it revoked itself");
        }
    }
    own().await.is(401, &json!({"detail": "Invalid token."}));
    let gone = json!({"detail": "Not found."});
    grid.get(&format!("{path}?owner=*")).await.is(404, &gone);
    grid.send("DELETE", &format!("{path}?owner=*"), "").await.is(404, &gone);
}

#[tokio::test]
async fn users_make_tokens_for_themselves_and_admins_for_all() {
    let grid = Grid::start().await;
    let alice = grid.user("alice", &json!({})).await;
    let boss = grid.user("alice", &json!({"is_admin": true})).await;
    let forbidden = json!({"detail": "You do not have permission to perform this action."});
    for body in [
        json!({"name": "a", "user": "bob"}),
        json!({"name": "a", "is_admin": true}),
        json!({"name": "a", "user": "alice", "is_admin": true}),
    ] {
        alice.post(TOKENS, &body).await.is(403, &forbidden);
        assert_eq!(boss.post(TOKENS, &body).await.status, 201, "{body}");
    }
    let own = alice.post(TOKENS, &json!({"name": "b", "is_admin": false})).await.json();
    assert_eq!((&own["user"], &own["is_admin"]), (&json!("alice"), &json!(false)));
    assert_eq!(alice.post(TOKENS, &json!({"name": "c", "user": "alice"})).await.status, 201);

    // For whom an admin makes one, when the body does not say.
    let made = async |query| boss.post(&format!("{TOKENS}{query}"), &json!({"name": "d"})).await;
    assert_eq!(made("").await.json()["user"], "alice");
    assert_eq!(made("?owner=carol").await.json()["user"], "carol");
    made("?owner=*").await.is(400, &json!({"user": ["Name the user for whom the token is made."]}));
}

#[tokio::test]
async fn tokens_of_others_are_not_there() {
    let grid = Grid::start().await;
    let (alice, bob) = (grid.user("alice", &json!({})).await, grid.user("bob", &json!({})).await);
    let gone = json!({"detail": "Not found."});
    for method in ["GET", "DELETE"] {
        bob.send(method, &alice.path, &json!({})).await.is(404, &gone);
        grid.send(method, &alice.path, "").await.is(404, &gone);
    }
    let mine = bob.get(TOKENS).await.json();
    assert_eq!((&mine["count"], &mine["results"][0]["user"]), (&json!(1), &json!("bob")));
    let count =
        async |query: &str| grid.get(&format!("{TOKENS}{query}")).await.json()["count"].clone();
    assert_eq!(count("").await, 0);
    assert_eq!(count("?owner=alice").await, 1);
    assert_eq!(count("?owner=*").await, 2);
    assert_eq!(alice.get(&format!("{TOKENS}?owner=bob")).await.status, 403);
    let revoked = grid.send("DELETE", &format!("{}?owner=alice", alice.path), "").await;
    assert_eq!(revoked.status, 204);
    assert_eq!(alice.get(TOKENS).await.status, 401);
    assert_eq!(bob.get(TOKENS).await.status, 200);
}

#[tokio::test]
async fn lists_are_newest_first_and_paged() {
    let grid = Grid::start().await;
    for name in ["a", "b", "c"] {
        assert_eq!(grid.post(TOKENS, &json!({ "name": name })).await.status, 201);
    }
    assert_eq!(grid.get(TOKENS).await.names(), ["c", "b", "a"]);
    let second = grid.get(&format!("{TOKENS}?page=2&page_size=2")).await;
    assert_eq!(second.names(), ["a"]);
    let second = second.json();
    assert_eq!((&second["count"], &second["next"]), (&json!(3), &Value::Null));
}

#[tokio::test]
async fn an_expired_token_opens_nothing_and_is_still_listed() {
    let grid = Grid::start().await;
    let id = expired(&grid, "an-expired-token").await;
    let answer = grid.send_with("an-expired-token", &[], "GET", SERVICES, "").await;
    answer.is(401, &json!({"detail": "Invalid token."}));
    let alice = grid.user("alice", &json!({"expires_in_days": 7})).await;
    let page = alice.get(TOKENS).await.json();
    assert_eq!(page["count"], 2);
    let (new, old) = (&page["results"][0], &page["results"][1]);
    assert_eq!((&old["id"], &old["expired"]), (&json!(id.to_string()), &json!(true)));
    assert_eq!(old["last_used_at"], Value::Null);
    assert_eq!(new["expired"], false);
    let time = |field: &str| -> Timestamp {
        new[field].as_str().expect("a time").parse().expect("a time")
    };
    let week = SignedDuration::from_hours(7 * 24);
    assert_eq!(time("expires_at").duration_since(time("created_at")), week);
    assert_eq!(alice.send("DELETE", &format!("{TOKENS}{id}/"), &json!({})).await.status, 204);
}

#[tokio::test]
async fn a_user_has_so_many_and_expired_ones_make_room() {
    let grid = Grid::start().await;
    let old = expired(&grid, "an-expired-token").await;
    let alice = grid.user("alice", &json!({})).await;
    for _ in 2..limits::TOKENS_PER_USER {
        assert_eq!(alice.post(TOKENS, &json!({"name": "more"})).await.status, 201);
    }
    let page = alice.get(&format!("{TOKENS}{old}/")).await;
    assert_eq!(page.json()["expired"], true);
    assert_eq!(alice.post(TOKENS, &json!({"name": "more"})).await.status, 201);
    assert_eq!(alice.get(&format!("{TOKENS}{old}/")).await.status, 404);
    let full = "This user has 100 tokens, which is the most; revoke one.";
    alice.post(TOKENS, &json!({"name": "more"})).await.is(409, &json!({"user": [full]}));
    grid.user("bob", &json!({})).await;
}

#[tokio::test]
async fn what_is_wrong_is_told_at_its_field() {
    let grid = Grid::start().await;
    let body = json!({"user": "a b", "is_admin": "so", "expires_at": "tomorrow", "x": 1});
    let expected = json!({
        "name": ["This field is required."],
        "user": ["Use letters a-z and A-Z, digits and the characters @ . + - _ only."],
        "is_admin": ["Must be a valid boolean."],
        "expires_at": ["Must be a time as in RFC 3339, for example 2027-01-31T12:00:00Z."],
        "x": ["Unknown field."],
    });
    grid.post(TOKENS, &body).await.is(400, &expected);
    let past = json!({"name": "a", "expires_at": "2001-01-01T00:00:00Z"});
    grid.post(TOKENS, &past).await.is(409, &json!({"expires_at": ["Must be in the future."]}));
    let both =
        json!({"name": "a", "expires_at": "2101-01-01T00:00:00+01:00", "expires_in_days": 1});
    let expected = json!({"expires_in_days": ["Send either this or expires_at."]});
    grid.post(TOKENS, &both).await.is(409, &expected);
    let answer = grid.patch(&format!("{TOKENS}{}/", TokenId::new()), &json!({})).await;
    assert_eq!(answer.status, 405, "{answer:?}");
}

#[tokio::test]
async fn who_guesses_has_to_wait() {
    let grid = Grid::start().await;
    assert_eq!(grid.get(SERVICES).await.status, 200);
    let guess = async || grid.send_with("a-guess", &[], "GET", SERVICES, "").await;
    let invalid = json!({"detail": "Invalid token."});
    for _ in 0..30 {
        guess().await.is(401, &invalid);
    }
    // One becomes free every other second, which a slow machine may see.
    let mut answer = guess().await;
    for _ in 0..100 {
        if answer.status == 429 {
            break;
        }
        answer = guess().await;
    }
    let wait: u32 = answer.headers["retry-after"].parse().expect("seconds");
    let plural = if wait == 1 { "second" } else { "seconds" };
    let detail = format!("Request was throttled. Expected available in {wait} {plural}.");
    answer.is(429, &json!({ "detail": detail }));
    assert!((1..=2).contains(&wait), "{wait}");
    // Somebody behind the same address whose token was good before goes on.
    assert_eq!(grid.send_with(TOKEN, &[], "GET", SERVICES, "").await.status, 200);
}

#[tokio::test]
async fn a_log_is_followed_only_as_long_as_the_token_opens() {
    let grid = Grid::start().await;
    let alice = grid.user("alice", &json!({})).await;
    let logs = format!("{}logs/?follow=true", alice.service("a", "alice.example.com").await);
    let follow = async |token: &str| {
        let mut stream = TcpStream::connect(grid.address).await.expect("a connection");
        let head = format!(
            "GET {logs} HTTP/1.1\r\nhost: localhost\r\nauthorization: Token {token}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        // The head is there as soon as it follows.
        let mut first = [0; 15];
        stream.read_exact(&mut first).await.expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        stream
    };
    // Less than a quiet log takes to say that it is alive, which is when it is asked again anyway.
    let soon = limits::LOG_FOLLOW_QUIET - Duration::from_secs(3);
    let end = async |mut stream: TcpStream| {
        let mut text = String::new();
        let read = timeout(soon, stream.read_to_string(&mut text)).await;
        read.expect("it ends by itself").expect("an answer");
        assert!(text.contains("This token does not open this log any more."), "{text}");
    };

    let other = grid.user("alice", &json!({})).await;
    let (hers, others) = (follow(&alice.token).await, follow(&other.token).await);
    assert_eq!(grid.send("DELETE", &format!("{}?owner=alice", alice.path), "").await.status, 204);
    end(hers).await;
    assert_eq!(other.get(SERVICES).await.status, 200);
    assert_eq!(other.send("DELETE", &other.path, &json!({})).await.status, 204);
    end(others).await;

    let expires_at = Timestamp::now() + SignedDuration::from_secs(2);
    let brief = grid.user("alice", &json!({ "expires_at": expires_at })).await;
    end(follow(&brief.token).await).await;
}
