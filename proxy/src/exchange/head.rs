//! The head of a container's answer, checked line by line as it comes. It is stricter than HTTP
//! asks for: runners write every byte of it themselves (runners/PROTOCOL.md), so a head that looks
//! unusual was not written by a runner.

use bytes::{Buf, BytesMut};
use control::limits;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora_core::protocols::Stream;
use tokio::io::AsyncReadExt;

use super::{Fault, OUTCOME, passes_through};

const VERSION: &[u8] = b"HTTP/1.1 ";
/// Headers that the runner adds to those of the function.
const RUNNERS_OWN: usize = 8;
/// Room for one read; most answers fit into it with their body.
const READ: usize = 4096;
/// Digits of the largest length that is looked at.
const LENGTH_DIGITS: usize = 15;

/// What a head says.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    /// Those that are for the public.
    pub(super) headers: HeaderMap,
    /// What `content-length` says; none when there is none.
    pub(super) length: Option<usize>,
    /// The runner says that the function failed.
    pub(super) failed: bool,
    /// No other request may follow.
    pub(super) closes: bool,
    lines: usize,
}

/// Reads one head. What came after it stays in `buffer`.
pub(super) async fn read(link: &mut Stream, buffer: &mut BytesMut) -> Result<Head, Fault> {
    let mut head = None;
    let (mut start, mut searched) = (0, 0);
    loop {
        while let Some(found) = buffer[searched..].iter().position(|byte| *byte == b'\n') {
            let end = searched + found;
            if end > limits::RESPONSE_HEADER_BYTES {
                return Err(too_large());
            }
            let line = buffer[start..end].strip_suffix(b"\r");
            let line = line.ok_or_else(|| garbled("a line that does not end in CR LF"))?;
            match head.take() {
                None => head = Some(Head::begin(line)?),
                Some(head) if line.is_empty() => {
                    buffer.advance(end + 1);
                    return Ok(head);
                }
                Some(mut begun) => {
                    begun.add(line)?;
                    head = Some(begun);
                }
            }
            (start, searched) = (end + 1, end + 1);
        }
        searched = buffer.len();
        // Whoever speaks something else may be waiting for us to speak; nobody should have to wait.
        let seen = searched.min(VERSION.len());
        if buffer[..seen] != VERSION[..seen] {
            return Err(garbled("not HTTP/1.1"));
        }
        if searched > limits::RESPONSE_HEADER_BYTES {
            return Err(too_large());
        }
        buffer.reserve(READ);
        if link.read_buf(buffer).await.map_err(|_| Fault::Closed)? == 0 {
            return Err(Fault::Closed);
        }
    }
}

impl Head {
    /// `HTTP/1.1 200 OK`. Informational answers and upgrades are no answers to a request.
    fn begin(line: &[u8]) -> Result<Self, Fault> {
        let rest = line.strip_prefix(VERSION).ok_or_else(|| garbled("not HTTP/1.1"))?;
        let (code, reason) = rest.split_at(rest.len().min(3));
        let status = StatusCode::from_bytes(code).ok();
        let status = status.filter(|status| (200..=599).contains(&status.as_u16()));
        let status = status.ok_or_else(|| garbled("a status that is not 200 to 599"))?;
        let reason = if reason.is_empty() { Some(reason) } else { reason.strip_prefix(b" ") };
        if reason.is_none_or(|reason| HeaderValue::from_bytes(reason).is_err()) {
            return Err(garbled("a status line that is not one"));
        }
        let headers = HeaderMap::with_capacity(16);
        Ok(Self { status, headers, length: None, failed: false, closes: false, lines: 0 })
    }

    /// `name: value`. A line that continues the one before it has no name and is refused.
    fn add(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.lines += 1;
        if self.lines > limits::RESPONSE_HEADERS + RUNNERS_OWN {
            return Err(Fault::Garbled(format!("more than {} headers", limits::RESPONSE_HEADERS)));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let colon = colon.ok_or_else(|| garbled("a header line without a colon"))?;
        let name = HeaderName::from_bytes(&line[..colon])
            .map_err(|_| garbled("a header name that is not one"))?;
        let value = HeaderValue::from_bytes(trim(&line[colon + 1..]))
            .map_err(|_| garbled("a control character in a header value"))?;
        if name == header::CONTENT_LENGTH {
            let length = length(value.as_bytes()).filter(|_| self.length.is_none());
            self.length = Some(length.ok_or_else(|| garbled("not one plain content-length"))?);
        } else if name == header::TRANSFER_ENCODING {
            return Err(garbled("a transfer-encoding"));
        } else if name == header::CONNECTION {
            self.closes |= value.as_bytes().eq_ignore_ascii_case(b"close");
            if !self.closes && !value.as_bytes().eq_ignore_ascii_case(b"keep-alive") {
                return Err(garbled("an unknown connection option"));
            }
        } else if name.as_str() == OUTCOME {
            self.failed = value == "error";
        } else if passes_through(&name) {
            self.headers.append(name, value);
        }
        Ok(())
    }
}

/// A value without the spaces and tabs around it; anything else around it is refused.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A number in digits; signs, spaces and lists are no lengths.
fn length(value: &[u8]) -> Option<usize> {
    let plain = (1..=LENGTH_DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| plain)?.parse().ok()
}

fn too_large() -> Fault {
    Fault::Garbled(format!("headers of more than {} bytes", limits::RESPONSE_HEADER_BYTES))
}

fn garbled(what: &str) -> Fault {
    Fault::Garbled(what.to_owned())
}
