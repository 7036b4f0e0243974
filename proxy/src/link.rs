//! A replica's connection. It asks the kernel to be told of what comes and of nothing else: a Unix
//! socket that also waits for room to write is woken each time its peer has read, once per request.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    os::{fd::AsFd, unix::net::UnixStream},
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{Interest, unix::AsyncFd};

use crate::room;

/// A connection with its buffers, which serve one exchange after the other.
#[derive(Debug)]
pub(crate) struct Link {
    socket: AsyncFd<UnixStream>,
    /// What has come and is not used yet.
    pub(crate) buffer: BytesMut,
    /// The head of a request that is to be sent.
    pub(crate) wire: Vec<u8>,
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
            socket: watch(stream.into_std()?, Interest::READABLE)?,
            buffer: BytesMut::new(),
            wire: Vec::new(),
        })
    }

    /// Reads at most so many bytes to the end of `buffer`; 0 is the end of the connection.
    pub(crate) async fn read(&mut self, most: usize) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_read(context, most)).await
    }

    /// Sends `wire` and then `body`.
    pub(crate) async fn send(&mut self, body: &[u8]) -> io::Result<()> {
        let total = self.wire.len() + body.len();
        let mut sent = 0;
        while sent < total {
            let head = &self.wire[sent.min(self.wire.len())..];
            let body = &body[sent.saturating_sub(self.wire.len())..];
            match self.socket.get_ref().write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(now) => sent += now,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.room().await?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(context))?;
            let most = most.min(room::SIZE);
            let read = room::with(|room| {
                let count = ready.get_inner().read(&mut room[..most])?;
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

/// Registers a socket for one kind of news.
pub(crate) fn watch(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // Deprecated in favour of an unsafe function, because a descriptor of somebody else's type may
    // change under it; a `UnixStream` of the standard library cannot.
    #[expect(deprecated)]
    AsyncFd::with_interest(socket, interest)
}
