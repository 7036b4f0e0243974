//! One request to one replica and back, over the connection that the replica dialled. Everything that
//! comes back is checked here and in `head`: what a container sends is not trusted.

mod head;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use control::limits;
use http::{Method, StatusCode};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    bound::Alarm,
    chunked::Chunked,
    fields::Fields,
    flow::Source,
    link::{Link, News},
};

use head::Head;

/// An answer up to here is read whole before it is passed on; a larger one flows.
const WHOLE: u64 = 64 * 1024;
/// How long a runner is waited for until it has said of each request that was called back that it has
/// not begun it.
const CALLED_BACK: Duration = Duration::from_secs(1);

/// What a replica answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    /// The runner says that the function failed; the body tells how.
    pub(crate) failed: bool,
    pub(crate) body: Begun,
}

/// How much of an answer is there.
#[derive(Debug)]
pub(crate) enum Begun {
    /// All of it; the connection comes back when it can serve another request.
    Whole { body: Bytes, link: Option<Link> },
    /// None, but so long would it be: the answer to HEAD.
    Absent { length: Option<u64>, link: Option<Link> },
    /// Its head; the rest is still to be read.
    Rest(Rest),
    /// Nothing: the request was called back and has not begun.
    CalledBack { link: Option<Link> },
}

/// A body that is still to be read.
#[derive(Debug)]
pub(crate) struct Rest {
    link: Link,
    framing: Framing,
    /// Whether the connection can serve another request afterwards.
    closes: bool,
    most_bytes: usize,
    deadline: Instant,
}

#[derive(Debug)]
enum Framing {
    Length(u64),
    Chunked(Chunked),
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

/// What a runner says for itself: `{"error": "load_failed", "message": "…"}` of a failure,
/// `{"status": "ready", "calls_back": true}` when it is ready.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Said {
    /// The kind of a failure.
    pub(crate) error: String,
    pub(crate) message: String,
    /// It looks whether a request that was sent ahead was called back.
    pub(crate) calls_back: bool,
}

/// Sends the request whose head is in `link.wire`, unless it was sent ahead, and reads the answer, or its
/// head when it is a long one. All of it, the rest too, happens before the deadline.
pub(crate) async fn run(
    mut link: Link,
    method: &Method,
    body: &[u8],
    most_bytes: usize,
    deadline: Instant,
    alarm: &mut Alarm,
) -> Result<Answer, Fault> {
    let exchange = async {
        let was_sent_ahead = link.is_awaiting;
        if !was_sent_ahead {
            // What a function sent while nobody asked must not become anybody's answer.
            match link.news().await {
                News::Nothing => {}
                News::Bytes => return Err(Fault::Garbled("bytes before the request".to_owned())),
                News::End => return Err(Fault::Closed),
            }
            link.send(body).await.map_err(closed)?;
        }
        let head = head::read(&mut link).await?;
        if head.called_back && !was_sent_ahead {
            return Err(Fault::Garbled("nobody called the request back".to_owned()));
        }
        receive(link, head, method, most_bytes, deadline).await
    };
    alarm.before(deadline, exchange).await.unwrap_or(Err(Fault::TimedOut))
}

/// Asks the runner itself: `/ready` or `/health`, with a JSON body when there is something to hand
/// over. Gives the status, what it says, and the connection when it can serve a request.
pub(crate) async fn probe(
    mut link: Link,
    path: &str,
    json: Option<&str>,
    within: Duration,
) -> Result<(u16, Said, Option<Link>), Fault> {
    link.wire.clear();
    // A Vec takes everything.
    let _ = match json {
        None => write!(link.wire, "GET {path} HTTP/1.1\r\nhost: runner\r\n\r\n"),
        Some(json) => write!(
            link.wire,
            "POST {path} HTTP/1.1\r\nhost: runner\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            json.len()
        ),
    };
    let method = if json.is_none() { Method::GET } else { Method::POST };
    let body = json.unwrap_or_default().as_bytes();
    let deadline = Instant::now() + within;
    let answer =
        run(link, &method, body, limits::MESSAGE_CHARS * 4, deadline, &mut Alarm::default())
            .await?;
    match answer.body {
        Begun::Whole { body, link } => Ok((answer.status.as_u16(), Said::read(&body), link)),
        _ => Err(Fault::Garbled("a long answer of the runner itself".to_owned())),
    }
}

impl Said {
    /// Nothing of what is no such thing.
    pub(crate) fn read(body: &[u8]) -> Self {
        let said: Self = serde_json::from_slice(body).unwrap_or_default();
        let clean = |text: String| {
            let mut text: String = text
                .chars()
                .filter(|c| !c.is_control() || *c == '\n')
                .take(limits::MESSAGE_CHARS)
                .collect();
            text.truncate(text.trim_end().len());
            text
        };
        Self { error: clean(said.error), message: clean(said.message), ..said }
    }
}

