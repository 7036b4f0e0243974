//! An edge that ends, and one that another replaces.

use std::{path::PathBuf, time::Duration};

use control::{limits, service::GoneCause};

use super::{
    h2_client::request,
    world::{ANSWER, DEADLINE, Wire, World, quiet},
};
use crate::upgrade::hatch;

const REST: Duration = Duration::from_secs(10);

fn get(path: &str) -> String {
    format!("GET /fn/f{path} HTTP/1.1\r\nHost: f.example\r\nX-Request-Id: mine\r\n\r\n")
}

/// Nothing is told and the connection is closed.
async fn has_ended(client: &mut Wire) -> bool {
    let told = client.told().await;
    told.closed && told.answers.is_empty() && told.rest.is_empty()
}

#[tokio::test(start_paused = true)]
async fn connections_end_with_their_next_answer_or_when_they_rest() {
    let world = World::new();
    let mut replica = world.replica();
    let [mut rests, mut used, mut busy, mut waits, mut sends] = [(); 5].map(|()| world.client());
    busy.send(get("/busy")).await;
    waits.send(get("/waits")).await;
    sends.send(&get("/sends")[..20]).await;
    assert_eq!(replica.asked().await.expect("a request").target(), "/fn/f/busy");
    tokio::time::sleep(REST / 2).await;
    world.gateway.traffic.leave(REST);

    replica.answer("done").await;
    replica.serve();
    for client in [&mut busy, &mut waits] {
        let told = client.told().await;
        assert_eq!(told.answers[0].short(), "200");
        assert_eq!(told.answers[0].field("connection"), Some("close"));
        assert!(told.closed);
    }
    let answer = used.ask(get("/used")).await;
    assert_eq!(answer.field("connection"), Some("close"));
    // Its head was on its way.
    let answer = sends.ask(&get("/sends")[20..]).await;
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    assert!(!has_ended(&mut rests).await);
    tokio::time::sleep(REST / 2).await;
    assert!(has_ended(&mut rests).await, "it has rested for long enough");
}

#[tokio::test(start_paused = true)]
async fn http2_is_told_to_go_and_finishes_its_streams() {
    let world = World::new();
    let mut replica = world.replica();
    let (mut client, idle) = (world.h2().await, world.h2().await);
    let asking = client.open(request("GET", "/fn/f/busy"), true).await;
    replica.asked().await.expect("a request");
    world.gateway.traffic.leave(REST);
    quiet().await;
    idle.driver.await.expect("joins").expect("an orderly end");
    idle.served.await.expect("joins");
    assert!(!client.served.is_finished());
    replica.answer("done").await;
    assert_eq!(asking.answer().await.expect("an answer").body, b"done");
    client.driver.await.expect("joins").expect("an orderly end");
    client.served.await.expect("joins");
}

/// Another edge behind a hatch.
fn next() -> (World, PathBuf, tempfile::TempDir) {
    let world = World::new();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("grid.sock");
    let listener = hatch::open(&path).expect("a hatch");
    tokio::spawn(hatch::serve(listener, world.gateway.clone()));
    (world, path, dir)
}

