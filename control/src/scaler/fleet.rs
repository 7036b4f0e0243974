//! The replicas of a driver: started, adopted, fed with events, and what their machines ask for.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::{Done, Driver, Owned, Progress, command::Listed, work};
use crate::{
    engine::Exit,
    error::{Kind, Result},
    limits,
    name::ReplicaId,
    replica::{Action, Event, Machine, Removal},
    service::{Deployment, Replica, ServiceView, Wish},
};

impl Driver {
    /// Starts a replica; a candidate when somebody wants to know how it goes.
    pub(super) fn launch(
        &mut self,
        deployment: Arc<Deployment>,
        candidate: Option<mpsc::Sender<Progress>>,
    ) {
        let Ok(place) = self.context.replicas.clone().try_acquire_owned() else {
            let full = format!(
                "This host already runs {} replicas (GRID_MAX_REPLICAS).",
                self.context.settings.replicas
            );
            match candidate {
                Some(candidate) => drop(candidate.try_send(Progress::Failed(full))),
                None => self.note_failure(&full),
            }
            return;
        };
        let id = ReplicaId::random();
        self.replicas.insert(
            id.clone(),
            Owned {
                machine: Machine::launching(self.drain_within()),
                deployment: deployment.id,
                since: Instant::now(),
                disturbed: false,
                candidate,
                excused: false,
                verdict: None,
                _place: Some(place),
            },
        );
        let (context, replica) = (self.context.clone(), id);
        self.work.spawn(async move {
            let outcome = work::launch(&context, &replica, &deployment).await;
            Done::Launch(replica, outcome)
        });
    }

