//! What a request has of a pool: a replica's connection, or a place in the queue for one.

use std::{sync::Arc, task::Poll};

use control::{name::ReplicaId, service::GoneCause};
use tokio::{sync::oneshot, time::Instant};

use super::{Grant, Pool, Refusal};
use crate::{bound::Alarm, line::Parcel, link::Link};

/// A replica's connection, for one request. The edge never knows what became of a request that it
/// gave up in the middle, so a lease that was used and is dropped costs the replica.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    replica: ReplicaId,
    link: Option<Link>,
    used: bool,
    retired: bool,
    /// Since when the replica has nothing to do, when that is known: a health check is no work.
    pub(super) free_since: Option<Instant>,
}

/// What a request found when it came.
pub(crate) enum Turn {
    /// A free replica.
    Now(Lease),
    /// Its place in the queue.
    Later(Place),
}

/// A place in the queue; dropping it gives it up.
pub(crate) struct Place {
    pub(super) pool: Arc<Pool>,
    pub(super) number: u64,
    pub(super) receiver: oneshot::Receiver<Result<Grant, Refusal>>,
    /// No replica was connected when the request came.
    pub(crate) asleep: bool,
    /// It has had its answer.
    pub(super) is_over: bool,
}

impl Pool {
    pub(super) fn lease(self: &Arc<Self>, grant: Grant) -> Lease {
        Lease {
            pool: self.clone(),
            replica: grant.replica,
            link: Some(grant.link),
            used: false,
            retired: false,
            free_since: None,
        }
    }
}

impl Lease {
    /// Whose connection it is.
    pub(crate) fn replica(&self) -> &ReplicaId {
        &self.replica
    }

    /// The connection, to be used now.
    pub(crate) fn start(&mut self) -> Option<Link> {
        self.used = true;
        self.link.take()
    }

    /// The exchange is complete and the connection can serve the next one.
    pub(crate) fn give_back(mut self, link: Link) {
        self.used = false;
        self.link = Some(link);
    }

    /// The exchange was complete at `ended`; without its connection the replica is gone. When requests
    /// wait, the next one runs before this returns: so the replica works while its last answer is
    /// passed on, and need not fall asleep between two requests, which costs both sides more than the
    /// rest.
    pub(crate) async fn settle(mut self, link: Option<Link>, ended: Instant) {
        self.free_since = Some(ended);
        let is_there = link.as_ref().is_some_and(Link::has_ahead);
        let awaited = !is_there && !self.pool.state.lock().waiting.is_empty();
        match link {
            Some(link) => self.give_back(link),
            None => self.retire(GoneCause::Closed),
        }
        if awaited {
            step_aside().await;
        }
    }

    /// The replica cannot be used again.
    pub(crate) fn retire(mut self, cause: GoneCause) {
        self.retired = true;
        self.link = None;
        self.pool.leave(&self.replica, cause);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.link.take() {
            Some(link) if !self.used => {
                let grant = Grant { replica: self.replica.clone(), link };
                let since = self.free_since.unwrap_or_else(Instant::now);
                self.pool.settle(&mut self.pool.state.lock(), grant, since);
            }
            // After `retire` there is nothing left to leave.
            _ if self.retired => {}
            _ => drop(self.pool.leave(&self.replica, GoneCause::Garbled)),
        }
    }
}

impl Place {
    /// Waits for the turn.
    pub(crate) async fn turn(
        &mut self,
        until: Instant,
        alarm: &mut Alarm,
    ) -> Result<Lease, Refusal> {
        match alarm.before(until, &mut self.receiver).await {
            Some(turn) => {
                self.is_over = true;
                turn.unwrap_or(Err(Refusal::Deleted)).map(|grant| self.pool.lease(grant))
            }
            // Whoever is told that there was no replica may ask again, so it must not run.
            None => self.withdraw().await.ok_or(Refusal::NoReplica),
        }
    }

    /// Gives the place up. The request may have begun where it was sent ahead: then it is its turn.
    pub(crate) async fn withdraw(&mut self) -> Option<Lease> {
        if self.pool.dismiss(self.number) {
            self.is_over = true;
            return None;
        }
        // Whoever reads from that replica gives it back, or hands the connection on.
        let turn = (&mut self.receiver).await;
        self.is_over = true;
        let grant = turn.ok()?.ok()?;
        if grant.link.is_awaiting {
            return Some(self.pool.lease(grant));
        }
        self.pool.settle(&mut self.pool.state.lock(), grant, Instant::now());
        None
    }

    /// Has the request sent ahead, when there is a replica for which that is good.
    pub(crate) fn offer(&self, parcel: Parcel) {
        self.pool.offer(self.number, parcel);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.receiver.close();
        match self.receiver.try_recv() {
            // It was sent ahead, and nobody will know what became of it.
            Ok(Ok(grant)) if grant.link.is_awaiting => {
                self.pool.lease(grant).retire(GoneCause::Garbled)
            }
            // It came in the moment in which this request gave up.
            Ok(Ok(grant)) => self.pool.settle(&mut self.pool.state.lock(), grant, Instant::now()),
            Ok(Err(_)) => {}
            Err(_) => drop(self.pool.dismiss(self.number)),
        }
    }
}

/// Lets all tasks run that can, once. Unlike tokio's `yield_now` it does not ask the kernel for more.
async fn step_aside() {
    let mut stepped = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut stepped, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
