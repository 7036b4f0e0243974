//! HTTP/2 frame by frame, for what no client library would send.

use tokio::io::AsyncWriteExt;

use super::world::{Wire, World, quiet};

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// A complete head without a body.
pub(super) const WHOLE: u8 = END_STREAM | END_HEADERS;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

/// What the edge said about a stream, or about the connection as stream 0.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Said {
    Status(u16),
    Reset(u32),
    GoAway(u32),
}

/// A connection after its greeting.
pub(super) struct Frames {
    wire: Wire,
    buffer: Vec<u8>,
}

impl World {
    pub(super) async fn frames(&self) -> Frames {
        let mut frames = Frames { wire: self.client_h2(), buffer: Vec::new() };
        frames.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        frames.send(&frame(SETTINGS, 0, 0, b"")).await;
        quiet().await;
        frames
    }
}

impl Frames {
    async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.wire.stream.write_all(bytes).await; // it may be closed
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.raw(bytes).await;
    }

    /// What has been said once nothing happens any more, and whether the connection was closed.
    pub(super) async fn said(&mut self) -> (Vec<(u32, Said)>, bool) {
        let closed = loop {
            quiet().await;
            match self.wire.stream.try_read_buf(&mut self.buffer) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
            }
        };
        let mut said = Vec::new();
        while let [a, b, c, kind, _, d, e, f, g, rest @ ..] = &self.buffer[..] {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some(payload) = rest.get(..length) else { break };
            let stream = u32::from_be_bytes([*d, *e, *f, *g]);
            let number =
                |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
            match *kind {
                HEADERS => said.push((stream, Said::Status(status(payload)))),
                RST_STREAM => said.push((stream, Said::Reset(number(0)))),
                GOAWAY => said.push((0, Said::GoAway(number(4)))),
                _ => {}
            }
            self.buffer.drain(..9 + length);
        }
        (said, closed)
    }
}

/// The status that a block of fields begins with (RFC 7541, 6 and appendix A).
fn status(block: &[u8]) -> u16 {
    match block {
        [first @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)],
        // Three digits of a literal, in Huffman's code or not: 4, then two bytes, or three digits.
        [_, 3, digits @ ..] => {
            std::str::from_utf8(&digits[..3]).map_or(0, |d| d.parse().unwrap_or(0))
        }
        _ => 0,
    }
}

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Fields as literals that nobody remembers (RFC 7541, 6.2.2).
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|l| *l < 127).expect("short"));
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The usual fields of a request, and more.
pub(super) fn get(more: &[(&str, &str)]) -> Vec<u8> {
    let usual =
        [(":method", "GET"), (":scheme", "http"), (":authority", "f.example"), (":path", "/fn/f")];
    block(&[&usual, more].concat())
}
