//! Where services, deployments and replicas are kept: the only place where edge and control meet.
//!
//! The verbs are those of the domain, and each is atomic. What a durable verb acknowledged survives
//! a crash; volatile verbs live as long as the store's process and cost no disk write.

mod contents;
pub mod embedded;
mod listing;
mod opened;
pub mod redis;
mod tables;
mod verbs;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

pub(crate) use self::tables::SCHEMA;
pub use self::{
    contents::{Contents, Export, Record},
    listing::{Listing, Order, OrderKey, ServiceQuery},
    opened::Opened,
};
use crate::{
    account::AccessToken,
    audit::{AuditEntry, AuditQuery},
    environment::EnvVar,
    error::Result,
    name::{DeploymentId, IdempotencyKey, ReplicaId, ServiceId, TokenId, UserName},
    secret::Keyring,
    service::{Deployment, LogLine, Obstacle, Phase, Replica, Seen, Service, ServiceView, Wish},
};

/// A hint that something changed: whoever cares reads [`Volatile::view`] again. A hint may come twice,
/// or late, or for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Something about this service.
    Service(ServiceId),
    /// Nobody knows what: hints may be missing, and everything has to be read again. A receiver that
    /// lagged does the same.
    Everything,
}

impl Change {
    /// Whether something about this service may have changed.
    pub fn may_concern(&self, service: ServiceId) -> bool {
        match self {
            Self::Service(changed) => *changed == service,
            Self::Everything => true,
        }
    }
}

/// A part of a longer list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// How many there are in all.
    pub count: u64,
    /// Those that were asked for.
    pub items: Vec<T>,
}

/// One attempt to create a service, which a client may repeat when it saw no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What the client calls it. It is the owner's: two users may use the same one.
    pub key: IdempotencyKey,
    /// SHA-256 of what was asked for: a repeated attempt asks for the same.
    pub fingerprint: [u8; 32],
}

/// What became of an attempt to create a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// The service is there now.
    New,
    /// An earlier attempt had made this one, which may be gone since; nothing was done.
    Repeated(ServiceId),
}

/// What became of the values that were not under the newest key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealed {
    /// They are now.
    pub renewed: u64,
    /// No key opens them; they are as they were.
    pub lost: u64,
}

/// Domain verbs over durable and volatile state.
pub trait Store: Durable + Volatile + Contents {}

impl<T: Durable + Volatile + Contents> Store for T {}

