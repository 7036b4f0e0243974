//! The store for one process: one redb file for what is durable, memory for what is not.
//!
//! Writers take turns: a turn lasts from the begin of a transaction until the copy in memory and
//! the hint have followed it, so memory sees commits in their order. `view` reads memory only.

mod deployments;
mod memory;
mod schema;
mod services;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, WriteTransaction};
use tokio::{sync::broadcast, task::spawn_blocking};

use self::{
    memory::Memory,
    schema::{Fault, Opened},
};
use super::{Change, Page, Store};
use crate::{
    error::{Error, Result},
    name::{DeploymentId, InstanceId, ReplicaId, ServiceId},
    service::{
        Deployment, LogLine, Obstacle, Phase, Replica, Route, Seen, Service, ServiceView, Wish,
    },
};

/// Hints that a slow receiver may fall behind before it has to read everything again.
const HINTS: usize = 1024;

/// The embedded store. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
    /// Held by the writer whose turn it is. An async lock, so that writers that wait hold no thread.
    turn: Arc<tokio::sync::Mutex<()>>,
    instance: InstanceId,
}

struct Shared {
    /// None when it was closed.
    database: RwLock<Option<Database>>,
    memory: Mutex<Memory>,
    changes: broadcast::Sender<Change>,
}

/// What a durable verb did, for memory and watchers.
enum Effect {
    /// Nothing: there is nothing to commit and nobody to tell.
    Nothing,
    /// Something that memory does not copy.
    Changed(ServiceId),
    /// The service now looks like this to the edge.
    Routed(Route),
    /// The service is gone.
    Deleted(ServiceId),
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
        let Opened { database, instance, routes } = schema::open(dir)?;
        let mut memory = Memory::default();
        for route in routes {
            memory.set_route(route);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                database: RwLock::new(Some(database)),
                memory: Mutex::new(memory),
                changes: broadcast::Sender::new(HINTS),
            }),
            turn: Arc::default(),
            instance,
        })
    }

    /// This data directory's id: made when it was first opened, and kept.
    pub fn instance_id(&self) -> &InstanceId {
        &self.instance
    }

    /// Gives the file up, so that another process can open it: transactions that run come to their
    /// end first, and later ones fail. What is in memory stays: the volatile verbs and `view` go on.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        let closed = spawn_blocking(move || drop(shared.database.write().take()));
        if let Err(error) = closed.await {
            tracing::error!(%error, "the store was not closed in order");
        }
    }

    /// Runs one verb in one write transaction. It runs to its end even if the caller goes away.
    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        durability: Durability,
        verb: impl FnOnce(&WriteTransaction) -> Done<T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let shared = Arc::clone(&self.shared);
        blocking(operation, move || {
            let _turn = turn;
            let database = shared.database.read();
            let mut transaction = database.as_ref().ok_or_else(handed_over)?.begin_write()?;
            transaction.set_durability(durability)?;
            let (value, effect) = verb(&transaction)?;
            if matches!(effect, Effect::Nothing) {
                transaction.abort()?;
            } else {
                transaction.commit()?;
                shared.follow(effect);
            }
            Ok(value)
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        verb: impl FnOnce(&ReadTransaction) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        blocking(operation, move || {
            let database = shared.database.read();
            verb(&database.as_ref().ok_or_else(handed_over)?.begin_read()?)
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
            Effect::Nothing => return,
            Effect::Changed(service) => service,
            Effect::Routed(route) => {
                let service = route.service;
                self.memory.lock().set_route(route);
                service
            }
            Effect::Deleted(service) => {
                self.memory.lock().drop_route(service);
                service
            }
        };
        self.hint(service);
    }

    fn hint(&self, service: ServiceId) {
        // Fails when nobody watches, which is fine.
        let _ = self.changes.send(Change { service });
    }
}

fn handed_over() -> Fault {
    Fault::Broken(
        "this process has handed it over to the one that replaces it; ask again".to_owned(),
    )
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
    async fn create_service(&self, service: &Service, first: &Deployment) -> Result<()> {
        let (service, first) = (service.clone(), first.clone());
        self.write("create service", Durability::Immediate, move |transaction| {
            services::create(transaction, &service, &first)
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

    async fn services(&self, offset: usize, limit: usize) -> Result<Page<Service>> {
        self.read("list services", move |transaction| services::page(transaction, offset, limit))
            .await
    }

    async fn service_ids(&self) -> Result<Vec<ServiceId>> {
        Ok(self.shared.memory.lock().service_ids())
    }

    async fn deployment(&self, service: ServiceId, id: DeploymentId) -> Result<Option<Deployment>> {
        self.read("read deployment", move |transaction| deployments::get(transaction, service, id))
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
}
