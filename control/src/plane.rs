//! The control plane as a whole: one driver task per service, woken by the store's hints, and one
//! watch over the engine. It starts where an earlier process stopped: what still runs is adopted,
//! what nobody needs is removed.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt, stream::BoxStream};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    advisory,
    context::Context,
    engine::{About, Container, EngineEvent},
    error::{Error, Kind, Result},
    firewall::State,
    health::Dependency,
    invoke, limits,
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

enum News {
    /// The engine answers (again), and these are our containers.
    EngineUp(Vec<Container>, Instant),
    /// These are our containers, while the engine goes on to answer.
    Listed(Vec<Container>, Instant),
    EngineDown,
    Engine(EngineEvent),
}

impl Plane {
    async fn follow(&mut self) {
        let mut hints = self.context.store.watch();
        let (sender, mut news) = mpsc::channel(INBOX);
        let mut gate = self.context.gate.watch();
        let mut watcher = JoinSet::new();
        watcher.spawn(watch_engine(self.context.clone(), sender));
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

/// Stays with the engine while it answers; then waits for it to answer again. Events are subscribed to
/// before the containers are listed, so that nothing falls between.
async fn watch_engine(context: Arc<Context>, news: mpsc::Sender<News>) {
    loop {
        let began = Instant::now();
        let why = match look_at_engine(&context).await {
            Ok((events, containers, listed_at)) => {
                tracing::info!(containers = containers.len(), "Docker Engine answers");
                if news.send(News::EngineUp(containers, listed_at)).await.is_err() {
                    return;
                }
                let Some(lost) = stay(&context, &news, events).await else { return };
                match lost {
                    Lost::Sight => {
                        // One that ends each of them at once is not asked without a pause.
                        tokio::time::sleep_until(began + limits::ENGINE_RETRY).await;
                        continue;
                    }
                    Lost::Answer(error) => error,
                }
            }
            Err(error) => error,
        };
        let problem = match why.kind() {
            Kind::Unavailable => format!(
                "{why}. Is it started, and does DOCKER_HOST name its address? Grid tries again every second."
            ),
            _ => why.to_string(),
        };
        if context.health.set(Dependency::Engine, Some(problem.clone())) {
            tracing::warn!("{problem}");
            if news.send(News::EngineDown).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(limits::ENGINE_RETRY).await;
    }
}

/// How it was noticed that the engine may be away.
enum Lost {
    /// Its events ended, or an answer was lost, which is all that is known.
    Sight,
    /// It does not answer.
    Answer(Error),
}

/// Passes the engine's events on and does what there is to do, while the engine answers. None when
/// nobody listens any more.
async fn stay(
    context: &Context,
    news: &mpsc::Sender<News>,
    mut events: BoxStream<'static, EngineEvent>,
) -> Option<Lost> {
    let pass_on = async {
        while let Some(event) = events.next().await {
            news.send(News::Engine(event)).await.ok()?;
        }
        tracing::warn!("Docker Engine ended the stream of its events");
        Some(Lost::Sight)
    };
    tokio::select! {
        lost = pass_on => lost,
        error = ping(context) => Some(Lost::Answer(error)),
        lost = look_after(context, news) => lost,
    }
}

/// Asks whether the engine is there until it is not.
async fn ping(context: &Context) -> Error {
    let mut missed = 0;
    loop {
        let pause = if missed == 0 { limits::ENGINE_PING_EVERY } else { limits::ENGINE_RETRY };
        tokio::time::sleep(pause).await;
        match context.engine.ping().await {
            Ok(()) => missed = 0,
            Err(error) => {
                missed += 1;
                if missed >= limits::ENGINE_PINGS_MISSED {
                    return error;
                }
            }
        }
    }
}

/// The chores, and a look at what exists, again and again. Ends when the engine gives no list: one that
/// answers pings may well hang there, so it is looked at as a whole.
async fn look_after(context: &Context, news: &mpsc::Sender<News>) -> Option<Lost> {
    loop {
        chores(context).await;
        tokio::time::sleep(limits::ENGINE_LOOK_EVERY).await;
        context.health.forget_failure();
        let listed_at = Instant::now();
        match context.engine.containers(&context.instance, None).await {
            Ok(containers) => news.send(News::Listed(containers, listed_at)).await.ok()?,
            Err(error) => {
                tracing::warn!(%error, "the containers are not known");
                return Some(Lost::Sight);
            }
        }
    }
}

/// What is done beside the daily work while the engine answers: the runner layers are made, and what a
/// crash, an outage or a lost answer kept from being removed is, of invocations and of images.
async fn chores(context: &Context) {
    invoke::sweep(context).await;
    context.images.prepare(&context.health).await;
    let outcome = async {
        let images = context.engine.images(&context.instance, None).await?;
        let services: BTreeSet<ServiceId> = images.iter().map(|image| image.service).collect();
        let kept: HashSet<ServiceId> = context.store.service_ids().await?.into_iter().collect();
        for service in services {
            // The live image and those that are kept beside it are no reason to look closer.
            let most = context.settings.images_kept + 1;
            let of_service = || images.iter().filter(|image| image.service == service);
            let untagged = of_service().any(|image| !image.is_tagged());
            if untagged || of_service().count() > most || !kept.contains(&service) {
                scaler::prune(context, service).await;
            }
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = outcome.await {
        tracing::warn!(%error, "images were not tidied up; it is tried again");
    }
}

/// Whether the engine can do what it will be asked for; says what is known against it.
async fn meet_engine(context: &Context) -> Result<()> {
    let About { mut versions, oci_runtimes, security, no_bound_on } =
        context.engine.about().await?;
    let wanted = &context.settings.oci_runtimes;
    if let Some(unknown) = wanted.iter().find(|name| !oci_runtimes.contains(name)) {
        return Err(Error::Engine {
            operation: "use OCI runtime",
            subject: unknown.clone(),
            reason: format!(
                "GRID_OCI_RUNTIMES names it, but the engine knows only {}",
                oci_runtimes.join(", ")
            ),
        });
    }
    if !security.iter().any(|feature| feature.contains("name=seccomp")) {
        tracing::warn!(
            "Docker Engine runs containers without seccomp: functions have every system call of the kernel"
        );
    }
    if !no_bound_on.is_empty() {
        tracing::warn!(
            "this kernel bounds no {}: one function can take it all",
            no_bound_on.join(", ")
        );
    }
    if !wanted.is_empty() && !wanted.iter().any(|name| name == "runc") {
        versions.runc = None;
    }
    for warning in advisory::warnings(&versions) {
        tracing::warn!("{warning}");
    }
    Ok(())
}

type Look = (BoxStream<'static, EngineEvent>, Vec<Container>, Instant);

async fn look_at_engine(context: &Context) -> Result<Look> {
    context.engine.ping().await?;
    meet_engine(context).await?;
    let events = context.engine.events(&context.instance).await?;
    let listed_at = Instant::now();
    let containers = context.engine.containers(&context.instance, None).await?;
    Ok((events, containers, listed_at))
}
