//! Spans in OTLP's JSON (opentelemetry-proto 1.x, `ExportTraceServiceRequest`), with the names of
//! OpenTelemetry's conventions for HTTP servers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Span;

/// `SPAN_KIND_SERVER`.
const SERVER: u8 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// The body of one export.
pub(super) fn request(spans: &[Span]) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let resource =
        json!({"attributes": [text("service.name", "grid"), text("service.version", version)]});
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let scope = json!({"name": "grid.edge", "version": version});
    let body = json!({"resourceSpans": [{
        "resource": resource,
        "scopeSpans": [{"scope": scope, "spans": spans}],
    }]});
    body.to_string().into_bytes()
}

fn span(span: &Span) -> Value {
    let began = span.ended - span.total;
    let (status, cause) = span.outcome;
    let mut attributes = vec![
        text("url.scheme", span.scheme),
        text("server.address", &span.host),
        text("client.address", &span.client),
        text("network.protocol.name", "http"),
        text("network.protocol.version", span.version),
        number("http.response.status_code", u64::from(status)),
        number("http.request.body.size", span.request_bytes),
        number("http.response.body.size", span.response_bytes),
        text("grid.cause", cause),
        text("grid.request_id", &span.request_id),
    ];
    let mut name = "HTTP".to_owned();
    if !span.path.is_empty() {
        name = span.method.to_string();
        attributes.push(text("http.request.method", span.method.as_str()));
        attributes.push(text("url.path", &span.path));
    }
    if let Some(target) = &span.target {
        let route = format!("/fn/{}", target.function.as_str());
        name = format!("{name} {route}");
        attributes.push(text("http.route", &route));
        attributes.push(text("grid.function", target.function.as_str()));
    }
    let failed = status >= 500 || matches!(cause, "cut" | "undelivered");
    if failed {
        attributes.push(text("error.type", cause));
    }
    let mut value = json!({
        "traceId": span.trace.id.to_string(),
        "spanId": span.trace.span.to_string(),
        "flags": u8::from(span.trace.sampled()),
        "name": name,
        "kind": SERVER,
        "startTimeUnixNano": nanos(began),
        "endTimeUnixNano": nanos(span.ended),
        "attributes": attributes,
        "events": events(span, began),
        "status": if failed { json!({"code": ERROR}) } else { json!({}) },
    });
    if let Some(parent) = span.trace.parent {
        value["parentSpanId"] = parent.to_string().into();
    }
    value
}

/// When each part of the way began, and how long it took.
fn events(span: &Span, began: SystemTime) -> Vec<Value> {
    let exec = span.before_exec.unwrap_or(span.total);
    let parts = [
        ("queue", span.timing.queue, exec.saturating_sub(span.timing.queue)),
        ("wake", span.timing.wake, exec.saturating_sub(span.timing.wake)),
        ("exec", span.timing.exec, exec),
    ];
    let taken = parts.into_iter().filter(|(_, took, _)| !took.is_zero());
    taken
        .map(|(name, took, from)| {
            let attributes = [json!({
                "key": "grid.duration_ms",
                "value": {"doubleValue": took.as_micros() as f64 / 1e3},
            })];
            json!({"name": name, "timeUnixNano": nanos(began + from), "attributes": attributes})
        })
        .collect()
}

/// Numbers of 64 bits are texts in this format.
fn nanos(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos().to_string()
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}
