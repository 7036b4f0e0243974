//! Request bodies: one JSON object, read within bounds of size and time.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use futures_util::StreamExt;
use http::{HeaderMap, header};
use serde_json::{Map, Value, error::Category};

use super::{
    Api,
    auth::Caller,
    error::{ApiError, NON_FIELD_ERRORS},
    fields::kind_of,
};

/// From a request's head to the end of its body.
const ARRIVAL: Duration = Duration::from_secs(15);
/// Bytes of a body that is too large which are still taken in and thrown away: a client that is cut
/// off while it sends sees a broken connection instead of the 413.
const DISCARDED: usize = 16 * 1024 * 1024;

/// The object that a request carries. No body at all is an empty one.
#[derive(Debug)]
pub(super) struct JsonObject(pub(super) Map<String, Value>);

impl FromRequest<Arc<Api>> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        let read = read(body, api.limits.body_bytes());
        let bytes = match tokio::time::timeout(ARRIVAL, read).await {
            Ok(bytes) => bytes?,
            Err(_) => return Err(ApiError::BodyTimeout),
        };
        if bytes.is_empty() {
            return Ok(Self(Map::new()));
        }
        check_media_type(&head.headers)?;
        let object = parse(&bytes)?;
        if let Some(caller) = head.extensions.get::<Caller>() {
            caller.notes.fields(&object);
        }
        Ok(Self(object))
    }
}

async fn read(body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut seen = 0_usize;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::Parse("the body ended early".to_owned()))?;
        seen = seen.saturating_add(chunk.len());
        if seen <= limit {
            bytes.extend_from_slice(&chunk);
        } else if seen - limit > DISCARDED {
            break;
        } else {
            bytes = Vec::new();
        }
    }
    if seen > limit { Err(ApiError::BodyTooLarge(limit)) } else { Ok(bytes) }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let sent = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    let sent = String::from_utf8_lossy(sent);
    let media = sent.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(ApiError::UnsupportedMedia(sent.into_owned()))
    }
}

fn parse(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::Parse(format!("the body is not UTF-8 (first invalid byte at position {at})"))
    })?;
    let kind = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => return Ok(object),
        Ok(Value::Null) => return Err(ApiError::field(NON_FIELD_ERRORS, "No data provided")),
        Ok(other) => kind_of(&other),
        Err(error) => return Err(ApiError::Parse(explain(&error))),
    };
    let message = format!("Invalid data. Expected a dictionary, but got {kind}.");
    Err(ApiError::field(NON_FIELD_ERRORS, message))
}

/// Most broken bodies are source code that was pasted into JSON as it is.
fn explain(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Syntax => format!(
            "{error}. (In a JSON string a double quote is written \\\" and a line end \\n.)"
        ),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    fn chunked(chunks: Vec<&'static [u8]>) -> Body {
        let chunks = chunks.into_iter().map(|c| Ok::<_, std::io::Error>(Bytes::from_static(c)));
        Body::from_stream(stream::iter(chunks))
    }

    #[tokio::test]
    async fn the_limit_holds_whatever_the_chunks() {
        assert_eq!(read(chunked(vec![b"ab", b"cd"]), 4).await, Ok(b"abcd".to_vec()));
        for chunks in [vec![&b"abcde"[..]], vec![b"ab", b"cd", b"e"], vec![b"abcde", b"f"]] {
            assert_eq!(read(chunked(chunks), 4).await, Err(ApiError::BodyTooLarge(4)));
        }
    }

    #[tokio::test]
    async fn a_body_without_end_is_not_read_to_its_end() {
        let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 65536])));
        let answer = read(Body::from_stream(endless), 4).await;
        assert_eq!(answer, Err(ApiError::BodyTooLarge(4)));
    }

    #[test]
    fn the_media_type_is_json_with_or_without_parameters() {
        let check = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(value));
            check_media_type(&headers)
        };
        assert_eq!(check("application/json"), Ok(()));
        assert_eq!(check("Application/JSON; charset=utf-8"), Ok(()));
        assert_eq!(check("text/plain"), Err(ApiError::UnsupportedMedia("text/plain".into())));
        assert_eq!(
            check_media_type(&HeaderMap::new()),
            Err(ApiError::UnsupportedMedia(String::new()))
        );
    }

    #[test]
    fn what_is_not_an_object_is_named() {
        let cases =
            [("[]", "list"), ("\"a\"", "str"), ("1", "int"), ("1.5", "float"), ("true", "bool")];
        for (body, kind) in cases {
            let message = format!("Invalid data. Expected a dictionary, but got {kind}.");
            let expected = ApiError::field("non_field_errors", message);
            assert_eq!(parse(body.as_bytes()), Err(expected), "{body}");
        }
        let expected = ApiError::field("non_field_errors", "No data provided");
        assert_eq!(parse(b"null"), Err(expected));
    }

    #[test]
    fn broken_bodies_never_panic_and_say_where() {
        let nested = "[".repeat(100_000);
        let broken: [&[u8]; 6] = [
            b"{",
            b"{\"a\": \"\xff\"}",
            b"{\"a\": \"\\ud800\"}",
            b"nul",
            nested.as_bytes(),
            b"{}{}",
        ];
        for body in broken {
            match parse(body) {
                Err(ApiError::Parse(reason)) => {
                    assert!(reason.contains("column") || reason.contains("position"), "{reason}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
