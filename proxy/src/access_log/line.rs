//! One line of the access log, for machines or for people. The query is left out: people put secrets
//! there.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::{
    client::Peer,
    observe::Record,
    request::{Request, Version},
};

/// Bytes of a text that a client chose; what is longer is cut.
const LONGEST: usize = 1024;

/// What is said of a request.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    /// When it ended.
    #[serde(serialize_with = "as_text")]
    time: Timestamp,
    client: &'a str,
    scheme: &'static str,
    protocol: &'static str,
    /// Empty when what came was no request.
    method: &'a str,
    host: &'a str,
    /// Without the query.
    path: &'a str,
    status: u16,
    cause: &'static str,
    function: &'a str,
    request_id: &'a str,
    #[serde(serialize_with = "as_text")]
    trace_id: crate::trace::TraceId,
    request_bytes: u64,
    response_bytes: u64,
    queue_ms: Millis,
    wake_ms: Millis,
    exec_ms: Millis,
    total_ms: Millis,
}

/// A time in milliseconds, to a microsecond.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Millis(Duration);

impl<'a> Line<'a> {
    pub(super) fn of(
        record: &'a Record<'_>,
        request: &'a Request,
        peer: &'a Peer,
        request_id: &'a str,
        time: Timestamp,
    ) -> Self {
        let timing = &record.timing;
        Self {
            time,
            client: &peer.source,
            scheme: peer.scheme,
            protocol: protocol(request.version),
            method: if request.target.is_empty() { "" } else { request.method.as_str() },
            host: cut(&request.host),
            path: cut(request.path()),
            status: record.outcome.0,
            cause: record.outcome.1,
            function: record.target.as_ref().map_or("", |target| target.function.as_str()),
            request_id,
            trace_id: record.trace.id,
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes(),
            queue_ms: Millis(timing.queue),
            wake_ms: Millis(timing.wake),
            exec_ms: Millis(timing.exec),
            total_ms: Millis(record.began.elapsed()),
        }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2",
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    // Enough for a day's time: what is finer is of no use.
    serializer.collect_str(&format_args!("{value:.3}"))
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_micros() as f64 / 1e3)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        write!(out, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

/// A word that a client chose, without anything that would make two of it or steer a terminal.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return out.write_char('-');
        }
        self.0.chars().try_for_each(|character| match character {
            '\\' => out.write_str("\\\\"),
            plain if plain.is_ascii_graphic() => out.write_char(plain),
            other => write!(out, "{}", other.escape_unicode()),
        })
    }
}

/// `2026-11-24T09:00:00.500Z 192.0.2.7 GET hello.localhost /fn/hello HTTP/1.1 200 ok function=hello …`
impl fmt::Display for Line<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, scheme, protocol, status, cause, trace_id, .. } = self;
        let words = [self.client, self.method, self.host, self.path].map(Word);
        let [client, method, host, path] = words;
        let (function, request_id) = (Word(self.function), Word(self.request_id));
        let (request_bytes, response_bytes) = (self.request_bytes, self.response_bytes);
        write!(out, "{time:.3} {client} {method} {host} {path} {protocol} {status} {cause} ")?;
        write!(out, "scheme={scheme} function={function} request={request_id} trace={trace_id} ")?;
        write!(out, "in={request_bytes} out={response_bytes} ")?;
        write!(out, "queue={} wake={} ", self.queue_ms, self.wake_ms)?;
        write!(out, "exec={} total={}", self.exec_ms, self.total_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::{
        metrics::Metrics,
        observe::tests::{observer, peer, request},
    };

    /// The line of a denied request, in both forms.
    fn lines(host: &str, target: &str) -> (String, Value) {
        let metrics: Arc<Metrics> = Arc::default();
        let observer = observer(&metrics);
        let mut request = request(target);
        request.host = host.to_owned();
        let mut record = observer.begin(&request);
        record.timing.queue = Duration::from_micros(1_234_567);
        record.denied(404, "not_found", &crate::client::Body::Absent(None));
        let at = Timestamp::from_millisecond(1_500).expect("valid");
        let peer = peer();
        let line = Line::of(&record, &request, &peer, "an-id", at);
        (line.to_string(), serde_json::to_value(&line).expect("JSON"))
    }

    #[test]
    fn both_forms_say_the_same_and_not_the_query() {
        let (text, json) = lines("a.example", "/fn/x?token=secret");
        let trace = json["trace_id"].as_str().expect("a text");
        let start =
            "1970-01-01T00:00:01.500Z 192.0.2.7 GET a.example /fn/x HTTP/1.1 404 not_found ";
        let rest = format!(
            "scheme=http function=- request=an-id trace={trace} in=0 out=0 queue=1234.567 wake=0.000 "
        );
        assert!(text.starts_with(&format!("{start}{rest}")), "{text}");
        for (key, value) in [
            ("time", Value::from("1970-01-01T00:00:01.500Z")),
            ("client", "192.0.2.7".into()),
            ("path", "/fn/x".into()),
            ("status", 404.into()),
            ("cause", "not_found".into()),
            ("queue_ms", 1234.567.into()),
        ] {
            assert_eq!(json[key], value, "{key}");
        }
        assert!(!text.contains("secret") && !json.to_string().contains("secret"));
    }

    #[test]
    fn what_is_no_request_has_no_method() {
        let (text, json) = lines("", "");
        assert!(text.contains(" 192.0.2.7 - - - HTTP/1.1 404 "), "{text}");
        assert_eq!(json["method"], "");
    }

    proptest! {
        #[test]
        fn a_client_cannot_make_two_lines_or_other_words(host in ".{0,40}", path in ".{0,40}") {
            let (text, _) = lines(&host, &path);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
            prop_assert_eq!(text.split(' ').count(), 18);
        }

        #[test]
        fn what_is_long_is_cut(path in "/[a-z\u{e4}]{1000,2000}") {
            let (_, json) = lines("a.example", &path);
            prop_assert!(json["path"].as_str().is_some_and(|path| path.len() <= LONGEST));
        }
    }
}
