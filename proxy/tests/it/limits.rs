//! Rates, caps of connections, and who a client is behind a proxy.

use serde_json::{Value, json};

use crate::{
    grid::{Grid, wait_until},
    http::{Answer, Connection},
};

const CODE: &str = "exports.handler = async (event) => ({
  source: event.requestContext.identity.sourceIp, scheme: event.requestContext.scheme,
  forwarded: event.headers['x-forwarded-for'] ?? null });";

fn grid(settings: &[(&str, &str)]) -> Grid {
    let grid = Grid::with(settings);
    grid.create("lim", "node18", CODE, json!({}));
    grid
}

fn ask(connection: &mut Connection, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut all = vec![("host", "lim.localhost")];
    all.extend_from_slice(headers);
    let method = if body.is_empty() { "GET" } else { "POST" };
    connection.request(method, "/fn/lim", &all, body.as_bytes())
}

/// Asks until it is too often.
#[track_caller]
fn exhaust(connection: &mut Connection, headers: &[(&str, &str)], body: &str) -> Answer {
    let refused = (0..200).map(|_| ask(connection, headers, body)).find(|answer| {
        assert!([200, 429].contains(&answer.status), "{answer:?}");
        answer.status == 429
    });
    let refused = refused.expect("a refusal");
    assert_eq!(refused.code(), "rate_limited");
    refused
}

#[test]
fn too_many_requests_are_told_so_on_a_connection_that_stays() {
    let grid = grid(&[("GRID_CLIENT_RATE", "1"), ("GRID_CLIENT_BURST", "5")]);
    let mut connection = grid.connect();
    for body in ["", "{\"some\": \"body\"}"] {
        // At the start, and when time has brought new ones.
        wait_until("an answer", || ask(&mut connection, &[], body).status == 200);
        let refused = exhaust(&mut connection, &[], body);
        for (name, value) in [
            ("retry-after", "1"),
            ("ratelimit-limit", "5"),
            ("ratelimit-remaining", "0"),
            ("ratelimit-reset", "1"),
        ] {
            assert_eq!(refused.all(name), [value], "{name}");
        }
        assert_eq!(refused.header("connection"), None);
        let message = refused.json()["message"].as_str().map(str::to_owned).expect("a text");
        assert!(message.contains("your address"), "{message}");
        let none = connection.request("GET", "/fn/none", &[("host", "lim.localhost")], b"");
        assert_eq!(none.status, 404, "what is no call of a function is not counted");
    }
}

#[test]
fn a_service_may_have_a_rate_of_its_own() {
    let grid = Grid::with(&[("GRID_SERVICE_RATE", "1"), ("GRID_SERVICE_BURST", "3")]);
    let service = grid.create("lim", "node18", CODE, json!({}));
    let free = json!({"rate_limit": 0});
    grid.create("free", "node18", "exports.handler = async () => 1", free);
    let mut connection = grid.connect();
    let refused = exhaust(&mut connection, &[], "");
    assert_eq!(refused.header("ratelimit-limit"), Some("3"));
    let message = refused.json()["message"].as_str().map(str::to_owned).expect("a text");
    assert!(message.contains("this function"), "{message}");
    for _ in 0..20 {
        assert_eq!(grid.get("free", "").status, 200, "another service is not touched by it");
    }

    // A change takes effect at once, without a deployment.
    let all_served =
        |connection: &mut Connection| (0..20).all(|_| ask(connection, &[], "").status == 200);
    assert_eq!(grid.patch(&service, &json!({"rate_limit": 0})), Value::Null);
    wait_until("any number of requests", || all_served(&mut connection));
    assert_eq!(grid.patch(&service, &json!({"rate_limit": 1, "rate_burst": 2})), Value::Null);
    wait_until("the service's own rate", || {
        exhaust(&mut connection, &[], "").header("ratelimit-limit") == Some("2")
    });
    let record = grid.api("GET", &service.path(""), None).json();
    assert_eq!((&record["rate_limit"], &record["rate_burst"]), (&json!(1), &json!(2)));
    let null = json!({"rate_limit": null, "rate_burst": null});
    assert_eq!(grid.patch(&service, &null), Value::Null);
    wait_until("the usual rate", || {
        exhaust(&mut connection, &[], "").header("ratelimit-limit") == Some("3")
    });
}

