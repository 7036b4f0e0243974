//! What a request must be before anything is spent on it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use control::limits;
use http::header;
use pingora_core::{ErrorType, protocols::http::ServerSession};
use pingora_http::RequestHeader;
use tokio::time::timeout;

use crate::denial::{ALLOW, Denial};

/// Checks the head of a request.
pub(crate) fn head(request: &RequestHeader, most_body_bytes: usize) -> Result<(), Denial> {
    if !ALLOW.split(", ").any(|method| request.method == method) {
        return Err(Denial::MethodNotAllowed);
    }
    let target = request.raw_path();
    if target.len() > limits::REQUEST_TARGET_BYTES {
        return Err(Denial::TargetTooLong);
    }
    if !target.iter().all(u8::is_ascii_graphic) {
        return Err(Denial::BadRequest("The target has characters that must be percent-encoded."));
    }
    let size: usize =
        request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if request.headers.len() > limits::REQUEST_HEADERS || size > limits::REQUEST_HEADER_BYTES {
        return Err(Denial::HeadersTooLarge);
    }
    if request.headers.contains_key(header::UPGRADE) {
        return Err(Denial::BadRequest("Functions do not speak upgraded protocols."));
    }
    if declared_length(request).is_some_and(|length| length > most_body_bytes as u64) {
        return Err(Denial::BodyTooLarge(most_body_bytes));
    }
    Ok(())
}

/// Refuses a request that frames its body in two ways at once: whoever stands before this server may
/// have gone by the other one. Pingora has dropped the length by now, so the raw head is asked, and
/// only when the body is chunked.
pub(crate) fn framing(session: &ServerSession) -> Result<(), Denial> {
    const LENGTH: &[u8] = b"\ncontent-length";
    if !session.req_header().headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    let head = session.to_h1_raw();
    if head.windows(LENGTH.len()).any(|part| part.eq_ignore_ascii_case(LENGTH)) {
        return Err(Denial::BadRequest("Content-Length and Transfer-Encoding exclude each other."));
    }
    Ok(())
}

/// Reads the whole body: at most so many bytes, within one time for all of it.
pub(crate) async fn body(
    session: &mut ServerSession,
    most_bytes: usize,
    within: Duration,
) -> Result<Bytes, Denial> {
    if session.is_body_empty() {
        return Ok(Bytes::new());
    }
    match timeout(within, read(session, most_bytes)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Denial::BodyTimeout(within)),
    }
}

async fn read(session: &mut ServerSession, most_bytes: usize) -> Result<Bytes, Denial> {
    if session.req_header().headers.contains_key(header::EXPECT) {
        session.write_continue_response().await.map_err(|_| Denial::ClientGone)?;
    }
    let Some(first) = next(session).await? else { return Ok(Bytes::new()) };
    let mut body = BytesMut::from(first);
    while body.len() <= most_bytes {
        match next(session).await? {
            Some(more) => body.extend_from_slice(&more),
            None => return Ok(body.freeze()),
        }
    }
    Err(Denial::BodyTooLarge(most_bytes))
}

async fn next(session: &mut ServerSession) -> Result<Option<Bytes>, Denial> {
    session.read_request_body().await.map_err(|error| match error.etype() {
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::ReadTimedout => {
            Denial::ClientGone
        }
        _ => Denial::BadRequest("The body is not framed correctly."),
    })
}

fn declared_length(request: &RequestHeader) -> Option<u64> {
    request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// The request's id: the client's when it is sane, else a new one.
pub(crate) fn request_id(request: &RequestHeader) -> String {
    let sane = |id: &&str| {
        (1..=limits::REQUEST_ID_CHARS).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:+/=@".contains(&b))
    };
    let given = request.headers.get("x-request-id").and_then(|id| id.to_str().ok()).filter(sane);
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}
