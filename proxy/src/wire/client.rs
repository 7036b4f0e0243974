//! The client's end of HTTP/1.1: sends bytes as they are, and reads answers with a reader of its own.

use std::io;

use tokio::{io::AsyncWriteExt, net::UnixStream};

use super::world::{Wire, quiet};

/// What came back, and whether more can come.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) answers: Vec<Answer>,
    /// What is no complete answer.
    pub(super) rest: Vec<u8>,
    pub(super) closed: bool,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// With the status line.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Wire {
    /// Sends bytes; a connection that is closed takes none.
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// What is there once nothing happens any more.
    pub(super) async fn told(&mut self) -> Told {
        quiet().await;
        let (bytes, closed) = drain(&mut self.stream).await;
        let (answers, rest) = split(&bytes, false);
        Told { answers, rest, closed }
    }

    /// Sends one request and gets its one answer.
    pub(super) async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).await;
        let mut told = self.told().await;
        assert!(told.rest.is_empty() && told.answers.len() == 1, "{told:?}");
        told.answers.remove(0)
    }

    /// Whether another request is answered.
    pub(super) async fn is_usable(&mut self) -> bool {
        self.send("GET /fn/f/usable HTTP/1.1\r\nHost: f.example\r\n\r\n").await;
        let told = self.told().await;
        told.rest.is_empty() && matches!(&told.answers[..], [one] if one.body == b"/fn/f/usable")
    }
}

/// All that can be read now, and whether that was the end.
async fn drain(stream: &mut UnixStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match stream.try_read_buf(&mut bytes) {
            Ok(0) => return (bytes, true),
            Ok(_) => quiet().await, // there is room for more now
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (bytes, false),
            Err(_) => return (bytes, true),
        }
    }
}

/// Answers one after the other, and what follows the last complete one.
pub(super) fn split(mut bytes: &[u8], to_head: bool) -> (Vec<Answer>, Vec<u8>) {
    let mut answers = Vec::new();
    while let Some((answer, length)) = read(bytes, to_head) {
        answers.push(answer);
        bytes = &bytes[length..];
    }
    (answers, bytes.to_vec())
}

fn read(bytes: &[u8], to_head: bool) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).expect("a head in ASCII");
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().expect("a status");
    let mut answer = Answer { status, head, body: Vec::new() };
    let mut rest = &bytes[end..];
    if to_head || matches!(status, 100..=199 | 204 | 304) {
    } else if let Some(length) = answer.field("content-length") {
        let length = length.parse().expect("a length");
        answer.body = rest.get(..length)?.to_vec();
        rest = &rest[length..];
    } else if answer.field("transfer-encoding") == Some("chunked") {
        loop {
            let line = rest.windows(2).position(|two| two == b"\r\n")?;
            let size = std::str::from_utf8(&rest[..line]).expect("a size");
            let size = usize::from_str_radix(size, 16).expect("a size");
            let piece = rest.get(line + 2..line + 4 + size)?;
            assert!(piece.ends_with(b"\r\n"));
            answer.body.extend_from_slice(&piece[..size]);
            rest = &rest[line + 4 + size..];
            if size == 0 {
                break;
            }
        }
    } else {
        return None; // its end is the connection's
    }
    Some((answer, bytes.len() - rest.len()))
}

impl Answer {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.split("\r\n").skip(1);
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The code of a denial; none when the function answered.
    pub(super) fn code(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        assert_eq!(body["request_id"].as_str(), self.field("x-request-id"));
        Some(body["code"].as_str()?.to_owned())
    }

    /// Status and, for a denial, its code.
    pub(super) fn short(&self) -> String {
        match self.code() {
            None => self.status.to_string(),
            Some(code) => format!("{} {code}", self.status),
        }
    }
}