/// The verbs whose acknowledgement survives a crash, unless one says otherwise.
#[async_trait]
pub trait Durable: Send + Sync + 'static {
    /// Adds a service with its first deployment, unless this attempt was made before: what it made
    /// is then told for `limits::ATTEMPTS_REMEMBERED`.
    ///
    /// # Errors
    /// `Conflict` on field `name` or `function_name` when another service of this owner has the name,
    /// or any other the pair of domain and function name; without field when the attempt's key was
    /// used for something else.
    async fn create_service(
        &self,
        service: &Service,
        first: &Deployment,
        attempt: Option<&Attempt>,
    ) -> Result<Creation>;

    /// Replaces a service, and adds a deployment when there is one. `service.version` is the
    /// version that was read; it is counted up here and nowhere else. `live_deployment` is not
    /// taken from `service` but kept as it is: only [`Durable::activate_deployment`] changes it.
    /// `latest_deployment` becomes the new deployment's id when there is one, and else stays.
    /// Returns the record as it now stands.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` without field when the version has moved on, and as for
    /// [`Durable::create_service`].
    async fn update_service(
        &self,
        service: &Service,
        deployment: Option<&Deployment>,
    ) -> Result<Service>;

    /// Removes a service and its deployments, whatever its version is, or only when it is the one
    /// that was read. Its replicas stay until control removes them. False when there was none.
    ///
    /// # Errors
    /// `Conflict` without field when the version has moved on.
    async fn delete_service(&self, id: ServiceId, version: Option<u64>) -> Result<bool>;

    /// One service, with its code.
    async fn service(&self, id: ServiceId) -> Result<Option<Service>>;

    /// The services that a query takes, with their code.
    async fn services(
        &self,
        query: &ServiceQuery,
        offset: usize,
        limit: usize,
    ) -> Result<Page<Service>>;

    /// Ids of all services.
    async fn service_ids(&self) -> Result<Vec<ServiceId>>;

    /// One deployment, with its code.
    async fn deployment(&self, service: ServiceId, id: DeploymentId) -> Result<Option<Deployment>>;

    /// The deployment before this one, with its code but without its log; none when that was the first
    /// one, or the one before it is forgotten.
    async fn deployment_before(
        &self,
        service: ServiceId,
        id: DeploymentId,
    ) -> Result<Option<Deployment>>;

    /// Deployments of a service, newest first, without code (`function.code` is empty).
    async fn deployments(
        &self,
        service: ServiceId,
        offset: usize,
        limit: usize,
    ) -> Result<Page<Deployment>>;

    /// The newest deployment whose phase is not settled, with its code. Every older unsettled one
    /// becomes `superseded`: its change is part of the newer one. A deployment that was claimed
    /// before and not settled (a crash came between) is claimed again.
    async fn claim_deployment(
        &self,
        service: ServiceId,
        now: Timestamp,
    ) -> Result<Option<Deployment>>;

    /// Moves a deployment on and adds log lines. `error` is kept with phase `failed`.
    /// A phase that is not ahead of the deployment's own changes nothing, but for `building`, from
    /// which an unsettled deployment starts over; `live` changes nothing here, see
    /// [`Durable::activate_deployment`]. The lines are kept in any case.
    /// Phases before the settled ones need not survive a crash: the deployment then starts again.
    /// A deployment that is gone (its service was deleted) is no error.
    async fn record_phase(
        &self,
        service: ServiceId,
        id: DeploymentId,
        phase: Phase,
        at: Timestamp,
        lines: Vec<LogLine>,
        error: Option<String>,
    ) -> Result<()>;

    /// Notes in which deployment's image a deployment runs: none for its own. A deployment that is gone
    /// is no error.
    async fn record_image(
        &self,
        service: ServiceId,
        id: DeploymentId,
        image_of: Option<DeploymentId>,
    ) -> Result<()>;

    /// Makes a deployment the live one, in one step with its phase; the one before and older ones
    /// that still wait become `superseded`. Returns the deployment that was live before.
    ///
    /// Here and when one fails, settled deployments beyond `limits::DEPLOYMENTS_KEPT` are forgotten,
    /// oldest first, but never the live one nor the one that was live before it.
    ///
    /// # Errors
    /// `NotFound` when the service or the deployment is gone; `Conflict` without field when the
    /// deployment has failed or is superseded: it was overtaken and must not come back.
    async fn activate_deployment(
        &self,
        service: ServiceId,
        id: DeploymentId,
        at: Timestamp,
    ) -> Result<Option<DeploymentId>>;

    /// What a deployment's code finds in its environment; nothing when the deployment is gone.
    async fn environment(&self, service: ServiceId, id: DeploymentId) -> Result<Vec<EnvVar>>;

    /// Seals every value of a service and of its deployments anew that is not under the keyring's
    /// newest key. No version is counted up: nothing has changed.
    async fn reseal(&self, service: ServiceId, keyring: &Keyring) -> Result<Resealed>;

    /// Adds a token. When its user has `limits::TOKENS_PER_USER` already, the one that expired first,
    /// before the new one was made, is forgotten for it.
    ///
    /// # Errors
    /// `Conflict` on field `user` when there are as many and none of them has expired.
    async fn add_token(&self, token: &AccessToken) -> Result<()>;

    /// The token with this SHA-256 digest, also one that has expired.
    async fn token(&self, digest: &[u8; 32]) -> Result<Option<AccessToken>>;

    /// The token with this id, of one user or of any, also one that has expired.
    async fn token_with_id(
        &self,
        user: Option<&UserName>,
        id: TokenId,
    ) -> Result<Option<AccessToken>>;

    /// Tokens of one user or of all, newest first.
    async fn tokens(
        &self,
        user: Option<&UserName>,
        offset: usize,
        limit: usize,
    ) -> Result<Page<AccessToken>>;

    /// Revokes a token, of one user or of any; it is refused from now on. What it was, if it was.
    async fn remove_token(
        &self,
        user: Option<&UserName>,
        id: TokenId,
    ) -> Result<Option<AccessToken>>;

    /// Notes when a token was used. A crash may lose it. A token that is gone is no error.
    async fn note_token_use(&self, id: TokenId, at: Timestamp) -> Result<()>;

    /// Adds an entry, whose `id` is given here; the oldest go when there are more than
    /// `limits::AUDIT_KEPT`. Which users and which service it is about is what entries are found by.
    async fn append_audit(&self, entry: &AuditEntry) -> Result<()>;

    /// The entries that a query takes, newest first.
    async fn audit(
        &self,
        query: &AuditQuery,
        offset: usize,
        limit: usize,
    ) -> Result<Page<AuditEntry>>;
}

/// The verbs about what is true as long as containers run. Demand and obstacles of a service that is
/// neither kept nor has replicas are not kept.
#[async_trait]
pub trait Volatile: Send + Sync + 'static {
    /// Control: adds a replica, or replaces what is known of it.
    async fn put_replica(&self, replica: Replica) -> Result<()>;

    /// Control: changes the wish of a replica, if it is known.
    async fn wish_replica(&self, service: ServiceId, id: &ReplicaId, wish: Wish) -> Result<()>;

    /// Control: forgets a replica whose container is gone.
    async fn remove_replica(&self, service: ServiceId, id: &ReplicaId) -> Result<()>;

    /// Edge: says what it saw of a replica, and how many requests run or wait at this moment.
    /// A replica that is not known is no error.
    async fn report_replica(
        &self,
        service: ServiceId,
        id: &ReplicaId,
        seen: Seen,
        demand: u32,
    ) -> Result<()>;

    /// Edge: asks for as many replicas as requests run or wait at this moment.
    async fn request_capacity(&self, service: ServiceId, demand: u32) -> Result<()>;

    /// Control: says why replicas cannot be started, or that they can again.
    async fn set_obstacle(&self, service: ServiceId, obstacle: Option<Obstacle>) -> Result<()>;

    /// Control: the services that have replicas, also those that are not kept any more: what an earlier
    /// process has left to be removed.
    async fn services_with_replicas(&self) -> Result<Vec<ServiceId>>;

    /// What is known of one service, in one consistent piece. For a service that is neither kept
    /// nor has replicas, everything in it is empty.
    async fn view(&self, service: ServiceId) -> Result<ServiceView>;

    /// Hints about changes from now on.
    fn watch(&self) -> broadcast::Receiver<Change>;

    /// Why nothing can be written now, for the operator; none when all is well. Durable verbs that
    /// change something answer `Store` as long as there is a reason. It goes by itself.
    fn problem(&self) -> watch::Receiver<Option<String>>;
}
