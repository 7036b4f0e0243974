//! The replicas of a driver: started, adopted, fed with events, and what their machines ask for.

use std::sync::Arc;

use tokio::{sync::mpsc, time::Instant};

use super::{Done, Driver, Owned, Progress, work};
use crate::{
    engine::Container,
    name::{DeploymentId, ReplicaId},
    replica::{Action, Event, Machine},
    service::{Deployment, Replica, Wish},
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
                machine: Machine::launching(self.context.settings.function_timeout),
                deployment: deployment.id,
                since: Instant::now(),
                disturbed: false,
                candidate,
                _place: Some(place),
            },
        );
        let (context, replica) = (self.context.clone(), id);
        self.work.spawn(async move {
            let outcome = work::launch(&context, &replica, &deployment).await;
            Done::Launch(replica, outcome)
        });
    }

    /// Takes over what the engine says exists of the service, and notices what does not. With `strays`
    /// what is not known is of no use, because whatever this process started is known to it.
    pub(super) fn adopt(&mut self, containers: Vec<Container>, listed_at: Instant, strays: bool) {
        let drain = self.context.settings.function_timeout;
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
                Ok(place) if container.running && !strays => {
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
                    _place: place,
                },
            );
            if container.running && !strays {
                self.context.logs.found(self.service, container.deployment, &id);
                self.publish(&id, container.deployment);
            }
            self.act(&id, actions);
        }
        self.forgotten.retain(|_, at| *at >= listed_at);
    }

    /// Makes an adopted replica known to the edge, which then listens for it.
    fn publish(&mut self, id: &ReplicaId, deployment: DeploymentId) {
        let replica = Replica::new(id.clone(), self.service, deployment);
        let context = self.context.clone();
        self.keep_house(async move {
            if let Err(error) = context.store.put_replica(replica).await {
                tracing::error!(%error, "an adopted replica could not be recorded");
            }
        });
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
                Action::TellFailed(reason) => match owned.candidate.take() {
                    Some(candidate) => {
                        let told = match owned.disturbed {
                            true => Progress::Interrupted(reason),
                            false => Progress::Failed(reason),
                        };
                        drop(candidate.try_send(told));
                    }
                    None => self.note_failure(&reason),
                },
                Action::Drain => {
                    let (context, service, id) = (self.context.clone(), self.service, id.clone());
                    self.keep_house(async move {
                        let drain = context.store.wish_replica(service, &id, Wish::Drain);
                        if let Err(error) = drain.await {
                            tracing::warn!(%service, replica = %id, %error, "drain not recorded");
                        }
                    });
                }
                Action::Remove(removal) => {
                    let (context, service, id) = (self.context.clone(), self.service, id.clone());
                    let deployment = owned.deployment;
                    self.work.spawn(async move {
                        let outcome =
                            work::remove(&context, service, deployment, &id, removal).await;
                        Done::Removal(id, outcome)
                    });
                }
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
}
