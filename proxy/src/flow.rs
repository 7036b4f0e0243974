//! A body on its way from a replica to a client while it is being made. The two sides do not wait for
//! each other: a replica is free when its function has finished, however slowly the client reads. What
//! lies between them is bounded: for one by the largest answer that a function may give, for all
//! together by the [`Stock`] of the process. Whose answer would exceed that is cut off.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use tokio::sync::mpsc;

/// The client's end.
#[derive(Debug)]
pub(crate) struct Flow {
    pieces: mpsc::UnboundedReceiver<Piece>,
    /// Bytes of the whole body, when the function said so.
    pub(crate) length: Option<u64>,
    passed: Arc<Passed>,
}

/// What has come out at the client's end.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(crate) bytes: AtomicU64,
    /// The body broke off.
    pub(crate) cut: AtomicBool,
}

/// The replica's end. Dropping it without `end` cuts the body off.
pub(crate) struct Source {
    /// None when the body was cut off.
    pieces: Option<mpsc::UnboundedSender<Piece>>,
    stock: Arc<Stock>,
}

/// Bytes of all bodies that lie between replicas and clients.
#[derive(Debug)]
pub(crate) struct Stock {
    bytes: AtomicUsize,
    most: usize,
}

#[derive(Debug)]
enum Piece {
    Data { bytes: Bytes, _share: Share },
    End,
}

/// A piece's part of the stock.
#[derive(Debug)]
struct Share(Arc<Stock>, usize);

/// What the client is to be sent next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Data(Bytes),
    /// All of the body has been sent.
    End,
    /// There is no more, and it is not all.
    Cut,
}

/// Both ends of a body.
pub(crate) fn flow(length: Option<u64>, stock: &Arc<Stock>) -> (Source, Flow) {
    let (sender, pieces) = mpsc::unbounded_channel();
    let source = Source { pieces: Some(sender), stock: stock.clone() };
    (source, Flow { pieces, length, passed: Arc::default() })
}

impl Stock {
    /// Room for so many bytes.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), most })
    }

    fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let before = self.bytes.fetch_add(bytes, Relaxed);
        let share = Share(self.clone(), bytes);
        (before + bytes <= self.most).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.bytes.fetch_sub(self.1, Relaxed);
    }
}

impl Source {
    /// Hands over a piece. A client that has gone is no reason to stop the function.
    pub(crate) fn send(&mut self, piece: Bytes) {
        let Some(pieces) = self.pieces.as_ref().filter(|_| !piece.is_empty()) else { return };
        match self.stock.take(piece.len()) {
            Some(share) => drop(pieces.send(Piece::Data { bytes: piece, _share: share })),
            None => {
                tracing::debug!("too much waits for slow clients: an answer is cut off");
                self.pieces = None;
            }
        }
    }

    /// That was all of it.
    pub(crate) fn end(self) {
        if let Some(pieces) = self.pieces {
            let _ = pieces.send(Piece::End);
        }
    }
}

impl Flow {
    /// Waits for the next piece.
    pub(crate) async fn next(&mut self) -> Next {
        let piece = self.pieces.recv().await;
        self.read(piece)
    }

    /// The next piece, if it is there already.
    pub(crate) fn ready(&mut self) -> Option<Next> {
        match self.pieces.try_recv() {
            Err(mpsc::error::TryRecvError::Empty) => None,
            piece => Some(self.read(piece.ok())),
        }
    }

    /// What has come out, now and later.
    pub(crate) fn passed(&self) -> Arc<Passed> {
        self.passed.clone()
    }

    fn read(&self, piece: Option<Piece>) -> Next {
        match piece {
            Some(Piece::Data { bytes: data, .. }) => {
                self.passed.bytes.fetch_add(data.len() as u64, Relaxed);
                Next::Data(data)
            }
            Some(Piece::End) => Next::End,
            None => {
                self.passed.cut.store(true, Relaxed);
                Next::Cut
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_would_take_more_than_there_is_room_for_is_cut_off() {
        let stock = Stock::new(10);
        let (mut first, mut slow) = flow(None, &stock);
        let (mut second, mut other) = flow(None, &stock);
        first.send(Bytes::from_static(b"12345678"));
        second.send(Bytes::from_static(b"1234"));
        second.end();
        assert_eq!(other.next().await, Next::Cut);
        assert_eq!(slow.next().await, Next::Data(Bytes::from_static(b"12345678")));
        // What was taken makes room again.
        first.send(Bytes::from_static(b"1234567890"));
        first.end();
        assert_eq!(slow.next().await, Next::Data(Bytes::from_static(b"1234567890")));
        assert_eq!(slow.next().await, Next::End);
        drop((slow, other));
        assert_eq!(stock.bytes.load(Relaxed), 0);
    }
}
