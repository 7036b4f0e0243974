//! The connection over which a sandbox calls home: HTTP requests to it, and answers that are not
//! trusted.

use std::{error::Error as _, io};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, task::JoinSet};

use crate::limits;

/// A runner's end of the connection. The connection ends with this.
pub(super) struct Line {
    sender: SendRequest<Full<Bytes>>,
    _connection: JoinSet<()>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The connection has ended.
    Closed,
    /// It is no HTTP.
    Garbled,
    /// The body is larger than allowed.
    TooLarge,
}

impl Line {
    pub(super) async fn open(stream: UnixStream) -> Result<Self, Broken> {
        let (sender, connection) = http1::Builder::new()
            .max_headers(limits::RESPONSE_HEADERS)
            .max_buf_size(limits::RESPONSE_HEADER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Broken::from(&error))?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // What is wrong with it, the request tells.
            let _ = connection.await;
        });
        Ok(Self { sender, _connection: task })
    }

    /// One request with a JSON body, and its answer, of so many bytes at most.
    pub(super) async fn post(
        &mut self,
        path: &'static str,
        body: Bytes,
        most: usize,
    ) -> Result<(StatusCode, Bytes), Broken> {
        let request = Request::post(path)
            .header(header::HOST, "function")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| Broken::Garbled)?;
        self.sender.ready().await.map_err(|error| Broken::from(&error))?;
        let answer = self.sender.send_request(request).await;
        let (head, body) = answer.map_err(|error| Broken::from(&error))?.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return Broken::TooLarge;
            }
            error.downcast_ref::<hyper::Error>().map_or(Broken::Garbled, Broken::from)
        })?;
        Ok((head.status, body.to_bytes()))
    }
}

impl From<&hyper::Error> for Broken {
    fn from(error: &hyper::Error) -> Self {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        let hangup = |cause: &io::Error| {
            use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
            matches!(cause.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
        };
        let closed = error.is_closed() || error.is_canceled() || error.is_incomplete_message();
        if closed || cause.is_some_and(hangup) { Self::Closed } else { Self::Garbled }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What becomes of a request that is answered with these bytes, and then with a hangup.
    async fn asked(answer: &'static [u8]) -> Result<(StatusCode, Bytes), Broken> {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        tokio::spawn(async move {
            let mut request = vec![0; 4096];
            let _ = theirs.read(&mut request).await;
            let _ = theirs.write_all(answer).await;
        });
        let mut line = Line::open(ours).await.expect("open");
        line.post("/invoke", Bytes::from_static(b"{}"), 10).await
    }

    #[tokio::test]
    async fn an_answer_is_read_within_its_bounds() {
        let good = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789";
        let (status, body) = asked(good).await.expect("an answer");
        assert_eq!((status, &body[..]), (StatusCode::OK, &b"0123456789"[..]));
        let chunked = b"HTTP/1.1 503 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        assert_eq!(asked(chunked).await.expect("an answer").1, "ab");
        for long in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n0123456789a"[..],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n0123456789abcdef",
        ] {
            assert_eq!(asked(long).await, Err(Broken::TooLarge));
        }
    }

    #[tokio::test]
    async fn garbage_and_a_hangup_are_told_apart() {
        for garbage in [
            &b"\x00\x01\x02\x03\r\n\r\n"[..],
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx y: 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert_eq!(asked(garbage).await, Err(Broken::Garbled), "{garbage:?}");
        }
        for cut in [&b""[..], b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n01"] {
            assert_eq!(asked(cut).await, Err(Broken::Closed), "{cut:?}");
        }
    }

    #[tokio::test]
    async fn a_head_without_end_is_not_read_to_its_end() {
        let head = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 1 << 20]].concat();
        assert_eq!(asked(head.leak()).await, Err(Broken::Garbled));
        let lines = "x: 1\r\n".repeat(limits::RESPONSE_HEADERS + 1);
        let many = format!("HTTP/1.1 200 OK\r\n{lines}content-length: 0\r\n\r\n");
        assert_eq!(asked(many.leak().as_bytes()).await, Err(Broken::Garbled));
    }
}
