//! One side's line to the store: verbs fail, or their answers get lost, and notices are lost, repeated
//! and come late.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use control::{
    account::AccessToken,
    audit::{AuditEntry, AuditQuery},
    environment::EnvVar,
    error::{Error, Result},
    name::{DeploymentId, InstanceId, ReplicaId, ServiceId, TokenId, UserName},
    secret::Keyring,
    service::{Deployment, LogLine, Obstacle, Phase, Replica, Seen, Service, ServiceView, Wish},
    store::{
        Attempt, Change, Contents, Creation, Durable, Export, Page, Resealed, ServiceQuery, Store,
        Volatile,
    },
};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
};

use super::{Subject, chance::Chance};

/// How bad the line is, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    /// A verb fails and does nothing.
    pub(super) refused: u8,
    /// A verb does its work, but its caller is told that it failed.
    pub(super) unanswered: u8,
    /// A verb takes a while.
    pub(super) slow: u8,
    /// A notice is lost,
    pub(super) lost: u8,
    /// or comes twice,
    pub(super) repeated: u8,
    /// or late, so that others overtake it.
    pub(super) late: u8,
}

/// Longest delay of a verb, and of a notice.
const LATE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(4));

/// Verbs under way over one line: now, and at most so far.
#[derive(Debug, Default)]
pub(super) struct Load(Mutex<(usize, usize)>);

/// Ends with the verb.
struct UnderWay<'a>(&'a Load);

impl Load {
    pub(super) fn most(&self) -> usize {
        self.0.lock().expect("not poisoned").1
    }

    fn begin(&self) -> UnderWay<'_> {
        let mut load = self.0.lock().expect("not poisoned");
        load.0 += 1;
        load.1 = load.1.max(load.0);
        UnderWay(self)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.lock().expect("not poisoned").0 -= 1;
    }
}

pub(super) struct Line {
    subject: Subject,
    weather: Arc<Mutex<Weather>>,
    load: Arc<Load>,
    chance: Arc<Chance>,
    notices: broadcast::Sender<Change>,
    _forwarder: JoinSet<()>,
}

impl Line {
    pub(super) fn new(
        subject: &Subject,
        weather: Arc<Mutex<Weather>>,
        load: Arc<Load>,
        chance: Arc<Chance>,
    ) -> Self {
        let notices = broadcast::Sender::new(1024);
        let mut forwarder = JoinSet::new();
        let source = subject.store.watch();
        forwarder.spawn(forward(source, weather.clone(), chance.clone(), notices.clone()));
        let subject = subject.clone();
        Self { subject, weather, load, chance, notices, _forwarder: forwarder }
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        verb: impl FnOnce(Arc<dyn Store>) -> BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let _under_way = self.load.begin();
        let weather = *self.weather.lock().expect("not poisoned");
        let lost = |reason: &str| Error::Store { operation, reason: reason.to_owned() };
        if self.chance.hits(weather.slow) {
            tokio::time::sleep(self.chance.within(LATE.0)).await;
        }
        if self.chance.hits(weather.refused) {
            return Err(lost("it does not answer"));
        }
        let answer = self.subject.call(verb(self.subject.store.clone())).await;
        if self.chance.hits(weather.unanswered) {
            return Err(lost("its answer got lost"));
        }
        answer
    }
}

#[async_trait]
impl Contents for Line {
    fn instance(&self) -> &InstanceId {
        self.subject.store.instance()
    }

    async fn export(&self) -> Result<Export> {
        self.call("export", |store| Box::pin(async move { store.export().await })).await
    }
}

