//! What is told about single requests: the access log, traces, spans, Server-Timing.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};

use crate::{
    grid::{Grid, PATIENCE, wait_for, wait_until},
    process::short_dir,
};

const ECHO: &str = "exports.handler = async (event) => ({ \
    statusCode: event.path === '/503' ? 503 : 200, \
    body: JSON.stringify({parent: event.headers.traceparent, state: event.headers.tracestate}) })";
const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_line_for_each_request_and_a_new_file_when_the_old_one_is_moved() {
    let dir = short_dir();
    let file = dir.path().join("access.log");
    let name = file.to_str().expect("UTF-8");
    let grid = Grid::with(&[("GRID_ACCESS_LOG", "json"), ("GRID_ACCESS_LOG_FILE", name)]);
    grid.create("logged", "node18", ECHO, json!({}));
    let headers = [("x-request-id", "one"), ("traceparent", PARENT)];
    let answer = grid.call("logged", "POST", "/fn/logged/a?token=secret", &headers, "12345");
    assert_eq!(answer.status, 200);
    let lines = || fs::read_to_string(&file).unwrap_or_default();
    let line = |id: &str| -> Value {
        let id = format!("\"request_id\":\"{id}\"");
        let line = wait_for(&id, || {
            let found = lines().lines().find(|line| line.contains(&id)).map(str::to_owned);
            found.filter(|_| lines().ends_with('\n'))
        });
        serde_json::from_str(&line).expect("JSON")
    };
    let first = line("one");
    for (key, value) in [
        ("client", json!("127.0.0.1")),
        ("scheme", json!("http")),
        ("protocol", json!("HTTP/1.1")),
        ("method", json!("POST")),
        ("host", json!("logged.localhost")),
        ("path", json!("/fn/logged/a")),
        ("status", json!(200)),
        ("cause", json!("ok")),
        ("function", json!("logged")),
        ("trace_id", json!(ID)),
        ("request_bytes", json!(5)),
        ("response_bytes", json!(answer.body.len())),
    ] {
        assert_eq!(first[key], value, "{key} of {first}");
    }
    let times = ["queue_ms", "wake_ms", "exec_ms", "total_ms"].map(|key| first[key].as_f64());
    let [Some(queue), Some(wake), Some(exec), Some(total)] = times else { panic!("{first}") };
    assert!(exec > 0.0 && queue + wake + exec <= total, "{first}");
    assert!(!lines().contains("secret"));

    fs::rename(&file, dir.path().join("access.log.1")).expect("renamed");
    let mut asked = 0;
    wait_until("a new file", || {
        asked += 1;
        let id = format!("moved-{asked}");
        grid.call("nobody", "GET", "/fn/nobody", &[("x-request-id", &id)], "");
        file.exists()
    });
    grid.call("nobody", "GET", "/fn/nobody", &[("x-request-id", "two")], "");
    let second = line("two");
    assert_eq!((&second["status"], &second["cause"]), (&json!(404), &json!("not_found")));
    assert_eq!(second["function"], "");
}

#[test]
fn a_share_of_the_lines_has_all_that_failed_and_the_end_loses_none() {
    let settings = [("GRID_ACCESS_LOG", "text"), ("GRID_ACCESS_LOG_SAMPLE", "0")];
    let mut grid = Grid::with(&settings);
    grid.create("sampled", "node18", ECHO, json!({}));
    for rest in ["/a", "/503", "/b"] {
        grid.get("sampled", rest);
    }
    grid.stop();
    let line = wait_for("the line", || {
        let log = grid.log();
        let found = log.lines().find(|line| line.contains(" GET sampled.localhost /fn/sampled/"));
        found.map(str::to_owned)
    });
    assert!(line.contains("/fn/sampled/503 HTTP/1.1 503 function "), "{line}");
    let all = grid.log();
    let count = all.lines().filter(|line| line.contains(" GET sampled.localhost ")).count();
    assert_eq!(count, 1, "{all}");
}

