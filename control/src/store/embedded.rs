//! The store for one process: one redb file for what is durable, memory for what is not.
//!
//! Writers take turns: a turn lasts from the begin of a transaction until the copy in memory and
//! the hint have followed it, so memory sees commits in their order. `view` reads memory only.
//!
//! A verb that is acknowledged is on the disk: its commit waits for the sync. Two are not
//! (`Durability::None`), because what they say may be lost with a crash: the way of a deployment that
//! then starts again, and when a token was last used. The next commit takes them along.

mod accounts;
mod attempts;
mod deployments;
mod disk;
mod file;
mod memory;
mod recovery;
mod schema;
mod scratch;
mod services;

use std::{cmp::Reverse, collections::HashMap, path::Path, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use redb::{Durability, ReadTransaction, ReadableDatabase, WriteTransaction};
use tokio::{
    sync::{broadcast, watch},
    task::{JoinHandle, spawn_blocking},
};

use self::{
    file::File,
    memory::Memory,
    schema::{Fault, Opened},
};
use super::{Attempt, Change, Creation, Listing, Page, Resealed, ServiceQuery, Store};
use crate::{
    account::AccessToken,
    audit::{AuditEntry, AuditQuery},
    environment::EnvVar,
    error::{Error, Result},
    limits,
    name::{DeploymentId, InstanceId, ReplicaId, ServiceId, TokenId, UserName},
    secret::Keyring,
    service::{Deployment, LogLine, Obstacle, Phase, Replica, Seen, Service, ServiceView, Wish},
};

/// Hints that a slow receiver may fall behind before it has to read everything again.
const HINTS: usize = 1024;

/// The embedded store. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
    instance: InstanceId,
}

struct Shared {
    file: File,
    /// Held by the writer whose turn it is. An async lock, so that writers that wait hold no thread.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Tries again and again to write, while that fails.
    keeper: Mutex<Option<JoinHandle<()>>>,
    memory: Mutex<Memory>,
    /// All of them, so that no request costs a look at the disk for its credentials.
    tokens: Mutex<HashMap<[u8; 32], AccessToken>>,
    changes: broadcast::Sender<Change>,
}

/// What a durable verb did, for memory and watchers.
enum Effect {
    /// Nothing: there is nothing to commit and nobody to tell.
    Nothing,
    /// Something that is no service's.
    Kept,
    /// Something that memory does not copy.
    Changed(ServiceId),
    /// A deployment is in another phase.
    Moved(ServiceId, DeploymentId, Phase),
    /// The service now looks like this to the edge and in lists.
    Listed(Box<Listing>),
    /// The service is gone.
    Deleted(ServiceId),
    /// The token now looks like this, and the one with that digest had to go for it.
    Token(Box<AccessToken>, Option<[u8; 32]>),
    /// The token with this digest is gone.
    Revoked([u8; 32]),
}

impl Effect {
    fn listed(listing: Listing) -> Self {
        Self::Listed(Box::new(listing))
    }
}

/// What a verb returns, and what it did.
type Done<T> = Result<(T, Effect), Fault>;

