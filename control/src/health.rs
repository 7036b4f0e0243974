//! Which of the things that Grid stands on are there: written by whoever notices, read by
//! `/readyz`, the ready line and the scaler.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// A thing that Grid needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependency {
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
    pub const ALL: [Self; 5] =
        [Self::Engine, Self::Firewall, Self::Images, Self::Resolver, Self::Store];

    /// As it is written in `/readyz`.
    pub fn as_str(self) -> &'static str {
        match self {
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
pub struct Health(watch::Sender<State>);

impl Default for Health {
    fn default() -> Self {
        Self::of(&Dependency::ALL)
    }
}

impl Health {
    /// Of what a process needs: one that only answers the public needs less.
    pub fn of(dependencies: &[Dependency]) -> Self {
        let unknown = |dependency: &Dependency| (*dependency, Some(UNKNOWN.to_owned()));
        Self(watch::Sender::new(dependencies.iter().map(unknown).collect()))
    }

    /// Says how a dependency is: `None` is well. Tells whether that is news.
    pub fn set(&self, dependency: Dependency, problem: Option<String>) -> bool {
        self.0.send_if_modified(|state| state.insert(dependency, problem.clone()) != Some(problem))
    }

    /// How everything is now.
    pub fn state(&self) -> State {
        self.0.borrow().clone()
    }

    /// Follows the changes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    /// Waits until it is known how a dependency is; not at all for one that is not needed.
    pub async fn checked(&self, dependency: Dependency) {
        let known = |state: &State| {
            state.get(&dependency).is_none_or(|problem| problem.as_deref() != Some(UNKNOWN))
        };
        let _ = self.0.subscribe().wait_for(known).await; // see `ready`
    }

    /// Waits until every dependency is well.
    pub async fn ready(&self) {
        let all_well = |state: &State| state.values().all(Option::is_none);
        // The sender is `self`, so the channel cannot be closed while this waits.
        let _ = self.0.subscribe().wait_for(all_well).await;
    }
}
