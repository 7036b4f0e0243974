//! One service with its edge and its control plane, and what befalls them.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use control::{
    context::{Context, Settings},
    egress::EgressPolicy,
    engine::Engine,
    error::Error,
    firewall::{Enforcement, Gate},
    health::Health,
    image::Images,
    invoke::Invocations,
    logs::Logs,
    name::{
        DeploymentId, FunctionName, HandlerName, InstanceId, PublicDomain, ReplicaId, ServiceId,
        ServiceName, UserName,
    },
    plane, resolver,
    run_dir::RunDir,
    runtime::Runtimes,
    secret::{FernetKeys, Keyring},
    service::{
        Cause, Deployment, Egress, EventFormat, FunctionSpec, GoneCause, Origin, Phase, Service,
    },
    store::Store,
};
use http::Method;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    Happening, Step, Subject,
    chance::Chance,
    engine::{Mood, Simulated},
    line::{Line, Load, Weather},
    runner::{Code, Runs},
};
use crate::{
    bound::Alarm,
    edge::{self, Edge},
    exchange::{self, Begun, Fault},
    line::Parcel,
    pool::{Again, Pool, Turn},
    route::Routes,
    stages::{Stages, Step as Stage},
};

const HOST: &str = "model.localhost";
const PATH: &str = "/fn/model";
/// Longest run of a request, and how long it waits for a replica.
const TIMES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
/// After so long a replica is idle.
const IDLE: Duration = Duration::from_secs(20);
/// How long a change may take of which nobody is told: that control sees it, the edge its candidate, and
/// control that it is ready, costs a round each.
const UNNOTICED: Duration = Duration::from_secs(60);
/// A start takes about so long.
const WAKING: Duration = Duration::from_secs(1);
/// How long everything may take to come to rest when the faults are over, and how often that is
/// looked at.
const REST: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(5));

/// What Grid is started with.
pub(super) fn share() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    };
    write("runner/Dockerfile", "FROM scratch\n");
    write("template", "ARG RUNNER\nFROM $RUNNER\n");
    write(
        "config/runtimes.toml",
        "[runtimes.\"model\"]\nbase = \"base\"\nfallbacks = []\nrunner = \"runner\"\n\
         template = \"template\"\ncode_files = [\"code\"]\n",
    );
    dir
}

pub(super) struct World {
    subject: Subject,
    runtimes: Runtimes,
    dir: TempDir,
    instance: InstanceId,
    keyring: Keyring,
    engine: Simulated,
    runs: Arc<Runs>,
    chance: Arc<Chance>,
    service: ServiceId,
    control: Option<Control>,
    edge: Option<EdgeSide>,
    /// Of control's line, and of the edge's.
    weather: [Arc<Mutex<Weather>>; 2],
    load: [Arc<Load>; 2],
    accepted: Vec<DeploymentId>,
}

struct Control {
    context: Arc<Context>,
    plane: JoinSet<()>,
    _stop: watch::Sender<bool>,
}

struct EdgeSide {
    edge: Arc<Edge>,
    /// It, and the requests that run in it.
    tasks: JoinSet<()>,
    _stop: watch::Sender<bool>,
}

type Outcome = Result<(), String>;

impl World {
    /// Goes through a schedule, and looks whether everything comes to rest after it.
    pub(super) async fn run(subject: &Subject, share: &Path, seed: u64, steps: &[Step]) -> Outcome {
        let mut world = Self::new(subject, share, seed).await;
        world.start_control();
        world.start_edge();
        for step in steps {
            world.let_happen(&step.event).await;
            tokio::time::sleep(step.pause).await;
            world.check().await?;
        }
        world.calm(Weather::default());
        world.engine.set_mood(Mood::default());
        world.engine.set_down(false);
        world.rests("after the faults").await?;
        // Notices are hints: it goes on without them.
        world.calm(Weather { lost: 100, ..Weather::default() });
        world.patch(Code::Good).await;
        world.goes_live().await?;
        world.answers().await?;
        world.rests("after the last request").await?;
        world
            .change(|service| {
                service.min_replicas = 0;
                None
            })
            .await;
        world.rests("when it may sleep").await?;
        world.is_left_alone().await?;
        world.delete_while_it_wakes().await;
        world.rests("after the service was deleted").await?;
        world.crash(true, true).await;
        Ok(())
    }