impl Embedded {
    /// Opens `<dir>/grid.redb`, and makes directory and file when they are missing. Blocks.
    ///
    /// # Errors
    /// `File` when the directory cannot be made or read; `Store` when another Grid uses it, a newer
    /// Grid wrote it, or the file is damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        let Opened { disk, database, instance, listings, tokens } = schema::open(dir)?;
        let mut memory = Memory::default();
        for listing in listings {
            memory.list(listing);
        }
        let tokens = tokens.into_iter().map(|token| (token.digest, token)).collect();
        Ok(Self {
            shared: Arc::new(Shared {
                file: File::new(disk, database),
                turn: Arc::default(),
                keeper: Mutex::default(),
                memory: Mutex::new(memory),
                tokens: Mutex::new(tokens),
                changes: broadcast::Sender::new(HINTS),
            }),
            instance,
        })
    }

    /// Whether a store was ever opened in a directory.
    pub fn exists(dir: &Path) -> bool {
        schema::file(dir).exists()
    }

    /// This data directory's id: made when it was first opened, and kept.
    pub fn instance_id(&self) -> &InstanceId {
        &self.instance
    }

    /// Gives the file up, so that another process can open it: transactions that run come to their
    /// end first, and later ones fail. What is in memory stays: the volatile verbs and `view` go on.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        let closed = spawn_blocking(move || shared.file.close());
        if let Err(error) = closed.await {
            tracing::error!(%error, "the store was not closed in order");
        }
    }

    /// Runs one verb in one write transaction. It runs to its end even if the caller goes away. When
    /// the file fails it, it may have been done all the same: memory then says what the file does.
    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        durability: Durability,
        verb: impl FnOnce(&WriteTransaction) -> Done<T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.shared.turn).lock_owned().await;
        let shared = Arc::clone(&self.shared);
        blocking(operation, move || {
            let _turn = turn;
            shared.check_writable()?;
            let outcome = shared.file.with(|database| {
                let mut transaction = database.begin_write()?;
                transaction.set_durability(durability)?;
                let (value, effect) = verb(&transaction)?;
                if matches!(effect, Effect::Nothing) {
                    transaction.abort()?;
                } else {
                    transaction.commit()?;
                    shared.follow(effect);
                }
                Ok(value)
            });
            shared.recover(outcome)
        })
        .await
    }

    /// Runs one verb in one read transaction; once more when the file had to be opened anew.
    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        verb: impl Fn(&ReadTransaction) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        blocking(operation, move || {
            let attempt = || shared.file.with(|database| verb(&database.begin_read()?));
            match shared.recover(attempt()) {
                Err(Fault::Broken(_)) => attempt(),
                outcome => outcome,
            }
        })
        .await
    }

    /// Runs one volatile verb, and tells the watchers when it says that it changed something.
    fn remember(&self, service: ServiceId, verb: impl FnOnce(&mut Memory) -> bool) {
        let changed = verb(&mut self.shared.memory.lock());
        if changed {
            self.shared.hint(service);
        }
    }
}

impl Shared {
    fn follow(&self, effect: Effect) {
        let service = match effect {
            Effect::Nothing | Effect::Kept => return,
            Effect::Token(token, gone) => {
                let mut tokens = self.tokens.lock();
                if let Some(gone) = gone {
                    tokens.remove(&gone);
                }
                tokens.insert(token.digest, *token);
                return;
            }
            Effect::Revoked(digest) => {
                self.tokens.lock().remove(&digest);
                return;
            }
            Effect::Changed(service) => service,
            Effect::Moved(service, deployment, phase) => {
                self.memory.lock().set_phase(service, deployment, phase);
                service
            }
            Effect::Listed(listing) => {
                let service = listing.route.service;
                self.memory.lock().list(*listing);
                service
            }
            Effect::Deleted(service) => {
                self.memory.lock().unlist(service);
                service
            }
        };
        self.hint(service);
    }

    fn token_with_id(&self, user: Option<&UserName>, id: TokenId) -> Option<AccessToken> {
        let tokens = self.tokens.lock();
        let known = tokens.values().find(|token| token.id == id)?;
        user.is_none_or(|user| known.user == *user).then(|| known.clone())
    }

    fn hint(&self, service: ServiceId) {
        // Fails when nobody watches, which is fine.
        let _ = self.changes.send(Change { service });
    }
}

/// redb blocks, and a commit waits for the disk: neither belongs on an async worker.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(|fault| fault.during(operation)),
        Err(stopped) => Err(Error::Store { operation, reason: stopped.to_string() }),
    }
}

#[async_trait]
impl Store for Embedded {
    async fn create_service(
        &self,
        service: &Service,
        first: &Deployment,
        attempt: Option<&Attempt>,
    ) -> Result<Creation> {
        let (service, first, attempt) = (service.clone(), first.clone(), attempt.cloned());
        self.write("create service", Durability::Immediate, move |transaction| {
            services::create(transaction, &service, &first, attempt.as_ref())
        })
        .await
    }

    async fn update_service(
        &self,
        service: &Service,
        deployment: Option<&Deployment>,
    ) -> Result<Service> {
        let (service, deployment) = (service.clone(), deployment.cloned());
        self.write("update service", Durability::Immediate, move |transaction| {
            services::update(transaction, service, deployment.as_ref())
        })
        .await
    }

    async fn delete_service(&self, id: ServiceId) -> Result<bool> {
        self.write("delete service", Durability::Immediate, move |transaction| {
            services::delete(transaction, id)
        })
        .await
    }

