//! HTTP/2 as no client library speaks it: heads that are none, and floods.

use super::{
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, Said,
        WHOLE, block, frame, get,
    },
    world::World,
};

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What one stream with this head is told, and how many requests reached the function. The connection
/// has to stay, unless the head was nothing that could be read.
async fn head(fields: &[u8]) -> (Option<Said>, usize) {
    let world = World::new();
    let asked = world.replica().serve();
    let mut frames = world.frames().await;
    frames.send(&frame(HEADERS, WHOLE, 1, fields)).await;
    let (said, closed) = frames.said().await;
    assert!(said.len() < 2, "{said:?}");
    let reached = asked.lock().len();
    if closed {
        return (said.first().map(|said| said.1), reached);
    }
    frames.send(&frame(HEADERS, WHOLE, 3, &get(&[]))).await;
    assert_eq!(frames.said().await, (vec![(3, Said::Status(200))], false));
    (said.first().map(|said| said.1), reached)
}

#[tokio::test(start_paused = true)]
async fn pseudo_fields() {
    const METHOD: (&str, &str) = (":method", "GET");
    const SCHEME: (&str, &str) = (":scheme", "http");
    const AUTHORITY: (&str, &str) = (":authority", "f.example");
    const PATH: (&str, &str) = (":path", "/fn/f");
    let (reset, broken) = (Said::Reset(PROTOCOL_ERROR), Said::GoAway(PROTOCOL_ERROR));
    for (fields, said) in [
        (&[METHOD, SCHEME, AUTHORITY, PATH][..], Said::Status(200)),
        (&[PATH, AUTHORITY, SCHEME, METHOD], Said::Status(200)),
        // The host.
        (&[METHOD, SCHEME, PATH, ("host", "f.example")], Said::Status(200)),
        (&[METHOD, SCHEME, AUTHORITY, PATH, ("host", "f.example")], Said::Status(200)),
        (&[METHOD, SCHEME, AUTHORITY, PATH, ("host", "F.EXAMPLE")], Said::Status(200)),
        (&[METHOD, SCHEME, (":authority", "F.Example:443"), PATH], Said::Status(200)),
        (&[METHOD, SCHEME, (":authority", "g.example"), PATH], Said::Status(404)),
        (&[METHOD, SCHEME, PATH, ("host", "")], Said::Status(404)),
        (&[METHOD, SCHEME, PATH], Said::Status(400)),
        (&[METHOD, SCHEME, AUTHORITY, PATH, ("host", "g.example")], Said::Status(400)),
        (&[METHOD, SCHEME, AUTHORITY, PATH, ("host", "")], Said::Status(400)),
        (&[METHOD, SCHEME, PATH, ("host", "f.example"), ("host", "f.example")], Said::Status(400)),
        (&[METHOD, SCHEME, PATH, ("host", "f.example, g.example")], Said::Status(400)),
        (&[METHOD, SCHEME, PATH, ("host", "u@f.example")], Said::Status(400)),
        (&[METHOD, SCHEME, (":authority", "u@f.example"), PATH], Said::Status(400)),
        (&[METHOD, SCHEME, (":authority", "f.example:x"), PATH], Said::Status(400)),
        (&[METHOD, SCHEME, (":authority", "f.example/fn"), PATH], reset),
        (&[METHOD, SCHEME, (":authority", "f example"), PATH], reset),
        // The path.
        (&[METHOD, SCHEME, AUTHORITY, (":path", "fn/f")], reset),
        (&[METHOD, SCHEME, AUTHORITY, (":path", "*")], Said::Status(400)),
        (&[METHOD, SCHEME, AUTHORITY, (":path", "http://f.example/fn/f")], reset),
        (&[METHOD, SCHEME, AUTHORITY, (":path", "//f.example/fn/f")], Said::Status(404)),
        (&[METHOD, SCHEME, AUTHORITY, (":path", "/fn/f/../f")], Said::Status(400)),
        (&[METHOD, SCHEME, AUTHORITY, (":path", "/fn/f/\u{e4}")], Said::Status(400)),
        (&[METHOD, SCHEME, AUTHORITY, (":path", "")], reset),
        (&[METHOD, SCHEME, AUTHORITY, (":path", "/fn/f x")], reset),
        (&[METHOD, SCHEME, AUTHORITY, (":path", "/fn/f\r\nx: y")], reset),
        (&[METHOD, SCHEME, AUTHORITY, (":path", "/fn/f\0")], reset),
        // Missing, twice, unknown, out of place.
        (&[SCHEME, AUTHORITY, PATH], reset),
        (&[METHOD, AUTHORITY, PATH], reset),
        (&[METHOD, SCHEME, AUTHORITY], reset),
        (&[METHOD, METHOD, SCHEME, AUTHORITY, PATH], reset),
        (&[METHOD, SCHEME, AUTHORITY, PATH, PATH], reset),
        (&[METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")], reset),
        (&[METHOD, SCHEME, AUTHORITY, ("a", "b"), PATH], reset),
        (&[(":method", "CONNECT"), AUTHORITY], Said::Status(405)),
        (&[(":method", "G T"), SCHEME, AUTHORITY, PATH], broken),
    ] {
        let (seen, reached) = head(&block(fields)).await;
        // 405 is no status that the table of HPACK has; what it is called does not matter here.
        let seen = seen.map(|seen| if seen == Said::Status(0) { Said::Status(405) } else { seen });
        assert_eq!(seen, Some(said), "{fields:?}");
        assert_eq!(reached, usize::from(said == Said::Status(200)), "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fields_that_http_2_does_not_have() {
    let (fine, refused) = (Said::Status(200), Said::Reset(PROTOCOL_ERROR));
    // For `h2` this is no field at all, and what the others are is then not known.
    let broken = Said::GoAway(PROTOCOL_ERROR);
    for (name, value, expected) in [
        ("a", "b", fine),
        ("te", "trailers", fine),
        ("expect", "100-continue", fine),
        ("te", "gzip", refused),
        ("A", "b", broken),
        ("a b", "c", broken),
        ("", "b", broken),
        ("a:", "b", broken),
        ("connection", "close", refused),
        ("keep-alive", "timeout=5", refused),
        ("proxy-connection", "close", refused),
        ("transfer-encoding", "chunked", refused),
        ("upgrade", "websocket", refused),
        ("a", "b\r\nc: d", broken),
        ("a", "b\0", broken),
        ("content-length", "5", refused),
        ("content-length", "x", refused),
        ("content-length", "+0", refused),
    ] {
        let (said, reached) = head(&get(&[(name, value)])).await;
        assert_eq!(
            (said, reached),
            (Some(expected), usize::from(expected == fine)),
            "{name}: {value}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_it_said() {
    let world = World::new();
    let asked = world.replica().serve();
    let mut frames = world.frames().await;
    for (stream, body) in [(1, "ab"), (3, "abcd")] {
        frames.send(&frame(HEADERS, END_HEADERS, stream, &get(&[("content-length", "3")]))).await;
        frames.send(&frame(DATA, END_STREAM, stream, body.as_bytes())).await;
        let (said, closed) = frames.said().await;
        assert_eq!(said, [(stream, Said::Reset(PROTOCOL_ERROR))]);
        assert!(!closed);
    }
    assert!(asked.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn as_many_streams_at_once_as_are_allowed() {
    let world = World::new();
    let mut frames = world.frames().await;
    for stream in 0..101 {
        frames.send(&frame(HEADERS, END_HEADERS, stream * 2 + 1, &get(&[]))).await;
    }
    assert_eq!(frames.said().await, (vec![(201, Said::Reset(REFUSED_STREAM))], false));
    assert_eq!(world.gateway.traffic.running(), 100);
}

/// Streams that are opened and reset at once (CVE-2023-44487) end the connection and cost no run.
#[tokio::test(start_paused = true)]
async fn resets_in_a_flood() {
    let world = World::new();
    let asked = world.replica().serve();
    let mut frames = world.frames().await;
    let mut flood = Vec::new();
    for stream in 0..1000 {
        flood.extend(frame(HEADERS, WHOLE, stream * 2 + 1, &get(&[])));
        flood.extend(frame(RST_STREAM, 0, stream * 2 + 1, &CANCEL.to_be_bytes()));
    }
    frames.send(&flood).await;
    let (said, closed) = frames.said().await;
    assert_eq!(said.last(), Some(&(0, Said::GoAway(ENHANCE_YOUR_CALM))));
    assert!(closed);
    assert!(asked.lock().len() < 100, "{}", asked.lock().len());
    assert_eq!(world.gateway.traffic.running(), 0);
}

/// The same at a slower pace: each finds the queue, and leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn resets_one_by_one() {
    let world = World::new();
    let mut frames = world.frames().await;
    for stream in (0..1000).map(|number| number * 2 + 1) {
        frames.send(&frame(HEADERS, WHOLE, stream, &get(&[]))).await;
        super::world::quiet().await;
        frames.send(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())).await;
        super::world::quiet().await;
        assert_eq!(world.gateway.traffic.running(), 0);
    }
    assert_eq!(frames.said().await, (vec![], false));
}

/// A head that never ends (CVE-2024-27316).
#[tokio::test(start_paused = true)]
async fn continuations_in_a_flood() {
    let world = World::new();
    let mut frames = world.frames().await;
    let piece = block(&[("a", "x".repeat(100).as_str())]);
    let mut flood = frame(HEADERS, END_STREAM, 1, &get(&[]));
    for _ in 0..20_000 {
        flood.extend(frame(CONTINUATION, 0, 1, &piece));
    }
    frames.send(&flood).await;
    let (said, closed) = frames.said().await;
    assert!(closed, "{said:?}");
    assert!(
        said.iter().any(|(_, said)| matches!(said, Said::GoAway(code) if *code != 0)),
        "{said:?}"
    );
    assert_eq!(world.gateway.traffic.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn frames_that_only_cost_work() {
    let world = World::new();
    world.replica().serve();
    let mut frames = world.frames().await;
    for kind in [PING, SETTINGS] {
        let payload: &[u8] = if kind == PING { &[0; 8] } else { &[] };
        for _ in 0..100 {
            frames.send(&frame(kind, 0, 0, payload).repeat(10)).await;
            assert_eq!(frames.said().await, (vec![], false));
        }
    }
    frames.send(&frame(HEADERS, WHOLE, 1, &get(&[]))).await;
    assert_eq!(frames.said().await, (vec![(1, Said::Status(200))], false));
}

#[tokio::test(start_paused = true)]
async fn what_breaks_a_connection() {
    for bytes in [
        frame(HEADERS, WHOLE, 2, &get(&[])),           // an even stream
        frame(HEADERS, WHOLE, 0, &get(&[])),           // no stream
        frame(DATA, END_STREAM, 1, b"x"),              // a stream that is not open
        frame(CONTINUATION, END_HEADERS, 1, b""),      // of nothing
        frame(HEADERS, WHOLE, 1, b"\xff\xff\xff\xff"), // no HPACK
        frame(SETTINGS, 0, 0, b"x"),
        frame(PING, 0, 0, b"x"),
        frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()),
        frame(DATA, 0, 1, &[0; 20_000]), // larger than frames may be
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let world = World::new();
        let mut frames = world.frames().await;
        frames.send(&bytes).await;
        let (said, closed) = frames.said().await;
        assert!(closed, "{}: {said:?}", bytes[..bytes.len().min(40)].escape_ascii());
        assert!(!said.contains(&(0, Said::GoAway(0))));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_begin_is_not_waited_for() {
    let world = World::new();
    let client = world.client_h2();
    tokio::time::sleep(control::limits::REQUEST_HEAD).await;
    super::world::quiet().await;
    assert!(client.served.is_finished());
}
