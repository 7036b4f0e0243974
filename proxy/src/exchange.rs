//! One request to one replica and back. Everything that comes back is checked here and in `head`:
//! what a container sends is not trusted. Pingora's client session is made for servers that are:
//! it takes far larger heads, folded lines, a length beside chunks, and for an answer also what came
//! before the request.

mod head;

use std::{io, pin::Pin, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use control::limits;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use pingora_core::protocols::{Stream, http::v1::client::http_req_header_to_wire};
use pingora_http::RequestHeader;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    time::Instant,
};

use head::Head;

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
    mut link: Stream,
    request: Box<RequestHeader>,
    body: Bytes,
    most_bytes: usize,
    deadline: Instant,
) -> Result<(Answer, Option<Stream>), Fault> {
    let exchange = async {
        // What a function sent while nobody asked must not become anybody's answer.
        match news(&mut link).await {
            News::Nothing => {}
            News::Bytes => return Err(Fault::Garbled("bytes before the request".to_owned())),
            News::End => return Err(Fault::Closed),
        }
        send(&mut link, &request, &body).await?;
        let (answer, stays) = receive(&mut link, &request.method, most_bytes).await?;
        let stays = stays && matches!(news(&mut link).await, News::Nothing);
        Ok((answer, stays.then_some(link)))
    };
    tokio::time::timeout_at(deadline, exchange).await.unwrap_or(Err(Fault::TimedOut))
}

/// Asks the runner itself: `/ready` or `/health`. Gives the status, the message of a failure, and
/// the connection when it can serve a request.
pub(crate) async fn probe(
    link: Stream,
    path: &str,
    within: Duration,
) -> Result<(u16, String, Option<Stream>), Fault> {
    let mut request = RequestHeader::build(Method::GET, path.as_bytes(), Some(1))
        .map_err(|e| Fault::Garbled(e.to_string()))?;
    let host = request.insert_header(header::HOST, "runner");
    host.map_err(|e| Fault::Garbled(e.to_string()))?;
    let deadline = Instant::now() + within;
    let (answer, link) =
        run(link, Box::new(request), Bytes::new(), limits::MESSAGE_CHARS * 4, deadline).await?;
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

async fn send(link: &mut Stream, request: &RequestHeader, body: &[u8]) -> Result<(), Fault> {
    let head = http_req_header_to_wire(request)
        .ok_or_else(|| Fault::Garbled("the request cannot be written".to_owned()))?;
    link.write_all(&head).await.map_err(closed)?;
    link.write_all(body).await.map_err(closed)?;
    link.flush().await.map_err(closed)
}

/// The answer, and whether the connection can serve another request.
async fn receive(
    link: &mut Stream,
    method: &Method,
    most_bytes: usize,
) -> Result<(Answer, bool), Fault> {
    let mut buffer = BytesMut::new();
    let head = head::read(link, &mut buffer).await?;
    let length = body_length(&head, method)?;
    if length > most_bytes {
        return Err(Fault::TooLarge);
    }
    // Never more than was promised, and what is promised is bounded.
    buffer.reserve(length.saturating_sub(buffer.len()));
    while buffer.len() < length {
        let missing = (length - buffer.len()) as u64;
        if link.take(missing).read_buf(&mut buffer).await.map_err(closed)? == 0 {
            return Err(Fault::Closed);
        }
    }
    let body = buffer.split_to(length).freeze();
    let stays = !head.closes && buffer.is_empty();
    Ok((Answer { status: head.status, headers: head.headers, body, failed: head.failed }, stays))
}

/// Bytes that follow a head. Runners say it of every answer.
fn body_length(head: &Head, method: &Method) -> Result<usize, Fault> {
    let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    match head.length {
        _ if method == Method::HEAD => Ok(0),
        None | Some(0) if bodiless => Ok(0),
        Some(length) if !bodiless => Ok(length),
        Some(_) => Err(Fault::Garbled(format!("a body with status {}", head.status.as_u16()))),
        None => Err(Fault::Garbled("no content-length".to_owned())),
    }
}

/// What an idle connection holds.
enum News {
    Nothing,
    Bytes,
    End,
}

/// Looks without waiting.
async fn news(link: &mut Stream) -> News {
    let look = std::future::poll_fn(|context| {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        Poll::Ready(match Pin::new(&mut *link).poll_read(context, &mut byte) {
            Poll::Pending => News::Nothing,
            Poll::Ready(Ok(())) if !byte.filled().is_empty() => News::Bytes,
            Poll::Ready(_) => News::End,
        })
    });
    // A task that has done much already is otherwise told that there is nothing.
    tokio::task::unconstrained(look).await
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
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    ) && !name.as_str().starts_with("proxy-")
        && !name.as_str().starts_with(INTERNAL)
}

fn closed(_: io::Error) -> Fault {
    Fault::Closed
}

#[cfg(test)]
mod tests;
