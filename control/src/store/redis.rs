//! The store for several processes: a Redis holds what is durable and what is not.
//!
//! The verbs run in optimistic transactions and commit by one script; see `redis/transaction.rs`.
//! Notices to other processes are hints, and what Redis was told survives what its own persistence
//! settings promise.

mod address;
mod export;
mod hints;
mod keys;
mod lease;
mod link;
mod listings;
mod opening;
mod server;
mod transaction;
mod volatile;

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

pub use self::address::RedisUrl;
use self::{
    lease::Lease,
    listings::Listings,
    server::Server,
    transaction::{Committed, Read, Write},
};
use super::{
    Change, Page, ServiceQuery,
    contents::Sink,
    tables::{Backend, Done, Effect, Fault, Survival},
};
use crate::{
    config::Config,
    error::{Error, Result},
    limits,
    name::{InstanceId, ServiceId},
};

/// How often a transaction is done again that others overtake, and how long it waits for that at most.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// After how many attempts a read takes the turn of a writer.
const UNDISTURBED_AFTER: u32 = 5;

/// Which Redis, and what there is called ours.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Where it is.
    pub url: RedisUrl,
    /// What all keys begin with.
    pub prefix: String,
}

impl RedisSettings {
    /// Those of `REDIS_URL`, when it is set.
    pub fn of(config: &Config) -> Option<Self> {
        let url = config.redis_url.clone()?;
        Some(Self { url, prefix: config.redis_prefix.clone() })
    }
}

/// What a process does with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It may commit. One process of one data directory does at any time.
    Control,
    /// It only reads, and writes what is volatile.
    Edge,
}

/// The store in a Redis. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Redis {
    server: Arc<Server>,
    listings: Arc<Mutex<Listings>>,
    /// Held by the writer whose turn it is: writers of one process do not overtake each other.
    turn: Arc<Mutex<()>>,
    exporting: Arc<Mutex<()>>,
    /// True when control is to be given up: whoever reads for long stops.
    closing: Arc<watch::Sender<bool>>,
    lease: Option<Arc<Lease>>,
    _listening: Arc<Aborted>,
}

/// A task that ends with its owner.
struct Aborted(AbortHandle);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Redis {
    /// Connects, makes what is missing, and warns of settings of the Redis with which state gets lost.
    /// The data directory keeps whose containers are ours.
    ///
    /// # Errors
    /// `Store` when the Redis does not answer within [`crate::limits::STORE_START`], a newer Grid wrote
    /// it, it is another Grid's, or another process has control; `File`.
    pub async fn open(settings: &RedisSettings, data_dir: &Path, part: Part) -> Result<Self> {
        opening::open(settings, data_dir, part, None).await
    }

    /// As [`Redis::open`] with control, for a store that is to be filled with what was another one's: it
    /// gets the id of that one.
    ///
    /// # Errors
    /// `Store`, besides, when it has another id and is not empty.
    pub async fn open_as(
        settings: &RedisSettings,
        data_dir: &Path,
        instance: &InstanceId,
    ) -> Result<Self> {
        opening::open(settings, data_dir, Part::Control, Some(instance)).await
    }

    /// Whose containers are ours: the same for all processes of one data directory.
    pub fn instance_id(&self) -> &InstanceId {
        &self.server.instance
    }

