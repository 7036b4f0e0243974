//! The control plane as a whole: one driver task per service, woken by the store's hints, and one
//! watch over the engine. It starts where an earlier process stopped: what still runs is adopted,
//! what nobody needs is removed.

mod engine;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use self::engine::News;
use crate::{
    context::Context,
    engine::{Container, EngineEvent},
    firewall::State,
    health::Dependency,
    limits,
    name::ServiceId,
    rounds::Rounds,
    scaler::{
        self,
        command::{Command, Listed},
    },
    store::Change,
};

/// Commands that a driver may have waiting. Nudges are only hints: one that finds no room is
/// dropped, because the driver is awake then anyway.
const INBOX: usize = 64;

/// Runs the control plane until `stop` turns true, and what it has begun for a bounded time longer.
/// Containers keep running then: the next process adopts them.
pub async fn run(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let invocations = context.invocations.clone();
    let mut plane = Plane {
        context,
        drivers: HashMap::new(),
        engine_up: false,
        swept: false,
        tasks: JoinSet::new(),
    };
    tokio::select! {
        () = plane.follow() => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    let end = async { tokio::join!(plane.end(), invocations.end()) };
    if tokio::time::timeout(limits::CONTROL_END, end).await.is_err() {
        tracing::warn!("containers that are being started or removed are left to the next start");
    }
}

struct Plane {
    context: Arc<Context>,
    drivers: HashMap<ServiceId, mpsc::Sender<Command>>,
    engine_up: bool,
    /// What earlier processes left is removed once, before anything is started.
    swept: bool,
    /// The drivers end with the plane.
    tasks: JoinSet<ServiceId>,
}

impl Plane {
    async fn follow(&mut self) {
        let mut hints = self.context.store.watch();
        let (sender, mut news) = mpsc::channel(INBOX);
        let mut gate = self.context.gate.watch();
        let mut watcher = JoinSet::new();
        watcher.spawn(engine::watch(self.context.clone(), sender));
        let mut rounds = Rounds::default();
        loop {
            tokio::select! {
                hint = hints.recv() => match hint {
                    Ok(Change::Service(service)) => self.nudge(service),
                    Ok(Change::Everything) | Err(RecvError::Lagged(_)) => self.nudge_all().await,
                    Err(RecvError::Closed) => return,
                },
                () = rounds.due() => match rounds.next_one() {
                    Some(service) => self.nudge(service),
                    None => rounds.begin(self.all_services().await),
                },
                Some(news) = news.recv() => match news {
                    News::EngineUp(containers, listed_at) => self.settle(containers, listed_at).await,
                    News::Listed(containers, listed_at) => {
                        self.share_out(containers, listed_at, Command::Listed).await;
                    }
                    News::EngineDown => {
                        self.engine_up = false;
                        self.tell_all(|| Command::EngineDown).await;
                    }
                    News::Engine(EngineEvent::Died { service, replica }) => {
                        self.tell(service, Command::Died(replica)).await;
                    }
                },
                Ok(()) = gate.changed() => {
                    let open = matches!(*gate.borrow_and_update(), State::Open(_));
                    if open {
                        self.tell_all(|| Command::Retry).await;
                    }
                }
                Some(ended) = self.tasks.join_next() => {
                    if let Ok(service) = ended
                        && self.drivers.get(&service).is_some_and(mpsc::Sender::is_closed)
                    {
                        self.drivers.remove(&service);
                    }
                }
            }
        }
    }

    async fn end(&mut self) {
        self.tell_all(|| Command::End).await;
        while self.tasks.join_next().await.is_some() {}
    }

    /// The engine answers: what exists is taken over.
    async fn settle(&mut self, containers: Vec<Container>, listed_at: Instant) {
        if !std::mem::replace(&mut self.swept, true) {
            let found: HashSet<_> = containers.iter().map(|c| &c.replica).collect();
            let invocations = &self.context.invocations;
            let known = |id: &_| found.contains(id) || invocations.is_active(id);
            if let Err(error) = self.context.run_dir.sweep(known).await {
                tracing::warn!(%error, "leftovers of earlier replicas could not be removed");
            }
        }
        self.share_out(containers, listed_at, Command::EngineUp).await;
        // Not before: a driver that is made while the engine answers takes all containers for known.
        self.engine_up = true;
        self.context.health.set(Dependency::Engine, None);
    }

    /// Gives each service the containers that exist of it, also the services that are gone.
    async fn share_out(
        &mut self,
        containers: Vec<Container>,
        at: Instant,
        command: impl Fn(Listed) -> Command,
    ) {
        let mut by_service: HashMap<ServiceId, Vec<Container>> = HashMap::new();
        for service in self.all_services().await {
            by_service.entry(service).or_default();
        }
        for container in containers {
            by_service.entry(container.service).or_default().push(container);
        }
        for (service, containers) in by_service {
            self.tell(service, command(Listed { containers, at })).await;
        }
    }

    async fn service_ids(&self) -> Vec<ServiceId> {
        match self.context.store.service_ids().await {
            Ok(ids) => ids,
            Err(error) => {
                tracing::error!(%error, "the list of services could not be read");
                Vec::new()
            }
        }
    }

    /// Those that the store has, and those of which something may be left.
    async fn all_services(&self) -> BTreeSet<ServiceId> {
        self.service_ids().await.into_iter().chain(self.drivers.keys().copied()).collect()
    }

    async fn nudge_all(&mut self) {
        for service in self.all_services().await {
            self.nudge(service);
        }
    }

    fn nudge(&mut self, service: ServiceId) {
        let _ = self.driver(service).try_send(Command::Look);
    }

    async fn tell_all(&mut self, command: impl Fn() -> Command) {
        for service in self.drivers.keys().copied().collect::<Vec<_>>() {
            self.tell(service, command()).await;
        }
    }

    async fn tell(&mut self, service: ServiceId, command: Command) {
        // A driver never waits for the plane, so its inbox empties.
        let _ = self.driver(service).send(command).await;
    }

    /// The driver of a service; a new one when there is none, or when it has just ended.
    fn driver(&mut self, service: ServiceId) -> &mpsc::Sender<Command> {
        if self.drivers.get(&service).is_none_or(mpsc::Sender::is_closed) {
            let (sender, inbox) = mpsc::channel(INBOX);
            self.tasks.spawn(scaler::drive(
                self.context.clone(),
                service,
                self.engine_up,
                sender.downgrade(),
                inbox,
            ));
            self.drivers.insert(service, sender);
        }
        &self.drivers[&service]
    }
}
