//! The store for one process: one redb file for what is durable, memory for what is not.
//!
//! Writers take turns: a turn lasts from the begin of a transaction until the copy in memory and
//! the hint have followed it, so memory sees commits in their order. `view` reads memory only.
//!
//! A verb that is acknowledged is on the disk: its commit waits for the sync. Two are not
//! (`Survival::Process`), because what they say may be lost with a crash: the way of a deployment
//! that then starts again, and when a token was last used. The next commit takes them along.

mod disk;
mod file;
mod memory;
mod migration;
mod recovery;
mod schema;
mod scratch;
mod tables;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use tokio::{
    runtime::Handle,
    sync::{broadcast, watch},
    task::{JoinHandle, spawn_blocking},
};

use self::{file::File, memory::Memory, schema::Opened};
use super::{
    Change, Page, ServiceQuery, Volatile,
    contents::Sink,
    tables::{Backend, Done, Effect, Fault, Survival, Table},
};
use crate::{
    error::{Error, Result},
    name::{InstanceId, ReplicaId, ServiceId},
    service::{Obstacle, Replica, Seen, ServiceView, Wish},
};

/// Hints that a slow receiver may fall behind before it has to read everything again.
const HINTS: usize = 1024;

/// The embedded store. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
    exporting: Arc<tokio::sync::Mutex<()>>,
    instance: InstanceId,
}

struct Shared {
    file: File,
    /// Held by the writer whose turn it is. An async lock, so that writers that wait hold no thread.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Tries again and again to write, while that fails.
    keeper: Mutex<Option<JoinHandle<()>>>,
    memory: Mutex<Memory>,
    changes: broadcast::Sender<Change>,
}

impl Embedded {
    /// Opens `<dir>/grid.redb`, and makes directory and file when they are missing. Blocks.
    ///
    /// # Errors
    /// `File` when the directory cannot be made or read; `Store` when another Grid uses it, a newer
    /// Grid wrote it, or the file is damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::of(schema::open(dir, None)?)
    }

    /// As [`Embedded::open`], for a store that is to be filled with what was another one's: it gets the
    /// id of that one.
    ///
    /// # Errors
    /// `Store`, besides, when it has another id and is not empty.
    pub fn open_as(dir: &Path, instance: &InstanceId) -> Result<Self> {
        Self::of(schema::open(dir, Some(instance))?)
    }

    fn of(Opened { disk, database, instance, listings }: Opened) -> Result<Self> {
        let mut memory = Memory::default();
        for listing in listings {
            memory.list(listing);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                file: File::new(disk, database),
                turn: Arc::default(),
                keeper: Mutex::default(),
                memory: Mutex::new(memory),
                changes: broadcast::Sender::new(HINTS),
            }),
            exporting: Arc::default(),
            instance,
        })
    }

    /// Whether a store was ever opened in a directory.
    pub fn exists(dir: &Path) -> bool {
        schema::file(dir).exists()
    }

    /// Puts the file of a directory aside, so that it is not taken for the store any more: where it is
    /// then. An earlier one there is replaced.
    ///
    /// # Errors
    /// `File`.
    pub(crate) fn put_aside(dir: &Path) -> Result<PathBuf> {
        let (file, aside) = (schema::file(dir), dir.join("grid.redb.migrated"));
        fs::rename(&file, &aside).map_err(Error::file("rename", &file))?;
        let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(Error::file("sync", dir))?;
        Ok(aside)
    }

    /// This data directory's id: made when it was first opened, and kept.
    pub fn instance_id(&self) -> &InstanceId {
        &self.instance
    }

    /// Gives the file up, so that another process can open it: transactions that run come to their
    /// end first, but for exports, which fail, as do later ones. What is in memory stays: the volatile
    /// verbs and `view` go on.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        let closed = spawn_blocking(move || shared.file.close());
        if let Err(error) = closed.await {
            tracing::error!(%error, "the store was not closed in order");
        }
    }

    /// Runs one volatile verb, and tells the watchers when it says that it changed something.
    fn remember(&self, service: ServiceId, verb: impl FnOnce(&mut Memory) -> bool) {
        let changed = verb(&mut self.shared.memory.lock());
        if changed {
            self.shared.hint(service);
        }
    }
}

impl Backend for Embedded {
    type Read = tables::Read;
    type Write = tables::Write;

    fn instance(&self) -> &InstanceId {
        &self.instance
    }

