//! Answers as a hostile container could give them, over a real Unix socket.

use pingora_core::protocols::l4;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::*;

const MOST: usize = 1000;

/// Runs one exchange against a peer that reads the request and then sends `answer`, in two writes,
/// and keeps the connection open or closes it.
async fn exchange(answer: &[u8], stays: bool) -> Result<(Answer, Option<Stream>), Fault> {
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    let answer = answer.to_vec();
    let peer = tokio::spawn(async move {
        let mut request = [0; 1024];
        let read = theirs.read(&mut request).await.expect("the request");
        assert!(request[..read].starts_with(b"POST /fn/a HTTP/1.1\r\n"));
        let (first, second) = answer.split_at(answer.len() / 2);
        for part in [first, second] {
            // The other side may have had enough already.
            let _ = theirs.write_all(part).await;
            let _ = theirs.flush().await;
            tokio::task::yield_now().await;
        }
        stays.then_some(theirs)
    });
    let mut request = RequestHeader::build(Method::POST, b"/fn/a", None).expect("a request");
    request.insert_header(header::CONTENT_LENGTH, 2).expect("a header");
    let link: Stream = Box::new(l4::stream::Stream::from(ours));
    let deadline = Instant::now() + Duration::from_secs(30);
    let outcome = run(link, Box::new(request), Bytes::from_static(b"hi"), MOST, deadline).await;
    drop(peer.await.expect("the peer"));
    outcome
}

fn garbled(outcome: Result<(Answer, Option<Stream>), Fault>) -> bool {
    matches!(outcome, Err(Fault::Garbled(_)))
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_passes_without_what_is_not_for_the_public() {
    let answer = b"HTTP/1.1 201 Created\r\nX-A: 1\r\nx-a: 2\r\nX-Grid-Outcome: ok\r\n\
        Keep-Alive: timeout=5\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello";
    let (answer, link) = exchange(answer, true).await.expect("an answer");
    assert_eq!(answer.status, 201);
    assert_eq!(answer.body.as_ref(), b"hello");
    assert!(!answer.failed);
    let headers: Vec<_> = answer.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    assert_eq!(headers, [("x-a", &b"1"[..]), ("x-a", b"2")]);
    assert!(link.is_some(), "the connection serves the next request");
}

#[tokio::test(start_paused = true)]
async fn a_runners_own_failure_is_told_apart() {
    let body = r#"{"error":"handler_error","message":"oh\u0007 dear"}"#;
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 502 Bad Gateway\r\nx-grid-outcome: error\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let (answer, _) = exchange(answer.as_bytes(), true).await.expect("an answer");
    assert!(answer.failed);
    assert_eq!(failure(&answer.body), ("handler_error".to_owned(), "oh dear".to_owned()));
    assert_eq!(failure(b"nonsense"), (String::new(), String::new()));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_an_answer_is_refused() {
    for answer in [
        &b"garbage\r\n\r\n"[..],
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\nContent-Length: 0\r\n\r\n",
    ] {
        let outcome = exchange(answer, false).await;
        assert!(outcome.is_err(), "{}", String::from_utf8_lossy(answer));
    }
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n");
    assert!(garbled(exchange(answer.as_bytes(), true).await));
    let long = "a".repeat(limits::RESPONSE_HEADER_BYTES);
    let answer = format!("HTTP/1.1 200 OK\r\nx: {long}\r\nContent-Length: 0\r\n\r\n");
    assert!(garbled(exchange(answer.as_bytes(), true).await));
}

#[tokio::test(start_paused = true)]
async fn a_body_has_a_limit_declared_or_not() {
    let body = "a".repeat(MOST);
    let fits = format!("HTTP/1.1 200 OK\r\nContent-Length: {MOST}\r\n\r\n{body}");
    let (answer, _) = exchange(fits.as_bytes(), true).await.expect("an answer");
    assert_eq!(answer.body.len(), MOST);
    for answer in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}a", MOST + 1),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}a\r\n0\r\n\r\n",
            MOST + 1
        ),
        format!("HTTP/1.1 200 OK\r\n\r\n{body}a"),
    ] {
        let outcome = exchange(answer.as_bytes(), false).await;
        assert!(matches!(outcome, Err(Fault::TooLarge)), "{}", &answer[..40]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_doubt_is_not_used_again() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n"[..],
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let (answer, link) = exchange(answer, true).await.expect("an answer");
        assert_eq!(answer.body.as_ref(), b"ok");
        assert!(link.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline_and_a_hangup_at_once() {
    for answer in
        [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"]
    {
        assert!(matches!(exchange(answer, false).await, Err(Fault::Closed)));
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let request = RequestHeader::build(Method::GET, b"/fn/a", None).expect("a request");
        let link: Stream = Box::new(l4::stream::Stream::from(ours));
        let deadline = Instant::now() + Duration::from_secs(2);
        let outcome = run(link, Box::new(request), Bytes::new(), MOST, deadline).await;
        assert!(matches!(outcome, Err(Fault::TimedOut)));
        drop(theirs);
    }
}
