//! A container engine whose containers are tasks: each dials its socket and speaks what a runner does,
//! over real connections. It is away when it is told to be, and slow, and may finish a start long after
//! it was given up.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use control::{
    engine::{
        About, Container, ContainerSpec, Engine, EngineEvent, Exit, Image, Labels, Network, Output,
        OutputLine, OutputQuery, Probe,
    },
    error::{Error, Result},
    name::{DeploymentId, InstanceId, ReplicaId, ServiceId},
};
use futures_util::{StreamExt, stream::BoxStream};
use tokio::{sync::broadcast, task::JoinSet};

use super::{
    chance::Chance,
    runner::{self, Code, Runs},
};

/// How bad the engine is, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mood {
    /// A call fails and does nothing.
    pub(super) refused: u8,
    /// A start fails, and its container comes later all the same.
    pub(super) late: u8,
}

/// How much later.
const LATE: Duration = Duration::from_secs(8);
/// Longest time that a call takes.
const SLOW: Duration = Duration::from_millis(400);

/// Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub(super) struct Simulated(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    chance: Arc<Chance>,
    runs: Arc<Runs>,
    late: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    down: bool,
    mood: Mood,
    /// What each deployment's code does.
    codes: HashMap<DeploymentId, Code>,
    images: BTreeSet<String>,
    containers: BTreeMap<ReplicaId, Held>,
    /// None ends the streams.
    events: Option<broadcast::Sender<EngineEvent>>,
}

struct Held {
    service: ServiceId,
    deployment: DeploymentId,
    /// Empty when it has ended.
    process: JoinSet<()>,
}

impl Simulated {
    pub(super) fn new(chance: Arc<Chance>, runs: Arc<Runs>) -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), chance, runs, late: Mutex::default() }))
    }

    pub(super) fn knows_code(&self, deployment: DeploymentId, code: Code) {
        self.lock().codes.insert(deployment, code);
    }

    pub(super) fn set_mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    pub(super) fn set_down(&self, down: bool) {
        let mut state = self.lock();
        state.down = down;
        state.events = None;
    }

    /// Ends one of the processes.
    pub(super) fn end_one(&self, choice: usize) {
        let mut state = self.lock();
        let running = state.containers.iter().filter(|(_, held)| !held.process.is_empty());
        let running: Vec<_> = running.map(|(id, _)| id.clone()).collect();
        if let Some(id) = running.get(choice % running.len().max(1)) {
            end(&mut state, id);
        }
    }

    /// Every container, ended or not.
    pub(super) fn existing(&self) -> BTreeSet<ReplicaId> {
        self.lock().containers.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("not poisoned")
    }

    /// The state, when the engine answers.
    async fn answer(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        tokio::time::sleep(self.0.chance.within(SLOW)).await;
        let state = self.lock();
        if state.down || self.0.chance.hits(state.mood.refused) {
            return Err(away(operation));
        }
        Ok(state)
    }
}

fn away(operation: &'static str) -> Error {
    Error::EngineAway { operation, reason: "as the schedule wants it".to_owned() }
}

fn end(state: &mut State, id: &ReplicaId) {
    let Some(held) = state.containers.get_mut(id) else { return };
    if held.process.is_empty() {
        return;
    }
    held.process = JoinSet::new();
    let died = EngineEvent::Died { service: held.service, replica: id.clone() };
    if let Some(events) = &state.events {
        let _ = events.send(died); // perhaps nobody listens
    }
}

fn run(state: &mut State, spec: &ContainerSpec, runs: &Arc<Runs>, chance: &Arc<Chance>) {
    let code = state.codes.get(&spec.deployment).copied().unwrap_or(Code::Good);
    let mut process = JoinSet::new();
    let socket = spec.run_dir.join("edge.sock");
    process.spawn(runner::run(spec.replica.clone(), socket, code, runs.clone(), chance.clone()));
    let held = Held { service: spec.service, deployment: spec.deployment, process };
    state.containers.insert(spec.replica.clone(), held);
    if code == Code::Exits {
        end(state, &spec.replica);
    }
}

#[async_trait]
impl Engine for Simulated {
    async fn ping(&self) -> Result<()> {
        self.answer("ping").await.map(drop)
    }

    async fn image_id(&self, image: &str) -> Result<Option<String>> {
        let state = self.answer("look at image").await?;
        let there = image == "base" || state.images.contains(image);
        Ok(there.then(|| image.to_owned()))
    }

    async fn image_labels(&self, image: &str) -> Result<Option<Labels>> {
        let state = self.answer("look at image").await?;
        Ok(state.images.contains(image).then(Labels::new))
    }

    async fn pull(&self, image: &str) -> Result<()> {
        Err(Error::NotFound { what: "image", id: image.to_owned() })
    }

