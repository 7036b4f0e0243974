//! What control is told of a function, and was, so that it can be told again.

use std::collections::HashMap;

use control::{
    limits,
    name::{ReplicaId, ServiceId},
    service::{Seen, ServiceView},
};
use tokio::time::Instant;

use super::{Pool, State};

/// Something that control has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// What was seen of a replica, and the demand at that moment.
    Seen { service: ServiceId, replica: ReplicaId, seen: Seen, demand: u32 },
    /// So many requests run or wait.
    Demand { service: ServiceId, demand: u32 },
}

/// The last word on each replica.
#[derive(Default)]
pub(super) struct Said(HashMap<ReplicaId, Word>);

struct Word {
    seen: Seen,
    /// The store has not known the replica since then.
    missing: Option<Instant>,
}

impl Said {
    /// A replica that was given up never comes back.
    pub(super) fn note(&mut self, id: &ReplicaId, seen: Seen) {
        if !self.is_gone(id) {
            self.0.insert(id.clone(), Word { seen, missing: None });
        }
    }

    /// Whether the replica must not be used again.
    pub(super) fn is_gone(&self, id: &ReplicaId) -> bool {
        self.0.get(id).is_some_and(|word| matches!(word.seen, Seen::Gone { .. }))
    }

    /// What a view should say and does not. That another process gave a replica up is not contradicted.
    pub(super) fn missing_in(&self, view: &ServiceView) -> Vec<(ReplicaId, Seen)> {
        let said = view.replicas.iter().filter_map(|replica| {
            let word = self.0.get(&replica.id)?;
            let known = replica.seen.as_ref();
            let settled = known == Some(&word.seen) || matches!(known, Some(Seen::Gone { .. }));
            (!settled).then(|| (replica.id.clone(), word.seen.clone()))
        });
        said.collect()
    }

    /// Forgets what nobody will ask for. A replica that was given up is remembered for a while: when
    /// the store has only lost it, it comes back, and must not be taken for a new one.
    pub(super) fn forget_all_but(
        &mut self,
        view: &ServiceView,
        is_member: impl Fn(&ReplicaId) -> bool,
        now: Instant,
    ) {
        self.0.retain(|id, word| {
            if view.replicas.iter().any(|replica| replica.id == *id) {
                word.missing = None;
                return true;
            }
            let since = *word.missing.get_or_insert(now);
            is_member(id)
                || matches!(word.seen, Seen::Gone { .. }) && now < since + limits::GONE_REMEMBERED
        });
    }
}

impl Pool {
    /// Says what was seen of a replica that is not a member.
    pub(crate) fn report(&self, id: &ReplicaId, seen: Seen) {
        self.note_seen(&mut self.state.lock(), id, seen);
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

    /// Tells control again what it should know by now and does not: the store has lost it, or was away
    /// when it was told.
    pub(super) fn say_again(&self, state: &mut State, view: &ServiceView) {
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

    /// A replica that control takes for idle has work.
    pub(super) fn note_work(&self, state: &mut State, id: &ReplicaId) {
        let member = state.members.get_mut(id);
        if member.is_some_and(|member| std::mem::take(&mut member.told_idle)) {
            self.note_seen(state, id, Seen::Ready);
        }
    }

    /// Tells control when there is more to do than it knows.
    pub(super) fn note_demand(&self, state: &mut State) {
        let demand = state.demand();
        if demand > state.told {
            state.told = demand;
            self.note(state, Note::Demand { service: self.service, demand });
        }
    }

    pub(super) fn note_seen(&self, state: &mut State, replica: &ReplicaId, seen: Seen) {
        state.told = state.demand();
        state.said.note(replica, seen.clone());
        let (service, replica, demand) = (self.service, replica.clone(), state.told);
        self.note(state, Note::Seen { service, replica, seen, demand });
    }

    pub(super) fn note(&self, state: &mut State, note: Note) {
        state.underway += 1;
        // The receiver ends with the edge.
        let _ = self.notes.send(note);
    }
}
