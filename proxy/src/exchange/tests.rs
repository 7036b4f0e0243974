//! Answers as a hostile container could give them, over a real Unix socket.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::*;
use crate::{
    bound::Alarm,
    flow::{self, Next, Stock},
};

const MOST: usize = 1000;
/// Lets the exchange take what has arrived before the next part comes.
const BREATH: Duration = Duration::from_millis(1);

/// A complete answer.
struct Seen {
    status: StatusCode,
    fields: Fields,
    failed: bool,
    body: Vec<u8>,
}

type Outcome = Result<(Seen, Option<Link>), Fault>;

/// Runs one exchange against a peer that reads the request, sends the parts of an answer one by
/// one, and then stays silent or hangs up.
async fn exchange(method: Method, parts: &[&[u8]], stays: bool) -> Outcome {
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    let parts: Vec<_> = parts.iter().map(|part| part.to_vec()).collect();
    let wire = format!("{method} /fn/a HTTP/1.1\r\ncontent-length: 2\r\n\r\n");
    let expected = format!("{wire}hi");
    let peer = tokio::spawn(async move {
        let mut request = [0; 1024];
        let read = theirs.read(&mut request).await.expect("the request");
        assert_eq!(&request[..read], expected.as_bytes());
        for part in parts {
            // The other side may have had enough already.
            let _ = theirs.write_all(&part).await;
            tokio::time::sleep(BREATH).await;
        }
        stays.then_some(theirs)
    });
    let mut link = Link::new(ours).expect("a link");
    link.wire = wire.into_bytes();
    let deadline = Instant::now() + Duration::from_secs(30);
    let outcome =
        whole(run(link, &method, b"hi", MOST, deadline, &mut Alarm::default()).await).await;
    drop(peer.await.expect("the peer"));
    outcome
}

/// Waits for all of an answer.
async fn whole(answer: Result<Answer, Fault>) -> Outcome {
    let Answer { status, fields, failed, body } = answer?;
    let (body, link) = match body {
        Begun::Whole { body, link } => (body.to_vec(), link),
        Begun::Absent { link, .. } | Begun::CalledBack { link } => (Vec::new(), link),
        Begun::Rest(rest) => {
            let (source, mut flow) = flow::flow(rest.length(), &Stock::new(1 << 30));
            let link = rest.pump(source).await?;
            let mut body = Vec::new();
            loop {
                match flow.next().await {
                    Next::Data(piece) => body.extend_from_slice(&piece),
                    Next::End => break (body, link),
                    Next::Cut => panic!("no fault, and no end"),
                }
            }
        }
    };
    Ok((Seen { status, fields, failed, body }, link))
}

/// An answer in two parts.
async fn answered(answer: &[u8], stays: bool) -> Outcome {
    let (first, second) = answer.split_at(answer.len() / 2);
    exchange(Method::POST, &[first, second], stays).await
}