    async fn service(&self, id: ServiceId) -> Result<Option<Service>> {
        self.read("read service", move |transaction| services::get(transaction, id)).await
    }

    async fn services(
        &self,
        query: &ServiceQuery,
        offset: usize,
        limit: usize,
    ) -> Result<Page<Service>> {
        let Page { count, items: ids } = self.shared.memory.lock().select(query, offset, limit);
        let read = move |transaction: &ReadTransaction| services::with_ids(transaction, &ids);
        Ok(Page { count, items: self.read("list services", read).await? })
    }

    async fn service_ids(&self) -> Result<Vec<ServiceId>> {
        Ok(self.shared.memory.lock().service_ids())
    }

    async fn deployment(&self, service: ServiceId, id: DeploymentId) -> Result<Option<Deployment>> {
        self.read("read deployment", move |transaction| deployments::get(transaction, service, id))
            .await
    }

    async fn deployment_before(
        &self,
        service: ServiceId,
        id: DeploymentId,
    ) -> Result<Option<Deployment>> {
        self.read("read deployment", move |transaction| {
            deployments::before(transaction, service, id)
        })
        .await
    }

    async fn deployments(
        &self,
        service: ServiceId,
        offset: usize,
        limit: usize,
    ) -> Result<Page<Deployment>> {
        self.read("list deployments", move |transaction| {
            deployments::page(transaction, service, offset, limit)
        })
        .await
    }

    async fn claim_deployment(
        &self,
        service: ServiceId,
        now: Timestamp,
    ) -> Result<Option<Deployment>> {
        self.write("claim deployment", Durability::Immediate, move |transaction| {
            deployments::claim(transaction, service, now)
        })
        .await
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
        // A deployment that a crash interrupts starts again, so its way there may be lost with it.
        // The next durable commit, of whatever verb, brings it to the disk.
        let durability = if phase.is_settled() { Durability::Immediate } else { Durability::None };
        self.write("record phase", durability, move |transaction| {
            deployments::record(transaction, service, id, phase, at, lines, error)
        })
        .await
    }

    async fn record_image(
        &self,
        service: ServiceId,
        id: DeploymentId,
        image_of: Option<DeploymentId>,
    ) -> Result<()> {
        // Not lost with an I/O error, after which the deployment goes on: it would look for an image
        // that there is not.
        self.write("record image", Durability::Immediate, move |transaction| {
            deployments::set_image(transaction, service, id, image_of)
        })
        .await
    }

    async fn activate_deployment(
        &self,
        service: ServiceId,
        id: DeploymentId,
        at: Timestamp,
    ) -> Result<Option<DeploymentId>> {
        self.write("activate deployment", Durability::Immediate, move |transaction| {
            services::activate(transaction, service, id, at)
        })
        .await
    }

    async fn environment(&self, service: ServiceId, id: DeploymentId) -> Result<Vec<EnvVar>> {
        self.read("read environment", move |transaction| {
            deployments::environment(transaction, service, id)
        })
        .await
    }

    async fn reseal(&self, service: ServiceId, keyring: &Keyring) -> Result<Resealed> {
        let keyring = keyring.clone();
        self.write("reseal environment", Durability::Immediate, move |transaction| {
            let mut resealed = Resealed::default();
            let mut reseal = |vars: &mut Vec<EnvVar>| {
                let renewed = resealed.renewed;
                for var in vars {
                    match keyring.renew(&mut var.value) {
                        Ok(renewed) => resealed.renewed += u64::from(renewed),
                        Err(_) => resealed.lost += 1,
                    }
                }
                resealed.renewed > renewed
            };
            services::set_environment(transaction, service, &mut reseal)?;
            deployments::set_environments(transaction, service, &mut reseal)?;
            let effect = if resealed.renewed == 0 { Effect::Nothing } else { Effect::Kept };
            Ok((resealed, effect))
        })
        .await
    }

    async fn add_token(&self, token: &AccessToken) -> Result<()> {
        let (token, shared) = (token.clone(), Arc::clone(&self.shared));
        self.write("add token", Durability::Immediate, move |transaction| {
            let gone = accounts::make_room(shared.tokens.lock().values(), &token)?;
            if let Some((id, _)) = gone {
                accounts::remove_token(transaction, id)?;
            }
            accounts::put_token(transaction, &token)?;
            Ok(((), Effect::Token(Box::new(token), gone.map(|(_, digest)| digest))))
        })
        .await
    }

