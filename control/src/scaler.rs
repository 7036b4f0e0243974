//! One driver task per service owns that service's replicas and its deployment in progress. It
//! wakes on hints, on the engine's answers and on deadlines, compares what is with what should be,
//! and acts. Nobody else starts or ends a container. A driver that has nothing to do ends, so that a
//! service that sleeps costs no task; the next that is told to it begins another one.

pub mod command;
mod fleet;
pub(crate) mod inbox;
mod obstacle;
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

use self::command::{Command, Progress};
use self::inbox::{Address, Inbox};
use self::plan::{Plan, Standing, plan};
pub(crate) use self::work::prune;
use crate::{
    context::Context,
    deploy,
    engine::Exit,
    error::{Error, Kind, Result},
    limits,
    name::{DeploymentId, ReplicaId, ServiceId},
    replica::{Event, Machine, Removal},
    rounds::jittered,
    service::{Deployment, Phase, ServiceView, Wish},
};

/// What a driver's own tasks came to.
enum Done {
    Launch(ReplicaId, Result<()>),
    /// How the process of one ended that had not loaded yet.
    Ending(ReplicaId, Removal, Result<Option<Exit>>),
    Removal(ReplicaId, Result<()>),
    Deployment(DeploymentId, deploy::Outcome),
    Housekeeping,
}

/// Why a driver has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing is to be done for the service, and nothing is known of it that the store does not know.
    Rest,
    /// The service is deleted and nothing of it is left.
    Gone,
    /// It was told to.
    Told,
}

struct Owned {
    machine: Machine,
    deployment: DeploymentId,
    /// When the engine was asked to start it, or when it was found.
    since: Instant,
    /// The engine did not do its part in the start: what comes of it says nothing about the code.
    disturbed: bool,
    candidate: Option<mpsc::Sender<Progress>>,
    /// Its start failed because the store was away, or because somebody else removed it.
    excused: bool,
    /// What is to be said of its start, once it is known how its process ended.
    verdict: Option<String>,
    /// Its place under the host's ceiling.
    _place: Option<OwnedSemaphorePermit>,
}

struct Driver {
    context: Arc<Context>,
    service: ServiceId,
    replicas: BTreeMap<ReplicaId, Owned>,
    /// When replicas were removed, since the containers were listed last.
    forgotten: BTreeMap<ReplicaId, Instant>,
    /// The deployment that serves.
    live: Option<DeploymentId>,
    /// The same with all that a start needs; read when it is first needed.
    starting: Option<Arc<Deployment>>,
    deploying: Option<(DeploymentId, AbortHandle)>,
    /// How often that one was run since the engine answers.
    runs: Option<(DeploymentId, u32)>,
    /// Starts of the live deployment that failed, one after another.
    failures: u32,
    /// No starts before this.
    wait_until: Option<Instant>,
    /// No deployment before this. Apart from the starts: a new version may be what mends them.
    deploy_after: Option<Instant>,
    engine_up: bool,
    /// The engine has said which containers there are: every one that exists is known here.
    listed: bool,
    /// The store did not say what the edge saw.
    blind: bool,
    /// Looks that failed, one after another.
    lapses: u32,
    /// Look again then, without being told to.
    look_again: Option<Instant>,
    /// The service is deleted and its images and logs are gone.
    swept: bool,
    work: JoinSet<Done>,
}

/// Runs until nothing is left to do, or until it is told to end. Its place among those that look for
/// the first time is free when it has.
pub(crate) async fn drive(
    context: Arc<Context>,
    service: ServiceId,
    engine_up: bool,
    mut inbox: Inbox,
    mut first_look: Option<OwnedSemaphorePermit>,
) -> (ServiceId, End) {
    let mut driver = Driver {
        context,
        service,
        replicas: BTreeMap::new(),
        forgotten: BTreeMap::new(),
        live: None,
        starting: None,
        deploying: None,
        runs: None,
        failures: 0,
        wait_until: None,
        deploy_after: None,
        engine_up,
        listed: engine_up,
        blind: false,
        lapses: 0,
        look_again: None,
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
            command = inbox.next() => match command {
                Command::End => {
                    driver.end().await;
                    return (service, End::Told);
                }
                command => driver.take(command),
            },
            Some(done) = driver.work.join_next() => driver.finish(done),
            () = until_deadline => {}
        }
        let looked = driver.look(&inbox).await;
        drop(first_look.take());
        match looked {
            Ok(Some(end)) if inbox.close_if_empty() => return (service, end),
            Ok(_) => driver.lapses = 0,
            Err(error) => driver.note_lapse(&error),
        }
    }
}

