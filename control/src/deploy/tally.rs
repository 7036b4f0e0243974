//! Counts of deployments: those that run, by phase, and those that have ended, by how. For whoever
//! shows them; nothing here decides anything by them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use crate::service::Phase;

/// How a deployment's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It serves.
    Live,
    /// It never will.
    Failed,
    /// Something that it needs was away; it runs again.
    Interrupted,
}

/// The phases in which a deployment runs.
const RUNNING: [Phase; 3] = [Phase::Building, Phase::Deploying, Phase::HealthChecking];
/// In none of them.
const NOWHERE: usize = RUNNING.len();

/// Counts since the start of this process.
#[derive(Debug, Default)]
pub struct Tally {
    running: [AtomicU64; RUNNING.len()],
    ended: [AtomicU64; Ended::ALL.len()],
}

impl Ended {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Live, Self::Failed, Self::Interrupted];

    /// As it is written in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Ended::Live => "live",
            Ended::Failed => "failed",
            Ended::Interrupted => "interrupted",
        }
    }
}

impl Tally {
    /// Deployments that run now, by phase.
    pub fn running(&self) -> impl Iterator<Item = (Phase, u64)> {
        RUNNING.iter().zip(&self.running).map(|(phase, count)| (*phase, count.load(Relaxed)))
    }

    /// Runs that have ended since the start, by how.
    pub fn ended_so_far(&self) -> impl Iterator<Item = (Ended, u64)> {
        Ended::ALL.iter().zip(&self.ended).map(|(how, count)| (*how, count.load(Relaxed)))
    }

    pub(super) fn ended(&self, how: Ended) {
        self.ended[how as usize].fetch_add(1, Relaxed);
    }
}

/// Where one deployment's run is; it is nowhere when this is dropped.
#[derive(Debug)]
pub(super) struct Stage {
    tally: Arc<Tally>,
    at: AtomicUsize,
}

impl Stage {
    pub(super) fn new(tally: Arc<Tally>) -> Self {
        Self { tally, at: AtomicUsize::new(NOWHERE) }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.move_to(RUNNING.iter().position(|running| *running == phase).unwrap_or(NOWHERE));
    }

    fn move_to(&self, place: usize) {
        let before = self.at.swap(place, Relaxed);
        if let Some(count) = self.tally.running.get(before) {
            count.fetch_sub(1, Relaxed);
        }
        if let Some(count) = self.tally.running.get(place) {
            count.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.move_to(NOWHERE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_in_one_phase_at_a_time_and_in_none_at_its_end() {
        let tally = Arc::new(Tally::default());
        let running = || tally.running().map(|(_, count)| count).collect::<Vec<_>>();
        let (first, second) = (Stage::new(tally.clone()), Stage::new(tally.clone()));
        first.enter(Phase::Building);
        first.enter(Phase::Building);
        second.enter(Phase::Building);
        assert_eq!(running(), [2, 0, 0]);
        first.enter(Phase::HealthChecking);
        assert_eq!(running(), [1, 0, 1]);
        second.enter(Phase::Failed);
        drop(first);
        assert_eq!(running(), [0, 0, 0]);
        tally.ended(Ended::Failed);
        let ended: Vec<_> = tally.ended_so_far().collect();
        assert_eq!(ended, [(Ended::Live, 0), (Ended::Failed, 1), (Ended::Interrupted, 0)]);
    }
}
