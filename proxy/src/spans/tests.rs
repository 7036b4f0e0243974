//! Tests of spans: their form, and a collector that is away.

use std::sync::Arc;

use control::config::Observe;
use serde_json::Value;

use super::*;
use crate::observe::{
    Observer,
    tests::{peer, request, settings},
};

/// One request that was denied, as a span.
fn one(spans: Spans, metrics: &Arc<Metrics>, settings: &Observe) -> Trace {
    let mut request = request("/fn/hello?secret=1");
    request.fields.push("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let observer = Observer::new(settings, metrics.clone(), None, Some(spans));
    let mut record = observer.begin(&request);
    record.timing.wake = Duration::from_millis(20);
    record.denied(503, "no_replica", &crate::client::Body::Absent(None));
    let trace = record.trace;
    observer.end(record, &request, &peer(), "an-id");
    trace
}

#[test]
fn a_span_has_the_form_that_collectors_read() {
    let metrics = Arc::default();
    let (sender, mut receiver) = mpsc::channel(1);
    let trace = one(Spans { sender, metrics: Arc::clone(&metrics) }, &metrics, &settings());
    let span = receiver.try_recv().expect("a span");
    let body: Value = serde_json::from_slice(&otlp::request(&[span])).expect("JSON");
    let span = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(span["spanId"], trace.span.to_string());
    assert_eq!((&span["name"], &span["kind"]), (&"GET".into(), &2.into()));
    assert_eq!(span["status"]["code"], 2);
    assert_eq!(span["events"][0]["name"], "wake");
    let attributes = span["attributes"].as_array().expect("a list");
    let value = |key: &str| {
        let found = attributes.iter().find(|attribute| attribute["key"] == key);
        found.unwrap_or_else(|| panic!("{key} in {span}"))["value"].clone()
    };
    assert_eq!(value("http.response.status_code")["intValue"], "503");
    assert_eq!(value("url.path")["stringValue"], "/fn/hello");
    assert_eq!(value("grid.cause")["stringValue"], "no_replica");
    assert_eq!(value("client.address")["stringValue"], "192.0.2.7");
    let nanos = |key: &str| span[key].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(
        nanos("startTimeUnixNano").expect("a number") <= nanos("endTimeUnixNano").expect("one")
    );
    assert!(!body.to_string().contains("secret"));
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let metrics: Arc<Metrics> = Arc::default();
    let (sender, _receiver) = mpsc::channel(1);
    for _ in 0..3 {
        let spans = Spans { sender: sender.clone(), metrics: metrics.clone() };
        one(spans, &metrics, &settings());
    }
    assert_eq!(metrics.spans_dropped.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_stays_away_costs_spans_and_nothing_else() {
    let metrics: Arc<Metrics> = Arc::default();
    // A port that nobody has: that of a listener which is gone.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let (spans, exporter) = Spans::new(&endpoint, &metrics).expect("valid");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(exporter.run(stopped));
    one(spans, &metrics, &settings());
    while metrics.spans_dropped.load(Relaxed) == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stop.send(true).expect("it runs");
    running.await.expect("it ends");
    assert_eq!(metrics.spans_dropped.load(Relaxed), 1);
    assert_eq!(metrics.spans_exported.load(Relaxed), 0);
}
