//! A small HTTP/1.1 client over a plain socket: it sends exactly the bytes it is told to, and knows
//! when an answer ends, so that framing and connection reuse can be tested.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// No answer takes longer; a test that hits this has found a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer with its whole body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// All values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, v)| v.as_str()).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {} {}", self.status, self.text()))
    }

    /// The `code` of the edge's own error, whose shape and headers are checked.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        let keys: Vec<_> = body.as_object().expect("an object").keys().cloned().collect();
        assert_eq!(keys, ["code", "message", "request_id"], "{body}");
        assert_eq!(body["request_id"].as_str(), self.header("x-request-id"), "{body}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
        self.assert_traceable();
        body["code"].as_str().expect("a text").to_owned()
    }

    /// Every public answer has a request id and says where the time went.
    pub(crate) fn assert_traceable(&self) {
        assert!(self.header("x-request-id").is_some_and(|id| !id.is_empty()), "{self:?}");
        let timing = self.all("server-timing").join(", ");
        for part in ["queue;dur=", "wake;dur=", "exec;dur="] {
            assert!(timing.contains(part), "{timing}");
        }
    }
}

/// One connection.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_write_timeout(Some(PATIENCE)).expect("an option");
        Self(BufReader::new(stream))
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("sent");
    }

    /// Sends bytes; an error when the other side has hung up.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a request with its body, framed by Content-Length when there is one.
    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || ["POST", "PUT", "PATCH"].contains(&method) {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        // One that is refused early may find the connection closed before it has sent everything.
        let sent = self.try_send(head).and_then(|()| self.try_send(body));
        match self.try_answer(method == "HEAD") {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {target}: no answer: {error} (sent: {sent:?})"),
        }
    }

    /// Reads one line, for example of an interim answer.
    pub(crate) fn line(&mut self) -> String {
        self.try_line().expect("a line")
    }

    fn try_line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Reads an answer to anything but HEAD.
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer(false).expect("an answer")
    }

    pub(crate) fn try_answer(&mut self, to_head: bool) -> std::io::Result<Answer> {
        let status_line = self.try_line()?;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        self.behind_status(status, to_head)
    }

    /// Reads an answer whose status line, that of a success, was read.
    pub(crate) fn rest_of_answer(&mut self) -> Answer {
        self.behind_status(200, false).expect("an answer")
    }

    fn behind_status(&mut self, status: u16, to_head: bool) -> std::io::Result<Answer> {
        let mut answer = Answer { status, headers: Vec::new(), body: Vec::new() };
        loop {
            let line = self.try_line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("a header line");
            answer.headers.push((name.to_owned(), value.trim().to_owned()));
        }
        if to_head || matches!(status, 100..=199 | 204 | 304) {
            return Ok(answer);
        }
        if answer.header("transfer-encoding").is_some_and(|te| te.eq_ignore_ascii_case("chunked")) {
            loop {
                let chunk = self.try_chunk()?;
                if chunk.is_empty() {
                    return Ok(answer);
                }
                answer.body.extend(chunk);
            }
        }
        match answer.header("content-length") {
            Some(length) => {
                answer.body = vec![0; length.parse().expect("a length")];
                self.0.read_exact(&mut answer.body)?;
            }
            None => drop(self.0.read_to_end(&mut answer.body)?),
        }
        Ok(answer)
    }

    /// Reads so many bytes of text.
    pub(crate) fn bytes(&mut self, count: usize) -> String {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).expect("bytes");
        String::from_utf8(bytes).expect("UTF-8")
    }

    /// Reads one chunk of a body; an empty one is the last.
    pub(crate) fn try_chunk(&mut self) -> std::io::Result<Vec<u8>> {
        let size = usize::from_str_radix(&self.try_line()?, 16).expect("a chunk's size");
        let mut chunk = vec![0; size];
        self.0.read_exact(&mut chunk)?;
        self.try_line()?;
        Ok(chunk)
    }

    /// True when something has arrived, or the other side has hung up.
    pub(crate) fn has_news(&self) -> bool {
        let socket = self.0.get_ref();
        socket.set_nonblocking(true).expect("an option");
        let seen = socket.peek(&mut [0]);
        socket.set_nonblocking(false).expect("an option");
        seen.is_ok()
    }

    /// Closes one or both directions.
    pub(crate) fn shutdown(&self, how: std::net::Shutdown) {
        self.0.get_ref().shutdown(how).expect("shut down");
    }

    /// True when the other side closes without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