#[tokio::test(start_paused = true)]
async fn what_still_comes_is_passed_on_as_it_came() {
    let world = World::new();
    let mut replica = world.replica();
    let (mut busy, mut waits, mut used) = (world.client(), world.client(), world.client());
    busy.send(get("/busy")).await;
    replica.asked().await.expect("a request");
    waits.send(get("/waits")).await;
    quiet().await;
    let (next, path, _dir) = next();
    world.pass_on_to(&path);
    world.gateway.traffic.leave(REST);

    let seen = next.replica().serve();
    quiet().await;
    let told = waits.told().await;
    assert_eq!(told.answers[0].body, b"/fn/f/waits");
    let post = "POST /fn/f/used?a=b HTTP/1.1\r\nHost: f.example\r\nContent-Length: 2\r\n\
        X-Request-Id: mine\r\nX-Grid-Source-Ip: 203.0.113.9\r\nX-Own: yes\r\n\r\nhi";
    let answer = used.ask(post).await;
    assert_eq!(answer.body, b"/fn/f/used?a=b");
    for name in ["x-request-id", "server-timing", "date", "content-length", "connection"] {
        let lines = answer.head.to_lowercase();
        assert_eq!(lines.matches(&format!("\r\n{name}: ")).count(), 1, "{name}: {lines}");
    }
    let asked = seen.lock()[1].clone();
    assert_eq!(asked.body, b"hi");
    for (name, value) in [
        ("x-grid-source-ip", "192.0.2.1"),
        ("x-grid-request-id", "mine"),
        ("x-grid-scheme", "http"),
        ("x-grid-function", "f"),
        ("x-own", "yes"),
        ("host", "f.example"),
    ] {
        assert_eq!(asked.all(name), [value], "{name}");
    }

    // The replica that was busy answers its request, and is let go.
    replica.answer("done").await;
    assert_eq!(busy.told().await.answers[0].body, b"done");
    assert!(replica.asked().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn whatever_the_next_one_answers_is_passed_back() {
    let world = World::new();
    let (next, path, _dir) = next();
    world.pass_on_to(&path);
    let mut replica = next.replica();

    let mut client = world.client();
    let answer = client.ask("GET /elsewhere HTTP/1.1\r\nHost: f.example\r\n\r\n").await;
    assert_eq!(answer.short(), "404 not_found");
    client.send(get("/long")).await;
    replica.asked().await.expect("a request");
    let half = "x".repeat(ANSWER / 4);
    replica.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{half}", ANSWER / 2)).await;
    quiet().await;
    replica.say(&half).await;
    let told = client.told().await;
    assert_eq!((told.answers[0].status, told.answers[0].body.len()), (200, ANSWER / 2));
    client.send(get("/stream")).await;
    replica.asked().await.expect("a request");
    replica.say("HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\nx-a: b\r\n\r\n").await;
    replica.say("3\r\nabc\r\n").await;
    quiet().await;
    replica.say("3\r\ndef\r\n0\r\n\r\n").await;
    let told = client.told().await;
    assert_eq!((told.answers[0].status, &told.answers[0].body[..]), (201, &b"abcdef"[..]));
    assert_eq!(told.answers[0].field("x-a"), Some("b"));
    client.send("HEAD /fn/f/head HTTP/1.1\r\nHost: f.example\r\n\r\n").await;
    replica.asked().await.expect("a request");
    replica.say("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n").await;
    quiet().await;
    let mut h2 = world.h2().await;
    let asking = h2.open(request("GET", "/fn/f/h2"), true).await;
    replica.asked().await.expect("a request");
    replica.answer("over h2").await;
    assert_eq!(asking.answer().await.expect("an answer").body, b"over h2");
    let told = client.stream.try_read(&mut [0; 1024]).expect("an answer to HEAD");
    assert!(told > 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_next_one_the_client_is_told_to_try_again() {
    let world = World::new();
    let dir = tempfile::tempdir().expect("a directory");
    world.pass_on_to(&dir.path().join("nobody"));
    let answer = world.client().ask(get("")).await;
    assert_eq!(answer.short(), "503 stopping");
    assert_eq!(answer.field("retry-after"), Some("1"));
}

/// The next process looks after a replica that this one must not use again.
#[tokio::test(start_paused = true)]
async fn what_a_replica_does_after_its_release_is_told() {
    let mut world = World::new();
    let mut replica = world.replica();
    let mut client = world.client();
    client.send(get("/endless")).await;
    replica.asked().await.expect("a request");
    world.pass_on_to("/nowhere".as_ref());
    assert_eq!(world.given_up(), []);
    tokio::time::sleep(DEADLINE + limits::LINGER).await;
    assert_eq!(client.told().await.answers[0].short(), "504 timeout");
    assert_eq!(world.given_up(), [GoneCause::TimedOut]);
}