async fn forward(
    mut source: broadcast::Receiver<Change>,
    weather: Arc<Mutex<Weather>>,
    chance: Arc<Chance>,
    notices: broadcast::Sender<Change>,
) {
    let mut late = JoinSet::new();
    loop {
        let change = match source.recv().await {
            Ok(change) => change,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let weather = *weather.lock().expect("not poisoned");
        if chance.hits(weather.lost) {
            continue;
        }
        for _ in 0..=u8::from(chance.hits(weather.repeated)) {
            if chance.hits(weather.late) {
                let (notices, pause) = (notices.clone(), chance.within(LATE.1));
                late.spawn(async move {
                    tokio::time::sleep(pause).await;
                    let _ = notices.send(change); // perhaps nobody listens any more
                });
            } else {
                let _ = notices.send(change);
            }
        }
        while late.try_join_next().is_some() {}
    }
}

/// The verbs that edge and driver use, over the line.
macro_rules! over_the_line {
    ($self:ident, $name:literal, |$store:ident| $verb:expr) => {
        $self.call($name, move |$store| Box::pin(async move { $verb.await })).await
    };
}

#[async_trait]
impl Durable for Line {
    async fn service_ids(&self) -> Result<Vec<ServiceId>> {
        over_the_line!(self, "list services", |store| store.service_ids())
    }

    async fn deployment(&self, service: ServiceId, id: DeploymentId) -> Result<Option<Deployment>> {
        over_the_line!(self, "read deployment", |store| store.deployment(service, id))
    }

    async fn deployments(
        &self,
        service: ServiceId,
        offset: usize,
        limit: usize,
    ) -> Result<Page<Deployment>> {
        over_the_line!(self, "list deployments", |store| store.deployments(service, offset, limit))
    }

    async fn claim_deployment(
        &self,
        service: ServiceId,
        now: Timestamp,
    ) -> Result<Option<Deployment>> {
        over_the_line!(self, "claim deployment", |store| store.claim_deployment(service, now))
    }

    async fn record_phase(
        &self,
        service: ServiceId,
        id: DeploymentId,
        phase: Phase,
        at: Timestamp,
        lines: Vec<LogLine>,
        error: Option<String>,
    ) -> Result<()> {
        over_the_line!(self, "record phase", |store| store
            .record_phase(service, id, phase, at, lines, error))
    }

    async fn record_image(
        &self,
        service: ServiceId,
        id: DeploymentId,
        image_of: Option<DeploymentId>,
    ) -> Result<()> {
        over_the_line!(self, "record image", |store| store.record_image(service, id, image_of))
    }

    async fn activate_deployment(
        &self,
        service: ServiceId,
        id: DeploymentId,
        at: Timestamp,
    ) -> Result<Option<DeploymentId>> {
        over_the_line!(self, "activate", |store| store.activate_deployment(service, id, at))
    }

    async fn environment(&self, service: ServiceId, id: DeploymentId) -> Result<Vec<EnvVar>> {
        over_the_line!(self, "read environment", |store| store.environment(service, id))
    }

    // The admin API's, which has its own tests -------------------------------------------------

    async fn create_service(
        &self,
        service: &Service,
        first: &Deployment,
        attempt: Option<&Attempt>,
    ) -> Result<Creation> {
        self.subject.store.create_service(service, first, attempt).await
    }

    async fn update_service(
        &self,
        service: &Service,
        deployment: Option<&Deployment>,
    ) -> Result<Service> {
        self.subject.store.update_service(service, deployment).await
    }

    async fn delete_service(&self, id: ServiceId, version: Option<u64>) -> Result<bool> {
        self.subject.store.delete_service(id, version).await
    }

    async fn service(&self, id: ServiceId) -> Result<Option<Service>> {
        self.subject.store.service(id).await
    }

    async fn services(
        &self,
        query: &ServiceQuery,
        offset: usize,
        limit: usize,
    ) -> Result<Page<Service>> {
        self.subject.store.services(query, offset, limit).await
    }

    async fn deployment_before(
        &self,
        service: ServiceId,
        id: DeploymentId,
    ) -> Result<Option<Deployment>> {
        self.subject.store.deployment_before(service, id).await
    }

    async fn reseal(&self, service: ServiceId, keyring: &Keyring) -> Result<Resealed> {
        self.subject.store.reseal(service, keyring).await
    }

    async fn add_token(&self, token: &AccessToken) -> Result<()> {
        self.subject.store.add_token(token).await
    }

    async fn token(&self, digest: &[u8; 32]) -> Result<Option<AccessToken>> {
        self.subject.store.token(digest).await
    }

    async fn token_with_id(
        &self,
        user: Option<&UserName>,
        id: TokenId,
    ) -> Result<Option<AccessToken>> {
        self.subject.store.token_with_id(user, id).await
    }

    async fn tokens(
        &self,
        user: Option<&UserName>,
        offset: usize,
        limit: usize,
    ) -> Result<Page<AccessToken>> {
        self.subject.store.tokens(user, offset, limit).await
    }

    async fn remove_token(
        &self,
        user: Option<&UserName>,
        id: TokenId,
    ) -> Result<Option<AccessToken>> {
        self.subject.store.remove_token(user, id).await
    }

    async fn note_token_use(&self, id: TokenId, at: Timestamp) -> Result<()> {
        self.subject.store.note_token_use(id, at).await
    }

    async fn append_audit(&self, entry: &AuditEntry) -> Result<()> {
        self.subject.store.append_audit(entry).await
    }

    async fn audit(
        &self,
        query: &AuditQuery,
        offset: usize,
        limit: usize,
    ) -> Result<Page<AuditEntry>> {
        self.subject.store.audit(query, offset, limit).await
    }
}

#[async_trait]
impl Volatile for Line {
    async fn put_replica(&self, replica: Replica) -> Result<()> {
        over_the_line!(self, "put replica", |store| store.put_replica(replica))
    }

    async fn wish_replica(&self, service: ServiceId, id: &ReplicaId, wish: Wish) -> Result<()> {
        let id = id.clone();
        over_the_line!(self, "wish", |store| store.wish_replica(service, &id, wish))
    }

    async fn remove_replica(&self, service: ServiceId, id: &ReplicaId) -> Result<()> {
        let id = id.clone();
        over_the_line!(self, "remove replica", |store| store.remove_replica(service, &id))
    }

    async fn report_replica(
        &self,
        service: ServiceId,
        id: &ReplicaId,
        seen: Seen,
        demand: u32,
    ) -> Result<()> {
        let id = id.clone();
        over_the_line!(self, "report", |store| store.report_replica(service, &id, seen, demand))
    }

    async fn request_capacity(&self, service: ServiceId, demand: u32) -> Result<()> {
        over_the_line!(self, "request", |store| store.request_capacity(service, demand))
    }

    async fn set_obstacle(&self, service: ServiceId, obstacle: Option<Obstacle>) -> Result<()> {
        over_the_line!(self, "set obstacle", |store| store.set_obstacle(service, obstacle))
    }

    async fn services_with_replicas(&self) -> Result<Vec<ServiceId>> {
        over_the_line!(self, "list replicas", |store| store.services_with_replicas())
    }

    async fn view(&self, service: ServiceId) -> Result<ServiceView> {
        over_the_line!(self, "view", |store| store.view(service))
    }

    fn problem(&self) -> watch::Receiver<Option<String>> {
        self.subject.store.problem()
    }

    fn watch(&self) -> broadcast::Receiver<Change> {
        self.notices.subscribe()
    }
}
