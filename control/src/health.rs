//! Which of the things that Grid stands on are there: written by whoever notices, read by
//! `/readyz`, the ready line and the scaler.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::limits;

/// A thing that Grid needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependency {
    /// What Docker Engine, when it answers, makes of containers and images: it needs room on its disk,
    /// and parts of its own.
    Containers,
    /// Docker Engine.
    Engine,
    /// The egress policy in the kernel.
    Firewall,
    /// A base image for every runtime.
    Images,
    /// DNS for functions.
    Resolver,
    /// The store.
    Store,
}

impl Dependency {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Containers, Self::Engine, Self::Firewall, Self::Images, Self::Resolver, Self::Store];

    /// As it is written in `/readyz`.
    pub fn as_str(self) -> &'static str {
        match self {
            Dependency::Containers => "containers",
            Dependency::Engine => "engine",
            Dependency::Firewall => "firewall",
            Dependency::Images => "images",
            Dependency::Resolver => "resolver",
            Dependency::Store => "store",
        }
    }
}

/// What is said of a dependency at first.
const UNKNOWN: &str = "not checked yet";

/// State of each dependency: none when all is well, else what is wrong and what to do.
pub type State = BTreeMap<Dependency, Option<String>>;

/// The shared view; cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    state: watch::Sender<State>,
    /// When the engine failed last to make something.
    failed_at: Arc<Mutex<Option<Instant>>>,
}

impl Default for Health {
    fn default() -> Self {
        Self::of(&Dependency::ALL)
    }
}

impl Health {
    /// Of what a process needs: one that only answers the public needs less.
    pub fn of(dependencies: &[Dependency]) -> Self {
        let unknown = |dependency: &Dependency| match dependency {
            // Only trying tells, and it is tried when somebody needs it.
            Dependency::Containers => (*dependency, None),
            _ => (*dependency, Some(UNKNOWN.to_owned())),
        };
        let state = watch::Sender::new(dependencies.iter().map(unknown).collect());
        Self { state, failed_at: Arc::default() }
    }

    /// Notes that the engine made a container or an image, or why it did not.
    pub fn note_made(&self, problem: Option<String>) {
        *self.failed_at.lock() = problem.as_ref().map(|_| Instant::now());
        self.set(Dependency::Containers, problem);
    }

    /// Forgets a failure to make something that is so old that it says nothing any more.
    pub fn forget_failure(&self) {
        let old = |at: &mut Instant| at.elapsed() >= limits::MAKING_FAILED;
        if self.failed_at.lock().take_if(old).is_some() {
            self.set(Dependency::Containers, None);
        }
    }

    /// Says how a dependency is: `None` is well. Tells whether that is news.
    pub fn set(&self, dependency: Dependency, problem: Option<String>) -> bool {
        self.state
            .send_if_modified(|state| state.insert(dependency, problem.clone()) != Some(problem))
    }

    /// How everything is now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Follows the changes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Whether it is known how a dependency is.
    pub fn is_checked(&self, dependency: Dependency) -> bool {
        self.state.borrow().get(&dependency) != Some(&Some(UNKNOWN.to_owned()))
    }

    /// Waits until it is known how a dependency is; not at all for one that is not needed.
    pub async fn checked(&self, dependency: Dependency) {
        let known = |state: &State| {
            state.get(&dependency).is_none_or(|problem| problem.as_deref() != Some(UNKNOWN))
        };
        let _ = self.state.subscribe().wait_for(known).await; // see `ready`
    }

    /// Waits until a dependency that is well is not any more; what is wrong with it then. One that is
    /// not well now has to get well first.
    pub async fn lost(&self, dependency: Dependency) -> String {
        let mut state = self.state.subscribe();
        let well = |state: &State| state.get(&dependency).is_none_or(Option::is_none);
        let _ = state.wait_for(well).await; // see `ready`
        let ill = state.wait_for(|state| !well(state)).await;
        let problem = ill.ok().and_then(|state| state.get(&dependency).cloned().flatten());
        problem.unwrap_or_default()
    }

    /// Waits until every dependency is well.
    pub async fn ready(&self) {
        let all_well = |state: &State| state.values().all(Option::is_none);
        // The sender is `self`, so the channel cannot be closed while this waits.
        let _ = self.state.subscribe().wait_for(all_well).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_to_make_something_is_shown_until_it_works_or_is_old() {
        let health = Health::default();
        let shown = || health.state()[&Dependency::Containers].clone();
        assert_eq!(shown(), None);
        health.note_made(Some("no space".to_owned()));
        tokio::time::advance(limits::MAKING_FAILED - Duration::from_secs(1)).await;
        health.forget_failure();
        assert_eq!(shown().as_deref(), Some("no space"));
        health.note_made(Some("still none".to_owned()));
        tokio::time::advance(limits::MAKING_FAILED - Duration::from_secs(1)).await;
        health.forget_failure();
        assert_eq!(shown().as_deref(), Some("still none"));
        tokio::time::advance(Duration::from_secs(1)).await;
        health.forget_failure();
        assert_eq!(shown(), None);
        health.note_made(Some("again".to_owned()));
        health.note_made(None);
        assert_eq!(shown(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_loss_waits_for_the_next_one() {
        let health = Health::default();
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.lost(Dependency::Engine).await }
        });
        tokio::task::yield_now().await;
        health.set(Dependency::Engine, None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished(), "not well yet is no loss");
        health.set(Dependency::Engine, Some("gone".to_owned()));
        assert_eq!(waiting.await.expect("ends"), "gone");
    }
}
