//! Which invocations run: so many at a time, in turns of those who want one, each known by its container's id until nothing is left
//! of it, so that what no process knows can be removed.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    error::{Error, Result},
    limits,
    name::{ReplicaId, UserName},
    shares::Shares,
};

/// What is said when Grid stops, or is replaced.
const ENDING: &str = "Grid is just being stopped or replaced. Try again shortly.";

/// The places for invocations, and who has one. All clones are one.
#[derive(Debug, Clone)]
pub struct Invocations {
    places: Arc<Semaphore>,
    /// Of each user one waits for a place at a time: so the places go round.
    queues: Arc<Shares>,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    ending: bool,
    active: HashSet<ReplicaId>,
}

/// One invocation's place, from before its container exists until that is gone.
#[derive(Debug)]
pub(super) struct Place {
    id: ReplicaId,
    state: watch::Sender<State>,
    _permit: OwnedSemaphorePermit,
}

impl Invocations {
    /// So many at a time.
    pub fn new(places: usize) -> Self {
        let (state, _) = watch::channel(State::default());
        Self { places: Arc::new(Semaphore::new(places)), queues: Arc::new(Shares::new(1)), state }
    }

    /// Waits for a place, for a bounded time.
    ///
    /// # Errors
    /// `Busy` when there is none, or when no more are given.
    pub(super) async fn enter(&self, user: &UserName) -> Result<Place> {
        let permit = async {
            let _turn = self.queues.of(user).acquire_owned().await;
            self.places.clone().acquire_owned().await
        };
        let Ok(Ok(permit)) = tokio::time::timeout(limits::INVOKE_TURN, permit).await else {
            return Err(Error::Busy(
                "As many functions as may run at a time are being invoked. Try again shortly."
                    .to_owned(),
            ));
        };
        let id = ReplicaId::random();
        let entered = self.state.send_if_modified(|state| {
            if !state.ending {
                state.active.insert(id.clone());
            }
            !state.ending
        });
        if !entered {
            return Err(ending());
        }
        Ok(Place { id, state: self.state.clone(), _permit: permit })
    }

    /// Whether this is the container of an invocation that runs, or is being cleared away.
    pub(crate) fn is_active(&self, id: &ReplicaId) -> bool {
        self.state.borrow().active.contains(id)
    }

    /// Lets nobody in any more, and waits until everybody has left: what still runs has
    /// `limits::INVOKE_END` for it.
    pub(crate) async fn end(&self) {
        self.state.send_modify(|state| state.ending = true);
        let _ = self.state.subscribe().wait_for(|state| state.active.is_empty()).await;
    }
}

impl Place {
    /// Whose it is.
    pub(super) fn id(&self) -> &ReplicaId {
        &self.id
    }

    /// Waits until this one has to leave; the answer is why.
    pub(super) async fn revoked(&self) -> Error {
        let _ = self.state.subscribe().wait_for(|state| state.ending).await;
        tokio::time::sleep(limits::INVOKE_END).await;
        ending()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.send_modify(|state| {
            state.active.remove(&self.id);
        });
    }
}

fn ending() -> Error {
    Error::Busy(ENDING.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> UserName {
        UserName::parse("ada").expect("valid")
    }

    /// Five of one user wait before two of another.
    #[tokio::test(start_paused = true)]
    async fn places_go_round_among_users() {
        let invocations = Invocations::new(1);
        let bob = UserName::parse("bob").expect("valid");
        let (came, mut order) = tokio::sync::mpsc::unbounded_channel();
        let users = [ada(), ada(), ada(), ada(), ada(), bob.clone(), bob];
        for user in users {
            let (invocations, came) = (invocations.clone(), came.clone());
            tokio::spawn(async move {
                let place = invocations.enter(&user).await.expect("a place");
                tokio::time::sleep(limits::INVOKE_TURN / 10).await;
                drop(place);
                came.send(user.as_str().to_owned())
            });
            tokio::task::yield_now().await;
        }
        drop(came);
        let mut names = Vec::new();
        while let Some(name) = order.recv().await {
            names.push(name);
        }
        assert_eq!(names, ["ada", "ada", "bob", "ada", "bob", "ada", "ada"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_in_time_is_told_so() {
        let invocations = Invocations::new(1);
        let first = invocations.enter(&ada()).await.expect("a place");
        assert!(invocations.is_active(first.id()));
        let error = invocations.enter(&ada()).await.expect_err("none is left");
        assert!(error.to_string().starts_with("As many functions"), "{error}");
        let waiting = {
            let invocations = invocations.clone();
            tokio::spawn(async move { invocations.enter(&ada()).await })
        };
        tokio::time::sleep(limits::INVOKE_TURN / 2).await;
        let id = first.id().clone();
        drop(first);
        assert!(!invocations.is_active(&id));
        assert!(waiting.await.expect("ends").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_who_is_in_and_lets_nobody_else_in() {
        let invocations = Invocations::new(2);
        let place = invocations.enter(&ada()).await.expect("a place");
        let end = {
            let invocations = invocations.clone();
            tokio::spawn(async move { invocations.end().await })
        };
        let reason = place.revoked().await.to_string();
        assert_eq!(reason, ENDING);
        assert!(!end.is_finished());
        assert_eq!(invocations.enter(&ada()).await.expect_err("the end").to_string(), ENDING);
        drop(place);
        end.await.expect("ends");
    }
}
