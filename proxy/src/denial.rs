//! What the public is told when no function answers: status, code and text.

use std::time::Duration;

use control::service::Obstacle;
use jiff::Timestamp;

use crate::{
    fields::Malformed,
    pool::Refusal,
    rate::{Of, TooMany},
};

/// Methods that a function may be called with, as `Allow` writes them.
pub(crate) const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a request got no answer of a function.
#[derive(Debug)]
pub(crate) enum Denial {
    BadRequest(&'static str),
    /// What came is not HTTP.
    Malformed(Malformed),
    NotFound,
    MethodNotAllowed,
    HeadTimeout(Duration),
    BodyTimeout(Duration),
    BodyTooLarge(usize),
    TargetTooLong,
    HeadersTooLarge,
    /// The client expects something else than `100-continue`.
    Expectation,
    TransferCoding,
    HttpVersion,
    /// Its client, or all clients of its service, ask too often.
    RateLimited(TooMany),
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
            Refusal::Released => Denial::Stopping,
            Refusal::Crashed => Denial::Crashed,
        }
    }
}

impl From<TooMany> for Denial {
    fn from(too_many: TooMany) -> Self {
        Denial::RateLimited(too_many)
    }
}

/// Status, code and text of a denial; none when there is nobody to tell.
pub(crate) fn describe(denial: &Denial) -> Option<(u16, &'static str, String)> {
    let text = |text: &str| text.to_owned();
    Some(match denial {
        Denial::ClientGone => return None,
        Denial::BadRequest(why) => (400, "bad_request", text(why)),
        Denial::Malformed(Malformed(what)) => {
            (400, "bad_request", format!("The request is not valid HTTP: {what}."))
        }
        Denial::NotFound => (404, "not_found", text("No function is deployed at this address.")),
        Denial::MethodNotAllowed => {
            (405, "method_not_allowed", format!("Functions answer to {ALLOW}."))
        }
        Denial::HeadTimeout(within) => (
            408,
            "head_timeout",
            format!("The request's head did not arrive within {} s.", within.as_secs()),
        ),
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
        Denial::Expectation => (
            417,
            "expectation_failed",
            text("The only expectation that is understood is 100-continue."),
        ),
        Denial::TransferCoding => (
            501,
            "transfer_coding_not_supported",
            text("The only transfer coding that is understood is chunked."),
        ),
        Denial::HttpVersion => (
            505,
            "http_version_not_supported",
            text("This server speaks HTTP/1.0, HTTP/1.1 and, over TLS, HTTP/2."),
        ),
        Denial::RateLimited(TooMany { of: Of::Client, .. }) => {
            (429, "rate_limited", text("Too many requests from your address. Try again later."))
        }
        Denial::RateLimited(TooMany { of: Of::Service, .. }) => {
            (429, "rate_limited", text("Too many requests to this function. Try again later."))
        }
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
pub(crate) fn ends_connection(denial: &Denial) -> bool {
    matches!(
        denial,
        Denial::HeadTimeout(_)
            | Denial::BodyTimeout(_)
            | Denial::BadRequest(_)
            | Denial::Malformed(_)
            | Denial::Expectation
            | Denial::TransferCoding
            | Denial::HttpVersion
            | Denial::Stopping
    )
}

pub(crate) fn retry_after(denial: &Denial) -> Option<i64> {
    match denial {
        Denial::RateLimited(too_many) => i64::try_from(too_many.seconds()).ok(),
        Denial::QueueFull | Denial::NoReplica | Denial::Stopping => Some(1),
        Denial::Obstacle(obstacle) => {
            let wait = obstacle.retry_at.as_second() - Timestamp::now().as_second();
            Some(wait.clamp(1, 60))
        }
        _ => None,
    }
}
