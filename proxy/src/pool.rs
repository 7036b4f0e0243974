//! The replicas of one function and the requests that wait for them: one FIFO, one request per replica
//! at a time, late binding (what is sent ahead to a quick replica can be called back). All of it is one
//! small state under one lock; nothing here waits for the store. What control has to know goes out as
//! [`Note`]s.

mod ahead;
mod census;
mod lease;
mod said;
mod turns;
mod view;

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    sync::{Arc, Weak},
};

use control::{
    name::{DeploymentId, ReplicaId, ServiceId},
    service::{GoneCause, Obstacle, Seen},
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use self::said::Said;
pub(crate) use self::{
    census::Census,
    lease::{Lease, Place, Turn},
    said::Note,
};
use crate::{
    line::{Line, Parcel},
    link::Link,
    metrics::Stats,
};

/// Why a request got no replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many requests wait as may.
    QueueFull,
    /// None became free in time.
    NoReplica,
    /// Control says that none can be started.
    Obstacle(Obstacle),
    /// The function was deleted.
    Deleted,
    /// Another process has its replicas.
    Released,
    /// It was sent to a replica that ended, and may have run there.
    Crashed,
}

/// One function's replicas and queue.
pub(crate) struct Pool {
    /// For who comes back to it later.
    me: Weak<Self>,
    service: ServiceId,
    queue_length: usize,
    notes: mpsc::UnboundedSender<Note>,
    /// What its requests came to.
    pub(crate) stats: Stats,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<DeploymentId>,
    deleted: bool,
    released: bool,
    obstacle: Option<Obstacle>,
    /// Every connected replica.
    members: HashMap<ReplicaId, Member>,
    /// Those of the live deployment that are free; the most recently used one is last.
    free: Vec<ReplicaId>,
    waiting: VecDeque<Waiting>,
    /// How many requests have waited; their numbers.
    waited: u64,
    /// The demand that control knows of.
    told: u32,
    /// What control knows of the replicas.
    said: Said,
    /// Notes that are on their way to the store.
    underway: usize,
    /// Somebody will look behind slow replicas.
    will_look: bool,
}

/// A request that waits: in the queue, or with a replica to which it was sent ahead.
pub(crate) struct Waiting {
    pub(crate) number: u64,
    /// None when it cannot be sent ahead.
    pub(crate) parcel: Option<Parcel>,
    /// It goes when it has been called back.
    pub(crate) leaves: bool,
    sender: oneshot::Sender<Result<Grant, Refusal>>,
}

struct Member {
    deployment: DeploymentId,
    draining: bool,
    /// None while a request has it.
    link: Option<Link>,
    /// None when nothing can be sent ahead.
    line: Option<Arc<Line>>,
    /// Since when a request has it.
    busy_since: Instant,
    /// So many requests may be with it ahead of their turn.
    may_have: usize,
    free_since: Instant,
    told_idle: bool,
    /// Its connection is taken for a health check, which is no work.
    checked: bool,
}

/// A replica's connection on its way to a request.
#[derive(Debug)]
struct Grant {
    replica: ReplicaId,
    link: Link,
}

/// Whether a request had its turn before, at a replica that did not begin it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Yes,
    No,
}

impl Pool {
    pub(crate) fn new(
        service: ServiceId,
        queue_length: usize,
        notes: mpsc::UnboundedSender<Note>,
    ) -> Arc<Self> {
        let (stats, state) = <_>::default();
        Arc::new_cyclic(|me| Self { me: me.clone(), service, queue_length, notes, stats, state })
    }

    /// A free replica, or a place in the queue: at its end, or `again` at its front.
    pub(crate) fn enter(self: &Arc<Self>, again: Again) -> Result<Turn, Refusal> {
        let mut state = self.state.lock();
        if state.released {
            return Err(Refusal::Released);
        }
        if state.deleted {
            return Err(Refusal::Deleted);
        }
        if let Some(grant) = self.take_free(&mut state) {
            return Ok(Turn::Now(self.lease(grant)));
        }
        if let Some(obstacle) = state.obstacle() {
            return Err(Refusal::Obstacle(obstacle.clone()));
        }
        let (sender, receiver) = oneshot::channel();
        state.waited += 1;
        let number = state.waited;
        let waiting = Waiting { number, parcel: None, leaves: false, sender };
        match again {
            Again::Yes => state.waiting.push_front(waiting),
            Again::No if state.queued() >= self.queue_length => return Err(Refusal::QueueFull),
            Again::No => state.waiting.push_back(waiting),
        }
        self.note_demand(&mut state);
        let asleep = !state.has_members();
        Ok(Turn::Later(Place { pool: self.clone(), number, receiver, asleep, is_over: false }))
    }