async fn receive(
    mut link: Link,
    head: Head,
    method: &Method,
    most_bytes: usize,
    deadline: Instant,
) -> Result<Answer, Fault> {
    let (status, failed, closes) = (head.status, head.failed, head.closes);
    let body = match framing(&head, method, most_bytes)? {
        None | Some(Framing::Length(0)) if head.called_back => {
            Begun::CalledBack { link: spared(link, closes).await }
        }
        _ if head.called_back => return Err(Fault::Garbled("a call back with a body".to_owned())),
        None => {
            let link = spared(link, closes).await;
            Begun::Absent { length: head.length, link }
        }
        Some(Framing::Length(length)) if length <= WHOLE || failed => {
            let body = whole(&mut link, length).await?;
            let link = spared(link, closes).await;
            Begun::Whole { body, link }
        }
        Some(_) if failed => return Err(Fault::Garbled("a failure in chunks".to_owned())),
        Some(framing) => Begun::Rest(Rest { link, framing, closes, most_bytes, deadline }),
    };
    Ok(Answer { status, fields: head.fields, failed, body })
}

/// How the body behind a head is framed; none when there is none, whatever the head says.
fn framing(head: &Head, method: &Method, most_bytes: usize) -> Result<Option<Framing>, Fault> {
    let bodiless = matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    match (head.length, head.chunked) {
        _ if method == Method::HEAD => Ok(None),
        (None | Some(0), false) if bodiless => Ok(Some(Framing::Length(0))),
        _ if bodiless => {
            Err(Fault::Garbled(format!("a body with status {}", head.status.as_u16())))
        }
        (Some(length), false) if length > most_bytes as u64 => Err(Fault::TooLarge),
        (Some(length), false) => Ok(Some(Framing::Length(length))),
        (None, true) => Ok(Some(Framing::Chunked(Chunked::of_runner()))),
        (Some(_), true) => Err(Fault::Garbled("a content-length beside chunks".to_owned())),
        (None, false) => Err(Fault::Garbled("no content-length".to_owned())),
    }
}

/// A body of which all is promised; never reads more than that.
async fn whole(link: &mut Link, length: u64) -> Result<Bytes, Fault> {
    let length = usize::try_from(length).map_err(|_| Fault::TooLarge)?;
    link.buffer.reserve(length.saturating_sub(link.buffer.len()));
    while link.buffer.len() < length {
        if link.read(length - link.buffer.len()).await.map_err(closed)? == 0 {
            return Err(Fault::Closed);
        }
    }
    Ok(link.buffer.split_to(length).freeze())
}

/// The connection, when an answer has ended and nothing else came that nobody asked for.
async fn spared(mut link: Link, closes: bool) -> Option<Link> {
    link.is_awaiting = false;
    if link.called_back > 0 && !timeout(CALLED_BACK, all_called_back(&mut link)).await.ok()? {
        return None;
    }
    if link.has_ahead() {
        return (!closes).then_some(link);
    }
    let stays = !closes && link.buffer.is_empty();
    (stays && link.news().await == News::Nothing).then_some(link)
}

/// Whether the runner has not begun what was called back; it says so for each, after the answer before.
async fn all_called_back(link: &mut Link) -> bool {
    while link.called_back > 0 {
        match head::read(link).await {
            Ok(head) if head.called_back && !head.closes && head.length == Some(0) => {}
            _ => return false,
        }
        link.called_back -= 1;
    }
    true
}

impl Rest {
    /// Bytes of the body, when the head said so.
    pub(crate) fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked(_) => None,
        }
    }

    /// Reads the body to its end and hands each piece on as it comes. The connection comes back when
    /// it can serve another request.
    pub(crate) async fn pump(self, source: Source) -> Result<Option<Link>, Fault> {
        timeout_at(self.deadline, self.pump_on(source)).await.unwrap_or(Err(Fault::TimedOut))
    }

    async fn pump_on(mut self, mut source: Source) -> Result<Option<Link>, Fault> {
        let mut left = self.most_bytes;
        let mut piece = BytesMut::new();
        loop {
            let ended = match &mut self.framing {
                Framing::Length(length) => {
                    let here = (self.link.buffer.len() as u64).min(*length);
                    *length -= here;
                    let here = usize::try_from(here).map_err(|_| Fault::TooLarge)?;
                    piece = self.link.buffer.split_to(here);
                    *length == 0
                }
                Framing::Chunked(chunked) => chunked
                    .decode(&mut self.link.buffer, &mut piece)
                    .map_err(|odd| Fault::Garbled(odd.0.to_owned()))?,
            };
            left = left.checked_sub(piece.len()).ok_or(Fault::TooLarge)?;
            source.send(piece.split().freeze());
            if ended {
                source.end();
                return Ok(spared(self.link, self.closes).await);
            }
            if self.link.read(usize::MAX).await.map_err(closed)? == 0 {
                return Err(Fault::Closed);
            }
        }
    }
}

fn closed(_: io::Error) -> Fault {
    Fault::Closed
}

#[cfg(test)]
mod tests;
