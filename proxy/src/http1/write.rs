//! Replies on the wire of HTTP/1.1.

use std::io;

use control::limits;
use http::StatusCode;
use tokio::io::AsyncWriteExt;

use super::Connection;
use crate::{
    bound,
    chunked::{LAST_CHUNK, write_chunk},
    client::{Body, Reply},
    date,
    fields::{write_field, write_number},
    flow::{Flow, Next},
    request::Version,
};

/// A body up to here goes out together with its head.
const TOGETHER: usize = 16 * 1024;
/// What is gathered of a flowing body before it is written.
const GATHERED: usize = 64 * 1024;

impl Connection<'_> {
    pub(super) async fn write_reply(&mut self, reply: Reply<'_>) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        write_status(&mut out, reply.status);
        reply.fields.write(&mut out);
        date::with(|date| write_field(&mut out, b"date", date));
        let length = reply.length();
        let flows = matches!(reply.body, Body::Flow(_));
        let chunked = flows && length.is_none() && self.version == Version::Http11;
        // An old client knows the end of such a body by the end of the connection.
        self.keep &= !flows || length.is_some() || chunked;
        if chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        } else if let Some(length) = length {
            write_number(&mut out, b"content-length", length);
        }
        match (self.keep, self.version) {
            (false, _) => out.extend_from_slice(b"connection: close\r\n"),
            (true, Version::Http10) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            _ => {}
        }
        out.extend_from_slice(b"\r\n");
        let written = match reply.body {
            Body::Absent(_) => self.write_all(&out).await,
            Body::Whole(body) if body.len() <= TOGETHER => {
                out.extend_from_slice(&body);
                self.write_all(&out).await
            }
            Body::Whole(body) => match self.write_all(&out).await {
                Ok(()) => self.write_all(&body).await,
                failed => failed,
            },
            Body::Flow(flow) => self.write_flow(&mut out, flow, chunked).await,
        };
        self.out = out;
        written
    }

    /// Writes the head and then each piece as it comes.
    async fn write_flow(
        &mut self,
        out: &mut Vec<u8>,
        mut flow: Flow,
        chunked: bool,
    ) -> io::Result<()> {
        loop {
            let ready = if out.len() < GATHERED { flow.ready() } else { None };
            let next = match ready {
                Some(next) => next,
                None => {
                    self.write_all(out).await?;
                    out.clear();
                    flow.next().await
                }
            };
            match next {
                Next::Data(data) if chunked => write_chunk(out, &data),
                Next::Data(data) => out.extend_from_slice(&data),
                Next::End => {
                    if chunked {
                        out.extend_from_slice(LAST_CHUNK);
                    }
                    return self.write_all(out).await;
                }
                Next::Cut => {
                    self.write_all(out).await?;
                    // The connection's end without the body's is how the client learns of it.
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
        }
    }

    /// Writes, as long as the client takes it at a bearable pace.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let written = bound::within(limits::send_within(bytes.len()), write).await;
        written.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn write_status(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}
