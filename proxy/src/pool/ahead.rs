//! What is sent to a replica while it works, and what is taken back from it.

use std::{collections::VecDeque, sync::Arc};

use control::{limits, service::GoneCause};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use super::{Grant, Member, Pool, Refusal, State, Waiting};
use crate::{
    line::{BYTES, Line, Parcel},
    link::Link,
};

impl Pool {
    /// A request that waits can be sent ahead.
    pub(super) fn offer(&self, number: u64, parcel: Parcel) {
        if parcel.size() > BYTES {
            return;
        }
        let mut state = self.state.lock();
        if let Some(waiting) = state.waiting.iter_mut().rfind(|waiting| waiting.number == number) {
            waiting.parcel = Some(parcel);
            self.send_ahead(&mut state);
        }
    }

    /// Sends those who wait to replicas that will soon be free, in their order.
    fn send_ahead(&self, state: &mut State) {
        while !state.waiting.is_empty()
            && let Some((line, count)) = state.soon_free()
            && line.send(&mut state.waiting, count) > 0
        {}
    }

    /// An answer has ended: it is the turn of the request that was sent behind it, also when the
    /// replica is no member any more.
    pub(super) fn go_on(&self, state: &mut State, mut grant: Grant, next: Waiting) {
        grant.link.await_answer();
        match next.sender.send(Ok(grant)) {
            Ok(()) => self.send_ahead(state),
            // Nobody will read its answer.
            Err(Ok(mut grant)) => {
                self.take_back(state, &mut grant.link);
                self.remove(state, &grant.replica, GoneCause::Garbled);
            }
            Err(Err(_)) => {} // a grant was sent
        }
    }

    /// A replica rests, or may: what waits behind a slow request at another one is called back for it. As
    /// long as one rests, those that are not slow yet are looked at again.
    pub(super) fn look_behind_slow_ones(&self, state: &mut State) {
        if state.free.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut may_become_slow = false;
        for member in state.members.values().filter(|member| member.ahead() > 0) {
            if now.duration_since(member.busy_since) < limits::QUICK {
                may_become_slow = true;
            } else if let Some(line) = &member.line {
                line.want_back();
            }
        }
        if may_become_slow && !state.will_look {
            self.look_later(state);
        }
    }

    /// Without a runtime there is nobody who waits.
    fn look_later(&self, state: &mut State) {
        let Ok(runtime) = Handle::try_current() else { return };
        state.will_look = true;
        let pool = self.me.clone();
        runtime.spawn(async move {
            sleep(limits::QUICK).await;
            let Some(pool) = pool.upgrade() else { return };
            let mut state = pool.state.lock();
            state.will_look = false;
            pool.look_behind_slow_ones(&mut state);
        });
    }

    /// Takes a request out. False when a replica has it: whoever asks is told then, by a refusal or
    /// by the connection.
    pub(super) fn dismiss(&self, number: u64) -> bool {
        let mut state = self.state.lock();
        let queued = state.waiting.len();
        state.waiting.retain(|waiting| waiting.number != number);
        if state.waiting.len() < queued {
            return true;
        }
        let mut lines = state.members.values().filter_map(|member| member.line.as_ref());
        if let Some(line) = lines.find(|line| line.dismiss(number)) {
            line.want_back();
        }
        false
    }

    /// Called by whoever reads an answer that is `unfinished`, as the closure finds when everything that
    /// was sent ahead has been called back. Says how many requests came back.
    pub(crate) fn call_back(&self, line: &Line, unfinished: impl FnOnce() -> bool) -> usize {
        let mut state = self.state.lock();
        if let Some(member) = state.members.get_mut(&line.replica) {
            member.may_have = 0; // until it has answered
        }
        let Some(back) = line.call_back(unfinished) else { return 0 };
        let count = back.len();
        self.queue_again(&mut state, back);
        count
    }

    /// A connection is given up.
    pub(crate) fn strand(&self, link: &mut Link) {
        self.take_back(&mut self.state.lock(), link);
    }

    /// What was sent ahead over a connection that is given up waits again. What may have begun is lost:
    /// nothing runs twice.
    fn take_back(&self, state: &mut State, link: &mut Link) {
        link.on_duty = false;
        let Some(line) = link.line.clone() else { return };
        match line.call_back(|| link.is_unfinished()) {
            Some(back) => self.queue_again(state, back),
            None => {
                for waiting in line.rest() {
                    let _ = waiting.sender.send(Err(Refusal::Crashed)); // it may have gone
                }
            }
        }
    }

    fn queue_again(&self, state: &mut State, back: VecDeque<Waiting>) {
        for waiting in back.into_iter().rev() {
            if waiting.leaves {
                let _ = waiting.sender.send(Err(Refusal::NoReplica)); // it may have gone
            } else {
                state.waiting.push_front(waiting);
            }
        }
        self.serve_waiting(state);
        self.refuse_waiting(state);
        self.note_demand(state);
    }
}

impl State {
    /// Of the replicas that are quick the one with the fewest requests, and how many more it may have of
    /// those who wait; none when all have enough.
    fn soon_free(&self) -> Option<(Arc<Line>, usize)> {
        let good = |m: &&Member| m.works_for(self.live) && !m.draining;
        let lines = self.members.values().filter(good).filter_map(Member::room);
        let share = self.waiting.len().div_ceil(lines.clone().count().max(1));
        let (line, room) = lines.min_by_key(|(line, _)| line.len())?;
        Some((line.clone(), room.min(share)))
    }
}

impl Member {
    /// Where more requests can be sent ahead, and how many.
    fn room(&self) -> Option<(&Arc<Line>, usize)> {
        let line = self.line.as_ref()?;
        let room = line.room(self.may_have);
        (room > 0).then_some((line, room))
    }
}

#[cfg(test)]
mod tests;