    fn exporting(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.exporting)
    }

    async fn export(&self, mut into: Sink) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut wanted = shared.file.wanted();
        let runtime = Handle::current();
        let send = move |database: &Database| {
            let transaction = database.begin_read()?;
            let all = async {
                for table in Table::ALL {
                    for entry in transaction.open_table(tables::definition(table))?.iter()? {
                        let (key, value) = entry?;
                        into.put(table, key.value().to_vec(), value.value().to_vec()).await?;
                    }
                }
                into.flush().await
            };
            runtime.block_on(async {
                tokio::select! {
                    done = all => done,
                    _ = wanted.changed() => Err(Fault::Broken(
                        "the store is given up, or its file is opened anew; ask again".to_owned(),
                    )),
                }
            })
        };
        blocking("export", move || {
            let outcome = shared.file.with(send);
            shared.recover(outcome)
        })
        .await
    }

    async fn entries(&self) -> Result<u64> {
        let shared = Arc::clone(&self.shared);
        let count = |database: &Database| {
            let transaction = database.begin_read()?;
            let mut entries = 0;
            for table in Table::ALL {
                entries += transaction.open_table(tables::definition(table))?.len()?;
            }
            Ok(entries)
        };
        blocking("count", move || {
            let outcome = shared.file.with(count);
            shared.recover(outcome)
        })
        .await
    }

    async fn read<T, V>(&self, operation: &'static str, verb: V) -> Result<T>
    where
        T: Send + 'static,
        V: for<'t> Fn(&'t mut Self::Read) -> BoxFuture<'t, Result<T, Fault>>
            + Send
            + Sync
            + 'static,
    {
        let shared = Arc::clone(&self.shared);
        blocking(operation, move || {
            let attempt = || {
                shared.file.with(|database| {
                    at_once(verb(&mut tables::Transaction(database.begin_read()?)))
                })
            };
            // Once more when the file had to be opened anew.
            match shared.recover(attempt()) {
                Err(Fault::Broken(_)) => attempt(),
                outcome => outcome,
            }
        })
        .await
    }

    async fn write<T, V>(&self, operation: &'static str, survival: Survival, verb: V) -> Result<T>
    where
        T: Send + 'static,
        V: for<'t> Fn(&'t mut Self::Write) -> BoxFuture<'t, Done<T>> + Send + Sync + 'static,
    {
        let durability = match survival {
            Survival::Crash => Durability::Immediate,
            // The next commit that survives a crash, of whatever verb, brings it to the disk.
            Survival::Process => Durability::None,
        };
        let turn = Arc::clone(&self.shared.turn).lock_owned().await;
        let shared = Arc::clone(&self.shared);
        blocking(operation, move || {
            let _turn = turn;
            shared.check_writable()?;
            let outcome = shared.file.with(|database| {
                let mut transaction = database.begin_write()?;
                transaction.set_durability(durability)?;
                let mut transaction = tables::Transaction(transaction);
                let (value, effect) = at_once(verb(&mut transaction))?;
                if effect == Effect::Nothing {
                    transaction.0.abort()?;
                } else {
                    transaction.0.commit()?;
                    shared.follow(effect);
                }
                Ok(value)
            });
            // What the file failed may be done all the same: memory then says what the file does.
            shared.recover(outcome)
        })
        .await
    }

    async fn select(
        &self,
        query: &ServiceQuery,
        offset: usize,
        limit: usize,
    ) -> Result<Page<ServiceId>> {
        Ok(self.shared.memory.lock().select(query, offset, limit))
    }
}

impl Shared {
    fn follow(&self, effect: Effect) {
        let service = effect.service();
        match effect {
            Effect::Nothing | Effect::Kept | Effect::Changed(_) => {}
            Effect::Listed(listing) => self.memory.lock().list(*listing),
            Effect::Deleted(service) => self.memory.lock().unlist(service),
        }
        if let Some(service) = service {
            self.hint(service);
        }
    }

    fn hint(&self, service: ServiceId) {
        // Fails when nobody watches, which is fine.
        let _ = self.changes.send(Change::Service(service));
    }
}

/// What a verb has done: over redb, nothing in it waits.
fn at_once<T>(verb: BoxFuture<'_, Result<T, Fault>>) -> Result<T, Fault> {
    let waits = || Fault::Broken("a verb waits inside a transaction of the file".to_owned());
    verb.now_or_never().ok_or_else(waits)?
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
impl Volatile for Embedded {
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

    async fn services_with_replicas(&self) -> Result<Vec<ServiceId>> {
        Ok(self.shared.memory.lock().with_replicas())
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
