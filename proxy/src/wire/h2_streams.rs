//! HTTP/2: what ends a stream and leaves its connection alone.

use std::time::Duration;

use bytes::Bytes;
use control::{limits, service::GoneCause};
use h2::Reason;

use super::{
    h2_client::request,
    world::{ANSWER, BODY, BODY_WITHIN, DEADLINE, QUEUE, QUEUE_WITHIN, World, quiet},
};

const CHUNKS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn requests_reach_the_function_as_they_do_in_http_1() {
    let world = World::new();
    let asked = world.replica().serve();
    let mut client = world.h2().await;
    let mut post = request("POST", "/fn/f/x?y=%2e");
    let fields = post.headers_mut();
    for crumb in ["a=1", "b=2", "c=3"] {
        fields.append("cookie", crumb.parse().expect("a value"));
    }
    for (name, value) in [("te", "trailers"), ("x-grid-scheme", "x"), ("x-y", "1"), ("x-y", "2")] {
        fields.append(name, value.parse().expect("a value"));
    }
    let mut asking = client.open(post, false).await;
    for (piece, last) in [("ab", false), ("", false), ("c", true)] {
        asking.body.send_data(Bytes::from(piece), last).expect("room");
        quiet().await;
    }
    let answer = asking.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.field("content-length")), (200, Some("13")));
    assert!(answer.field("date").is_some() && answer.field("x-request-id").is_some());
    let asked = asked.lock()[0].clone();
    assert_eq!(asked.to_string(), "POST /fn/f/x?y=%2e abc");
    assert_eq!(asked.all("host"), ["f.example"]);
    assert_eq!(asked.all("cookie"), ["a=1; b=2; c=3"]);
    assert_eq!(asked.all("x-y"), ["1", "2"]);
    assert_eq!(asked.all("x-grid-scheme"), ["http"]);
    assert_eq!(asked.all("te"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_body_may_end_in_trailers() {
    let world = World::new();
    let asked = world.replica().serve();
    let mut client = world.h2().await;
    let mut asking = client.open(request("POST", "/fn/f"), false).await;
    asking.body.send_data(Bytes::from("abc"), false).expect("room");
    asking.body.send_trailers(http::HeaderMap::new()).expect("room");
    assert_eq!(asking.answer().await.expect("an answer").status, 200);
    assert_eq!(asked.lock()[0].to_string(), "POST /fn/f abc");
    assert!(client.is_usable().await);
}

#[tokio::test(start_paused = true)]
async fn denials_of_a_head() {
    let world = World::new();
    world.replica().serve();
    let mut client = world.h2().await;
    let with = |name: &'static str, value: &str| {
        let mut request = request("POST", "/fn/f");
        request.headers_mut().append(name, value.parse().expect("a value"));
        request
    };
    let mut many = request("GET", "/fn/f");
    for _ in 0..=limits::REQUEST_HEADERS {
        many.headers_mut().append("a", "b".parse().expect("a value"));
    }
    for (request, short) in [
        (request("GET", "/none"), "404 not_found"),
        (request("TRACE", "/fn/f"), "405 method_not_allowed"),
        (request("get", "/fn/f"), "405 method_not_allowed"),
        (request("GET", "/fn/f/../x"), "400 bad_request"),
        (request("GET", "/fn/f/%2e%2e"), "400 bad_request"),
        (request("GET", &format!("/fn/f/{}", "x".repeat(8200))), "414 target_too_long"),
        (many, "431 headers_too_large"),
        (with("a", &"x".repeat(33_000)), "431 headers_too_large"),
        (with("host", "g.example"), "400 bad_request"),
        (with("content-length", "501"), "413 body_too_large"),
    ] {
        let asking = client.open(request, short != "413 body_too_large").await;
        assert_eq!(asking.answer().await.expect("an answer").short(), short);
    }
    // More than h2 takes: it answers itself.
    let answer = client.ask(with("a", &"x".repeat(60_000))).await.expect("an answer");
    assert_eq!(answer.status, 431);
    assert!(client.is_usable().await);
}

#[tokio::test(start_paused = true)]
async fn answers_without_a_body() {
    for (method, answer, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", Some("5000")),
        ("HEAD", CHUNKS, None),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n", None),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some("0")),
    ] {
        let world = World::new();
        let mut replica = world.replica();
        let mut client = world.h2().await;
        let asking = client.open(request(method, "/fn/f"), true).await;
        replica.asked().await.expect("a request");
        replica.say(answer).await;
        let told = asking.answer().await.expect("an answer");
        assert_eq!(told.field("content-length"), length, "{method} {answer}");
        assert!(told.body.is_empty());
        replica.serve();
        assert!(client.is_usable().await);
    }
}

/// The answer arrives although the body does not stop.
#[tokio::test(start_paused = true)]
async fn a_refused_body_is_answered_first() {
    let world = World::new();
    world.replica().serve();
    let mut client = world.h2().await;
    for (path, length, short) in [
        ("/fn/f", None, "413 body_too_large"),
        ("/fn/f", Some("100000"), "413 body_too_large"),
        ("/none", None, "404 not_found"),
    ] {
        let mut post = request("POST", path);
        if let Some(length) = length {
            post.headers_mut().insert("content-length", length.parse().expect("a value"));
        }
        let mut asking = client.open(post, false).await;
        asking.body.send_data(Bytes::from(vec![0; BODY + 1]), false).expect("room");
        quiet().await;
        let body = &mut asking.body;
        let reset = std::future::poll_fn(|context| body.poll_reset(context)).await;
        assert_eq!(reset.ok(), Some(Reason::NO_ERROR));
        assert_eq!(asking.answer().await.map(|answer| answer.short()), Ok(short.to_owned()));
    }
    assert!(client.is_usable().await);
}

#[tokio::test(start_paused = true)]
async fn a_body_has_its_time_as_a_whole() {
    let world = World::new();
    world.replica().serve();
    let mut client = world.h2().await;
    let mut asking = client.open(request("POST", "/fn/f"), false).await;
    for _ in 1..BODY_WITHIN.as_secs() {
        asking.body.send_data(Bytes::from("x"), false).expect("room");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(!asking.answer.is_finished());
    assert_eq!(asking.answer().await.expect("an answer").short(), "408 body_timeout");
    assert!(client.is_usable().await);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_and_a_wait_in_vain() {
    let world = World::new();
    let mut client = world.h2().await;
    let mut waiting = Vec::new();
    for _ in 0..QUEUE {
        waiting.push(client.open(request("GET", "/fn/f"), true).await);
    }
    quiet().await;
    let answer = client.ask(request("GET", "/fn/f")).await.expect("an answer");
    assert_eq!(
        (answer.short().as_str(), answer.field("retry-after")),
        ("429 queue_full", Some("1"))
    );
    tokio::time::sleep(QUEUE_WITHIN).await;
    for asking in waiting {
        assert_eq!(asking.answer().await.expect("an answer").short(), "503 no_replica");
    }
    world.replica().serve();
    assert!(client.is_usable().await);
}

#[tokio::test(start_paused = true)]
async fn failures_of_the_function() {
    for (answer, short, cause) in [
        (None, "504 timeout", GoneCause::TimedOut),
        (Some(""), "502 function_crashed", GoneCause::Closed),
        (Some("garbage\r\n\r\n"), "502 invalid_response", GoneCause::Garbled),
    ] {
        let mut world = World::new();
        let mut replica = world.replica();
        let mut client = world.h2().await;
        let asking = client.open(request("GET", "/fn/f"), true).await;
        replica.asked().await.expect("a request");
        match answer {
            None => tokio::time::sleep(DEADLINE).await,
            Some("") => drop(replica),
            Some(answer) => replica.say(answer).await,
        }
        assert_eq!(asking.answer().await.expect("an answer").short(), short);
        assert_eq!(world.given_up(), [cause]);
        world.replica().serve();
        assert!(client.is_usable().await);
    }
}

#[tokio::test(start_paused = true)]
async fn pieces_arrive_as_they_are_made_and_long_answers_whole() {
    let mut world = World::new();
    let mut replica = world.replica();
    let mut client = world.h2().await;
    let asking = client.open(request("GET", "/fn/f"), true).await;
    replica.asked().await.expect("a request");
    replica.say(format!("{CHUNKS}3\r\nabc\r\n")).await;
    let mut stream = asking.answer.await.expect("awaited").expect("a head").into_body();
    assert_eq!(stream.data().await.expect("a piece").expect("no error"), "abc");
    replica.say("2\r\nde\r\n").await;
    assert_eq!(stream.data().await.expect("a piece").expect("no error"), "de");
    replica.say("0\r\n\r\n").await;
    assert!(stream.data().await.is_none_or(|piece| piece.is_ok_and(|piece| piece.is_empty())));
    assert!(stream.is_end_stream());

    let whole: String = (0..ANSWER / 8).map(|number| format!("{number:8}")).collect();
    let asking = client.open(request("GET", "/fn/f"), true).await;
    replica.asked().await.expect("a request");
    replica.answer(&whole).await;
    assert!(asking.answer().await.expect("an answer").body == whole.as_bytes());
    assert_eq!(world.given_up(), []);
}

#[tokio::test(start_paused = true)]
async fn a_cut_answer_ends_as_cut() {
    for hangs_up in [true, false] {
        let mut world = World::new();
        let mut replica = world.replica();
        let mut client = world.h2().await;
        let asking = client.open(request("GET", "/fn/f"), true).await;
        replica.asked().await.expect("a request");
        replica.say(format!("{CHUNKS}3\r\nabc\r\n")).await;
        let mut stream = asking.answer.await.expect("awaited").expect("a head").into_body();
        assert_eq!(stream.data().await.expect("a piece").expect("no error"), "abc");
        let kept = (!hangs_up).then_some(replica);
        let end = stream.data().await.expect("an end").expect_err("not a good one");
        assert_eq!(end.reason(), Some(Reason::INTERNAL_ERROR));
        let cause = if hangs_up { GoneCause::Closed } else { GoneCause::TimedOut };
        assert_eq!(world.given_up(), [cause]);
        drop(kept);
        world.replica().serve();
        assert!(client.is_usable().await);
    }
}

/// The replica is free when its function has finished, and the reader has its time and no more.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_no_replica_and_is_given_up() {
    let mut world = World::new();
    let mut replica = world.replica();
    let mut client = world.h2().await;
    let asking = client.open(request("GET", "/fn/f"), true).await;
    replica.asked().await.expect("a request");
    replica.answer(&"x".repeat(ANSWER)).await;
    let mut stream = asking.answer.await.expect("awaited").expect("a head").into_body();
    replica.serve();
    assert!(client.is_usable().await);
    tokio::time::sleep(2 * limits::send_within(64 * 1024)).await; // it goes out in pieces
    let error = loop {
        match stream.data().await.expect("an end") {
            Ok(_) => {} // read, and no room is made for more
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    assert_eq!(world.given_up(), []);
    assert!(client.is_usable().await);
}
