//! The only place that writes to the public: a function's answer, or a denial as a small JSON text
//! with a code and the request's id.

use std::time::Duration;

use bytes::Bytes;
use control::service::Obstacle;
use http::{HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use pingora_core::{Result, protocols::http::ServerSession};
use pingora_http::ResponseHeader;

use crate::{admit, exchange::Answer, pool::Refusal};

/// Why a request got no answer of a function.
#[derive(Debug)]
pub(crate) enum Denial {
    BadRequest(&'static str),
    NotFound,
    MethodNotAllowed,
    BodyTimeout(Duration),
    BodyTooLarge(usize),
    TargetTooLong,
    HeadersTooLarge,
    QueueFull,
    NoReplica,
    Obstacle(Obstacle),
    Stopping,
    /// The function's own failure, in the runner's words: kind and message.
    Function {
        kind: String,
        message: String,
    },
    Crashed,
    InvalidAnswer,
    AnswerTooLarge(usize),
    Timeout(Duration),
    /// There is nobody to answer.
    ClientGone,
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::QueueFull => Denial::QueueFull,
            Refusal::NoReplica => Denial::NoReplica,
            Refusal::Obstacle(obstacle) => Denial::Obstacle(obstacle),
            Refusal::Deleted => Denial::NotFound,
        }
    }
}

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
pub(crate) async fn denial(
    session: &mut ServerSession,
    denial: &Denial,
    request_id: &str,
    timing: &Timing,
) -> Result<bool> {
    let Some((status, code, message)) = describe(denial) else { return Ok(false) };
    let body = serde_json::json!({"code": code, "message": message, "request_id": request_id});
    let body = Bytes::from(format!("{body}\n"));
    let mut head = ResponseHeader::build(status, Some(8))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    if let Denial::MethodNotAllowed = denial {
        head.insert_header(header::ALLOW, admit::ALLOW)?;
    }
    if let Some(seconds) = retry_after(denial) {
        head.insert_header(header::RETRY_AFTER, seconds)?;
    }
    if ends_connection(denial) || session.req_header().method == Method::CONNECT {
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

/// Status, code and text of a denial; none when there is nobody to tell.
fn describe(denial: &Denial) -> Option<(u16, &'static str, String)> {
    let text = |text: &str| text.to_owned();
    Some(match denial {
        Denial::ClientGone => return None,
        Denial::BadRequest(why) => (400, "bad_request", text(why)),
        Denial::NotFound => (404, "not_found", text("No function is deployed at this address.")),
        Denial::MethodNotAllowed => {
            (405, "method_not_allowed", format!("Functions answer to {}.", admit::ALLOW))
        }
        Denial::BodyTimeout(within) => (
            408,
            "body_timeout",
            format!("The request body did not arrive within {} s.", within.as_secs()),
        ),
        Denial::BodyTooLarge(most) => {
            (413, "body_too_large", format!("The request body exceeds {most} bytes."))
        }
        Denial::TargetTooLong => (
            414,
            "target_too_long",
            format!("The path and query exceed {} bytes.", control::limits::REQUEST_TARGET_BYTES),
        ),
        Denial::HeadersTooLarge => (
            431,
            "headers_too_large",
            format!(
                "The request has more than {} headers or {} bytes of them.",
                control::limits::REQUEST_HEADERS,
                control::limits::REQUEST_HEADER_BYTES
            ),
        ),
        Denial::QueueFull => {
            (429, "queue_full", text("Too many requests wait for this function. Try again later."))
        }
        Denial::NoReplica => (
            503,
            "no_replica",
            text("No replica of this function became free in time. Try again later."),
        ),
        Denial::Obstacle(obstacle) => (503, "unavailable", obstacle.message.clone()),
        Denial::Stopping => (503, "stopping", text("This server is stopping. Try again.")),
        Denial::Function { kind, message } if kind == "ssrf_blocked" => {
            (452, "ssrf_blocked", message.clone())
        }
        Denial::Function { kind, .. } => function_failure(kind),
        Denial::Crashed => (
            502,
            "function_crashed",
            text("The function's process ended before it answered. Its log may say why."),
        ),
        Denial::InvalidAnswer => {
            (502, "invalid_response", text("The function did not give a valid HTTP response."))
        }
        Denial::AnswerTooLarge(most) => {
            (502, "response_too_large", format!("The function's answer exceeds {most} bytes."))
        }
        Denial::Timeout(within) => {
            (504, "timeout", format!("Execution timed out after {}s", within.as_secs()))
        }
    })
}

fn function_failure(kind: &str) -> (u16, &'static str, String) {
    let see_log = "The function's log has the details under this request id.";
    match kind {
        "load_failed" => {
            (502, "load_failed", format!("The function's module does not load. {see_log}"))
        }
        "no_handler" => (502, "no_handler", format!("The function has no such handler. {see_log}")),
        "invalid_result" => (
            502,
            "invalid_response",
            format!("The function's result is not a valid response. {see_log}"),
        ),
        "response_too_large" => {
            (502, "response_too_large", "The function's answer is too large.".to_owned())
        }
        _ => (502, "function_error", format!("The function failed. {see_log}")),
    }
}

/// Whether it is unclear where the next request begins, or there should be none.
fn ends_connection(denial: &Denial) -> bool {
    matches!(denial, Denial::BodyTimeout(_) | Denial::BadRequest(_) | Denial::Stopping)
}

fn retry_after(denial: &Denial) -> Option<i64> {
    match denial {
        Denial::QueueFull | Denial::NoReplica | Denial::Stopping => Some(1),
        Denial::Obstacle(obstacle) => {
            let wait = obstacle.retry_at.as_second() - Timestamp::now().as_second();
            Some(wait.clamp(1, 60))
        }
        _ => None,
    }
}
