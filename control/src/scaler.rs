//! One driver task per service owns that service's replicas and its deployment in progress. It
//! wakes on hints, on the engine's answers and on deadlines, compares what is with what should be,
//! and acts. Nobody else starts or ends a container.

mod plan;
mod work;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use self::plan::{Plan, Standing, plan};
use crate::{
    deploy,
    engine::Container,
    error::{Error, Kind, Result},
    limits,
    name::{DeploymentId, ReplicaId, ServiceId},
    plane::Context,
    replica::{Action, Event, Machine},
    service::{Deployment, Obstacle, Replica, ServiceView, Wish},
};

/// What a client of a function without any working deployment is told to wait.
const NO_DEPLOYMENT_RETRY: Duration = Duration::from_secs(10);

/// What a driver is told.
#[derive(Debug)]
pub enum Command {
    /// Something about the service may have changed.
    Look,
    /// The engine does not answer.
    EngineDown,
    /// The engine answers; these containers of the service exist.
    EngineUp {
        /// All of them, also those that ended.
        containers: Vec<Container>,
        /// What was started later is not among them.
        listed_at: Instant,
    },
    /// A container's process ended.
    Died(ReplicaId),
    /// A deployment wants a replica to try its code with.
    StartCandidate {
        /// Which one.
        deployment: Arc<Deployment>,
        /// Told how it goes. The candidate is kept while this is open.
        progress: mpsc::Sender<Progress>,
    },
}

/// How a candidate is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Its container runs.
    Launched,
    /// Its code is loaded.
    Ready,
    /// It never will be.
    Failed(String),
}

/// What a driver's own tasks came to.
enum Done {
    Launch(ReplicaId, Result<()>),
    Removal(ReplicaId, Result<()>),
    Deployment(DeploymentId, deploy::Outcome),
    Housekeeping,
}

struct Owned {
    machine: Machine,
    deployment: DeploymentId,
    /// When the engine was asked to start it, or when it was found.
    since: Instant,
    candidate: Option<mpsc::Sender<Progress>>,
    /// Its place under the host's ceiling.
    _place: Option<OwnedSemaphorePermit>,
}

struct Driver {
    context: Arc<Context>,
    service: ServiceId,
    replicas: BTreeMap<ReplicaId, Owned>,
    /// The deployment whose replicas are started; read again when another one is live.
    live: Option<Arc<Deployment>>,
    deploying: Option<(DeploymentId, AbortHandle)>,
    /// Starts of the live deployment that failed, one after another.
    failures: u32,
    last_failure: String,
    /// No starts and no deployments before this.
    wait_until: Option<Instant>,
    obstacle_told: bool,
    engine_up: bool,
    /// The service is deleted and its images and logs are gone.
    swept: bool,
    work: JoinSet<Done>,
}

/// Runs until the service is deleted and nothing of it is left.
pub(crate) async fn drive(
    context: Arc<Context>,
    service: ServiceId,
    engine_up: bool,
    own: mpsc::WeakSender<Command>,
    mut inbox: mpsc::Receiver<Command>,
) -> ServiceId {
    let mut driver = Driver {
        context,
        service,
        replicas: BTreeMap::new(),
        live: None,
        deploying: None,
        failures: 0,
        last_failure: String::new(),
        wait_until: None,
        obstacle_told: false,
        engine_up,
        swept: false,
        work: JoinSet::new(),
    };
    loop {
        let deadline = driver.next_deadline();
        let until_deadline = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = inbox.recv() => match command {
                Some(command) => driver.take(command),
                None => return service,
            },
            Some(done) = driver.work.join_next() => driver.finish(done),
            () = until_deadline => {}
        }
        match driver.look(&own).await {
            Ok(true) => return service,
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%service, %error, "looking after the service failed; again in 1 s");
                driver.wait_until = Some(Instant::now() + limits::ENGINE_RETRY);
            }
        }
    }
}

