//! A body on its way from a replica to a client while it is being made. The two sides do not wait for
//! each other: a replica is free when its function has finished, however slowly the client reads. What
//! lies between them is bounded by the largest answer that a function may give.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
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
pub(crate) struct Source(mpsc::UnboundedSender<Piece>);

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    End,
}

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
pub(crate) fn flow(length: Option<u64>) -> (Source, Flow) {
    let (sender, pieces) = mpsc::unbounded_channel();
    (Source(sender), Flow { pieces, length, passed: Arc::default() })
}

impl Source {
    /// Hands over a piece. A client that has gone is no reason to stop the function.
    pub(crate) fn send(&self, piece: Bytes) {
        if !piece.is_empty() {
            let _ = self.0.send(Piece::Data(piece));
        }
    }

    /// That was all of it.
    pub(crate) fn end(self) {
        let _ = self.0.send(Piece::End);
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
            Some(Piece::Data(data)) => {
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
