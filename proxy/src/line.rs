//! What is left of a replica's connection while a request has it: the next requests can be sent ahead
//! over it, and be called back.
//!
//! A runner begins one request after the other. One that is there already when it has answered the one
//! before saves it a sleep, and the edge the waking of it, which together cost more than all the rest
//! of a request. But a request that was sent is bound to this replica. So it can be taken back for
//! certain, as long as it has not begun: a file that the runner reads before it begins a request that
//! was sent ahead says which are called back. First the edge writes that file, then it looks at the
//! connection. While the answer before is not complete there, the runner has not come to the next
//! request, and finds the file written when it does.

use std::{
    collections::VecDeque,
    fs::File,
    io::Write as _,
    os::unix::{fs::FileExt, net::UnixStream},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use control::{limits, name::ReplicaId};
use parking_lot::Mutex;

use crate::{
    fields::write_number,
    pool::{Pool, Waiting},
};

/// Requests that a replica has beside the one that it works on, at most.
pub(crate) const MOST: usize = 15;
/// A larger request is sent at its turn only: so many bytes a Unix socket takes as a whole, or not.
pub(crate) const BYTES: usize = 16 * 1024;

/// How many of them a replica may have whose last one took so long: nobody should have to wait for much
/// longer than [`limits::QUICK`] because of being bound to it.
pub(crate) fn may_go_ahead(took: Duration) -> usize {
    let count = limits::QUICK.as_nanos() / took.as_nanos().max(1);
    usize::try_from(count).map_or(MOST, |count| count.min(MOST))
}

/// A request that can be sent: its head but for the end of it, and its body.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Bytes,
}

/// One replica's; the pool and whoever has the connection share it. All but `waker` changes under the
/// pool's lock.
pub(crate) struct Line {
    pub(crate) pool: Weak<Pool>,
    pub(crate) replica: ReplicaId,
    socket: Arc<UnixStream>,
    recalls: File,
    /// The number of the request that was sent ahead last.
    sent: AtomicU64,
    /// The request that has the connection is sent to its end, so that another one may follow.
    is_open: AtomicBool,
    /// Somebody wants to have back what was sent ahead.
    is_wanted: AtomicBool,
    /// Of the task that reads.
    waker: Mutex<Option<Waker>>,
    /// What was sent ahead, in its order.
    ahead: Mutex<VecDeque<Waiting>>,
}

impl Parcel {
    /// Bytes on the wire, but for the end of the head.
    pub(crate) fn size(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Line {
    pub(crate) fn new(
        pool: Weak<Pool>,
        replica: ReplicaId,
        socket: Arc<UnixStream>,
        recalls: File,
    ) -> Arc<Self> {
        let (sent, is_open, is_wanted) = <_>::default();
        let (waker, ahead) = <_>::default();
        Arc::new(Self { pool, replica, socket, recalls, sent, is_open, is_wanted, waker, ahead })
    }

    /// How many requests were sent ahead and have not had their turn.
    pub(crate) fn len(&self) -> usize {
        self.ahead.lock().len()
    }

    /// How many more may be sent, when so many may be there: none before half of them have had their turn,
    /// so that several go at once.
    pub(crate) fn room(&self, may_have: usize) -> usize {
        let is_open = self.is_open.load(Ordering::Acquire);
        let len = self.len();
        if is_open && len <= may_have / 2 { may_have - len } else { 0 }
    }

    /// The request that has the connection is on its way from now on, or is there.
    pub(crate) fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Release);
    }

    /// Sends the first of those who wait ahead, at most so many, all in one write: each by itself would
    /// cost the edge a system call and wake the runner. Says how many went; those that found no room stay
    /// where they are.
    pub(crate) fn send(&self, queue: &mut VecDeque<Waiting>, most: usize) -> usize {
        let before = self.sent.load(Ordering::Relaxed);
        let (mut wire, mut count) = (Vec::with_capacity(1024 * most), 0);
        let last = |count: usize| before + count as u64;
        for parcel in queue.iter().map_while(|waiting| waiting.parcel.as_ref()).take(most) {
            if count > 0 && wire.len() + parcel.size() > BYTES {
                break;
            }
            count += 1;
            wire.extend_from_slice(&parcel.head);
            write_number(&mut wire, b"x-grid-turn", last(count));
            wire.extend_from_slice(b"\r\n");
            wire.extend_from_slice(&parcel.body);
        }
        if count == 0 {
            return 0;
        }
        match (&*self.socket).write(&wire) {
            Ok(all) if all == wire.len() => {}
            // Never seen. Some may have arrived, so all count as sent; the connection is of no use any more.
            Ok(_) => drop(self.socket.shutdown(std::net::Shutdown::Both)),
            Err(_) => return 0, // there is no room, or its end will be noticed by who reads
        }
        self.sent.store(last(count), Ordering::Relaxed);
        self.ahead.lock().extend(queue.drain(..count));
        count
    }

    /// The one whose turn it is.
    pub(crate) fn next(&self) -> Option<Waiting> {
        self.ahead.lock().pop_front()
    }

    /// Has whoever reads call back what was sent ahead, as soon as it has to wait.
    pub(crate) fn want_back(&self) {
        self.is_wanted.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }

    /// Whether the reader is to call back; it is woken when it is to.
    pub(crate) fn is_wanted(&self, waker: &Waker) -> bool {
        {
            let mut kept = self.waker.lock();
            if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
                *kept = Some(waker.clone());
            }
        }
        self.is_wanted.load(Ordering::SeqCst)
    }

    /// Calls everything back that was sent ahead. It has not begun, and never will, when after that
    /// the answer before is still `unfinished`.
    pub(crate) fn call_back(&self, unfinished: impl FnOnce() -> bool) -> Option<VecDeque<Waiting>> {
        let upto = self.sent.load(Ordering::Relaxed).to_le_bytes();
        if self.len() > 0 && (self.recalls.write_all_at(&upto, 0).is_err() || !unfinished()) {
            return None;
        }
        self.is_wanted.store(false, Ordering::SeqCst);
        Some(self.rest())
    }

    /// What was sent ahead and may have begun.
    pub(crate) fn rest(&self) -> VecDeque<Waiting> {
        std::mem::take(&mut *self.ahead.lock())
    }

    /// Marks one that is to go instead of coming back. False when it is not here.
    pub(crate) fn dismiss(&self, number: u64) -> bool {
        let mut ahead = self.ahead.lock();
        let found = ahead.iter_mut().find(|waiting| waiting.number == number);
        found.map(|waiting| waiting.leaves = true).is_some()
    }
}