    /// Takes over what the engine says exists of the service, and notices what does not. What exists
    /// although it is not known, and did not exist at first, is a start that was given up.
    pub(super) fn adopt(&mut self, Listed { containers, at: listed_at }: Listed) {
        let stray = std::mem::replace(&mut self.listed, true);
        let drain = self.drain_within();
        let lost: Vec<_> = self
            .replicas
            .iter()
            .filter(|(id, owned)| {
                owned.machine.is_launched()
                    && owned.since < listed_at
                    && !containers.iter().any(|c| c.replica == **id && c.running)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in lost {
            self.feed(&id, Event::Exited);
        }
        for container in containers {
            if let Some(address) = container.address {
                let denied = &self.context.denied;
                denied.assign(address, self.service, container.replica.clone());
            }
            // One may have been removed while they were listed.
            let removed = self.forgotten.get(&container.replica).is_some_and(|at| *at >= listed_at);
            if removed || self.replicas.contains_key(&container.replica) {
                continue;
            }
            let now = Instant::now();
            let (machine, place) = match self.context.replicas.clone().try_acquire_owned() {
                Ok(place) if container.running && !stray => {
                    let handed_over = self.context.settings.handed_over;
                    let found = if handed_over { Machine::handed_over } else { Machine::found };
                    (found(now, drain), Some(place))
                }
                _ => (Machine::useless(drain), None),
            };
            let actions = machine.begin();
            let id = container.replica;
            tracing::info!(service = %self.service, replica = %id, running = container.running, "found a container");
            self.replicas.insert(
                id.clone(),
                Owned {
                    machine,
                    deployment: container.deployment,
                    since: now,
                    disturbed: false,
                    candidate: None,
                    excused: false,
                    verdict: None,
                    _place: place,
                },
            );
            if container.running && !stray {
                self.context.logs.found(self.service, container.deployment, &id);
            }
            self.act(&id, actions);
        }
        self.forgotten.retain(|_, at| *at >= listed_at);
    }

    /// Brings what the store knows of the replicas in step with what there is: those that it has lost,
    /// or that were just found, are put there, those that nobody owns go, and those that are to go are
    /// known as such. Everything is tried; the first failure is told.
    pub(super) async fn reconcile(&self, view: &ServiceView) -> Result<()> {
        let store = &self.context.store;
        let mut outcome = Ok(());
        for known in &view.replicas {
            let done = match self.replicas.get(&known.id) {
                Some(owned) if owned.machine.drains() && known.wish != Wish::Drain => {
                    store.wish_replica(self.service, &known.id, Wish::Drain).await
                }
                // Before the engine has said what there is, it may be one that is to be found.
                None if self.listed => store.remove_replica(self.service, &known.id).await,
                _ => Ok(()),
            };
            outcome = outcome.and(done);
        }
        for (id, owned) in &self.replicas {
            // One that is being started is put there by its start, and one that goes is taken away.
            if owned.machine.is_launched() && !view.replicas.iter().any(|known| known.id == *id) {
                let wish = if owned.machine.drains() { Wish::Drain } else { Wish::Serve };
                let replica = Replica::new(id.clone(), self.service, owned.deployment);
                outcome = outcome.and(store.put_replica(Replica { wish, ..replica }).await);
            }
        }
        outcome
    }

    /// How long a replica that is to go may have for what it does: the edge may hear late that it is to
    /// go, and may just have given it a request then.
    fn drain_within(&self) -> Duration {
        self.context.settings.function_timeout + limits::ROUND * 2
    }

    /// Gives an event to a replica's machine and does what it asks for.
    pub(super) fn feed(&mut self, id: &ReplicaId, event: Event) {
        let Some(owned) = self.replicas.get_mut(id) else {
            return;
        };
        let actions = owned.machine.on(event, Instant::now());
        self.act(id, actions);
    }

    fn act(&mut self, id: &ReplicaId, actions: Vec<Action>) {
        let ended =
            actions.iter().any(|action| matches!(action, Action::Remove(Removal::Ended(_))));
        for action in actions {
            let Some(owned) = self.replicas.get_mut(id) else {
                return;
            };
            match action {
                Action::TellLaunched => {
                    owned.since = Instant::now();
                    if let Some(candidate) = &owned.candidate {
                        let _ = candidate.try_send(Progress::Launched);
                    }
                }
                Action::TellReady => match &owned.candidate {
                    Some(candidate) => drop(candidate.try_send(Progress::Ready)),
                    None => {
                        self.failures = 0;
                        self.wait_until = None;
                    }
                },
                // First it is found out whose doing that was.
                Action::TellFailed(reason) if ended => owned.verdict = Some(reason),
                Action::TellFailed(reason) => self.tell_failed(id, reason),
                // The look that follows tells the store.
                Action::Drain => {}
                Action::Remove(removal) if owned.verdict.is_some() => {
                    let (context, id) = (self.context.clone(), id.clone());
                    self.work.spawn(async move {
                        let ending = work::ending(&context, &id).await;
                        Done::Ending(id, removal, ending)
                    });
                }
                Action::Remove(removal) => self.remove(id, removal),
                Action::Forget => {
                    self.forgotten.insert(id.clone(), Instant::now());
                    let gone = self.replicas.remove(id);
                    if gone.is_some_and(|gone| Some(gone.deployment) != self.live) {
                        self.prune();
                    }
                }
            }
        }
    }

    /// The process of a replica has ended before it could serve. That says something about the code
    /// unless somebody else removed the container, or the engine is not there to be asked.
    pub(super) fn judge(&mut self, id: &ReplicaId, ending: Result<Option<Exit>>) {
        let Some(owned) = self.replicas.get_mut(id) else { return };
        let Some(mut reason) = owned.verdict.take() else { return };
        match ending {
            Ok(Some(Exit { removed: true, .. })) => {
                tracing::warn!(service = %self.service, replica = %id, "somebody else removed the container of a replica that was starting");
                (owned.disturbed, owned.excused) = (true, true);
                reason = "Somebody removed the container while the function loaded.".to_owned();
            }
            Err(error) if error.kind() == Kind::Unavailable => owned.disturbed = true,
            Ok(_) | Err(_) => {}
        }
        self.tell_failed(id, reason);
    }

    /// Tells whoever waits for a replica that it will never serve.
    fn tell_failed(&mut self, id: &ReplicaId, reason: String) {
        let Some(owned) = self.replicas.get_mut(id) else { return };
        match owned.candidate.take() {
            Some(candidate) => {
                let told = match owned.disturbed {
                    true => Progress::Interrupted(reason),
                    false => Progress::Failed(reason),
                };
                drop(candidate.try_send(told));
            }
            // That is no fault of the service.
            None if owned.excused => {
                self.wait_until = Some(Instant::now() + limits::ENGINE_RETRY);
            }
            None => self.note_failure(&reason),
        }
    }

    pub(super) fn remove(&mut self, id: &ReplicaId, removal: Removal) {
        let Some(owned) = self.replicas.get(id) else { return };
        let (context, service, id) = (self.context.clone(), self.service, id.clone());
        let deployment = owned.deployment;
        self.work.spawn(async move {
            let outcome = work::remove(&context, service, deployment, &id, removal).await;
            Done::Removal(id, outcome)
        });
    }
}
