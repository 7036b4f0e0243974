//! The only place that writes to the public: a function's answer, or a denial as a small JSON text
//! with a code and the request's id.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use pingora_core::{Result, protocols::http::ServerSession};
use pingora_http::ResponseHeader;

use crate::{
    denial::{self, Denial},
    exchange::Answer,
};

/// Where a request's time went.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Timing {
    /// Waiting for a replica that others were using.
    pub(crate) queue: Duration,
    /// Waiting for a replica to start.
    pub(crate) wake: Duration,
    /// In the replica.
    pub(crate) exec: Duration,
}

impl Timing {
    fn header(&self) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        format!(
            "queue;dur={:.1}, wake;dur={:.1}, exec;dur={:.1}",
            ms(self.queue),
            ms(self.wake),
            ms(self.exec)
        )
    }
}

/// Writes a function's answer.
pub(crate) async fn answer(
    session: &mut ServerSession,
    answer: Answer,
    request_id: &str,
    timing: &Timing,
) -> Result<()> {
    let mut head = ResponseHeader::build(answer.status, Some(answer.headers.len() + 6))?;
    for (name, value) in &answer.headers {
        head.append_header(name.clone(), value.clone())?;
    }
    if !matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        head.insert_header(header::CONTENT_LENGTH, answer.body.len())?;
    }
    write(session, head, answer.body, request_id, timing).await
}

/// Writes a denial. False when there was nobody to write to.
pub(crate) async fn deny(
    session: &mut ServerSession,
    denial: &Denial,
    request_id: &str,
    timing: &Timing,
) -> Result<bool> {
    let Some((status, code, message)) = denial::describe(denial) else { return Ok(false) };
    let body = serde_json::json!({"code": code, "message": message, "request_id": request_id});
    let body = Bytes::from(format!("{body}\n"));
    let mut head = ResponseHeader::build(status, Some(8))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    if let Denial::MethodNotAllowed = denial {
        head.insert_header(header::ALLOW, denial::ALLOW)?;
    }
    if let Some(seconds) = denial::retry_after(denial) {
        head.insert_header(header::RETRY_AFTER, seconds)?;
    }
    if denial::ends_connection(denial) || session.req_header().method == Method::CONNECT {
        session.set_keepalive(None);
    }
    write(session, head, body, request_id, timing).await?;
    Ok(true)
}

async fn write(
    session: &mut ServerSession,
    mut head: ResponseHeader,
    body: Bytes,
    request_id: &str,
    timing: &Timing,
) -> Result<()> {
    head.insert_header("x-request-id", request_id)?;
    head.append_header(
        "server-timing",
        HeaderValue::from_str(&timing.header()).unwrap_or(HeaderValue::from_static("queue")),
    )?;
    let no_body = session.req_header().method == Method::HEAD || body.is_empty();
    session.write_response_header(Box::new(head)).await?;
    if no_body {
        session.finish_body().await
    } else {
        session.write_response_body(body, true).await
    }
}
