//! A client's connection that speaks HTTP/1.1 (or 1.0): one request after the other. It is ours, and
//! not Pingora's session, because it copies a request's bytes once, bounds the time for a head as a
//! whole, answers what is not HTTP like any other error, and reads as strictly as the other side of
//! the edge.

mod head;
mod write;

use std::io;

pub(crate) use head::is_target;

use bytes::{Bytes, BytesMut};
use control::limits;
use pingora_core::protocols::Stream;
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::{
    bound::Alarm,
    chunked::Chunked,
    client::{Client, Peer, Reply},
    denial::Denial,
    gateway::Gateway,
    head::Scan,
    request::{Request, Version},
    room,
    traffic::{Patience, Traffic},
};

/// Bytes of a head beside target and headers: method, version and line ends.
const SLACK: usize = 4 * 1024;
/// Room for answers that a connection keeps between two requests.
const KEPT: usize = 1024;
/// Bytes of a refused body that are read for the sake of the connection.
const DRAINED: u64 = 256 * 1024;
/// Bytes that are taken from a client that does not wait for its answer.
const AHEAD: usize = 64 * 1024;

/// Serves a connection to its end.
pub(crate) async fn serve(stream: Stream, gateway: &Gateway, peer: &Peer) {
    let mut connection = Connection::new(stream, &gateway.traffic);
    let mut patience = gateway.traffic.patience();
    let mut alarm = Alarm::default();
    let mut request = Request::default();
    loop {
        match connection.next(&mut request, &mut patience, &mut alarm).await {
            Ok(()) => gateway.answer(&mut connection, &request, peer, &mut alarm).await,
            Err(End::Quiet) => return,
            Err(End::Refused(denial)) => {
                connection.keep = false;
                gateway.refuse(&mut connection, &request, peer, denial).await;
            }
        }
        if !connection.go_on().await {
            return connection.linger().await;
        }
    }
}

struct Connection<'a> {
    stream: Stream,
    traffic: &'a Traffic,
    /// What came and has not been used yet.
    buffer: BytesMut,
    out: Vec<u8>,
    version: Version,
    body: Framing,
    /// The client waits for a `100 Continue` before it sends the body.
    expects: bool,
    /// Another request may follow.
    keep: bool,
}

/// What is left of a request's body.
#[derive(Debug)]
enum Framing {
    Length(u64),
    Chunked(Chunked),
    /// Where the next request begins is not known.
    Lost,
}

const NOTHING: Framing = Framing::Length(0);

/// Why there is no next request.
enum End {
    /// The client has gone, or was idle for too long.
    Quiet,
    /// What it sent is no request.
    Refused(Denial),
}

impl<'a> Connection<'a> {
    fn new(stream: Stream, traffic: &'a Traffic) -> Self {
        Self {
            stream,
            traffic,
            buffer: BytesMut::new(),
            out: Vec::new(),
            version: Version::Http11,
            body: NOTHING,
            expects: false,
            keep: true,
        }
    }

    /// Waits for the next request and reads its head.
    async fn next(
        &mut self,
        request: &mut Request,
        patience: &mut Patience,
        alarm: &mut Alarm,
    ) -> Result<(), End> {
        request.clear();
        let begun = self.has_begun()
            || patience.wait(alarm, limits::KEEP_ALIVE, self.begins()).await.unwrap_or(false);
        if !begun {
            return Err(End::Quiet);
        }
        let mut scan = Scan::default();
        let end = match self.head_end(&mut scan, request)? {
            Some(end) => end,
            None => {
                match timeout(limits::REQUEST_HEAD, self.rest_of_head(&mut scan, request)).await {
                    Ok(end) => end?,
                    Err(_) => return Err(End::Refused(Denial::HeadTimeout(limits::REQUEST_HEAD))),
                }
            }
        };
        let meant = head::parse(&self.buffer[..end], request).map_err(End::Refused)?;
        bytes::Buf::advance(&mut self.buffer, end);
        (self.version, self.keep) = (request.version, meant.keep);
        (self.body, self.expects) = (meant.body, meant.expects);
        Ok(())
    }

    /// Whether something of the next request is there. A client may send empty lines behind the body
    /// of the one before.
    fn has_begun(&mut self) -> bool {
        while self.buffer.starts_with(b"\r\n") {
            bytes::Buf::advance(&mut self.buffer, 2);
        }
        !matches!(&self.buffer[..], b"" | b"\r")
    }

    async fn begins(&mut self) -> bool {
        while matches!(self.read().await, Ok(1..)) {
            if self.has_begun() {
                return true;
            }
        }
        false
    }

    async fn rest_of_head(&mut self, scan: &mut Scan, request: &mut Request) -> Result<usize, End> {
        loop {
            match self.read().await {
                Ok(1..) => {}
                _ => return Err(End::Quiet),
            }
            if let Some(end) = self.head_end(scan, request)? {
                return Ok(end);
            }
        }
    }

    fn head_end(&mut self, scan: &mut Scan, request: &mut Request) -> Result<Option<usize>, End> {
        let refused = |denial| End::Refused(denial);
        let end = scan.look(&self.buffer);
        // Whoever speaks another language would wait in vain for us to say so.
        if !matches!(end, Ok(Some(_)))
            && let Some(line) = scan.first_line(&self.buffer)
        {
            head::begin(line, request).map_err(refused)?;
        }
        let end = end.map_err(|odd| refused(Denial::Malformed(odd)))?;
        let size = end.unwrap_or(self.buffer.len());
        if end.is_none() && !head::may_begin(&self.buffer) {
            return Err(refused(Denial::Malformed(head::NO_REQUEST)));
        }
        if !scan.has_first_line() && size > head::FIRST_LINE {
            return Err(refused(Denial::TargetTooLong));
        }
        if size > limits::REQUEST_TARGET_BYTES + limits::REQUEST_HEADER_BYTES + SLACK {
            return Err(refused(Denial::HeadersTooLarge));
        }
        Ok(end)
    }

