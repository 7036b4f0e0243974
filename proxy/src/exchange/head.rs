//! The head of a container's answer, checked as it comes. It is stricter than HTTP asks for: runners
//! write every byte of it themselves (runners/PROTOCOL.md), so a head that looks unusual was not
//! written by a runner.

use bytes::Buf;
use control::limits;
use http::StatusCode;

use super::Fault;
use crate::{
    fields::{self, Fields, Malformed},
    head::{self, Scan},
    hop,
    link::Link,
};

const VERSION: &[u8] = b"HTTP/1.1 ";
const OUTCOME: &[u8] = b"x-grid-outcome";
/// Headers that the runner adds to those of the function.
const RUNNERS_OWN: usize = 8;

/// What a head says.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    /// Those that are for the public.
    pub(super) fields: Fields,
    /// What `content-length` says; none when there is none.
    pub(super) length: Option<u64>,
    /// The body comes in chunks.
    pub(super) chunked: bool,
    /// The runner says that the function failed.
    pub(super) failed: bool,
    /// The runner says that it has not begun the request, because it was called back.
    pub(super) called_back: bool,
    /// No other request may follow.
    pub(super) closes: bool,
}

/// Reads one head. What came after it stays in the link's buffer.
pub(super) async fn read(link: &mut Link) -> Result<Head, Fault> {
    let mut scan = Scan::default();
    // It may have come together with the answer before it.
    let mut is_here = !link.buffer.is_empty();
    loop {
        if !std::mem::take(&mut is_here) && link.read(usize::MAX).await.map_err(super::closed)? == 0
        {
            return Err(Fault::Closed);
        }
        let buffer = &mut link.buffer;
        let end = scan.look(buffer).map_err(garbled)?;
        if end.unwrap_or(buffer.len()) > limits::RESPONSE_HEADER_BYTES {
            let most = limits::RESPONSE_HEADER_BYTES;
            return Err(Fault::Garbled(format!("headers of more than {most} bytes")));
        }
        if let Some(end) = end {
            let head = Head::parse(&buffer[..end])?;
            buffer.advance(end);
            return Ok(head);
        }
        // Whoever speaks something else may be waiting for us to speak; nobody should have to wait.
        let seen = buffer.len().min(VERSION.len());
        if buffer[..seen] != VERSION[..seen] {
            return Err(garbled(Malformed("not HTTP/1.1")));
        }
        if let Some(line) = scan.first_line(buffer) {
            Head::begin(line).map_err(garbled)?;
        }
    }
}

impl Head {
    fn parse(text: &[u8]) -> Result<Self, Fault> {
        let mut lines = head::lines(text);
        let mut head = Self::begin(lines.next().unwrap_or_default()).map_err(garbled)?;
        for (number, line) in lines.enumerate() {
            if number >= limits::RESPONSE_HEADERS + RUNNERS_OWN {
                let most = limits::RESPONSE_HEADERS;
                return Err(Fault::Garbled(format!("more than {most} headers")));
            }
            head.add(line).map_err(garbled)?;
        }
        Ok(head)
    }

    /// `HTTP/1.1 200 OK`. Informational answers and upgrades are no answers to a request.
    fn begin(line: &[u8]) -> Result<Self, Malformed> {
        let rest = line.strip_prefix(VERSION).ok_or(Malformed("not HTTP/1.1"))?;
        let (code, reason) = rest.split_at(rest.len().min(3));
        let status = StatusCode::from_bytes(code).ok();
        let status = status.filter(|status| (200..=599).contains(&status.as_u16()));
        let status = status.ok_or(Malformed("a status that is not 200 to 599"))?;
        let plain =
            |reason: &[u8]| reason.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f));
        let good = reason.is_empty() || (reason[0] == b' ' && plain(reason));
        if !good {
            return Err(Malformed("a status line that is not one"));
        }
        Ok(Self {
            status,
            fields: Fields::of_answer(),
            length: None,
            chunked: false,
            failed: false,
            called_back: false,
            closes: false,
        })
    }

    /// `name: value`.
    fn add(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let (name, value) = self.fields.push_line(line)?;
        match name {
            b"content-length" => {
                let length = fields::length(value).filter(|_| self.length.is_none());
                self.length = Some(length.ok_or(Malformed("not one plain content-length"))?);
            }
            b"transfer-encoding" => {
                if value != b"chunked" || self.chunked {
                    return Err(Malformed("an unknown transfer-encoding"));
                }
                self.chunked = true;
            }
            b"connection" => {
                self.closes |= value.eq_ignore_ascii_case(b"close");
                if !self.closes && !value.eq_ignore_ascii_case(b"keep-alive") {
                    return Err(Malformed("an unknown connection option"));
                }
            }
            // The edge says it.
            b"x-request-id" => {}
            OUTCOME => {
                self.failed = value == b"error";
                self.called_back = value == b"called-back";
            }
            b"date" => {} // the edge writes its own
            _ if hop::passes(name) => return Ok(()),
            _ => {}
        }
        self.fields.pop();
        Ok(())
    }
}

fn garbled(odd: Malformed) -> Fault {
    Fault::Garbled(odd.0.to_owned())
}
