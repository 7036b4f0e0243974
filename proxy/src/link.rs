//! A replica's connection. It asks the kernel to be told of what comes and of nothing else: a Unix
//! socket that also waits for room to write is woken each time its peer has read, once per request.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{line::Line, room};

/// A connection with its buffers, which serve one exchange after the other.
#[derive(Debug)]
pub(crate) struct Link {
    socket: AsyncFd<Arc<UnixStream>>,
    /// What has come and is not used yet.
    pub(crate) buffer: BytesMut,
    /// The head of a request that is to be sent.
    pub(crate) wire: Vec<u8>,
    /// How requests are sent ahead, when the runner knows of it.
    pub(crate) line: Option<Arc<Line>>,
    /// A request has the connection.
    pub(crate) on_duty: bool,
    /// A request was sent whose answer is not complete.
    pub(crate) is_awaiting: bool,
    /// What has come of it did not suffice.
    is_short: bool,
    /// So many requests were called back; the runner says so once for each.
    pub(crate) called_back: usize,
}

/// What an idle connection holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Nothing,
    Bytes,
    End,
}

impl Link {
    /// Takes over a new connection.
    pub(crate) fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        Ok(Self {
            socket: watch(Arc::new(stream.into_std()?), Interest::READABLE)?,
            buffer: BytesMut::new(),
            wire: Vec::new(),
            line: None,
            on_duty: false,
            is_awaiting: false,
            is_short: false,
            called_back: 0,
        })
    }

    /// Reads at most so many bytes to the end of `buffer`; 0 is the end of the connection.
    pub(crate) async fn read(&mut self, most: usize) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_read(context, most)).await
    }

    /// Sends `wire` and then `body`.
    pub(crate) async fn send(&mut self, body: &[u8]) -> io::Result<()> {
        self.await_answer();
        let total = self.wire.len() + body.len();
        let mut sent = 0;
        while sent < total {
            let head = &self.wire[sent.min(self.wire.len())..];
            let body = &body[sent.saturating_sub(self.wire.len())..];
            let mut socket = &**self.socket.get_ref();
            match socket.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(now) => sent += now,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.room().await?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(line) = &self.line {
            line.set_open(true);
        }
        Ok(())
    }

    /// The socket, for who sends ahead.
    pub(crate) fn socket(&self) -> Arc<UnixStream> {
        self.socket.get_ref().clone()
    }

    /// A request has the connection, and will be sent.
    pub(crate) fn go_on_duty(&mut self) {
        self.on_duty = true;
        if let Some(line) = &self.line {
            line.set_open(false);
        }
    }

    /// The next answer is that to the request that has the connection now.
    pub(crate) fn await_answer(&mut self) {
        self.is_awaiting = true;
        self.is_short = self.buffer.is_empty();
    }

    /// A request that was sent ahead waits for its turn.
    pub(crate) fn has_ahead(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.len() > 0)
    }

    /// Whether the answer that is awaited has not ended, by what has come until now. An answer that was
    /// refused may have: its sender thinks so.
    pub(crate) fn is_unfinished(&self) -> bool {
        let look = (&**self.socket.get_ref()).read(&mut [0]);
        self.is_awaiting && self.is_short && !matches!(look, Ok(1..))
    }

    /// Looks without waiting.
    pub(crate) async fn news(&mut self) -> News {
        let look = std::future::poll_fn(|context| {
            Poll::Ready(match self.poll_read(context, 1) {
                Poll::Pending => News::Nothing,
                Poll::Ready(Ok(1..)) => News::Bytes,
                Poll::Ready(_) => News::End,
            })
        });
        // A task that has done much already is otherwise told that there is nothing.
        tokio::task::unconstrained(look).await
    }

    fn poll_read(&mut self, context: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let read = self.poll_socket(context, most);
        // Who reads on wants more. (A peer that ends with requests unread resets the connection.)
        self.is_short = !matches!(read, Poll::Ready(Ok(1..)));
        if read.is_ready() || !self.is_awaiting {
            return read;
        }
        let Some(line) = self.line.clone() else { return read };
        if !line.is_wanted(context.waker()) {
            return read;
        }
        let Some(pool) = line.pool.upgrade() else { return read };
        // Not by what the reactor knows, which may be less than what has come.
        let mut read = Ok(0);
        let count = pool.call_back(&line, || {
            read = self.read_now(most);
            matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        });
        self.called_back += count;
        match read {
            Ok(1..) => {
                self.is_short = false;
                Poll::Ready(read)
            }
            _ => Poll::Pending, // an end is told by the reactor
        }
    }

    fn read_now(&mut self, most: usize) -> io::Result<usize> {
        let Self { socket, buffer, .. } = self;
        room::with(|room| {
            let count = (&**socket.get_ref()).read(&mut room[..most.min(room::SIZE)])?;
            buffer.extend_from_slice(&room[..count]);
            Ok(count)
        })
    }

    fn poll_socket(&mut self, context: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(context))?;
            let most = most.min(room::SIZE);
            let read = room::with(|room| {
                let count = (&**ready.get_inner()).read(&mut room[..most])?;
                self.buffer.extend_from_slice(&room[..count]);
                Ok::<_, io::Error>(count)
            });
            match read {
                Ok(count) => {
                    // Less than there was room for is all that there was: the next look need not
                    // ask the kernel. (An end of the connection is not forgotten by this.)
                    if count < most {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Waits for room to write, which is rare.
    async fn room(&self) -> io::Result<()> {
        let second = self.socket.get_ref().as_fd().try_clone_to_owned()?;
        watch(UnixStream::from(second), Interest::WRITABLE)?.writable().await.map(drop)
    }
}

impl Drop for Link {
    /// Who gives a connection up gives up what was sent ahead over it.
    fn drop(&mut self) {
        if self.on_duty
            && let Some(pool) = self.line.as_ref().and_then(|line| line.pool.upgrade())
        {
            pool.strand(self);
        }
    }
}

/// Registers a socket for one kind of news.
pub(crate) fn watch<S: AsRawFd>(socket: S, interest: Interest) -> io::Result<AsyncFd<S>> {
    // Deprecated in favour of an unsafe function, because a descriptor of somebody else's type may
    // change under it; a `UnixStream` of the standard library, which all callers have, cannot.
    #[expect(deprecated)]
    AsyncFd::with_interest(socket, interest)
}