impl Driver {
    fn next_deadline(&self) -> Option<Instant> {
        // What is due stays due while the store does not say how things are.
        if self.lapses > 0 {
            return self.look_again;
        }
        let ticks = self.replicas.values().filter_map(|owned| owned.machine.next_tick());
        let pauses = [self.wait_until, self.deploy_after, self.look_again];
        ticks.chain(pauses.into_iter().flatten()).min()
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Look | Command::End => {}
            Command::EngineDown => self.engine_up = false,
            Command::EngineUp(listed) => {
                self.engine_up = true;
                (self.wait_until, self.deploy_after, self.runs) = (None, None, None);
                self.adopt(listed);
            }
            Command::Listed(listed) => self.adopt(listed),
            Command::Retry => self.wait_until = None,
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
                if let Some(owned) = self.replicas.get_mut(&replica) {
                    owned.disturbed = error.kind() == Kind::Unavailable;
                    owned.excused = matches!(error, Error::Store { .. });
                }
                // Its call, or the time for that, tells what the engine does not.
                let event = match error {
                    Error::StartUnknown { .. } => Event::Launched,
                    error => Event::LaunchFailed(public_reason(&error)),
                };
                self.feed(&replica, event);
            }
            Ok(Done::Ending(replica, removal, ending)) => {
                self.judge(&replica, ending);
                self.remove(&replica, removal);
            }
            Ok(Done::Removal(replica, Ok(()))) => self.feed(&replica, Event::Removed),
            Ok(Done::Removal(replica, Err(error))) => {
                // That the engine is away is said once, by the one who watches it.
                if error.kind() != Kind::Unavailable {
                    tracing::warn!(service = %self.service, %replica, %error, "a container was not removed; again in 1 s");
                }
                self.feed(&replica, Event::RemoveFailed);
            }
            Ok(Done::Deployment(id, outcome)) => {
                if self.deploying.as_ref().is_some_and(|(current, _)| *current == id) {
                    self.deploying = None;
                }
                match outcome {
                    deploy::Outcome::Settled => self.prune(),
                    deploy::Outcome::Interrupted => {
                        let runs = self.runs.map_or(1, |(_, runs)| runs);
                        let pause = limits::ENGINE_RETRY * 2u32.saturating_pow(runs.min(10) - 1);
                        let pause = pause.min(limits::DEPLOYMENT_RUNS.1);
                        self.deploy_after = Some(Instant::now() + pause);
                    }
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

    /// Compares what is with what should be, and acts. Tells when that leaves nothing to do.
    async fn look(&mut self, inbox: &Inbox) -> Result<Option<End>> {
        let now = Instant::now();
        let view =
            self.context.store.view(self.service).await.inspect_err(|_| self.blind = true)?;
        if std::mem::take(&mut self.blind) {
            self.replicas.values_mut().for_each(|owned| owned.machine.excuse(now));
        }
        self.take_reports(&view, now);
        self.note_live(&view);
        for pause in [&mut self.wait_until, &mut self.deploy_after, &mut self.look_again] {
            if pause.is_some_and(|until| now >= until) {
                *pause = None;
            }
        }
        let plan = plan(&view, &self.standing(&view), self.wait_until.is_none());
        for replica in &plan.retire {
            self.feed(replica, Event::Retire);
        }
        let told = self.reconcile(&view).await;
        if view.route.is_none() {
            return told.map(|()| self.wind_down(&view).then_some(End::Gone));
        }
        // What failed is tried again with the next look, and keeps nothing else from being done.
        let started = self.start(&plan).await;
        let continued = self.continue_deployment(&view, inbox.address()).await;
        let obstacle = self.tell_obstacle(&view).await;
        told.and(started).and(continued).and(obstacle)?;
        self.lapses = 0; // what is due counts again, also against resting
        Ok(self.may_rest(&view).then_some(End::Rest))
    }

    /// Whether nothing is on its way, and another driver would know all that this one does.
    fn may_rest(&self, view: &ServiceView) -> bool {
        let nobody = view.replicas.is_empty() && self.replicas.is_empty();
        let idle = self.work.is_empty() && self.next_deadline().is_none();
        nobody && idle && self.forgotten.is_empty() && self.failures == 0
    }

    /// The store failed: the same again after a pause that grows.
    fn note_lapse(&mut self, error: &Error) {
        let service = self.service;
        if self.lapses == 0 {
            tracing::error!(%service, %error, "looking after the service failed; it is tried again");
        }
        let (first, longest) = limits::STORE_BACKOFF;
        let pause = (first * 2u32.pow(self.lapses.min(10))).min(longest);
        self.lapses = self.lapses.saturating_add(1);
        self.look_again = Some(Instant::now() + jittered(pause));
    }

    fn take_reports(&mut self, view: &ServiceView, now: Instant) {
        let mut events = VecDeque::new();
        for replica in &view.replicas {
            if let Some(seen) = replica.seen.clone() {
                events.push_back((replica.id.clone(), Event::Seen(seen)));
            }
            // The edge gives it nothing more, whoever has wished so: perhaps a process before this one.
            if replica.wish == Wish::Drain {
                events.push_back((replica.id.clone(), Event::Retire));
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

    async fn start(&mut self, plan: &Plan) -> Result<()> {
        let Some(live) = self.live.filter(|_| plan.start > 0 && self.engine_up) else {
            return Ok(());
        };
        if self.starting.as_ref().is_none_or(|known| known.id != live) {
            self.starting = self.context.store.deployment(self.service, live).await?.map(Arc::new);
        }
        if let Some(deployment) = self.starting.clone() {
            for _ in 0..plan.start {
                self.launch(deployment.clone(), None);
            }
        }
        Ok(())
    }

    /// What was held against the version before is not held against the new one.
    fn note_live(&mut self, view: &ServiceView) {
        let live = view.route.as_ref().and_then(|route| route.live_deployment);
        if live != self.live {
            self.live = live;
            self.failures = 0;
            self.wait_until = None;
        }
    }

    async fn continue_deployment(&mut self, view: &ServiceView, own: Address) -> Result<()> {
        let settled = view.latest_phase.is_some_and(Phase::is_settled);
        let busy = self.deploying.is_some() || self.deploy_after.is_some();
        if settled || busy || !self.engine_up {
            return Ok(());
        }
        let now = Timestamp::now();
        let Some(deployment) = self.context.store.claim_deployment(self.service, now).await? else {
            return Ok(());
        };
        let id = deployment.id;
        let runs = self.runs.filter(|(known, _)| *known == id).map_or(1, |(_, runs)| runs + 1);
        self.runs = Some((id, runs));
        let last = runs >= limits::DEPLOYMENT_RUNS.0;
        let run = deploy::run(self.context.clone(), own, deployment, last);
        let task = self.work.spawn(async move { Done::Deployment(id, run.await) });
        self.deploying = Some((id, task));
        Ok(())
    }

    /// The service is deleted: ends everything that is left. True when nothing is.
    fn wind_down(&mut self, view: &ServiceView) -> bool {
        if let Some((_, task)) = self.deploying.take() {
            task.abort();
        }
        if !self.replicas.is_empty() || !self.work.is_empty() {
            return false;
        }
        if !view.replicas.is_empty() {
            self.look_again = Some(Instant::now() + limits::STORE_BACKOFF.0);
            return false;
        }
        if !self.swept {
            self.swept = true;
            let (context, service) = (self.context.clone(), self.service);
            self.keep_house(async move { work::forget(&context, service).await });
            return false;
        }
        true
    }

    /// Begins nothing more. A container that is just being started or removed is waited for: whoever
    /// comes next looks once at what exists, and would not see it.
    async fn end(&mut self) {
        if let Some((_, task)) = self.deploying.take() {
            task.abort();
        }
        while self.work.join_next().await.is_some() {}
    }

    fn note_failure(&mut self, reason: &str) {
        tracing::warn!(service = %self.service, reason, "a replica did not start");
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
        self.keep_house(async move { work::prune(&context, service).await });
    }

    /// Does something whose end changes nothing for the driver.
    fn keep_house(&mut self, chore: impl Future<Output = ()> + Send + 'static) {
        self.work.spawn(async move {
            chore.await;
            Done::Housekeeping
        });
    }
}

/// What a waiting person may read of an internal error.
fn public_reason(error: &Error) -> String {
    match error.kind() {
        Kind::Unavailable => "Something that the platform needs did not do its part.".to_owned(),
        _ => error.to_string(),
    }
}
