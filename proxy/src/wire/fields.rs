//! Header fields: which are refused, which are for the edge alone, and which reach the function.

use super::{
    table::{check, get},
    world::World,
};

#[tokio::test(start_paused = true)]
async fn names_and_values() {
    let cases: &[(&[u8], &str)] = &[
        (b"A: b\r\n", "open"),
        (b"A:b\r\n", "open"),
        (b"A:\r\n", "open"),
        (b"A: \t \r\n", "open"),
        (b"A: b: c\r\n", "open"),
        (b"A_b: c\r\n", "open"),
        (b"!#$%&'*+-.^_`|~9: c\r\n", "open"),
        (b"A: \x80\xff\xc3\xa4\r\n", "open"),
        (b"A: a\tb\r\n", "open"),
        (b"A : b\r\n", "closed"),
        (b"A\t: b\r\n", "closed"),
        (b": b\r\n", "closed"),
        (b" : b\r\n", "closed"),
        (b"A\r\n", "closed"),
        (b"A b: c\r\n", "closed"),
        (b"A\0b: c\r\n", "closed"),
        (b"A\x01b: c\r\n", "closed"),
        (b"A\xe4: c\r\n", "closed"),
        (b"A(b): c\r\n", "closed"),
        (b"A,b: c\r\n", "closed"),
        (b"A/b: c\r\n", "closed"),
        (b"A@b: c\r\n", "closed"),
        (b"[A]: c\r\n", "closed"),
        (b"{A}: c\r\n", "closed"),
        (b"\"A\": c\r\n", "closed"),
        (b"A\\: c\r\n", "closed"),
        (b"A\x7f: c\r\n", "closed"),
        (b"A: a\0b\r\n", "closed"),
        (b"A: a\x01b\r\n", "closed"),
        (b"A: a\x0bb\r\n", "closed"),
        (b"A: a\x1fb\r\n", "closed"),
        (b"A: a\x7fb\r\n", "closed"),
        (b"A: a\rb\r\n", "closed"),
        (b"A: a\r\r\n", "closed"),
    ];
    let head = b"GET /fn/f HTTP/1.1\r\nHost: f.example\r\n";
    check(cases.iter().map(|(fields, fate)| ([head, *fields, b"\r\n"].concat(), *fate))).await;
}

#[tokio::test(start_paused = true)]
async fn how_many_and_how_large() {
    let many = |number: usize| get(&"A: b\r\n".repeat(number - 1)); // with Host
    let large = |bytes: usize| get(&format!("A: {}\r\n", "x".repeat(bytes)));
    check([
        (many(100), "open"),
        (many(101), "431 headers_too_large; closed"),
        (many(5000), "431 headers_too_large; closed"),
        (large(32_000), "open"),
        (large(33_000), "431 headers_too_large; closed"),
        (large(1_000_000), "431 headers_too_large; closed"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn upgrades() {
    check([
        (get("Connection: Upgrade\r\nUpgrade: websocket\r\n"), "closed"),
        (get("Upgrade: websocket\r\n"), "closed"),
        (get("Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n"), "closed"),
        (get("Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"), "closed"),
        (get("Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n"), "closed"),
        (
            get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"),
            "open",
        ),
        (get("Connection: Upgrade\r\n"), "open"),
    ])
    .await;
}

/// Which of a client's fields reach the function.
async fn passed(fields: &str) -> Vec<String> {
    let world = World::new();
    let asked = world.replica().serve();
    let answer = world.client().ask(get(fields)).await;
    assert_eq!(answer.status, 200);
    let asked = asked.lock();
    let lines = asked[0].head.split("\r\n").skip(1).filter(|line| !line.is_empty());
    let ours = ["content-length: 0", "host: f.example"];
    let of_ours = |line: &str| {
        line.starts_with("x-grid-") || line.starts_with("traceparent: ") || ours.contains(&line)
    };
    lines.filter(|line| !of_ours(line)).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_for_the_edge_alone_stays_there() {
    let client = "Cookie: a\r\nX-Y: 1\r\nx-y: 2\r\nX_Y: 3\r\nDate: today\r\nAuthorization: b\r\n";
    assert_eq!(
        passed(client).await,
        ["cookie: a", "x-y: 1", "x-y: 2", "x_y: 3", "date: today", "authorization: b"]
    );
    let hop = "Keep-Alive: timeout=5\r\nTE: trailers\r\nTrailer: X\r\nProxy-Authorization: x\r\n\
               Proxy-Connection: close\r\nProxy-Authenticate: x\r\nConnection: keep-alive\r\n";
    assert_eq!(passed(hop).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn fields_that_the_connection_names_go_and_those_of_the_edge_stay() {
    let named = "Connection: close, X-Y ,, \"x-z\"\r\nX-Y: 1\r\nX-Z: 2\r\n";
    assert_eq!(passed(named).await, ["x-z: 2"]);
    let world = World::new();
    let asked = world.replica().serve();
    let abuse = "Connection: host, content-length, x-grid-request-id, x-grid-source-ip, \
                 x-grid-deadline-ms, x-grid-function, x-grid-scheme, connection\r\n";
    assert_eq!(world.client().ask(get(abuse)).await.status, 200);
    let asked = asked.lock()[0].clone();
    assert_eq!(asked.all("host"), ["f.example"]);
    assert_eq!(asked.all("content-length"), ["0"]);
    assert_eq!(asked.all("x-grid-source-ip"), ["192.0.2.1"]);
    assert_eq!(asked.all("x-grid-function"), ["f"]);
    assert_eq!(asked.all("x-grid-scheme"), ["http"]);
    assert_eq!(asked.all("x-grid-deadline-ms"), ["30000"]);
    assert_eq!(asked.all("x-grid-request-id").len(), 1);
    assert_eq!(asked.all("connection"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_client_cannot_speak_for_the_edge() {
    let world = World::new();
    let asked = world.replica().serve();
    let forged = "X-Grid-Source-Ip: 203.0.113.9\r\nx-grid-scheme: https\r\nX-GRID-FUNCTION: g\r\n\
                  X-Grid-Anything: x\r\n";
    assert_eq!(world.client().ask(get(forged)).await.status, 200);
    let asked = asked.lock()[0].clone();
    assert_eq!(asked.all("x-grid-source-ip"), ["192.0.2.1"]);
    assert_eq!(asked.all("x-grid-scheme"), ["http"]);
    assert_eq!(asked.all("x-grid-function"), ["f"]);
    assert_eq!(asked.all("x-grid-anything"), [""; 0]);
}