    async fn build(
        &self,
        tag: &str,
        _: Bytes,
        _: BTreeMap<String, String>,
        _: bool,
        _: &mut (dyn FnMut(String) + Send),
    ) -> Result<()> {
        let mut state = self.answer("build").await?;
        state.images.insert(tag.to_owned());
        Ok(())
    }

    async fn images(&self, _: &InstanceId, service: Option<ServiceId>) -> Result<Vec<Image>> {
        let state = self.answer("list images").await?;
        let parsed = state.images.iter().filter_map(|tag| {
            let (of, deployment) = tag.strip_prefix("smsly/function-")?.split_once(':')?;
            let image = Image {
                name: tag.clone(),
                service: of.parse().ok()?,
                deployment: deployment.parse().ok()?,
                created: 0,
            };
            service.is_none_or(|service| service == image.service).then_some(image)
        });
        Ok(parsed.collect())
    }

    async fn remove_image(&self, name: &str) -> Result<()> {
        self.answer("remove image").await?.images.remove(name);
        Ok(())
    }

    async fn network(&self, _: &InstanceId) -> Result<Network> {
        Err(away("network"))
    }

    async fn networks(&self) -> Result<Vec<Network>> {
        Ok(Vec::new())
    }

    async fn remove_network(&self, _: &InstanceId) -> Result<()> {
        Ok(())
    }

    async fn about(&self) -> Result<About> {
        self.answer("about").await.map(|_| About::default())
    }

    async fn probe(&self, _: &Probe) -> Result<String> {
        Err(away("probe"))
    }

    async fn start(&self, spec: &ContainerSpec) -> Result<Option<Ipv4Addr>> {
        let mut state = self.answer("start").await?;
        if !state.images.contains(&spec.sandbox.image) {
            return Err(Error::NotFound { what: "image", id: spec.sandbox.image.clone() });
        }
        if self.0.chance.hits(state.mood.late) {
            let (late, spec) = (self.0.chance.within(LATE), spec.clone());
            let engine = self.clone();
            self.0.late.lock().expect("not poisoned").spawn(async move {
                tokio::time::sleep(late).await;
                run(&mut engine.lock(), &spec, &engine.0.runs, &engine.0.chance);
            });
            return Err(away("start"));
        }
        run(&mut state, spec, &self.0.runs, &self.0.chance);
        Ok(None)
    }

    async fn kill(&self, _: &InstanceId, replica: &ReplicaId) -> Result<()> {
        end(&mut *self.answer("kill").await?, replica);
        Ok(())
    }

    async fn remove(&self, _: &InstanceId, replica: &ReplicaId) -> Result<()> {
        let mut state = self.answer("remove").await?;
        end(&mut state, replica);
        state.containers.remove(replica);
        Ok(())
    }

    async fn exit(
        &self,
        _: &InstanceId,
        replica: &ReplicaId,
        within: Duration,
    ) -> Result<Option<Exit>> {
        tokio::time::sleep(within).await;
        let state = self.answer("wait").await?;
        let Some(held) = state.containers.get(replica) else {
            return Ok(Some(Exit { out_of_memory: false, code: 137, removed: true }));
        };
        let ended = held.process.is_empty();
        Ok(ended.then_some(Exit { out_of_memory: false, code: 1, removed: false }))
    }

    async fn output(&self, _: &InstanceId, _: &ReplicaId, _: &OutputQuery) -> Result<Output> {
        self.answer("read output").await.map(|_| Output::default())
    }

    fn follow_output(
        &self,
        _: &InstanceId,
        _: &ReplicaId,
        _: &OutputQuery,
    ) -> Result<BoxStream<'static, Result<OutputLine>>> {
        Ok(futures_util::stream::pending().boxed())
    }

    async fn containers(
        &self,
        _: &InstanceId,
        service: Option<ServiceId>,
    ) -> Result<Vec<Container>> {
        let state = self.answer("list containers").await?;
        let ours = state.containers.iter();
        let ours = ours.filter(|(_, held)| service.is_none_or(|service| service == held.service));
        let listed = ours.map(|(id, held)| Container {
            service: held.service,
            deployment: held.deployment,
            replica: id.clone(),
            running: !held.process.is_empty(),
            address: None,
        });
        Ok(listed.collect())
    }

    async fn invocations(&self, _: &InstanceId) -> Result<Vec<ReplicaId>> {
        Ok(Vec::new())
    }

    async fn events(&self, _: &InstanceId) -> Result<BoxStream<'static, EngineEvent>> {
        let mut state = self.answer("events").await?;
        let sender = state.events.get_or_insert_with(|| broadcast::Sender::new(1024));
        let receiver = sender.subscribe();
        let next = |mut receiver: broadcast::Receiver<EngineEvent>| async move {
            receiver.recv().await.ok().map(|event| (event, receiver))
        };
        Ok(futures_util::stream::unfold(receiver, next).boxed())
    }
}
