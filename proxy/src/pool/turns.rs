//! Who has a replica that is free.

use control::service::GoneCause;
use tokio::time::Instant;

use super::{Grant, Note, Pool, Refusal, State};
use crate::line;

impl Pool {
    /// Gives those who wait what is free.
    pub(super) fn serve_waiting(&self, state: &mut State) {
        while !state.waiting.is_empty()
            && let Some(grant) = self.take_free(state)
        {
            self.hand_over(state, grant);
        }
    }

    pub(super) fn refuse_waiting(&self, state: &mut State) {
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

    pub(super) fn take_free(&self, state: &mut State) -> Option<Grant> {
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

    /// A replica has become free: the request that was sent ahead to it has it, or the longest waiting
    /// one, else it rests.
    pub(super) fn settle(&self, state: &mut State, mut grant: Grant, since: Instant) {
        let live = state.live;
        if grant.link.on_duty
            && let Some(member) = state.members.get_mut(&grant.replica)
        {
            member.may_have = line::may_go_ahead(since.duration_since(member.busy_since));
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
    pub(super) fn hand_over(&self, state: &mut State, grant: Grant) {
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
}
