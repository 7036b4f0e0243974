//! The control plane as a whole: one driver task per service that has something to do, begun by the
//! store's hints, and one watch over the engine. It starts where an earlier process stopped: what
//! still runs is adopted, what nobody needs is removed.

mod engine;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast::error::RecvError, mpsc, watch},
    task::{JoinError, JoinSet},
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
        self, End,
        command::{Command, Listed},
        inbox::{Address, Inbox},
    },
    store::Change,
};

/// News of the engine that may wait.
const NEWS: usize = 64;
/// Drivers that may be at their first look at one time, of those that no news began: nearly all of
/// them end with it, and ten thousand of them would take memory for nothing.
const FIRST_LOOKS: usize = 64;

/// Runs the control plane until `stop` turns true, and what it has begun for a bounded time longer.
/// Containers keep running then: the next process adopts them.
pub async fn run(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let invocations = context.invocations.clone();
    let mut plane = Plane {
        context,
        drivers: HashMap::new(),
        due: BTreeSet::new(),
        first_looks: Arc::new(Semaphore::new(FIRST_LOOKS)),
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
    /// Of the services of which something may be left. None for one that rests.
    drivers: HashMap<ServiceId, Option<Address>>,
    /// To be looked at when there is a place for a first look.
    due: BTreeSet<ServiceId>,
    first_looks: Arc<Semaphore>,
    engine_up: bool,
    /// What earlier processes left is removed once, before anything is started.
    swept: bool,
    /// The drivers end with the plane.
    tasks: JoinSet<(ServiceId, End)>,
}

impl Plane {
    async fn follow(&mut self) {
        let mut hints = self.context.store.watch();
        let (sender, mut news) = mpsc::channel(NEWS);
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
                    Some(service) => self.nudge_in_turn(service),
                    None => rounds.begin(self.all_services().await),
                },
                Some(news) = news.recv() => match news {
                    News::EngineUp(containers, listed_at) => self.settle(containers, listed_at).await,
                    News::Listed(containers, listed_at) => {
                        self.share_out(containers, listed_at, Command::Listed);
                    }
                    News::EngineDown => {
                        self.engine_up = false;
                        self.tell_awake(|| Command::EngineDown);
                        self.nudge_all().await;
                    }
                    News::Engine(EngineEvent::Died { service, replica }) => {
                        self.tell(service, Command::Died(replica));
                    }
                },
                Ok(()) = gate.changed() => {
                    let open = matches!(*gate.borrow_and_update(), State::Open(_));
                    if open {
                        self.tell_awake(|| Command::Retry);
                    }
                }
                Ok(place) = self.first_looks.clone().acquire_owned(), if !self.due.is_empty() => {
                    self.nudge_next(place);
                }
                Some(ended) = self.tasks.join_next() => self.note_end(ended),
            }
        }
    }

    async fn end(&mut self) {
        self.tell_awake(|| Command::End);
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
        self.share_out(containers, listed_at, Command::EngineUp);
        // Not before: a driver that is made while the engine answers takes all containers for known.
        self.engine_up = true;
        self.context.health.set(Dependency::Engine, None);
        self.nudge_all().await;
    }

    /// Gives each service the containers that exist of it, also the services that are gone. One that
    /// rests and has none hears nothing: whoever looks after it next knows of none.
    fn share_out(
        &mut self,
        containers: Vec<Container>,
        at: Instant,
        command: impl Fn(Listed) -> Command,
    ) {
        let mut by_service: HashMap<ServiceId, Vec<Container>> = HashMap::new();
        for service in self.awake() {
            by_service.entry(service).or_default();
        }
        for container in containers {
            by_service.entry(container.service).or_default().push(container);
        }
        for (service, containers) in by_service {
            self.tell(service, command(Listed { containers, at }));
        }
    }

    /// Those that the store has, and those of which something may be left, by this process or by one
    /// before it.
    async fn all_services(&self) -> BTreeSet<ServiceId> {
        let store = &self.context.store;
        let mut all: BTreeSet<_> = self.drivers.keys().copied().collect();
        for listed in [store.service_ids().await, store.services_with_replicas().await] {
            match listed {
                Ok(ids) => all.extend(ids),
                Err(error) => tracing::error!(%error, "the services could not be listed"),
            }
        }
        all
    }

    async fn nudge_all(&mut self) {
        for service in self.all_services().await {
            self.nudge_in_turn(service);
        }
    }

    /// Has a service looked at of which there is no news: now when its driver runs, else when there is
    /// a place for its first look.
    fn nudge_in_turn(&mut self, service: ServiceId) {
        if self.drivers.get(&service).is_some_and(runs) {
            self.nudge(service);
        } else {
            self.due.insert(service);
        }
    }

    fn nudge_next(&mut self, place: OwnedSemaphorePermit) {
        // One that has ended keeps its memory until this is noticed, for which chance is too slow.
        while let Some(ended) = self.tasks.try_join_next() {
            self.note_end(ended);
        }
        if let Some(service) = self.due.pop_first() {
            self.tell_in(service, Command::Look, Some(place));
        }
    }

    fn nudge(&mut self, service: ServiceId) {
        self.tell(service, Command::Look);
    }

    fn tell_awake(&mut self, command: impl Fn() -> Command) {
        for service in self.awake() {
            self.tell(service, command());
        }
    }

    /// The services whose drivers run.
    fn awake(&self) -> Vec<ServiceId> {
        self.drivers.iter().filter(|(_, driver)| runs(driver)).map(|(id, _)| *id).collect()
    }

    /// Tells the driver of a service something; a new one when there is none, or when it has just ended.
    fn tell(&mut self, service: ServiceId, command: Command) {
        self.tell_in(service, command, None);
    }

    /// The same; a new driver keeps the place until it has looked once.
    fn tell_in(
        &mut self,
        service: ServiceId,
        command: Command,
        place: Option<OwnedSemaphorePermit>,
    ) {
        let driver = self.drivers.entry(service).or_default();
        let untold = match driver {
            Some(driver) => driver.tell(command).err(),
            None => Some(command),
        };
        let Some(command) = untold else { return };
        let inbox = Inbox::default();
        let address = inbox.address();
        let _ = address.tell(command); // nobody has closed it yet
        *driver = Some(address);
        let drive = scaler::drive(self.context.clone(), service, self.engine_up, inbox, place);
        self.tasks.spawn(drive);
    }

    fn note_end(&mut self, ended: Result<(ServiceId, End), JoinError>) {
        let Ok((service, end)) = ended else { return };
        let Some(driver) = self.drivers.get_mut(&service) else { return };
        // There may be another one already.
        if driver.as_ref().is_some_and(Address::is_closed) {
            *driver = None;
            if end != End::Rest {
                self.drivers.remove(&service);
            }
        }
    }
}

fn runs(driver: &Option<Address>) -> bool {
    driver.as_ref().is_some_and(|driver| !driver.is_closed())
}