/// How an answer has to end.
#[derive(Debug, PartialEq)]
enum End {
    /// It is delivered with this body, and the connection serves the next request.
    Good(&'static [u8]),
    /// It is delivered with this body, and the connection is given up.
    Last(&'static [u8]),
    Garbled,
    TooLarge,
    Closed,
    TimedOut,
}

fn end(outcome: &Outcome) -> End {
    match outcome {
        Ok((answer, Some(_))) => End::Good(answer.body.clone().leak()),
        Ok((answer, None)) => End::Last(answer.body.clone().leak()),
        Err(Fault::Garbled(_)) => End::Garbled,
        Err(Fault::TooLarge) => End::TooLarge,
        Err(Fault::Closed) => End::Closed,
        Err(Fault::TimedOut) => End::TimedOut,
    }
}

/// Every case whole, in halves, and byte by byte; the peer stays, so that only what was sent can
/// end the exchange.
async fn check(method: Method, cases: &[(&str, &[u8], End)]) {
    let mut wrong = Vec::new();
    for (name, answer, expected) in cases {
        let halves = answer.split_at(answer.len() / 2);
        let bytes: Vec<_> = answer.chunks(1).collect();
        let all: [&[&[u8]]; 3] = [&[answer], &[halves.0, halves.1], &bytes];
        for (parts, how) in all.into_iter().zip(["whole", "in halves", "in bytes"]) {
            // Byte by byte is the slow way to send a long answer.
            if parts.len() > 2000 {
                continue;
            }
            let seen = end(&exchange(method.clone(), parts, true).await);
            // What follows an answer later is found later.
            let late = match (expected, &seen) {
                (End::Last(body), End::Good(seen)) => how != "whole" && body == seen,
                _ => false,
            };
            if seen != *expected && !late {
                wrong.push(format!("{name} ({how}): {seen:?} instead of {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_passes_without_what_is_not_for_the_public() {
    let answer = b"HTTP/1.1 201 Created\r\nX-A: 1\r\nx-a: 2\r\nX-Grid-Outcome: ok\r\n\
        x-grid-request-id: forged\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nTE: trailers\r\n\
        Trailer: x\r\nProxy-Status: x\r\nProxy-Authenticate: Basic\r\nDate: never\r\n\
        Connection: keep-alive\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty:\r\n\
        X-Latin:  \xe4\t\xf6 \r\nContent-Length: 5\r\n\r\nhello";
    let (answer, link) = answered(answer, true).await.expect("an answer");
    assert_eq!(answer.status, 201);
    assert_eq!(answer.body, b"hello");
    assert!(!answer.failed);
    let fields: Vec<_> = answer.fields.iter().collect();
    assert_eq!(
        fields,
        [
            (&b"x-a"[..], &b"1"[..]),
            (b"x-a", b"2"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"x-empty", b""),
            (b"x-latin", b"\xe4\t\xf6"),
        ]
    );
    assert!(link.is_some(), "the connection serves the next request");
}

#[tokio::test(start_paused = true)]
async fn a_runners_own_failure_is_told_apart() {
    let body = r#"{"error":"handler_error","message":"oh\u0007 dear"}"#;
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 502 Bad Gateway\r\nx-grid-outcome: error\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let (answer, _) = answered(answer.as_bytes(), true).await.expect("an answer");
    assert!(answer.failed);
    let said = Said::read(&answer.body);
    assert_eq!((&*said.error, &*said.message), ("handler_error", "oh dear"));
    let said = Said::read(b"nonsense");
    assert_eq!((&*said.error, &*said.message), ("", ""));
    let long = format!(r#"{{"message":"{}"}}"#, "\u{e4}".repeat(limits::MESSAGE_CHARS + 1));
    assert_eq!(Said::read(long.as_bytes()).message.chars().count(), limits::MESSAGE_CHARS);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_an_answer_is_refused() {
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let many = format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n");
    let long = "a".repeat(limits::RESPONSE_HEADER_BYTES);
    let value = format!("HTTP/1.1 200 OK\r\nx: {long}\r\nContent-Length: 0\r\n\r\n");
    let name = format!("HTTP/1.1 200 OK\r\n{long}: x\r\nContent-Length: 0\r\n\r\n");
    let reason = format!("HTTP/1.1 200 {long}\r\nContent-Length: 0\r\n\r\n");
    let endless = format!("HTTP/1.1 200 OK\r\nx: {long}");
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    check(
        Method::POST,
        &[
            ("garbage", b"garbage\r\n\r\n", End::Garbled),
            ("zeros", &[0; 100], End::Garbled),
            ("another protocol", b"SSH-2.0-x\r\n", End::Garbled),
            ("HTTP/0.9", b"<html>ok</html>", End::Garbled),
            ("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", End::Garbled),
            ("HTTP/1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", End::Garbled),
            ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", End::Garbled),
            ("lower case", b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", End::Garbled),
            ("a request", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", End::Garbled),
            (
                "an empty line first",
                b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                End::Garbled,
            ),
            ("no status", b"HTTP/1.1 \r\nContent-Length: 0\r\n\r\n", End::Garbled),
            ("a short status", b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n", End::Garbled),
            ("status 000", b"HTTP/1.1 000 Low\r\nContent-Length: 0\r\n\r\n", End::Garbled),
            ("status 099", b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", End::Garbled),
            ("status 600", b"HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n", End::Garbled),
            ("status 999", b"HTTP/1.1 999 High\r\nContent-Length: 0\r\n\r\n", End::Garbled),
            ("status 2000", b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", End::Garbled),
            ("status +20", b"HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n", End::Garbled),
            (
                "a NUL in the reason",
                b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
                End::Garbled,
            ),
            ("a long reason", reason.as_bytes(), End::Garbled),
            ("interim", b"HTTP/1.1 100 Continue\r\n\r\n", End::Garbled),
            ("an interim flood", interim.as_bytes(), End::Garbled),
            ("early hints", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", End::Garbled),
            (
                "an upgrade",
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
                End::Garbled,
            ),
            ("many headers", many.as_bytes(), End::Garbled),
            ("a long value", value.as_bytes(), End::Garbled),
            ("a long name", name.as_bytes(), End::Garbled),
            ("endless headers", endless.as_bytes(), End::Garbled),
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_header_that_http_does_not_allow_is_refused() {
    let mut wrong = Vec::new();
    for (name, line) in [
        ("a space in a name", &b"Bad Name: 1\r\n"[..]),
        ("a space after a name", b"Bad : 1\r\n"),
        ("a tab after a name", b"Bad\t: 1\r\n"),
        ("no name", b": 1\r\n"),
        ("no colon", b"Bad\r\n"),
        ("a NUL in a name", b"B\0d: 1\r\n"),
        ("8 bits in a name", b"B\xe4d: 1\r\n"),
        ("a control character in a name", b"B\x1bd: 1\r\n"),
        ("a delimiter in a name", b"B(d): 1\r\n"),
        ("a folded line", b"x: 1\r\n 2\r\n"),
        ("a folded line with a colon", b"x: 1\r\n\ty: 2\r\n"),
        ("a folded first line", b" x: 1\r\n"),
        ("a NUL in a value", b"x: a\0b\r\n"),
        ("an escape in a value", b"x: a\x1bb\r\n"),
        ("DEL in a value", b"x: a\x7fb\r\n"),
        ("a CR in a value", b"x: a\rset-cookie: b\r\n"),
        ("a CR at the end of a value", b"x: a\r\r\n"),
        ("a bare LF", b"x: a\nset-cookie: b\r\n"),
        ("a bare LF at the end", b"x: a\n"),
        ("an unknown connection option", b"Connection: x-a\r\nx-a: 1\r\n"),
        ("an upgrade", b"Connection: upgrade\r\nUpgrade: x\r\n"),
        ("chunked beside a length", b"Transfer-Encoding: chunked\r\n"),
        ("identity", b"Transfer-Encoding: identity\r\n"),
        ("no coding", b"Transfer-Encoding:\r\n"),
    ] {
        let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
        answer.extend_from_slice(line);
        answer.extend_from_slice(b"Content-Length: 2\r\n\r\nok");
        let seen = end(&answered(&answer, true).await);
        if seen != End::Garbled {
            wrong.push(format!("{name}: {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn only_one_plain_length_says_where_an_answer_ends() {
    let mut wrong = Vec::new();
    for value in [
        "",
        "x",
        "-1",
        "+2",
        "0x2",
        "2 2",
        "2, 2",
        "2,2",
        "2;a",
        "2.0",
        "\u{b2}",
        "1e1",
        "18446744073709551618",
        "340282366920938463463374607431768211458",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {value}\r\n\r\nok");
        let seen = end(&answered(answer.as_bytes(), true).await);
        // A number of that many digits is a number.
        let large = value.len() > 15 && seen == End::TooLarge;
        if seen != End::Garbled && !large {
            wrong.push(format!("{value:?}: {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    check(
        Method::POST,
        &[
            ("none", b"HTTP/1.1 200 OK\r\n\r\nok", End::Garbled),
            (
                "two",
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
                End::Garbled,
            ),
            (
                "twice the same",
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
                End::Garbled,
            ),
            ("204 with a body", b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nok", End::Garbled),
            ("304 with a body", b"HTTP/1.1 304 No\r\nContent-Length: 2\r\n\r\nok", End::Garbled),
            ("204", b"HTTP/1.1 204 No Content\r\n\r\n", End::Good(b"")),
            ("204 and a length", b"HTTP/1.1 204\r\nContent-Length: 0\r\n\r\n", End::Good(b"")),
            ("zeros", b"HTTP/1.1 200 \r\nContent-Length: 0002\r\n\r\nok", End::Good(b"ok")),
            (
                "chunks",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                End::Good(b"ok"),
            ),
            (
                "chunks without an end",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
                End::TimedOut,
            ),
            (
                "chunks with a trailer",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n",
                End::Garbled,
            ),
            (
                "chunks of a failure",
                b"HTTP/1.1 502 No\r\nx-grid-outcome: error\r\nTransfer-Encoding: chunked\r\n\r\n",
                End::Garbled,
            ),
            (
                "204 in chunks",
                b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                End::Garbled,
            ),
            (
                "broken chunks",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                End::Garbled,
            ),
            ("a short body", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", End::TimedOut),
            ("silence", b"", End::TimedOut),
            ("half a head", b"HTTP/1.1 200 OK\r\nx", End::TimedOut),
        ],
    )
    .await;
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
    check(Method::HEAD, &[("to HEAD", head, End::Good(b""))]).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_has_a_limit() {
    let body = "a".repeat(MOST);
    let fits = format!("HTTP/1.1 200 OK\r\nContent-Length: {MOST}\r\n\r\n{body}");
    let (answer, link) = answered(fits.as_bytes(), true).await.expect("an answer");
    assert_eq!((answer.body.len(), link.is_some()), (MOST, true));
    for length in ["1001", "99999999999", "999999999999999"] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(end(&answered(answer.as_bytes(), true).await), End::TooLarge, "{length}");
    }
    // In chunks it is seen only when it has come.
    let chunk = format!("200\r\n{}\r\n", "a".repeat(512));
    let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}");
    assert_eq!(end(&answered(answer.as_bytes(), true).await), End::TooLarge);
}

/// An answer of unknown length is passed on before its end is known.
#[tokio::test(start_paused = true)]
async fn pieces_pass_as_they_come() {
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    let mut link = Link::new(ours).expect("a link");
    link.wire = b"GET /fn/a HTTP/1.1\r\n\r\n".to_vec();
    let deadline = Instant::now() + Duration::from_secs(30);
    let run = tokio::spawn(async move {
        run(link, &Method::GET, b"", MOST, deadline, &mut Alarm::default()).await
    });
    theirs.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("sent");
    let answer = run.await.expect("a task").expect("an answer");
    let Begun::Rest(rest) = answer.body else { panic!("more is to come") };
    assert_eq!(rest.length(), None);
    let (source, mut flow) = flow::flow(None, &Stock::new(1 << 30));
    let pump = tokio::spawn(rest.pump(source));
    for piece in ["data: 1\n\n", "data: 2\n\n"] {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        theirs.write_all(chunk.as_bytes()).await.expect("sent");
        assert_eq!(flow.next().await, Next::Data(Bytes::from(piece)));
    }
    theirs.write_all(b"0\r\n\r\n").await.expect("sent");
    assert_eq!(flow.next().await, Next::End);
    assert!(pump.await.expect("a task").expect("complete").is_some(), "the replica is free");
}

/// Whatever ends an answer early, the client is never told that it was all.
#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_has_no_end() {
    for (rest, hangs_up) in [("3\r\nabc\r\n", true), ("3\r\nabc\r\n", false), ("zz\r\n", false)] {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        let mut link = Link::new(ours).expect("a link");
        link.wire = b"GET /fn/a HTTP/1.1\r\n\r\n".to_vec();
        let deadline = Instant::now() + Duration::from_secs(30);
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let serve = async {
            tokio::time::sleep(BREATH).await;
            theirs.write_all(format!("{head}{rest}").as_bytes()).await.expect("sent");
        };
        let mut alarm = Alarm::default();
        let run = run(link, &Method::GET, b"", MOST, deadline, &mut alarm);
        let (answer, ()) = tokio::join!(run, serve);
        let theirs = (!hangs_up).then_some(theirs);
        let Begun::Rest(rest) = answer.expect("an answer").body else { panic!("more is to come") };
        let (source, mut flow) = flow::flow(None, &Stock::new(1 << 30));
        assert!(rest.pump(source).await.is_err());
        let mut last = flow.next().await;
        while let Next::Data(_) = last {
            last = flow.next().await;
        }
        assert_eq!(last, Next::Cut);
        drop(theirs);
    }
}

#[tokio::test(start_paused = true)]
async fn what_follows_an_answer_is_nobodys_answer() {
    check(
        Method::POST,
        &[
            (
                "a second answer",
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
                End::Last(b"ok"),
            ),
            ("a byte", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", End::Last(b"ok")),
            ("a body of 204", b"HTTP/1.1 204 No\r\n\r\nno", End::Last(b"")),
            (
                "close",
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
                End::Last(b"ok"),
            ),
        ],
    )
    .await;
    // Wherever the reads happen to end.
    let surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    for padding in (0..20_000).step_by(97).chain(4000..4100) {
        let padding = "p".repeat(padding);
        let mut answer = format!("HTTP/1.1 200 OK\r\nx: {padding}\r\nContent-Length: 2\r\n\r\nok");
        let length = answer.len();
        answer.push_str(&String::from_utf8_lossy(surplus));
        let seen = end(&exchange(Method::POST, &[answer.as_bytes()], true).await);
        assert_eq!(seen, End::Last(b"ok"), "an answer of {length} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_before_the_request_is_not_its_answer() {
    let early = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    for (bytes, hangs_up) in [(&early[..], false), (b"\r\n", false), (b"", true), (early, true)] {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        let mut link = Link::new(ours).expect("a link");
        link.wire = b"GET /fn/a HTTP/1.1\r\n\r\n".to_vec();
        theirs.write_all(bytes).await.expect("sent");
        if hangs_up {
            theirs.shutdown().await.expect("half closed");
        }
        tokio::time::sleep(BREATH).await;
        let deadline = Instant::now() + Duration::from_secs(30);
        let outcome =
            whole(run(link, &Method::GET, b"", MOST, deadline, &mut Alarm::default()).await).await;
        let expected = if bytes.is_empty() { End::Closed } else { End::Garbled };
        assert_eq!(end(&outcome), expected);
        let mut request = Vec::new();
        // Bytes that nobody read make a reset of the end.
        let _ = theirs.read_to_end(&mut request).await;
        assert!(request.is_empty(), "nothing was sent");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline_and_a_hangup_at_once() {
    for answer in
        [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"]
    {
        assert_eq!(end(&answered(answer, false).await), End::Closed);
        assert_eq!(end(&answered(answer, true).await), End::TimedOut);
    }
    // A drip of a byte now and then prolongs nothing.
    let drip: Vec<&[u8]> = vec![b"HTTP/1.1 200 OK\r\nx: "];
    let drip: Vec<_> = drip.into_iter().chain(std::iter::repeat_n(&b"a"[..], 60_000)).collect();
    assert_eq!(end(&exchange(Method::POST, &drip, true).await), End::TimedOut);
}
