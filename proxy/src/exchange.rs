//! One request to one replica and back. Everything that comes back is checked here: what a
//! container sends is not trusted.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use control::limits;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_core::protocols::{Stream, http::v1::client::HttpSession};
use pingora_http::RequestHeader;
use tokio::time::Instant;

/// Headers between edge and runner start with this; they never pass through.
pub(crate) const INTERNAL: &str = "x-grid-";
const OUTCOME: &str = "x-grid-outcome";

/// What a function answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The runner says that the function failed; the body tells how.
    pub(crate) failed: bool,
}

/// Why an exchange is not complete. The replica cannot be used again.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The deadline passed.
    TimedOut,
    /// The connection ended.
    Closed,
    /// What came is not an acceptable answer.
    Garbled(String),
    /// The body is larger than allowed.
    TooLarge,
}

/// Runs one request under one deadline. The connection comes back when it can serve another.
pub(crate) async fn run(
    link: Stream,
    request: Box<RequestHeader>,
    body: Bytes,
    most_bytes: usize,
    deadline: Instant,
) -> Result<(Answer, Option<Stream>), Fault> {
    let exchange = async {
        let mut session = HttpSession::new(link);
        send(&mut session, request, &body).await?;
        let answer = receive(&mut session, most_bytes).await?;
        session.respect_keepalive();
        Ok((answer, session.reuse().await))
    };
    tokio::time::timeout_at(deadline, exchange).await.unwrap_or(Err(Fault::TimedOut))
}

/// Asks the runner itself: `/ready` or `/health`. Gives the status, the message of a failure, and
/// the connection.
pub(crate) async fn probe(
    link: Stream,
    path: &str,
    within: Duration,
) -> Result<(u16, String, Stream), Fault> {
    let mut request = RequestHeader::build(Method::GET, path.as_bytes(), Some(1))
        .map_err(|e| Fault::Garbled(e.to_string()))?;
    let host = request.insert_header(header::HOST, "runner");
    host.map_err(|e| Fault::Garbled(e.to_string()))?;
    let deadline = Instant::now() + within;
    let (answer, link) =
        run(link, Box::new(request), Bytes::new(), limits::MESSAGE_CHARS * 4, deadline).await?;
    let link = link.ok_or(Fault::Closed)?;
    Ok((answer.status.as_u16(), failure(&answer.body).1, link))
}

/// Kind and message of a runner's own error.
pub(crate) fn failure(body: &[u8]) -> (String, String) {
    #[derive(serde::Deserialize, Default)]
    struct Failure {
        #[serde(default)]
        error: String,
        #[serde(default)]
        message: String,
    }
    let failure: Failure = serde_json::from_slice(body).unwrap_or_default();
    let clean = |text: String| {
        let mut text: String = text
            .chars()
            .filter(|c| !c.is_control() || *c == '\n')
            .take(limits::MESSAGE_CHARS)
            .collect();
        text.truncate(text.trim_end().len());
        text
    };
    (clean(failure.error), clean(failure.message))
}

async fn send(
    session: &mut HttpSession,
    request: Box<RequestHeader>,
    body: &[u8],
) -> Result<(), Fault> {
    session.write_request_header(request).await.map_err(closed)?;
    if !body.is_empty() {
        session.write_body(body).await.map_err(closed)?;
    }
    session.finish_body().await.map_err(closed)?;
    Ok(())
}

async fn receive(session: &mut HttpSession, most_bytes: usize) -> Result<Answer, Fault> {
    session.read_response().await.map_err(broken)?;
    let Some(head) = session.resp_header() else { return Err(Fault::Closed) };
    let status = head.status;
    // Informational answers and upgrades are no answers to a function's request.
    if !(200..=599).contains(&status.as_u16()) {
        return Err(Fault::Garbled(format!("status {status}")));
    }
    let failed = head.headers.get(OUTCOME).is_some_and(|outcome| outcome == "error");
    let headers = public_headers(&head.headers)?;
    let body = read_body(session, most_bytes).await?;
    Ok(Answer { status, headers, body, failed })
}

fn public_headers(received: &HeaderMap) -> Result<HeaderMap, Fault> {
    if received.len() > limits::RESPONSE_HEADERS + 8 {
        return Err(Fault::Garbled(format!("more than {} headers", limits::RESPONSE_HEADERS)));
    }
    let mut headers = HeaderMap::with_capacity(received.len() + 4);
    let mut size = 0;
    for (name, value) in received {
        size += name.as_str().len() + value.len() + 4;
        if size > limits::RESPONSE_HEADER_BYTES {
            return Err(Fault::Garbled(format!(
                "headers of more than {} bytes",
                limits::RESPONSE_HEADER_BYTES
            )));
        }
        if passes_through(name) && is_clean(value) {
            headers.append(name.clone(), value.clone());
        }
    }
    Ok(headers)
}

/// Whether a header means anything beyond one connection.
pub(crate) fn passes_through(name: &HeaderName) -> bool {
    !matches!(
        name.as_str(),
        "connection"
            | "content-length"
            | "date"
            | "expect"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    ) && !name.as_str().starts_with(INTERNAL)
}

fn is_clean(value: &HeaderValue) -> bool {
    value.as_bytes().iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}

async fn read_body(session: &mut HttpSession, most_bytes: usize) -> Result<Bytes, Fault> {
    let declared = session
        .get_header(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > most_bytes) {
        return Err(Fault::TooLarge);
    }
    let Some(first) = session.read_body_bytes().await.map_err(broken)? else {
        return Ok(Bytes::new());
    };
    if first.len() > most_bytes {
        return Err(Fault::TooLarge);
    }
    let Some(second) = session.read_body_bytes().await.map_err(broken)? else {
        return Ok(first);
    };
    // Never more than was promised, and what is promised is bounded above.
    let mut body = BytesMut::with_capacity(declared.unwrap_or(first.len() + second.len()));
    body.extend_from_slice(&first);
    body.extend_from_slice(&second);
    while body.len() <= most_bytes {
        match session.read_body_bytes().await.map_err(broken)? {
            Some(more) => body.extend_from_slice(&more),
            None => return Ok(body.freeze()),
        }
    }
    Err(Fault::TooLarge)
}

fn closed(_: Box<pingora_core::Error>) -> Fault {
    Fault::Closed
}

fn broken(error: Box<pingora_core::Error>) -> Fault {
    use pingora_core::ErrorType::{HTTPStatus, InvalidHTTPHeader};
    match error.etype() {
        InvalidHTTPHeader | HTTPStatus(_) => Fault::Garbled(error.to_string()),
        _ => Fault::Closed,
    }
}

#[cfg(test)]
mod tests;
