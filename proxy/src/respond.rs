//! The only place that writes to the public: a function's answer, or a denial as a small JSON text
//! with a code and the request's id.

use std::{io, io::Write as _, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::{
    client::{Body, Client, Reply},
    denial::{self, Denial},
    fields::Fields,
    observe::Record,
    request::Request,
};

/// Where a request's time went.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Timing {
    /// Waiting for a replica that others were using.
    pub(crate) queue: Duration,
    /// Waiting for a replica to start.
    pub(crate) wake: Duration,
    /// In the replica, until its answer or the head of a long one.
    pub(crate) exec: Duration,
    /// When `exec` began.
    pub(crate) exec_from: Option<Instant>,
}

/// A function's answer, on its way to the public.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) body: Body,
}

/// Writes a function's answer.
pub(crate) async fn answer<C: Client>(
    client: &mut C,
    answer: Answer,
    request_id: &str,
    record: &mut Record<'_>,
) -> io::Result<()> {
    let Answer { status, mut fields, body } = answer;
    sign(&mut fields, request_id, record);
    record.answers(status, &body);
    let sent = client.send(Reply { status, fields: &fields, body, last: false }).await;
    record.sent(&sent);
    sent
}

/// Writes a denial. False when there was nobody to write to.
pub(crate) async fn deny<C: Client>(
    client: &mut C,
    request: &Request,
    denial: &Denial,
    request_id: &str,
    record: &mut Record<'_>,
) -> io::Result<bool> {
    let Some((status, code, message)) = denial::describe(denial) else { return Ok(false) };
    let body = serde_json::json!({"code": code, "message": message, "request_id": request_id});
    let body = format!("{body}\n");
    let mut fields = Fields::of_answer();
    fields.push("content-type", b"application/json");
    fields.push("cache-control", b"no-store");
    if let Denial::MethodNotAllowed = denial {
        fields.push("allow", denial::ALLOW.as_bytes());
    }
    if let Some(seconds) = denial::retry_after(denial) {
        fields.push("retry-after", seconds.to_string().as_bytes());
    }
    if let Denial::RateLimited(too_many) = denial {
        // As the IETF's draft had them up to its seventh version, which is what clients know.
        let numbers = [
            ("ratelimit-limit", u64::from(too_many.burst)),
            ("ratelimit-remaining", 0),
            ("ratelimit-reset", too_many.seconds()),
        ];
        for (name, number) in numbers {
            fields.push(name, number.to_string().as_bytes());
        }
    }
    sign(&mut fields, request_id, record);
    let body = match request.method {
        Method::HEAD => Body::Absent(Some(body.len() as u64)),
        _ => Body::Whole(Bytes::from(body)),
    };
    record.denied(status, code, &body);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let last = denial::ends_connection(denial);
    let sent = client.send(Reply { status, fields: &fields, body, last }).await;
    record.sent(&sent);
    sent.map(|()| true)
}

/// What every answer carries.
fn sign(fields: &mut Fields, request_id: &str, record: &Record<'_>) {
    fields.push("x-request-id", request_id.as_bytes());
    if record.shows_timing && !record.passed_on {
        time(fields, &record.timing);
    }
}

fn time(fields: &mut Fields, timing: &Timing) {
    let mut text = [0; 96];
    let mut rest = &mut text[..];
    let parts =
        [("queue;dur=", timing.queue), (", wake;dur=", timing.wake), (", exec;dur=", timing.exec)];
    // Times that fill the room do not occur: every wait has a bound.
    let mut write = |piece: &str| drop(rest.write_all(piece.as_bytes()));
    let mut number = itoa::Buffer::new();
    for (name, time) in parts {
        let tenths = u64::try_from(time.as_micros() / 100).unwrap_or(u64::MAX);
        write(name);
        write(number.format(tenths / 10));
        write(".");
        write(number.format(tenths % 10));
    }
    let left = rest.len();
    fields.push("server-timing", &text[..text.len() - left]);
}