#[test]
fn a_trace_goes_on_in_the_function() {
    let grid = Grid::with(&[
        ("GRID_TRACE_SAMPLE", "0"),
        ("GRID_LOG", "info,control=debug,grid=debug"),
        ("GRID_SERVER_TIMING", "off"),
    ]);
    grid.create("traced", "node18", ECHO, json!({}));
    let call = |headers: &[(&str, &str)]| {
        let mut all = vec![("host", "traced.localhost")];
        all.extend_from_slice(headers);
        let answer = grid.connect().request("GET", "/fn/traced", &all, b"");
        assert_eq!(answer.header("server-timing"), None);
        let body = answer.json();
        (body["parent"].as_str().expect("a parent").to_owned(), body["state"].clone())
    };
    let (parent, state) = call(&[("traceparent", PARENT), ("tracestate", "a=1,b=2")]);
    assert!(parent.starts_with(&format!("00-{ID}-")) && parent.ends_with("-01"), "{parent}");
    assert_ne!(parent, PARENT, "the function's parent is this request");
    assert_eq!((parent.len(), state), (PARENT.len(), json!("a=1,b=2")));

    let unsampled = format!("{}00", &PARENT[..53]);
    let (parent, _) = call(&[("traceparent", &unsampled)]);
    assert!(parent.contains(ID) && parent.ends_with("-00"), "{parent}");

    for invalid in
        [&[][..], &[("traceparent", "00-zz")], &[("traceparent", PARENT), ("traceparent", PARENT)]]
    {
        let (parent, state) = call(&[invalid, &[("tracestate", "a=1")]].concat());
        assert!(!parent.contains(ID) && parent.ends_with("-00"), "{parent}");
        assert_eq!(parent.len(), PARENT.len());
        assert_eq!(state, Value::Null, "it means nothing without its parent");
    }

    let headers = [("host", "nobody.localhost"), ("traceparent", PARENT)];
    assert_eq!(grid.connect().request("GET", "/fn/nobody", &headers, b"").status, 404);
    let denied = |line: &str| line.contains("denied") && line.contains(ID);
    wait_until("the trace in the log", || grid.log().lines().any(denied));
}

/// A collector that is busy once and then takes everything; gives each body.
fn collector() -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, bodies) = mpsc::channel();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut reader = BufReader::new(stream);
            let mut head = Vec::new();
            for line in reader.by_ref().lines().map_while(Result::ok) {
                if line.is_empty() {
                    break;
                }
                head.push(line.to_ascii_lowercase());
            }
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.and_then(|length| length.parse().ok()).expect("a length");
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            let status = if n == 0 { "503 Busy" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
            reader.into_inner().write_all(answer.as_bytes()).expect("sent");
            assert_eq!(head[0], "post /v1/traces http/1.1");
            assert!(head.contains(&"content-type: application/json".to_owned()), "{head:?}");
            if n > 0 && sender.send(serde_json::from_slice(&body).expect("JSON")).is_err() {
                return;
            }
        }
    });
    (address, bodies)
}

#[test]
fn a_collector_gets_a_span_for_each_sampled_request() {
    let (endpoint, bodies) = collector();
    let mut grid = Grid::with(&[("GRID_OTLP_ENDPOINT", &endpoint)]);
    grid.create("spanned", "node18", ECHO, json!({}));
    let unsampled = format!("{}00", &PARENT[..53]);
    for (id, parent) in [("one", PARENT), ("none", &unsampled), ("two", "")] {
        let headers = [("x-request-id", id), ("traceparent", parent)];
        assert_eq!(grid.call("spanned", "GET", "/fn/spanned/x", &headers, "").status, 200);
    }
    let mut spans: Vec<Value> = Vec::new();
    let attribute = |span: &Value, key: &str| {
        let attributes = span["attributes"].as_array().expect("a list");
        let found = attributes.iter().find(|attribute| attribute["key"] == key);
        found.map(|attribute| attribute["value"].clone()).unwrap_or_default()
    };
    while spans.len() < 2 {
        let body = bodies.recv_timeout(PATIENCE).expect("spans");
        let sent = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
        spans.extend(sent.as_array().expect("a list").clone());
    }
    let ids: Vec<_> = spans.iter().map(|span| attribute(span, "grid.request_id")).collect();
    assert_eq!(ids, [json!({"stringValue": "one"}), json!({"stringValue": "two"})]);
    let (first, second) = (&spans[0], &spans[1]);
    assert_eq!(
        (&first["traceId"], &first["parentSpanId"]),
        (&json!(ID), &json!("00f067aa0ba902b7"))
    );
    assert_eq!((&first["name"], &first["kind"]), (&json!("GET /fn/spanned"), &json!(2)));
    assert_eq!(attribute(first, "http.response.status_code"), json!({"intValue": "200"}));
    assert!(second["traceId"] != ID && second["parentSpanId"] == Value::Null, "{second}");
    let events = first["events"].as_array().expect("a list");
    assert!(events.iter().any(|event| event["name"] == "exec"), "{first}");

    // What is still here at the end is sent.
    grid.call("spanned", "GET", "/fn/spanned", &[("x-request-id", "last")], "");
    grid.stop();
    let body = bodies.recv_timeout(PATIENCE).expect("the last one");
    assert!(body.to_string().contains("\"last\""), "{body}");
}