    /// The function is called and deleted at once, and control crashes before it has done much about it.
    async fn delete_while_it_wakes(&mut self) {
        self.calm(Weather::default());
        self.let_happen(&Happening::Calls(1)).await;
        tokio::time::sleep(self.chance.within(WAKING)).await;
        self.subject_call(|store, id| async move { store.delete_service(id, None).await }).await;
        self.crash(true, false).await;
        self.start_control();
    }

    /// Starts control over many services and a slow store. How many verbs it had under way at most.
    pub(super) async fn start_over_many(subject: &Subject, share: &Path, services: usize) -> usize {
        let mut world = Self::new(subject, share, 1).await;
        world.subject_call(move |store, id| copy_services(store, id, services)).await;
        // Without an engine there is nothing to be done for them, once that has been found out.
        world.engine.set_down(true);
        world.calm(Weather { slow: 100, ..Weather::default() });
        world.start_control();
        tokio::time::sleep(REST.0).await;
        world.crash(true, false).await;
        world.load[0].most()
    }

    async fn new(subject: &Subject, share: &Path, seed: u64) -> Self {
        let chance = Arc::new(Chance::new(seed));
        let runs = Arc::new(Runs::default());
        let id = ServiceId::new();
        let now = Timestamp::now();
        let function = FunctionSpec {
            runtime: "model".to_owned(),
            handler: HandlerName::parse("handler").expect("valid"),
            code: "code".to_owned(),
            event_format: EventFormat::Grid,
            memory_mb: 64,
            cpu_shares: 1024,
            egress: Egress::None,
            oci_runtime: None,
            env_vars: Vec::new(),
        };
        let origin = Origin { by: UserName::operator(), cause: Cause::Created };
        let first = Deployment::queued(id, function.clone(), origin, now);
        let service = Service {
            id,
            owner: UserName::operator(),
            name: ServiceName::parse("model").expect("valid"),
            function_name: FunctionName::parse("model").expect("valid"),
            public_domain: PublicDomain::parse(HOST).expect("valid"),
            function,
            min_replicas: 0,
            max_replicas: 2,
            rate_limit: None,
            rate_burst: None,
            live_deployment: None,
            latest_deployment: first.id,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let accepted = vec![first.id];
        // A world that failed has left its service, and this one takes the same name.
        let store = subject.store.clone();
        let made = subject.call(async move {
            for old in store.service_ids().await? {
                store.delete_service(old, None).await?;
                for left in store.view(old).await?.replicas {
                    store.remove_replica(old, &left.id).await?;
                }
            }
            store.create_service(&service, &first, None).await
        });
        made.await.expect("made");
        Self {
            subject: subject.clone(),
            runtimes: Runtimes::load(share).expect("valid"),
            dir: tempfile::tempdir().expect("a directory"),
            instance: InstanceId::random(),
            keyring: Keyring::new(&FernetKeys::generate()),
            engine: Simulated::new(chance.clone(), runs.clone()),
            runs,
            chance,
            service: id,
            control: None,
            edge: None,
            weather: <_>::default(),
            load: <_>::default(),
            accepted,
        }
    }

    fn line(&self, control: bool) -> Arc<dyn Store> {
        let side = usize::from(!control);
        let (weather, load) = (self.weather[side].clone(), self.load[side].clone());
        Arc::new(Line::new(&self.subject, weather, load, self.chance.clone()))
    }

    fn start_control(&mut self) {
        let (store, keyring) = (self.line(true), self.keyring.clone());
        let engine: Arc<dyn Engine> = Arc::new(self.engine.clone());
        let instance = self.instance.clone();
        let logs = self.dir.path().join("logs");
        let logs = Logs::new(
            engine.clone(),
            store.clone(),
            keyring.clone(),
            instance.clone(),
            logs,
            1024 * 1024,
        );
        let context = Arc::new(Context {
            store,
            images: Images::new(engine.clone(), instance.clone(), self.runtimes.clone()),
            logs: Arc::new(logs),
            engine,
            keyring,
            gate: Gate::default(),
            denied: Arc::default(),
            deployments: Arc::default(),
            health: Health::default(),
            instance,
            run_dir: RunDir::of(self.dir.path()),
            settings: Settings {
                function_timeout: TIMES.0,
                response_bytes: 1024,
                starts: 4,
                replicas: 8,
                images_kept: 1,
                enforcement: Enforcement::GuardOnly,
                dns: resolver::Settings { upstreams: Vec::new(), policy: EgressPolicy::fixed() },
                handed_over: false,
                oci_runtimes: Vec::new(),
                seccomp: "".into(),
            },
            starts: Semaphore::new(4),
            replicas: Arc::new(Semaphore::new(8)),
            builds: Semaphore::new(4),
            invocations: Invocations::new(1),
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(plane::run(context.clone(), stopped));
        self.control = Some(Control { context, plane: tasks, _stop: stop });
    }

    fn start_edge(&mut self) {
        self.runs.new_edge();
        let edge = Arc::new(Edge {
            store: self.line(false),
            keyring: self.keyring.clone(),
            routes: Arc::new(Routes::default()),
            domains: None,
            run_dir: RunDir::of(self.dir.path()),
            health: Health::default(),
            queue_length: 10,
            idle_after: IDLE,
            call_within: TIMES.0 + control::limits::START,
            metrics: Arc::default(),
            known: Stage::default(),
            stages: Arc::new(Stages::default()),
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(edge::follow(edge.clone(), stopped));
        self.edge = Some(EdgeSide { edge, tasks, _stop: stop });
    }

    async fn crash(&mut self, control: bool, edge: bool) {
        if control && let Some(mut side) = self.control.take() {
            side.plane.shutdown().await;
            side.context.logs.run(watch::channel(true).1).await;
        }
        if edge && let Some(mut side) = self.edge.take() {
            side.tasks.shutdown().await;
        }
    }

    async fn let_happen(&mut self, event: &Happening) {
        match *event {
            Happening::Patch(code) => self.patch(code).await,
            Happening::Resize(min, max) => {
                self.change(move |service| {
                    (service.min_replicas, service.max_replicas) = (min, max);
                    None
                })
                .await;
            }
            Happening::Calls(count) => {
                for side in self.edge.iter_mut() {
                    for _ in 0..count {
                        let edge = side.edge.clone();
                        side.tasks.spawn(async move { drop(call(&edge).await) });
                    }
                }
            }
            Happening::Crash { control, edge, away } => {
                self.crash(control, edge).await;
                tokio::time::sleep(Duration::from_secs(away)).await;
                if control {
                    self.start_control();
                }
                if edge {
                    self.start_edge();
                }
            }
            Happening::Forget { noticed } => self.forget(noticed).await,
            Happening::Line { control, weather } => {
                *self.weather[usize::from(!control)].lock().expect("not poisoned") = weather;
            }
            Happening::EngineUp(up) => self.engine.set_down(!up),
            Happening::EngineMood(mood) => self.engine.set_mood(mood),
            Happening::Exit(choice) => self.engine.end_one(choice),
        }
    }

    /// What a store without persistence has after its restart.
    async fn forget(&self, noticed: bool) {
        let before = self.weather.each_ref().map(|weather| *weather.lock().expect("not poisoned"));
        if !noticed {
            for weather in &self.weather {
                weather.lock().expect("not poisoned").lost = 100;
            }
        }
        self.subject_call(|store, id| async move {
            for replica in store.view(id).await?.replicas {
                store.remove_replica(id, &replica.id).await?;
            }
            store.request_capacity(id, 0).await?;
            store.set_obstacle(id, None).await
        })
        .await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        for (weather, before) in self.weather.iter().zip(before) {
            *weather.lock().expect("not poisoned") = before;
        }
    }

    async fn patch(&mut self, code: Code) {
        let engine = self.engine.clone();
        let accepted = self
            .change(move |service| {
                let origin = Origin { by: UserName::operator(), cause: Cause::Changed };
                let function = service.function.clone();
                let next = Deployment::queued(service.id, function, origin, Timestamp::now());
                engine.knows_code(next.id, code);
                Some(next)
            })
            .await;
        self.accepted.extend(accepted);
    }

    /// What the admin API does with a change.
    async fn change(
        &self,
        change: impl Fn(&mut Service) -> Option<Deployment> + Send + 'static,
    ) -> Option<DeploymentId> {
        self.subject_call(|store, id| async move {
            let mut service = store.service(id).await?.expect("it is there");
            let next = change(&mut service);
            store.update_service(&service, next.as_ref()).await?;
            Ok(next.map(|next| next.id))
        })
        .await
    }

    /// No faults any more, but those of this weather.
    fn calm(&self, weather: Weather) {
        for line in &self.weather {
            *line.lock().expect("not poisoned") = weather;
        }
    }

    /// The verb of somebody to whom nothing happens.
    async fn subject_call<T: Send + 'static, F>(
        &self,
        verb: impl FnOnce(Arc<dyn Store>, ServiceId) -> F,
    ) -> T
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let verb = verb(self.subject.store.clone(), self.service);
        self.subject.call(verb).await.expect("the store works")
    }

    async fn deployments(&self) -> Vec<Deployment> {
        self.subject_call(|store, id| async move { store.deployments(id, 0, 1000).await })
            .await
            .items
    }

    /// What holds at any time.
    async fn check(&self) -> Outcome {
        let deployments = self.deployments().await;
        let live = deployments.iter().filter(|deployment| deployment.phase == Phase::Live).count();
        if live > 1 {
            return Err(format!("{live} deployments are live"));
        }
        self.runs.faults().first().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// The last change is live in time, when nothing is wrong any more.
    async fn goes_live(&self) -> Outcome {
        tokio::time::sleep(UNNOTICED).await;
        self.check().await?;
        let newest = self.deployments().await.into_iter().next().expect("there is one");
        let [wanted, found] = [Phase::Live, newest.phase];
        if found == wanted {
            Ok(())
        } else {
            Err(format!("the last change is {found:?}: {newest:?}"))
        }
    }

    /// A request is answered, when nothing is wrong any more.
    async fn answers(&self) -> Outcome {
        let Some(side) = &self.edge else { return Err("there is no edge".to_owned()) };
        call(&side.edge).await.map_err(|why| format!("a request was not answered: {why}"))
    }

    /// Waits until there is nothing more to do.
    async fn rests(&self, when: &str) -> Outcome {
        let begun = Instant::now();
        loop {
            self.check().await?;
            let Err(unrest) = self.look().await else { return Ok(()) };
            if begun.elapsed() > REST.0 {
                return Err(format!("{when}: {unrest}"));
            }
            tokio::time::sleep(REST.1).await;
        }
    }

    /// Waits until no task of control is there for the function, which sleeps.
    async fn is_left_alone(&self) -> Outcome {
        let Some(Control { context, .. }) = &self.control else {
            return Err("there is no control".to_owned());
        };
        let begun = Instant::now();
        // This one, the plane's, and that of its watch over the engine.
        while Arc::strong_count(context) > 3 {
            if begun.elapsed() > REST.0 {
                return Err("a driver that has nothing to do does not end".to_owned());
            }
            tokio::time::sleep(REST.1).await;
        }
        Ok(())
    }

    async fn look(&self) -> Outcome {
        let service = self.subject_call(|store, id| async move { store.service(id).await }).await;
        let view = self.subject_call(|store, id| async move { store.view(id).await }).await;
        if let Some(service) = &service {
            let deployments = self.deployments().await;
            for id in &self.accepted {
                let phase = deployments.iter().find(|kept| kept.id == *id).map(|kept| kept.phase);
                let ended = match phase {
                    Some(Phase::Live | Phase::Failed) => true,
                    Some(Phase::Superseded) => *id != service.latest_deployment,
                    _ => false,
                };
                if !ended {
                    return Err(format!("deployment {id} is {phase:?}"));
                }
            }
            let live = deployments.iter().find(|kept| kept.phase == Phase::Live);
            if live.map(|live| live.id) != service.live_deployment {
                return Err("the live deployment is not the one that serves".to_owned());
            }
        }
        let ids = |replicas: &[control::service::Replica]| -> BTreeSet<ReplicaId> {
            replicas.iter().map(|replica| replica.id.clone()).collect()
        };
        let (stored, existing) = (ids(&view.replicas), self.engine.existing());
        let known: BTreeSet<_> = self.pool().map(|pool| pool.connected()).unwrap_or_default();
        if existing != stored || stored != known {
            return Err(format!(
                "the engine has {existing:?}, the store {:?}, the edge {known:?}",
                view.replicas
            ));
        }
        let live = service.as_ref().is_some_and(|service| service.live_deployment.is_some());
        let wanted = service.as_ref().filter(|_| live).map_or(0, |service| service.min_replicas);
        if stored.len() != wanted as usize {
            return Err(format!("{} replicas, {wanted} are wanted; {view:?}", stored.len()));
        }
        Ok(())
    }

    fn pool(&self) -> Option<Arc<Pool>> {
        let target = self.edge.as_ref()?.edge.routes.find(HOST, PATH)?;
        Some(target.pool.clone())
    }
}

/// Makes so many more that are like one.
async fn copy_services(store: Arc<dyn Store>, like: ServiceId, count: usize) -> Result<(), Error> {
    let service = store.service(like).await?.expect("it is there");
    for number in 0..count {
        let (id, name) = (ServiceId::new(), format!("model-{number}"));
        let first = Deployment::queued(
            id,
            service.function.clone(),
            Origin { by: UserName::operator(), cause: Cause::Created },
            Timestamp::now(),
        );
        let copy = Service {
            id,
            name: ServiceName::parse(&name).expect("valid"),
            function_name: FunctionName::parse(&name).expect("valid"),
            latest_deployment: first.id,
            ..service.clone()
        };
        store.create_service(&copy, &first, None).await?;
    }
    Ok(())
}

/// A client's request, as the gateway goes about it.
async fn call(edge: &Edge) -> Outcome {
    /// Tells one request from another.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let number = CALLS.fetch_add(1, Ordering::Relaxed);
    let head = format!("GET /call/{number} HTTP/1.1\r\nhost: runner\r\n").into_bytes();
    let target = edge.routes.find(HOST, PATH).ok_or("no route")?;
    let until = Instant::now() + TIMES.1;
    let mut again = Again::No;
    loop {
        let turn = target.pool.enter(again).map_err(|refusal| format!("{refusal:?}"))?;
        let mut lease = match turn {
            Turn::Now(lease) => lease,
            Turn::Later(mut place) => {
                if again == Again::No && !place.asleep {
                    place.offer(Parcel { head: head.clone(), body: Bytes::new() });
                }
                place
                    .turn(until, &mut Alarm::default())
                    .await
                    .map_err(|refusal| format!("{refusal:?}"))?
            }
        };
        let mut link = lease.start().ok_or("no connection")?;
        link.wire.clear();
        link.wire.extend([&head[..], b"\r\n"].concat());
        let deadline = Instant::now() + TIMES.0;
        let answer =
            exchange::run(link, &Method::GET, b"", 1000, deadline, &mut Alarm::default()).await;
        match answer.map(|answer| answer.body) {
            Ok(Begun::Whole { link: Some(link), .. }) => {
                lease.give_back(link);
                return Ok(());
            }
            Ok(Begun::CalledBack { link: Some(link) }) => {
                lease.give_back(link);
                again = Again::Yes;
            }
            Ok(answer) => {
                lease.retire(GoneCause::Garbled);
                return Err(format!("{answer:?}"));
            }
            Err(fault) => {
                let cause = if matches!(fault, Fault::TimedOut) {
                    GoneCause::TimedOut
                } else {
                    GoneCause::Closed
                };
                lease.retire(cause);
                return Err(format!("{fault:?}"));
            }
        }
    }
}