    async fn read(&mut self) -> io::Result<usize> {
        let Self { stream, buffer, .. } = self;
        std::future::poll_fn(|context| room::poll_read(stream, context, buffer)).await
    }

    /// Reads on; the client must not stop here.
    async fn more(&mut self) -> Result<(), Denial> {
        match self.read().await {
            Ok(1..) => Ok(()),
            _ => {
                self.lose();
                Err(Denial::ClientGone)
            }
        }
    }

    async fn invite(&mut self) -> Result<(), Denial> {
        if std::mem::take(&mut self.expects) && self.buffer.is_empty() {
            let invited = self.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            invited.map_err(|_| Denial::ClientGone)?;
        }
        Ok(())
    }

    async fn chunks(&mut self, mut chunked: Chunked, most: usize) -> Result<Bytes, Denial> {
        let mut body = BytesMut::new();
        let mut piece = BytesMut::new();
        loop {
            let ended = chunked.decode(&mut self.buffer, &mut piece).map_err(|odd| {
                self.lose();
                Denial::Malformed(odd)
            })?;
            if body.len() + piece.len() > most {
                self.body = if ended { NOTHING } else { Framing::Chunked(chunked) };
                return Err(Denial::BodyTooLarge(most));
            }
            if body.is_empty() {
                body = piece.split();
            } else {
                body.extend_from_slice(&piece);
                piece.clear();
            }
            if ended {
                return Ok(body.freeze());
            }
            self.more().await?;
        }
    }

    /// Where the next request begins is not known any more.
    fn lose(&mut self) {
        self.body = Framing::Lost;
        self.keep = false;
    }

    /// Whether what is left of the body may be read for the sake of the connection.
    fn can_drain(&self) -> bool {
        match &self.body {
            Framing::Length(0) => true,
            _ if self.expects => false, // it may come or not
            Framing::Length(left) => *left <= DRAINED,
            Framing::Chunked(_) => true,
            Framing::Lost => false,
        }
    }

    /// After an answer: makes ready for the next request. False when there will be none.
    async fn go_on(&mut self) -> bool {
        if !self.keep {
            return false;
        }
        if !matches!(self.body, Framing::Length(0))
            && !timeout(limits::LINGER, self.drain()).await.unwrap_or(false)
        {
            return false;
        }
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
        true
    }

    async fn drain(&mut self) -> bool {
        let mut left = DRAINED;
        loop {
            let before = self.buffer.len() as u64;
            match std::mem::replace(&mut self.body, Framing::Lost) {
                Framing::Lost => return false,
                Framing::Length(length) if length <= before => {
                    bytes::Buf::advance(&mut self.buffer, usize::try_from(length).unwrap_or(0));
                    self.body = NOTHING;
                    return true;
                }
                Framing::Length(length) => {
                    self.buffer.clear();
                    self.body = Framing::Length(length - before);
                }
                Framing::Chunked(mut chunked) => {
                    match chunked.decode(&mut self.buffer, &mut BytesMut::new()) {
                        Err(_) => return false,
                        Ok(true) => {
                            self.body = NOTHING;
                            return true;
                        }
                        Ok(false) => self.body = Framing::Chunked(chunked),
                    }
                }
            }
            left = left.saturating_sub(before);
            if left == 0 || !matches!(self.read().await, Ok(1..)) {
                return false;
            }
        }
    }

    /// Closes so that the last answer arrives: a socket with unread bytes would be reset, and the
    /// reset can overtake the answer.
    async fn linger(mut self) {
        let read_out = async {
            AsyncWriteExt::shutdown(&mut self.stream).await?;
            loop {
                self.buffer.clear();
                if self.read().await? == 0 {
                    return Ok::<_, io::Error>(());
                }
            }
        };
        let _ = timeout(limits::LINGER, read_out).await; // it ends either way
    }
}

impl Client for Connection<'_> {
    async fn body(&mut self, most_bytes: usize) -> Result<Bytes, Denial> {
        match std::mem::replace(&mut self.body, Framing::Lost) {
            Framing::Length(0) => {
                self.body = NOTHING;
                Ok(Bytes::new())
            }
            Framing::Length(length) => {
                let size = usize::try_from(length).unwrap_or(usize::MAX);
                self.invite().await?;
                while self.buffer.len() < size {
                    self.more().await?;
                }
                self.body = NOTHING;
                Ok(self.buffer.split_to(size).freeze())
            }
            Framing::Chunked(chunked) => {
                self.invite().await?;
                let body = self.chunks(chunked, most_bytes).await?;
                self.body = NOTHING;
                Ok(body)
            }
            Framing::Lost => Err(Denial::ClientGone),
        }
    }

    async fn gone(&mut self) {
        while self.buffer.len() < AHEAD {
            if !matches!(self.read().await, Ok(1..)) {
                self.lose();
                return;
            }
        }
        std::future::pending().await
    }

    async fn send(&mut self, reply: Reply<'_>) -> io::Result<()> {
        self.keep &= !reply.last && !self.traffic.leaving() && self.can_drain();
        let sent = self.write_reply(reply).await;
        if sent.is_err() {
            self.lose();
        }
        sent
    }
}
