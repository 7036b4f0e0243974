//! The replicas of one function and the requests that wait for them: one FIFO, one request per replica
//! at a time, late binding (what is sent ahead to a quick replica can be called back). All of it is one
//! small state under one lock; nothing here waits for the store. What control has to know goes out as
//! [`Note`]s.

mod ahead;
mod census;
mod lease;
mod said;

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    sync::{Arc, Weak},
};

use control::{
    limits,
    name::{DeploymentId, ReplicaId, ServiceId},
    service::{GoneCause, Obstacle, Replica, Seen, ServiceView, Wish},
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
};
use crate::{
    line::{Line, Parcel},
    link::Link,
    metrics::Stats,
};

/// Something that control has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// What was seen of a replica, and the demand at that moment.
    Seen { service: ServiceId, replica: ReplicaId, seen: Seen, demand: u32 },
    /// So many requests run or wait.
    Demand { service: ServiceId, demand: u32 },
}

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
    /// For who looks again later.
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
    /// Its last request took next to no time.
    is_quick: bool,
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
        self: &Arc<Self>,
        id: ReplicaId,
        deployment: DeploymentId,
        mut link: Link,
        recalls: Option<File>,
    ) {
        let mut state = self.state.lock();
        if state.released {
            return;
        }
        link.line = recalls
            .map(|recalls| Line::new(Arc::downgrade(self), id.clone(), link.socket(), recalls));
        let member = Member {
            deployment,
            draining: false,
            link: None,
            line: link.line.clone(),
            busy_since: Instant::now(),
            is_quick: false,
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

    /// Tells control, once, that a replica has had nothing to do for the idle time.
    pub(crate) fn tell_idle(&self, id: &ReplicaId) {
        let mut state = self.state.lock();
        if let Some(member) = state.members.get_mut(id)
            && member.link.is_some()
            && !std::mem::replace(&mut member.told_idle, true)
        {
            self.note_seen(&mut state, id, Seen::Idle);
        }
    }

    /// Says what was seen of a replica that is not a member.
    pub(crate) fn report(&self, id: &ReplicaId, seen: Seen) {
        self.note_seen(&mut self.state.lock(), id, seen);
    }

    /// The replicas to which there is a connection.
    #[cfg(test)]
    pub(crate) fn connected<C: FromIterator<ReplicaId>>(&self) -> C {
        self.state.lock().members.keys().cloned().collect()
    }

    /// Takes over what the store says: which deployment is live, who has to go, what stands in the
    /// way. The switch from one deployment to the next is this one step.
    pub(crate) fn apply(self: &Arc<Self>, view: &ServiceView) {
        let mut state = self.state.lock();
        state.deleted = view.route.is_none();
        state.live = view.route.as_ref().and_then(|route| route.live_deployment);
        state.obstacle = view.obstacle.clone();

        let members: Vec<ReplicaId> = state.members.keys().cloned().collect();
        for id in members {
            match view.replicas.iter().find(|replica| replica.id == id) {
                // Another process gave it up.
                Some(Replica { seen: Some(Seen::Gone { .. }), .. }) => {
                    state.members.remove(&id);
                }
                Some(Replica { wish: Wish::Serve, .. }) => {}
                Some(Replica { wish: Wish::Drain, .. }) => self.drain(&mut state, &id),
                None if state.deleted => {
                    state.members.remove(&id);
                }
                // Control ends a container before it forgets it, and its connection ends with it. So
                // the store has lost this one, and control puts it there again.
                None => {}
            }
        }
        state.rebuild_free();
        self.serve_waiting(&mut state);
        self.look_behind_slow_ones(&mut state);
        self.refuse_waiting(&mut state);
        self.say_again(&mut state, view);
    }

    /// Tells control again what it should know by now and does not: the store has lost it, or was away
    /// when it was told.
    fn say_again(&self, state: &mut State, view: &ServiceView) {
        if state.underway > 0 || state.deleted {
            return; // what was read is older than what was said, or is not for long
        }
        for (replica, seen) in state.said.missing_in(view) {
            self.note_seen(state, &replica, seen);
        }
        if state.underway == 0 && view.demand != state.told {
            state.told = state.demand();
            self.note(state, Note::Demand { service: self.service, demand: state.told });
        }
        let members = &state.members;
        state.said.forget_all_but(view, |id| members.contains_key(id), Instant::now());
    }

    /// A note has reached the store, or has failed to.
    pub(crate) fn arrived(&self) {
        let mut state = self.state.lock();
        state.underway = state.underway.saturating_sub(1);
    }

    /// Whether a replica was given up, or a connection to it is open.
    pub(crate) fn knows(&self, id: &ReplicaId) -> bool {
        let state = self.state.lock();
        state.members.contains_key(id) || state.said.is_gone(id)
    }

    /// Gives those who wait what is free.
    fn serve_waiting(&self, state: &mut State) {
        while !state.waiting.is_empty()
            && let Some(grant) = self.take_free(state)
        {
            self.hand_over(state, grant);
        }
    }

    fn refuse_waiting(&self, state: &mut State) {
        let refusal = match state.obstacle() {
            _ if state.released => Refusal::Released,
            _ if state.deleted => Refusal::Deleted,
            Some(obstacle) => Refusal::Obstacle(obstacle.clone()),
            None => return,
        };
        if state.waiting.is_empty() && state.told == state.demand() {
            return;
        }
        for waiting in state.waiting.drain(..) {
            let _ = waiting.sender.send(Err(refusal.clone()));
        }
        state.told = state.demand();
        self.note(state, Note::Demand { service: self.service, demand: state.told });
    }

    fn drain(&self, state: &mut State, id: &ReplicaId) {
        let Some(member) = state.members.get_mut(id) else { return };
        member.draining = true;
        if member.link.is_some() {
            self.remove(state, id, GoneCause::Drained);
        }
    }

    fn take_free(&self, state: &mut State) -> Option<Grant> {
        loop {
            let replica = state.free.pop()?;
            let Some(member) = state.members.get_mut(&replica) else { continue };
            let Some(mut link) = member.link.take() else { continue };
            member.busy_since = Instant::now();
            link.go_on_duty();
            self.note_work(state, &replica);
            return Some(Grant { replica, link });
        }
    }

    /// A replica that control takes for idle has work.
    fn note_work(&self, state: &mut State, id: &ReplicaId) {
        let member = state.members.get_mut(id);
        if member.is_some_and(|member| std::mem::take(&mut member.told_idle)) {
            self.note_seen(state, id, Seen::Ready);
        }
    }

    /// A replica has become free: the request that was sent ahead to it has it, or the longest waiting
    /// one, else it rests.
    fn settle(&self, state: &mut State, mut grant: Grant, since: Instant) {
        let live = state.live;
        if grant.link.on_duty
            && let Some(member) = state.members.get_mut(&grant.replica)
        {
            member.is_quick = since.duration_since(member.busy_since) < limits::QUICK;
            member.busy_since = since;
        }
        if let Some(next) = grant.link.line.as_ref().and_then(|line| line.next()) {
            return self.go_on(state, grant, next);
        }
        grant.link.on_duty = false;
        let Some(member) = state.members.get_mut(&grant.replica) else { return };
        member.free_since = since;
        member.checked = false;
        if member.draining {
            self.remove(state, &grant.replica, GoneCause::Drained);
        } else if Some(member.deployment) == live {
            self.hand_over(state, grant);
        } else {
            member.link = Some(grant.link);
        }
    }

    /// Gives a replica of the live deployment to the longest waiting request, or to rest.
    fn hand_over(&self, state: &mut State, grant: Grant) {
        let (id, mut grant) = (grant.replica.clone(), grant);
        grant.link.go_on_duty();
        while let Some(waiting) = state.waiting.pop_front() {
            match waiting.sender.send(Ok(grant)) {
                // That request has gone; its place is empty.
                Err(Ok(back)) => grant = back,
                _ => return self.note_work(state, &id),
            }
        }
        grant.link.on_duty = false;
        if let Some(member) = state.members.get_mut(&grant.replica) {
            member.link = Some(grant.link);
            state.free.push(grant.replica);
            self.look_behind_slow_ones(state);
        }
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

    /// Tells control when there is more to do than it knows.
    fn note_demand(&self, state: &mut State) {
        let demand = state.demand();
        if demand > state.told {
            state.told = demand;
            self.note(state, Note::Demand { service: self.service, demand });
        }
    }

    fn note_seen(&self, state: &mut State, replica: &ReplicaId, seen: Seen) {
        state.told = state.demand();
        state.said.note(replica, seen.clone());
        let (service, replica, demand) = (self.service, replica.clone(), state.told);
        self.note(state, Note::Seen { service, replica, seen, demand });
    }

    fn note(&self, state: &mut State, note: Note) {
        state.underway += 1;
        // The receiver ends with the edge.
        let _ = self.notes.send(note);
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

    fn rebuild_free(&mut self) {
        let live = self.live;
        let members = &self.members;
        let eligible = |member: &Member| {
            member.link.is_some() && Some(member.deployment) == live && !member.draining
        };
        self.free.retain(|id| members.get(id).is_some_and(eligible));
        let fresh: Vec<_> = members
            .iter()
            .filter(|(id, member)| eligible(member) && !self.free.contains(id))
            .map(|(id, _)| id.clone())
            .collect();
        self.free.extend(fresh);
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