    /// Gives control up, so that another process can have it; writes fail from now on, and all else
    /// goes on.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        // Whoever has the turn finishes first.
        let _turn = self.turn.lock().await;
        if let Some(lease) = &self.lease {
            lease.give_up();
        }
    }

    /// Waits for the turn of a writer.
    async fn turn(&self) -> Result<MutexGuard<'_, ()>, Fault> {
        let turn = timeout(limits::STORE_TURN, self.turn.lock()).await;
        turn.map_err(|_| Fault::Broken("those before it take too long".to_owned()))
    }

    fn expect_control(&self) -> Result<(), Fault> {
        match &self.lease {
            Some(lease) if !lease.is_given_up() => Ok(()),
            _ => Err(no_control()),
        }
    }

    /// Runs a transaction to its commit, again for as long as others overtake it.
    async fn transact<T, V>(&self, verb: V) -> Result<T, Fault>
    where
        V: for<'t> Fn(&'t mut Write) -> BoxFuture<'t, Done<T>>,
    {
        let _turn = self.turn().await?;
        self.expect_control()?;
        for attempt in 0..ATTEMPTS {
            let mut transaction = Write::begin(&self.server);
            let outcome = verb(&mut transaction).await;
            if transaction.is_void() {
                sleep(PAUSE * attempt / ATTEMPTS).await;
                continue;
            }
            let (value, effect) = outcome?;
            if effect == Effect::Nothing {
                return Ok(value);
            }
            let commit = uuid::Uuid::new_v4().to_string();
            let committed = transaction.commit(&commit, &effect).await;
            if let (Some(service), Ok(Committed::At(_)) | Err(_)) = (effect.service(), &committed) {
                // One whose answer was lost may be done.
                self.server.hint_here(Change::Service(service));
            }
            match committed? {
                Committed::At(version) => {
                    self.listings.lock().await.follow(effect, version);
                    return Ok(value);
                }
                Committed::Overtaken => sleep(PAUSE * attempt / ATTEMPTS).await,
            }
        }
        Err(Fault::Broken("others write all the time".to_owned()))
    }
}

fn no_control() -> Fault {
    Fault::Broken("this process has no control of the store (any more)".into())
}

impl Backend for Redis {
    type Read = Read;
    type Write = Write;

    fn instance(&self) -> &InstanceId {
        &self.server.instance
    }

    fn exporting(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.exporting)
    }

    async fn export(&self, into: Sink) -> Result<()> {
        let mut closing = self.closing.subscribe();
        let done = tokio::select! {
            done = self.send_all(into) => done,
            _ = closing.wait_for(|closing| *closing) => Err(no_control()),
        };
        done.map_err(|fault| fault.during("export"))
    }

    async fn entries(&self) -> Result<u64> {
        self.count_all().await.map_err(|fault| fault.during("count"))
    }

    async fn read<T, V>(&self, operation: &'static str, verb: V) -> Result<T>
    where
        T: Send + 'static,
        V: for<'t> Fn(&'t mut Self::Read) -> BoxFuture<'t, Result<T, Fault>>
            + Send
            + Sync
            + 'static,
    {
        let mut _turn = None;
        for attempt in 0..ATTEMPTS {
            // Whoever has control is overtaken by itself only: it writes nothing while this reads.
            if attempt == UNDISTURBED_AFTER && self.lease.is_some() {
                _turn = self.turn().await.ok();
            }
            let mut transaction = Read::begin(&self.server);
            let outcome = verb(&mut transaction).await;
            if !transaction.is_void() {
                return outcome.map_err(|fault| fault.during(operation));
            }
            sleep(PAUSE * attempt / ATTEMPTS).await;
        }
        Err(Error::Store { operation, reason: "others write all the time".to_owned() })
    }

    async fn write<T, V>(&self, operation: &'static str, _: Survival, verb: V) -> Result<T>
    where
        T: Send + 'static,
        V: for<'t> Fn(&'t mut Self::Write) -> BoxFuture<'t, Done<T>> + Send + Sync + 'static,
    {
        let store = self.clone();
        let done = tokio::spawn(async move { store.transact(verb).await });
        match done.await {
            Ok(outcome) => outcome.map_err(|fault| fault.during(operation)),
            Err(stopped) => Err(Error::Store { operation, reason: stopped.to_string() }),
        }
    }

    async fn select(
        &self,
        query: &ServiceQuery,
        offset: usize,
        limit: usize,
    ) -> Result<Page<ServiceId>> {
        let mut listings = self.listings.lock().await;
        let current = listings.bring_up_to_date(&self.server).await;
        current.map_err(|fault| fault.during("list services"))?;
        Ok(listings.select(query, offset, limit))
    }
}