#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    let grid = grid(&[
        ("GRID_TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/8"),
        ("GRID_CLIENT_RATE", "1"),
        ("GRID_CLIENT_BURST", "20"),
    ]);
    let mut connection = grid.connect();
    for (forwarded, proto, source, scheme) in [
        ("1.1.1.1, 203.0.113.7", "https", "203.0.113.7", "https"),
        ("203.0.113.7, 10.1.1.1", "http", "203.0.113.7", "http"),
        ("2001:db8::7", "ftp", "2001:db8::7", "http"),
        ("unknown", "", "127.0.0.1", "http"),
    ] {
        let headers = [("x-forwarded-for", forwarded), ("x-forwarded-proto", proto)];
        let seen = ask(&mut connection, &headers, "").json();
        let expected = json!({"source": source, "scheme": scheme, "forwarded": forwarded});
        assert_eq!(seen, expected);
    }
    // Clients are counted each for itself, whatever they add.
    exhaust(&mut connection, &[("x-forwarded-for", "198.51.100.1")], "");
    let same = ask(&mut connection, &[("x-forwarded-for", "8.8.8.8, 198.51.100.1")], "");
    let other = ask(&mut connection, &[("x-forwarded-for", "198.51.100.2")], "");
    assert_eq!((same.status, other.status), (429, 200));
}

#[test]
fn nobody_else_is_believed() {
    let grid = grid(&[("GRID_TRUSTED_PROXIES", "10.0.0.0/8")]);
    let headers = [("x-forwarded-for", "203.0.113.7"), ("x-forwarded-proto", "https")];
    let seen = ask(&mut grid.connect(), &headers, "").json();
    let expected = json!({"source": "127.0.0.1", "scheme": "http", "forwarded": "203.0.113.7"});
    assert_eq!(seen, expected);
}

#[test]
fn the_proxy_protocol_comes_first() {
    let grid = grid(&[("GRID_TRUSTED_PROXIES", "127.0.0.0/8"), ("GRID_PROXY_PROTOCOL", "on")]);
    let mut connection = grid.connect();
    connection.send("PROXY TCP4 203.0.113.7 192.0.2.1 1234 80\r\n");
    for forwarded in ["", "1.1.1.1"] {
        let seen = ask(&mut connection, &[("x-forwarded-for", forwarded)], "").json();
        assert_eq!(seen["source"], "203.0.113.7", "the client is no proxy");
    }
    let mut connection = grid.connect();
    let ip = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("an address").octets();
    let (signature, kind) = (b"\r\n\r\n\0\r\nQUIT\n", [0x21, 0x21, 0, 36]);
    let ports = [4, 210, 0, 80];
    connection
        .send([signature, &kind[..], &ip("2001:db8::7"), &ip("2001:db8::1"), &ports].concat());
    assert_eq!(ask(&mut connection, &[], "").json()["source"], "2001:db8::7");

    for start in ["GET / HTTP/1.1\r\nhost: lim.localhost\r\n\r\n", "PROXY TCP4 1.1.1.1\r\n"] {
        let mut connection = grid.connect();
        connection.send(start);
        assert!(connection.is_closed(), "{start}");
    }
    wait_until("a line for the operator", || grid.log().contains("GRID_PROXY_PROTOCOL is on"));
}

#[test]
fn one_client_has_so_many_connections() {
    let grid = grid(&[("GRID_CLIENT_CONNECTIONS", "3")]);
    // Grid's own look at its port may take a moment to be counted off.
    let full = |open: &mut Vec<Connection>| {
        open.extend((open.len()..3).map(|_| grid.connect()));
        open.retain_mut(|connection| ask_quietly(connection).is_some());
        open.len() == 3
    };
    let mut open = Vec::new();
    wait_until("three connections", || full(&mut open));
    for _ in 0..5 {
        assert!(grid.connect().is_closed(), "one too many");
    }
    let told = "127.0.0.1 has 3 connections, as many as GRID_CLIENT_CONNECTIONS allows";
    wait_until("a line for the operator", || grid.log().contains(told));
    assert!(open.iter_mut().all(|connection| ask_quietly(connection) == Some(200)));
    open.pop();
    wait_until("a place", || ask_quietly(&mut grid.connect()) == Some(200));
}

#[test]
fn all_clients_together_have_so_many_connections() {
    let grid = grid(&[("GRID_MAX_CONNECTIONS", "16"), ("GRID_TRUSTED_PROXIES", "127.0.0.1")]);
    let mut open: Vec<_> = (0..16).map(|_| grid.connect()).collect();
    let served = open.iter_mut().filter_map(ask_quietly).count();
    assert!((15..=16).contains(&served), "a proxy may have them all: {served}");
    wait_until("a refusal", || grid.connect().is_closed());
    let told = "16 connections are open, as many as GRID_MAX_CONNECTIONS";
    wait_until("a line for the operator", || grid.log().contains(told));
    open.clear();
    wait_until("a place", || ask_quietly(&mut grid.connect()) == Some(200));
}

/// The status of an answer, unless the connection was refused.
fn ask_quietly(connection: &mut Connection) -> Option<u16> {
    connection.try_send("GET /fn/lim HTTP/1.1\r\nhost: lim.localhost\r\n\r\n").ok()?;
    connection.try_answer(false).ok().map(|answer| answer.status)
}
