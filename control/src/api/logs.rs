//! `services/{id}/logs/`: what the function wrote, as JSON or as text.

use std::fmt::Write as _;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Uri, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Ids, Shared,
    auth::Caller,
    error::{ApiError, FieldErrors},
    fields::Fields,
    openapi::{LogParameters, OwnerParameter, ServiceParameter},
};
use crate::{
    limits,
    logs::{LogEntry, LogQuery, LogStream},
    name::ServiceId,
};

/// Lines when the client asks for no other number.
const TAIL: u32 = 100;
/// Lines at most.
const MAX_TAIL: u32 = 10_000;

/// `{"results": [{"at": "…", "stream": "stdout", "replica": "…", "request_id": "…", "line": "…"}]}`
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogLines)]
pub(super) struct Lines {
    results: Vec<LogEntry>,
}

/// `GET services/{id}/logs/?tail=100&request_id=…&format=text`, newest line last.
#[utoipa::path(
    get, path = "/api/v1/services/{id}/logs/", operation_id = "services_logs", tag = "services",
    params(ServiceParameter, OwnerParameter, LogParameters),
    responses((
        status = 200, description = "Newest line last",
        content((Lines = "application/json"), (String = "text/plain")),
    )),
)]
pub(super) async fn read(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<ServiceId>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let service = api.service(&caller, id).await?;
    let (query, as_text) = query(&uri, &headers).map_err(ApiError::Fields)?;
    let lines = api.logs.read(service.id, &query).await?;
    if !as_text {
        return Ok(Json(Lines { results: lines }).into_response());
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text(&lines)).into_response())
}

fn query(uri: &Uri, headers: &HeaderMap) -> Result<(LogQuery, bool), FieldErrors> {
    let mut fields = Fields::of_query(uri, &["tail", "request_id", "format"]);
    let tail = fields.integer("tail", 1..=MAX_TAIL).unwrap_or(TAIL);
    let request_id = fields.text_up_to("request_id", limits::REQUEST_ID_CHARS);
    let format = fields.choice("format", &["json", "text"]);
    fields.finish(&[])?;
    let as_text = format.map_or_else(|| prefers_text(headers), |format| format == "text");
    Ok((LogQuery { tail: tail.try_into().unwrap_or(usize::MAX), request_id }, as_text))
}

/// Whether `Accept` names plain text and not JSON. Browsers and `*/*` get JSON like everywhere else.
fn prefers_text(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept
        .is_some_and(|accept| accept.contains("text/plain") && !accept.contains("application/json"))
}

/// One line each: `2026-11-24T09:00:00.5Z k3v… stdout 7f1c… hello`, `-` for no request. It is read in
/// terminals, so what would steer one is shown instead: `\u{1b}[2J`.
fn text(lines: &[LogEntry]) -> String {
    let mut text = String::new();
    for LogEntry { at, stream, replica, request_id, line } in lines {
        let stream = match stream {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
            LogStream::Platform => "platform",
        };
        let request = request_id.as_deref().unwrap_or("-");
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
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use jiff::Timestamp;

    use serde_json::json;

    use super::*;
    use crate::name::ReplicaId;

    fn ask(uri: &'static str, accept: &'static str) -> Result<(LogQuery, bool), FieldErrors> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        query(&Uri::from_static(uri), &headers)
    }

    #[test]
    fn text_is_for_whoever_asks_for_it() {
        let cases = [
            ("/", "*/*", false),
            ("/", "text/html,*/*;q=0.8", false),
            ("/", "application/json, text/plain, */*", false),
            ("/", "text/plain", true),
            ("/?format=json", "text/plain", false),
            ("/?format=text", "*/*", true),
        ];
        for (uri, accept, as_text) in cases {
            assert_eq!(ask(uri, accept).map(|(_, text)| text), Ok(as_text), "{uri} {accept}");
        }
    }

    #[test]
    fn parameters_are_checked_as_fields_are() {
        let (query, _) = ask("/?tail=&request_id=r%201", "*/*").expect("valid");
        assert_eq!(query, LogQuery { tail: 100, request_id: Some("r 1".to_owned()) });
        assert_eq!(ask("/?tail=10000", "*/*").expect("valid").0.tail, 10_000);
        let errors = ask("/?tail=0&format=xml", "*/*").expect_err("invalid");
        assert_eq!(errors["tail"], json!(["Ensure this value is greater than or equal to 1."]));
        assert_eq!(errors["format"], json!(["\"xml\" is not a valid choice."]));
        let errors = ask("/?tail=many", "*/*").expect_err("invalid");
        assert_eq!(errors["tail"], json!(["A valid integer is required."]));
    }

    #[test]
    fn a_line_of_text_has_five_parts() {
        let entry = LogEntry {
            at: Timestamp::UNIX_EPOCH,
            stream: LogStream::Stderr,
            replica: ReplicaId::parse("abcdefghijkl").expect("an id"),
            request_id: None,
            line: "a\tb \u{1b}[2J\r".to_owned(),
        };
        assert_eq!(
            text(&[entry]),
            "1970-01-01T00:00:00Z abcdefghijkl stderr - a\tb \\u{1b}[2J\\r\n"
        );
    }
}