    async fn token(&self, digest: &[u8; 32]) -> Result<Option<AccessToken>> {
        Ok(self.shared.tokens.lock().get(digest).cloned())
    }

    async fn token_with_id(
        &self,
        user: Option<&UserName>,
        id: TokenId,
    ) -> Result<Option<AccessToken>> {
        Ok(self.shared.token_with_id(user, id))
    }

    async fn tokens(
        &self,
        user: Option<&UserName>,
        offset: usize,
        limit: usize,
    ) -> Result<Page<AccessToken>> {
        let tokens = self.shared.tokens.lock();
        let of_user = |token: &&AccessToken| user.is_none_or(|user| token.user == *user);
        let mut found: Vec<&AccessToken> = tokens.values().filter(of_user).collect();
        found.sort_by_key(|token| Reverse(token.id));
        let items = found.iter().skip(offset).take(limit).map(|token| (*token).clone()).collect();
        Ok(Page { count: found.len() as u64, items })
    }

    async fn remove_token(
        &self,
        user: Option<&UserName>,
        id: TokenId,
    ) -> Result<Option<AccessToken>> {
        let (user, shared) = (user.cloned(), Arc::clone(&self.shared));
        self.write("revoke token", Durability::Immediate, move |transaction| {
            let known = shared.token_with_id(user.as_ref(), id);
            let Some(token) = known else { return Ok((None, Effect::Nothing)) };
            accounts::remove_token(transaction, id)?;
            Ok((Some(token.clone()), Effect::Revoked(token.digest)))
        })
        .await
    }

    async fn note_token_use(&self, id: TokenId, at: Timestamp) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        self.write("note use of token", Durability::None, move |transaction| {
            let known = shared.token_with_id(None, id);
            let Some(token) = known else { return Ok(((), Effect::Nothing)) };
            let token = AccessToken { last_used_at: Some(at), ..token };
            accounts::put_token(transaction, &token)?;
            Ok(((), Effect::Token(Box::new(token), None)))
        })
        .await
    }

    async fn append_audit(&self, entry: &AuditEntry) -> Result<()> {
        let entry = entry.clone();
        self.write("append to audit log", Durability::Immediate, move |transaction| {
            accounts::append(transaction, entry, limits::AUDIT_KEPT)
        })
        .await
    }

    async fn audit(
        &self,
        query: &AuditQuery,
        offset: usize,
        limit: usize,
    ) -> Result<Page<AuditEntry>> {
        let query = query.clone();
        self.read("read audit log", move |transaction| {
            accounts::audit(transaction, &query, offset, limit)
        })
        .await
    }

    async fn put_replica(&self, replica: Replica) -> Result<()> {
        self.remember(replica.service, |memory| memory.put_replica(replica));
        Ok(())
    }

    async fn wish_replica(&self, service: ServiceId, id: &ReplicaId, wish: Wish) -> Result<()> {
        self.remember(service, |memory| memory.wish(service, id, wish));
        Ok(())
    }

    async fn remove_replica(&self, service: ServiceId, id: &ReplicaId) -> Result<()> {
        self.remember(service, |memory| memory.remove_replica(service, id));
        Ok(())
    }

    async fn report_replica(
        &self,
        service: ServiceId,
        id: &ReplicaId,
        seen: Seen,
        demand: u32,
    ) -> Result<()> {
        self.remember(service, |memory| {
            let news = memory.see(service, id, seen);
            memory.demand(service, demand) || news
        });
        Ok(())
    }

    async fn request_capacity(&self, service: ServiceId, demand: u32) -> Result<()> {
        self.remember(service, |memory| memory.demand(service, demand));
        Ok(())
    }

    async fn set_obstacle(&self, service: ServiceId, obstacle: Option<Obstacle>) -> Result<()> {
        self.remember(service, |memory| memory.obstacle(service, obstacle));
        Ok(())
    }

    async fn view(&self, service: ServiceId) -> Result<ServiceView> {
        Ok(self.shared.memory.lock().view(service))
    }

    fn watch(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }

    fn problem(&self) -> watch::Receiver<Option<String>> {
        self.shared.file.problem()
    }
}