    /// A replica called home and its code is loaded. Its runner reads the file `recalls`, if there is
    /// one, before it begins a request that was sent ahead.
    pub(crate) fn join(
        &self,
        id: ReplicaId,
        deployment: DeploymentId,
        mut link: Link,
        recalls: Option<File>,
    ) {
        let mut state = self.state.lock();
        if state.released {
            return;
        }
        link.line =
            recalls.map(|recalls| Line::new(self.me.clone(), id.clone(), link.socket(), recalls));
        let member = Member {
            deployment,
            draining: false,
            link: None,
            line: link.line.clone(),
            busy_since: Instant::now(),
            may_have: 0,
            free_since: Instant::now(),
            told_idle: false,
            checked: false,
        };
        state.members.insert(id.clone(), member);
        self.settle(&mut state, Grant { replica: id.clone(), link }, Instant::now());
        self.note_seen(&mut state, &id, Seen::Ready);
    }

    /// A replica's connection ended. False when the pool had given it up before.
    pub(crate) fn leave(&self, id: &ReplicaId, cause: GoneCause) -> bool {
        let mut state = self.state.lock();
        if state.released {
            // It is no member any more, but must not become one of another process either.
            self.note_seen(&mut state, id, Seen::Gone { cause });
        }
        self.remove(&mut state, id, cause)
    }

    /// Gives all replicas up: another process has them. Those that work go when they have done so,
    /// and who waits has to ask there.
    pub(crate) fn release(&self) {
        let mut state = self.state.lock();
        state.released = true;
        state.free.clear();
        state.members.clear();
        for waiting in state.waiting.drain(..) {
            let _ = waiting.sender.send(Err(Refusal::Released)); // it may have gone
        }
    }

    /// Takes one replica out of its rest, if it is free: for its health check.
    pub(crate) fn borrow(self: &Arc<Self>, id: &ReplicaId) -> Option<Lease> {
        let mut state = self.state.lock();
        let member = state.members.get_mut(id)?;
        let (link, since) = (member.link.take()?, member.free_since);
        member.checked = true;
        state.free.retain(|free| free != id);
        let mut lease = self.lease(Grant { replica: id.clone(), link });
        lease.free_since = Some(since);
        Some(lease)
    }

    /// Since when a replica has had nothing to do; none while it has.
    pub(crate) fn idle_since(&self, id: &ReplicaId) -> Option<Instant> {
        let state = self.state.lock();
        state.members.get(id).filter(|m| m.link.is_some()).map(|m| m.free_since)
    }

    /// The replicas to which there is a connection.
    #[cfg(test)]
    pub(crate) fn connected<C: FromIterator<ReplicaId>>(&self) -> C {
        self.state.lock().members.keys().cloned().collect()
    }

    /// Whether a replica was given up, or a connection to it is open.
    pub(crate) fn knows(&self, id: &ReplicaId) -> bool {
        let state = self.state.lock();
        state.members.contains_key(id) || state.said.is_gone(id)
    }

    fn remove(&self, state: &mut State, id: &ReplicaId, cause: GoneCause) -> bool {
        if state.members.remove(id).is_none() {
            return false;
        }
        state.free.retain(|free| free != id);
        self.refuse_waiting(state);
        self.note_seen(state, id, Seen::Gone { cause });
        true
    }
}

impl State {
    /// Whether a replica of the live deployment is connected.
    fn has_members(&self) -> bool {
        self.members.values().any(|member| Some(member.deployment) == self.live)
    }

    /// What those wait for in vain who wait for a first replica. One that is there becomes free again,
    /// whatever control says, which may know less when it has just started.
    fn obstacle(&self) -> Option<&Obstacle> {
        self.obstacle.as_ref().filter(|_| !self.has_members())
    }

    fn demand(&self) -> u32 {
        let busy = self.members.values().filter(|member| member.works_for(self.live));
        (busy.count() + self.queued()).try_into().unwrap_or(u32::MAX)
    }

    /// Requests that wait for their turn, wherever.
    fn queued(&self) -> usize {
        self.waiting.len() + self.members.values().map(Member::ahead).sum::<usize>()
    }
}

impl Member {
    /// Whether a request of the live deployment has it.
    fn works_for(&self, live: Option<DeploymentId>) -> bool {
        self.link.is_none() && !self.checked && Some(self.deployment) == live
    }

    /// Requests that were sent to it ahead.
    fn ahead(&self) -> usize {
        self.line.as_ref().map_or(0, |line| line.len())
    }
}

#[cfg(test)]
mod tests;
