//! How lines are written: JSON as a whole or line by line, text, or events.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::json;

use super::query::accepts;
use crate::logs::{LogEntry, LogStream};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `{"results": […]}`
    Json,
    /// One JSON object on each line.
    Lines,
    /// See [`text`].
    Text,
    /// Server-sent events; what is sent of each is its line of JSON, its id is its time.
    Events,
}

impl Format {
    /// What `format` names, or else `Accept`. Browsers and `*/*` get JSON like everywhere else.
    pub(super) fn of(named: Option<&str>, follow: bool, headers: &HeaderMap) -> Self {
        match named {
            Some("text") => Self::Text,
            None if follow && accepts(headers, "text/event-stream") => Self::Events,
            None if accepts(headers, "text/plain") => Self::Text,
            _ if follow => Self::Lines,
            _ => Self::Json,
        }
    }

    /// What the answer says about itself. Proxies are not to gather lines before they pass them on.
    pub(super) fn headers(self) -> [(HeaderName, HeaderValue); 3] {
        let media = match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
            Self::Text => "text/plain; charset=utf-8",
            Self::Events => "text/event-stream",
        };
        [
            (header::CONTENT_TYPE, HeaderValue::from_static(media)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        ]
    }

    /// One line of those that are followed.
    pub(super) fn line(self, entry: &LogEntry) -> String {
        match self {
            Self::Text => text(entry),
            Self::Json | Self::Lines => format!("{}\n", json!(entry)),
            Self::Events => format!("id: {}\ndata: {}\n\n", entry.at, json!(entry)),
        }
    }

    /// What says only that the connection is alive.
    pub(super) fn quiet(self) -> &'static str {
        match self {
            Self::Events => ": \n\n",
            _ => "\n",
        }
    }

    /// The last line, which is no container's: why there are no more.
    pub(super) fn last(self, at: jiff::Timestamp, why: &str) -> String {
        let entry = json!({"at": at, "stream": "platform", "replica": null, "request_id": null, "line": why});
        match self {
            Self::Text => format!("{at} - platform - {why}\n"),
            Self::Json | Self::Lines => format!("{entry}\n"),
            Self::Events => format!("event: end\ndata: {entry}\n\n"),
        }
    }
}

/// `2026-11-24T09:00:00.5Z k3v… stdout 7f1c… hello`, `-` for no request. It is read in terminals, so
/// what would steer one is shown instead: `\u{1b}[2J`.
pub(super) fn text(entry: &LogEntry) -> String {
    let LogEntry { at, stream, replica, request_id, line } = entry;
    let stream = match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
        LogStream::Platform => "platform",
    };
    let request = request_id.as_deref().unwrap_or("-");
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(text, "{at} {replica} {stream} {request} ");
    for character in line.chars() {
        match character {
            '\t' => text.push('\t'),
            steers if steers.is_control() => text.extend(steers.escape_default()),
            plain => text.push(plain),
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::name::ReplicaId;

    fn entry() -> LogEntry {
        LogEntry {
            at: Timestamp::UNIX_EPOCH,
            stream: LogStream::Stderr,
            replica: ReplicaId::parse("abcdefghijkl").expect("an id"),
            request_id: None,
            line: "a\tb \u{1b}[2J\r".to_owned(),
        }
    }

    #[test]
    fn a_line_of_text_has_five_parts() {
        let line = "1970-01-01T00:00:00Z abcdefghijkl stderr - a\tb \\u{1b}[2J\\r\n";
        assert_eq!(text(&entry()), line);
        assert_eq!(Format::Text.line(&entry()), line);
        assert_eq!(
            Format::Text.last(Timestamp::UNIX_EPOCH, "the end"),
            "1970-01-01T00:00:00Z - platform - the end\n"
        );
    }

    #[test]
    fn a_line_of_json_is_one_line() {
        let json = r#"{"at":"1970-01-01T00:00:00Z","line":"a\tb \u001b[2J\r","replica":"abcdefghijkl","request_id":null,"stream":"stderr"}"#;
        assert_eq!(Format::Lines.line(&entry()), format!("{json}\n"));
        let event = format!("id: 1970-01-01T00:00:00Z\ndata: {json}\n\n");
        assert_eq!(Format::Events.line(&entry()), event);
        let last = Format::Events.last(Timestamp::UNIX_EPOCH, "the end");
        let last = last.strip_prefix("event: end\ndata: ").expect("an event").trim_end();
        let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
        assert_eq!((&last["line"], &last["replica"]), (&json!("the end"), &json!(null)));
    }
}
