//! What control was told of the replicas, so that it can be told again.

use std::collections::HashMap;

use control::{
    limits,
    name::ReplicaId,
    service::{Seen, ServiceView},
};
use tokio::time::Instant;

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
