//! `Accept`: a client that can read none of what a call may answer with is told so before anything is
//! done for it.

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};

use super::error::ApiError;

const JSON: &[&str] = &["application/json"];
const LOGS: &[&str] =
    &["application/json", "application/x-ndjson", "text/plain", "text/event-stream"];
const BACKUP: &[&str] = &["application/json", "application/x-ndjson"];

/// Lets a request through only when its client takes what may come back.
pub(super) async fn served(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let offered = match path.trim_end_matches('/').rsplit('/').next() {
        Some("logs") => LOGS,
        Some("backup") => BACKUP,
        _ => JSON,
    };
    if takes(request.headers(), offered) {
        return next.run(request).await;
    }
    ApiError::NotAcceptable.into_response()
}

/// Whether `Accept` takes one of these. Which of them it prefers is of no matter here. Without the
/// header, or when it is empty, anything goes.
fn takes(headers: &HeaderMap, offered: &[&str]) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    let lines: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let ranges = lines.iter().flat_map(|line| line.split(',')).map(str::trim);
    let ranges: Vec<_> = ranges.filter(|range| !range.is_empty()).collect();
    let matched = |range: &&str| offered.iter().any(|media| matches(range, media));
    ranges.is_empty() || ranges.iter().any(matched)
}

/// Whether a range such as `application/*;q=0.8` has a media type in it.
fn matches(range: &str, media: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    if weight.and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0) {
        return false;
    }
    let kind = media.split('/').next().unwrap_or_default();
    name == "*/*" || name == media || name.strip_suffix("/*") == Some(kind)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn take(values: &[&'static str], offered: &[&str]) -> bool {
        let values = values.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value)));
        takes(&values.collect(), offered)
    }

    #[test]
    fn who_takes_json_in_some_way_gets_it() {
        for values in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/*"],
            &["Application/JSON; indent=4"],
            &["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
            &["text/html", "application/json;q=0.1"],
        ] {
            assert!(take(values, JSON), "{values:?}");
        }
    }

    #[test]
    fn who_does_not_is_refused() {
        for values in [
            &["text/html"][..],
            &["application/xml, text/plain"],
            &["application/json;q=0"],
            &["application/jsonp"],
            &["text/*"],
            &["json"],
            &["*"],
        ] {
            assert!(!take(values, JSON), "{values:?}");
        }
        assert!(take(&["text/*"], LOGS) && take(&["text/event-stream"], LOGS));
        assert!(take(&["application/x-ndjson"], BACKUP) && !take(&["text/plain"], BACKUP));
    }
}
