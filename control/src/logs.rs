//! What functions wrote. Lines of containers that run are the engine's; within half a minute they are
//! also kept in files of bounded size, and what is new when a container is removed is kept then. So a
//! reading takes both and leaves out what it finds twice. Whoever follows a service shares one stream
//! per container with all others who do.

mod cursor;
mod feed;
mod feeds;
mod files;
mod follower;
mod keeper;
mod masks;
mod newest;
mod pace;
mod reading;
mod ring;
mod streams;
mod tasks;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use utoipa::ToSchema;

pub(crate) use self::cursor::is_mark;
pub use self::{
    feed::Ending,
    feeds::Refusal,
    follower::{Followed, Follower, NotFollowed},
};
use self::{feeds::Feeds, files::Files, keeper::Watched, masks::Masks, tasks::Tasks};
use crate::{
    engine::Engine,
    error::Result,
    limits,
    name::{InstanceId, ReplicaId, ServiceId},
    secret::Keyring,
    store::Store,
};

/// Which lines are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// So many of the newest.
    pub tail: usize,
    /// Only lines of this request.
    pub request_id: Option<String>,
    /// None before this time.
    pub since: Option<Timestamp>,
    /// None after this time.
    pub until: Option<Timestamp>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// When the engine received it.
    pub at: Timestamp,
    /// Who wrote it.
    pub stream: LogStream,
    /// In which container.
    pub replica: ReplicaId,
    /// During which request; none for output between requests.
    pub request_id: Option<String>,
    /// The line, without its end, and without secret values.
    pub line: String,
}

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// The function, on standard output.
    Stdout,
    /// The function, on standard error.
    Stderr,
    /// Grid, about the container.
    Platform,
}

/// Reads, follows and keeps the lines of every service.
pub struct Logs {
    engine: Arc<dyn Engine>,
    store: Arc<dyn Store>,
    instance: InstanceId,
    masks: Masks,
    files: Files,
    /// Bytes that are kept of a service.
    bytes: u64,
    /// The containers whose lines are being kept.
    watched: Mutex<HashMap<ReplicaId, Arc<Watched>>>,
    feeds: Feeds,
    /// For those who read, and for those who keep.
    reads: Semaphore,
    keeps: Semaphore,
    /// The engine's streams that may be open for those who follow.
    streams: Semaphore,
    /// The same to hear that there is something to keep.
    watches: Semaphore,
    tasks: Tasks,
}

impl LogQuery {
    /// Whether a line is among those that are asked for, the number apart.
    pub fn takes(&self, entry: &LogEntry) -> bool {
        self.request_id.as_ref().is_none_or(|wanted| entry.request_id.as_ref() == Some(wanted))
            && self.since.is_none_or(|since| since <= entry.at)
            && self.until.is_none_or(|until| entry.at <= until)
    }
}

impl Logs {
    /// Lines are kept under `dir`, `bytes` of each service (`GRID_LOG_BYTES_PER_SERVICE`).
    pub fn new(
        engine: Arc<dyn Engine>,
        store: Arc<dyn Store>,
        keyring: Keyring,
        instance: InstanceId,
        dir: PathBuf,
        bytes: u64,
    ) -> Self {
        Self {
            engine,
            masks: Masks::new(Arc::clone(&store), keyring),
            store,
            instance,
            files: Files::new(dir, bytes),
            bytes,
            watched: Mutex::default(),
            feeds: Feeds::default(),
            reads: Semaphore::new(limits::LOG_READS),
            keeps: Semaphore::new(limits::LOG_READS),
            streams: Semaphore::new(limits::LOG_STREAMS),
            watches: Semaphore::new(limits::LOG_WATCHES),
            tasks: Tasks::default(),
        }
    }

    /// Owns what is done beside the requests, until `stop` turns true: then whoever follows hears that
    /// it ends.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        if let Err(error) = self.sweep().await {
            tracing::warn!(%error, "logs of services that are gone were not removed; the next start tries again");
        }
        let _ = stop.wait_for(|stop| *stop).await;
        self.feeds.close();
        self.tasks.end().await;
    }

    /// Removes what a crash has left of services that were deleted.
    async fn sweep(&self) -> Result<()> {
        // The files first: those of a service that is made meanwhile are not among them.
        let mut left = self.files.services().await?;
        for service in self.store.service_ids().await? {
            left.remove(&service);
        }
        for service in left {
            self.files.forget(service).await?;
        }
        Ok(())
    }

    /// Keeps a line of Grid's own about a container.
    ///
    /// # Errors
    /// `File`, and those of the store.
    pub async fn note(&self, service: ServiceId, replica: &ReplicaId, line: String) -> Result<()> {
        let view = self.store.view(service).await?;
        let known = view.replicas.iter().find(|known| known.id == *replica);
        let live = view.route.as_ref().and_then(|route| route.live_deployment);
        let mask = match known.map(|known| known.deployment).or(live) {
            Some(deployment) => self.masks.of(service, deployment).await?,
            None => Arc::default(),
        };
        self.tell(service, platform_line(replica, mask.text(&line))).await
    }

    /// Removes everything that was kept of a service.
    ///
    /// # Errors
    /// `File`.
    pub async fn forget(&self, service: ServiceId) -> Result<()> {
        self.feeds.end(service, Ending::Deleted);
        self.files.forget(service).await
    }

    /// Keeps a line that is not the container's, and gives it to those who follow.
    async fn tell(&self, service: ServiceId, entry: LogEntry) -> Result<()> {
        let kept = self.files.append(service, std::slice::from_ref(&entry)).await;
        if let Some(feed) = self.feeds.of(service) {
            feed.tell(entry);
        }
        kept
    }
}

fn platform_line(replica: &ReplicaId, line: String) -> LogEntry {
    LogEntry {
        at: Timestamp::now(),
        stream: LogStream::Platform,
        replica: replica.clone(),
        request_id: None,
        line,
    }
}

/// Cuts text to so many bytes at most, never inside a character.
pub(crate) fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
    }
}
