//! How many there are of what, at one moment.

use super::Pool;

/// Replicas that have called home, by state, and the requests that wait for one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) idle: u64,
    pub(crate) busy: u64,
    /// They serve what they have and then go.
    pub(crate) draining: u64,
    pub(crate) waiting: u64,
}

impl Pool {
    /// Counts them.
    pub(crate) fn census(&self) -> Census {
        let state = self.state.lock();
        let mut census = Census { waiting: state.queued() as u64, ..Census::default() };
        for member in state.members.values() {
            *match (member.draining, &member.link) {
                (true, _) => &mut census.draining,
                (false, None) => &mut census.busy,
                (false, Some(_)) => &mut census.idle,
            } += 1;
        }
        census
    }
}
