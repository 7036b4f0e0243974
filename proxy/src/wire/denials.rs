//! What clients are told when no function answers, and that they can go on with the next request when
//! it is clear where that begins.

use std::time::Duration;

use control::{limits, service::GoneCause};

use super::{
    client::Answer,
    table::{get, post},
    world::{BODY_WITHIN, DEADLINE, QUEUE, QUEUE_WITHIN, World, quiet},
};

const SECOND: Duration = Duration::from_secs(1);

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_as_a_whole() {
    let world = World::new();
    let mut client = world.client();
    for byte in get("A: b\r\n").chunks(1).take(9) {
        client.send(byte).await;
        pass(SECOND).await;
    }
    assert!(client.told().await.answers.is_empty());
    pass(SECOND).await;
    let told = client.told().await;
    assert_eq!(told.answers[0].short(), "408 head_timeout");
    assert!(told.closed);
    pass(limits::LINGER).await;
    assert!(client.served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_body_has_its_time_as_a_whole() {
    for start in [post("Content-Length: 90\r\n", "x"), post("Transfer-Encoding: chunked\r\n", "")] {
        let world = World::new();
        let asked = world.replica().serve();
        let mut client = world.client();
        client.send(&start).await;
        for _ in 1..BODY_WITHIN.as_secs() {
            pass(SECOND).await;
            client.send("1").await;
        }
        assert!(client.told().await.answers.is_empty());
        pass(SECOND).await;
        let told = client.told().await;
        assert_eq!(told.answers[0].short(), "408 body_timeout");
        assert!(told.closed && asked.lock().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_without_a_word() {
    let world = World::new();
    world.replica().serve();
    let (mut fresh, mut used, mut empty) = (world.client(), world.client(), world.client());
    assert!(used.is_usable().await);
    for _ in 0..59 {
        empty.send("\r\n").await; // no request has begun
        pass(SECOND).await;
    }
    for client in [&mut fresh, &mut used, &mut empty] {
        assert!(!client.told().await.closed);
    }
    pass(SECOND).await;
    for client in [&mut fresh, &mut used, &mut empty] {
        let told = client.told().await;
        assert!(told.closed && told.answers.is_empty() && told.rest.is_empty());
        assert!(client.served.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_goes_on_sending_is_read_for_a_while() {
    let world = World::new();
    let mut client = world.client();
    client.send("nonsense\r\n\r\n").await;
    for _ in 0..9 {
        client.send("x".repeat(10_000)).await;
        pass(SECOND / 10).await;
        assert!(!client.served.is_finished());
    }
    assert_eq!(client.told().await.answers[0].short(), "400 bad_request");
    pass(SECOND / 5).await;
    assert!(client.served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_refused_body_is_read_within_bounds() {
    let post = |length| {
        format!("POST /none HTTP/1.1\r\nHost: f.example\r\nContent-Length: {length}\r\n\r\n")
    };
    let world = World::new();
    world.replica().serve();
    // It comes: the connection goes on. It does not: the connection ends.
    let mut client = world.client();
    assert_eq!(client.ask(post(400)).await.short(), "404 not_found");
    client.send("x".repeat(400)).await;
    assert!(client.is_usable().await);
    assert_eq!(client.ask(post(400)).await.short(), "404 not_found");
    client.send("x".repeat(399)).await;
    pass(limits::LINGER).await;
    assert!(client.told().await.closed);
    // Too much to wait for.
    let answer = world.client().ask(post(1_000_000)).await;
    assert_eq!(answer.short(), "404 not_found");
    assert_eq!(answer.field("connection"), Some("close"));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_and_a_wait_in_vain() {
    let world = World::new();
    let mut waiting: Vec<_> = (0..QUEUE).map(|_| world.client()).collect();
    for client in &mut waiting {
        client.send(post("Content-Length: 3\r\n", "abc")).await;
    }
    quiet().await;
    let mut client = world.client();
    let answer = client.ask(get("")).await;
    assert_eq!(answer.short(), "429 queue_full");
    assert_eq!(answer.field("retry-after"), Some("1"));
    pass(QUEUE_WITHIN).await;
    for client in &mut waiting {
        let told = client.told().await;
        assert_eq!(told.answers[0].short(), "503 no_replica");
        assert_eq!(told.answers[0].field("retry-after"), Some("1"));
    }
    let asked = world.replica().serve();
    for client in waiting.iter_mut().chain([&mut client]) {
        assert!(client.is_usable().await);
    }
    assert_eq!(asked.lock().len(), QUEUE + 1);
}

/// What a client gets when a replica does this, and why the replica was given up. The connection
/// serves the next request, which another replica answers.
async fn failure(answer: Option<&str>) -> (Answer, Option<GoneCause>) {
    let mut world = World::new();
    let mut replica = world.replica();
    let mut client = world.client();
    client.send(get("")).await;
    replica.asked().await.expect("a request");
    match answer {
        Some(answer) => replica.say(answer).await,
        None => pass(DEADLINE).await,
    }
    if answer != Some("") {
        quiet().await; // else it hangs up at once
    }
    drop(replica);
    let mut told = client.told().await;
    assert!(told.rest.is_empty() && told.answers.len() == 1, "{told:?}");
    let causes = world.given_up();
    world.replica().serve();
    assert!(client.is_usable().await);
    (told.answers.remove(0), causes.first().copied())
}

#[tokio::test(start_paused = true)]
async fn failures_of_the_function() {
    let large = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", super::world::ANSWER + 1);
    let failure_of = |kind: &str| {
        let body = format!("{{\"error\":\"{kind}\",\"message\":\"secret\"}}");
        let length = body.len();
        format!(
            "HTTP/1.1 502 Bad\r\nx-grid-outcome: error\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let (failed, blocked) = (failure_of("load_failed"), failure_of("ssrf_blocked"));
    for (answer, short, cause) in [
        (None, "504 timeout", Some(GoneCause::TimedOut)),
        (Some(""), "502 function_crashed", Some(GoneCause::Closed)),
        (Some("garbage\r\n\r\n"), "502 invalid_response", Some(GoneCause::Garbled)),
        (Some("HTTP/1.1 200 OK\r\n\r\n"), "502 invalid_response", Some(GoneCause::Garbled)),
        (Some(&large), "502 response_too_large", Some(GoneCause::Garbled)),
        (Some(&failed), "502 load_failed", None),
        (Some(&blocked), "452 ssrf_blocked", None),
    ] {
        let (seen, gone) = failure(answer).await;
        assert_eq!((seen.short().as_str(), gone), (short, cause), "{answer:?}");
        assert_eq!(seen.field("connection"), None);
    }
}