impl Driver {
    fn next_deadline(&self) -> Option<Instant> {
        let ticks = self.replicas.values().filter_map(|owned| owned.machine.next_tick());
        ticks.chain(self.wait_until).min()
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Look => {}
            Command::EngineDown => self.engine_up = false,
            Command::EngineUp { containers, listed_at } => {
                self.engine_up = true;
                self.wait_until = None;
                self.adopt(containers, listed_at);
            }
            Command::Died(replica) => self.feed(&replica, Event::Exited),
            Command::StartCandidate { deployment, progress } => {
                self.launch(deployment, Some(progress));
            }
        }
    }

    fn finish(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Launch(replica, Ok(()))) => self.feed(&replica, Event::Launched),
            Ok(Done::Launch(replica, Err(error))) => {
                tracing::warn!(service = %self.service, %replica, %error, "a container did not start");
                self.feed(&replica, Event::LaunchFailed(public_reason(&error)));
            }
            Ok(Done::Removal(replica, Ok(()))) => self.feed(&replica, Event::Removed),
            Ok(Done::Removal(replica, Err(error))) => {
                tracing::warn!(service = %self.service, %replica, %error, "a container was not removed; again in 1 s");
                self.feed(&replica, Event::RemoveFailed);
            }
            Ok(Done::Deployment(id, outcome)) => {
                if self.deploying.as_ref().is_some_and(|(current, _)| *current == id) {
                    self.deploying = None;
                }
                match outcome {
                    deploy::Outcome::Settled => {
                        self.failures = 0;
                        self.wait_until = None;
                        self.prune();
                    }
                    deploy::Outcome::Interrupted => self.back_off(),
                }
            }
            Ok(Done::Housekeeping) => {}
            // Aborted on purpose, or it panicked: then the next look starts over.
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                tracing::error!(service = %self.service, %error, "a task of the driver failed");
                self.deploying = None;
            }
        }
    }

    /// Compares what is with what should be, and acts. True when nothing is left to look after.
    async fn look(&mut self, own: &mpsc::WeakSender<Command>) -> Result<bool> {
        let now = Instant::now();
        let view = self.context.store.view(self.service).await?;
        self.take_reports(&view, now);
        if self.wait_until.is_some_and(|until| now >= until) {
            self.wait_until = None;
        }
        let plan = plan(&view, &self.standing(&view), self.wait_until.is_none());
        for replica in &plan.retire {
            self.feed(replica, Event::Retire);
        }
        if view.route.is_none() {
            return Ok(self.wind_down());
        }
        self.start(&view, &plan).await?;
        self.continue_deployment(own).await?;
        self.tell_obstacle(&view).await?;
        Ok(false)
    }

    fn take_reports(&mut self, view: &ServiceView, now: Instant) {
        let mut events = VecDeque::new();
        for replica in &view.replicas {
            if let Some(seen) = replica.seen.clone() {
                events.push_back((replica.id.clone(), Event::Seen(seen)));
            }
        }
        for (id, owned) in &self.replicas {
            if owned.machine.next_tick().is_some_and(|at| now >= at) {
                events.push_back((id.clone(), Event::Tick));
            }
        }
        for (id, event) in events {
            self.feed(&id, event);
        }
    }

    fn standing(&self, view: &ServiceView) -> Vec<Standing> {
        self.replicas
            .iter()
            .map(|(id, owned)| Standing {
                id: id.clone(),
                deployment: owned.deployment,
                counts: owned.machine.counts(),
                serves: owned.machine.serves(),
                candidate: owned.candidate.as_ref().is_some_and(|tx| !tx.is_closed()),
                seen: view.replicas.iter().find(|r| r.id == *id).and_then(|r| r.seen.clone()),
            })
            .collect()
    }

    async fn start(&mut self, view: &ServiceView, plan: &Plan) -> Result<()> {
        let Some(live) = view.route.as_ref().and_then(|route| route.live_deployment) else {
            return Ok(());
        };
        if plan.start == 0 || !self.engine_up {
            return Ok(());
        }
        if self.live.as_ref().is_none_or(|cached| cached.id != live) {
            self.live = self.context.store.deployment(self.service, live).await?.map(Arc::new);
            self.failures = 0;
        }
        if let Some(deployment) = self.live.clone() {
            for _ in 0..plan.start {
                self.launch(deployment.clone(), None);
            }
        }
        Ok(())
    }

    /// Tells waiting requests why they wait in vain, or that they do not any more.
    async fn tell_obstacle(&mut self, view: &ServiceView) -> Result<()> {
        let serving = self.replicas.values().any(|owned| owned.machine.counts());
        let obstacle = if serving {
            None
        } else if !self.engine_up {
            Some(("The container engine is not available.".to_owned(), limits::ENGINE_RETRY))
        } else if view.route.as_ref().is_some_and(|route| route.live_deployment.is_none())
            && self.deploying.is_none()
            && self.wait_until.is_none()
        {
            let reason = "No deployment of this function has succeeded yet.";
            Some((reason.to_owned(), NO_DEPLOYMENT_RETRY))
        } else if self.failures >= 2
            && let Some(until) = self.wait_until
        {
            let wait = until.saturating_duration_since(Instant::now());
            Some((format!("The function does not start: {}", self.last_failure), wait))
        } else {
            None
        };
        if obstacle.is_none() && !self.obstacle_told && view.obstacle.is_none() {
            return Ok(());
        }
        let same = match (&obstacle, &view.obstacle) {
            (Some((message, _)), Some(told)) => {
                *message == told.message && Timestamp::now() < told.retry_at
            }
            (None, None) => true,
            _ => false,
        };
        self.obstacle_told = obstacle.is_some();
        if same {
            return Ok(());
        }
        let obstacle = obstacle.map(|(message, wait)| Obstacle {
            message,
            retry_at: Timestamp::now() + wait.max(limits::ENGINE_RETRY),
        });
        self.context.store.set_obstacle(self.service, obstacle).await
    }

    async fn continue_deployment(&mut self, own: &mpsc::WeakSender<Command>) -> Result<()> {
        if self.deploying.is_some() || self.wait_until.is_some() || !self.engine_up {
            return Ok(());
        }
        let now = Timestamp::now();
        let Some(deployment) = self.context.store.claim_deployment(self.service, now).await? else {
            return Ok(());
        };
        let Some(own) = own.upgrade() else {
            return Ok(());
        };
        let id = deployment.id;
        let run = deploy::run(self.context.clone(), own, deployment);
        let task = self.work.spawn(async move { Done::Deployment(id, run.await) });
        self.deploying = Some((id, task));
        Ok(())
    }

    /// The service is deleted: ends everything that is left. True when nothing is.
    fn wind_down(&mut self) -> bool {
        if let Some((_, task)) = self.deploying.take() {
            task.abort();
        }
        if !self.replicas.is_empty() || !self.work.is_empty() {
            return false;
        }
        if !self.swept {
            self.swept = true;
            let (context, service) = (self.context.clone(), self.service);
            self.work.spawn(async move {
                work::forget(&context, service).await;
                Done::Housekeeping
            });
            return false;
        }
        true
    }

    fn adopt(&mut self, containers: Vec<Container>, listed_at: Instant) {
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
            if self.replicas.contains_key(&container.replica) {
                continue;
            }
            let now = Instant::now();
            let (machine, place) = match self.context.replicas.clone().try_acquire_owned() {
                Ok(place) if container.running => (Machine::found(now, drain), Some(place)),
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
                    candidate: None,
                    _place: place,
                },
            );
            if container.running {
                self.publish(&id, container.deployment);
            }
            self.act(&id, actions);
        }
    }

    fn launch(&mut self, deployment: Arc<Deployment>, candidate: Option<mpsc::Sender<Progress>>) {
        let Ok(place) = self.context.replicas.clone().try_acquire_owned() else {
            let full = format!(
                "This host already runs {} replicas (GRID_MAX_REPLICAS).",
                self.context.settings.replicas
            );
            match candidate {
                Some(candidate) => drop(candidate.try_send(Progress::Failed(full))),
                None => self.note_failure(full),
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

    /// Makes an adopted replica known to the edge, which then listens for it.
    fn publish(&mut self, id: &ReplicaId, deployment: DeploymentId) {
        let replica = Replica {
            id: id.clone(),
            service: self.service,
            deployment,
            wish: Wish::Serve,
            seen: None,
        };
        let context = self.context.clone();
        self.work.spawn(async move {
            if let Err(error) = context.store.put_replica(replica).await {
                tracing::error!(%error, "an adopted replica could not be recorded");
            }
            Done::Housekeeping
        });
    }

    fn feed(&mut self, id: &ReplicaId, event: Event) {
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
                    Some(candidate) => drop(candidate.try_send(Progress::Failed(reason))),
                    None => self.note_failure(reason),
                },
                Action::Drain => {
                    let (context, service, id) = (self.context.clone(), self.service, id.clone());
                    self.work.spawn(async move {
                        let drain = context.store.wish_replica(service, &id, Wish::Drain);
                        if let Err(error) = drain.await {
                            tracing::warn!(%service, replica = %id, %error, "drain not recorded");
                        }
                        Done::Housekeeping
                    });
                }
                Action::Remove(removal) => {
                    let (context, service, id) = (self.context.clone(), self.service, id.clone());
                    self.work.spawn(async move {
                        let outcome = work::remove(&context, service, &id, removal).await;
                        Done::Removal(id, outcome)
                    });
                }
                Action::Forget => {
                    let gone = self.replicas.remove(id);
                    let live = self.live.as_ref().map(|live| live.id);
                    if gone.is_some_and(|gone| Some(gone.deployment) != live) {
                        self.prune();
                    }
                }
            }
        }
    }

    fn note_failure(&mut self, reason: String) {
        self.last_failure = reason;
        self.failures = self.failures.saturating_add(1);
        self.back_off();
    }

    fn back_off(&mut self) {
        let (first, longest) = limits::BACKOFF;
        let doubled = first * 2u32.saturating_pow(self.failures.saturating_sub(1).min(10));
        let pause: Duration = doubled.min(longest);
        self.wait_until = Some(Instant::now() + pause);
    }

    fn prune(&mut self) {
        let (context, service) = (self.context.clone(), self.service);
        self.work.spawn(async move {
            work::prune(&context, service).await;
            Done::Housekeeping
        });
    }
}

/// What a waiting person may read of an internal error.
fn public_reason(error: &Error) -> String {
    match error.kind() {
        Kind::Unavailable => "The container engine does not answer.".to_owned(),
        _ => error.to_string(),
    }
}
