//! Answers on their way to a client of HTTP/1: framing, pieces, ends, and readers that are slow.

use control::{limits, service::GoneCause};

use super::{
    client::{Told, split},
    table::get,
    world::{ANSWER, DEADLINE, Replica, Wire, World, quiet},
};

const CHUNKS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// A replica that has been asked with this request by this client.
async fn asked(request: &[u8]) -> (World, Replica, Wire) {
    let world = World::new();
    let mut replica = world.replica();
    let mut client = world.client();
    client.send(request).await;
    replica.asked().await.expect("a request");
    (world, replica, client)
}

fn text(told: &Told) -> String {
    String::from_utf8_lossy(&told.rest).into_owned()
}

#[tokio::test(start_paused = true)]
async fn answers_without_a_body() {
    for (method, answer, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", Some("5000")),
        ("HEAD", "HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\n", Some("7")),
        ("HEAD", CHUNKS, None),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", None),
        ("HEAD", "HTTP/1.1 204 No Content\r\n\r\n", None),
        ("HEAD", "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", None),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n", None),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some("0")),
        ("GET", "HTTP/1.1 205 Reset\r\ncontent-length: 0\r\n\r\n", Some("0")),
    ] {
        let request = format!("{method} /fn/f HTTP/1.1\r\nHost: f.example\r\n\r\n");
        let (mut world, mut replica, mut client) = asked(request.as_bytes()).await;
        replica.say(answer).await;
        quiet().await;
        let told = client.told().await;
        let bytes = [told.answers.iter().map(|a| a.head.clone()).collect(), text(&told)].concat();
        let (answers, rest) = split(bytes.as_bytes(), true);
        assert!(answers.len() == 1 && rest.is_empty(), "{method} {answer}: {bytes}");
        assert_eq!(answers[0].field("content-length"), length, "{method} {answer}");
        assert_eq!(answers[0].field("transfer-encoding"), None);
        replica.serve();
        assert!(client.is_usable().await, "{method} {answer}");
        assert_eq!(world.given_up(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_of_head_has_no_body() {
    let world = World::new();
    world.replica().serve();
    let mut client = world.client();
    client.send("HEAD /none HTTP/1.1\r\nHost: f.example\r\n\r\n").await;
    let (answers, rest) = split(&client.told().await.rest, true);
    assert!(answers.len() == 1 && rest.is_empty());
    assert_ne!(answers[0].field("content-length"), Some("0"));
    assert!(client.is_usable().await);
}

#[tokio::test(start_paused = true)]
async fn pieces_arrive_as_they_are_made() {
    let (mut world, mut replica, mut client) = asked(&get("")).await;
    replica.say(format!("{CHUNKS}3\r\nabc\r\n")).await;
    let told = text(&client.told().await);
    assert!(
        told.contains("transfer-encoding: chunked\r\n") && told.ends_with("\r\n\r\n3\r\nabc\r\n")
    );
    assert!(!told.contains("content-length"));
    replica.say("2\r\nde").await;
    assert_eq!(text(&client.told().await), "2\r\nde\r\n");
    replica.say("\r\n").await;
    assert_eq!(text(&client.told().await), "");
    replica.say("0\r\n\r\n").await;
    assert_eq!(text(&client.told().await), "0\r\n\r\n");
    replica.serve();
    assert!(client.is_usable().await);
    assert_eq!(world.given_up(), []);
}

/// Every byte of a long answer, however it comes.
#[tokio::test(start_paused = true)]
async fn long_answers_are_whole() {
    let whole: String = (0..ANSWER / 8).map(|number| format!("{number:8}")).collect();
    for (chunk, pause) in
        [(0, false), (1000, false), (30_000, true), (65_536, false), (700_000, false)]
    {
        let (mut world, mut replica, mut client) = asked(&get("")).await;
        let body = whole.clone();
        let answering = tokio::spawn(async move {
            if chunk == 0 {
                replica.answer(&body).await;
                return replica;
            }
            replica.say(CHUNKS).await;
            for piece in body.as_bytes().chunks(chunk) {
                replica.say(format!("{:x}\r\n", piece.len())).await;
                replica.say([piece, b"\r\n"].concat()).await;
                if pause {
                    quiet().await;
                }
            }
            replica.say("0\r\n\r\n").await;
            replica
        });
        let mut bytes = Vec::new();
        let answer = loop {
            let told = client.told().await;
            assert!(!told.closed);
            bytes.extend_from_slice(&told.rest);
            if let Some(answer) = told.answers.into_iter().chain(split(&bytes, false).0).next() {
                break answer;
            }
        };
        assert_eq!(answer.body.len(), ANSWER, "{chunk}");
        assert!(answer.body == whole.as_bytes(), "{chunk}");
        answering.await.expect("it answered").serve();
        assert!(client.is_usable().await);
        assert_eq!(world.given_up(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_answer_ends_as_cut() {
    let long = format!("HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n{}", "x".repeat(69_999));
    let chunks = format!("{CHUNKS}3\r\nabc\r\n");
    let endless = format!("{CHUNKS}{:x}\r\n{}\r\n1\r\nx\r\n", ANSWER, "x".repeat(ANSWER));
    for (answer, hangs_up, cause) in [
        (&long, true, GoneCause::Closed),
        (&chunks, true, GoneCause::Closed),
        (&chunks, false, GoneCause::TimedOut),
        (&format!("{chunks}nonsense\r\n"), false, GoneCause::Garbled),
        (&format!("{chunks}0\r\nX: y\r\n\r\n"), false, GoneCause::Garbled),
        (&endless, false, GoneCause::Garbled),
    ] {
        let (mut world, mut replica, mut client) = asked(&get("")).await;
        let sent = answer.clone();
        let replica = tokio::spawn(async move {
            replica.say(sent).await;
            (!hangs_up).then_some(replica)
        });
        let mut told = client.told().await;
        if !told.closed {
            tokio::time::sleep(DEADLINE).await;
            let more = client.told().await;
            told.rest.extend_from_slice(&more.rest);
            told.closed = more.closed;
        }
        assert!(told.closed && told.answers.is_empty());
        assert!(told.rest.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(!told.rest.ends_with(b"0\r\n\r\n"));
        assert_eq!(world.given_up(), [cause]);
        drop(replica);
    }
}

/// An old client knows the end by the connection's.
#[tokio::test(start_paused = true)]
async fn flows_for_old_clients_end_with_the_connection() {
    let request = b"GET /fn/f HTTP/1.0\r\nHost: f.example\r\nConnection: keep-alive\r\n\r\n";
    let (mut world, mut replica, mut client) = asked(request).await;
    replica.say(format!("{CHUNKS}3\r\nabc\r\n")).await;
    let told = client.told().await;
    assert!(!told.closed && !text(&told).contains("transfer-encoding"));
    assert!(text(&told).contains("connection: close\r\n") && text(&told).ends_with("\r\n\r\nabc"));
    replica.say("2\r\nde\r\n0\r\n\r\n").await;
    let told = client.told().await;
    assert!(told.closed);
    assert_eq!(text(&told), "de");
    assert_eq!(world.given_up(), []);
    // One with a length needs no such end.
    let (_world, mut replica, mut client) = asked(request).await;
    replica.answer(&"x".repeat(70_000)).await;
    assert_eq!(client.told().await.answers[0].field("connection"), Some("keep-alive"));
    replica.serve();
    assert!(client.is_usable().await);
}

/// The replica is free when its function has finished, and the reader has its time and no more.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_no_replica_and_is_given_up() {
    let (mut world, mut replica, client) = asked(&get("")).await;
    replica.answer(&"x".repeat(ANSWER)).await;
    quiet().await;
    replica.serve();
    assert!(world.client().is_usable().await);
    assert!(!client.served.is_finished());
    tokio::time::sleep(limits::send_within(ANSWER) + limits::LINGER).await;
    assert!(client.served.is_finished());
    assert_eq!(world.given_up(), []);
}

#[tokio::test(start_paused = true)]
async fn a_reader_at_a_bearable_pace_gets_it_all() {
    let (_world, mut replica, client) = asked(&get("")).await;
    replica.answer(&"x".repeat(ANSWER)).await;
    let (mut bytes, pace) = (0, usize::try_from(limits::SLOWEST_READER).expect("small") * 2);
    let mut piece = vec![0; pace];
    while bytes < ANSWER {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        match client.stream.try_read(&mut piece) {
            Ok(read) if read > 0 => bytes += read,
            other => panic!("{other:?} after {bytes}"),
        }
    }
}
