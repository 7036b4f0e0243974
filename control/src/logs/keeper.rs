//! Keeps what containers write: now and then while they run, and when they are removed.
//!
//! A stream of each line from the engine would cost it (and us) several times what reading many lines
//! at once does, on each logging request. So a container that wrote something is read after a while,
//! and then nothing is done until the engine says that there is more. What is lost when somebody
//! removes a container behind Grid's back is what it wrote last.

use std::sync::Arc;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::sleep};

use super::{
    Logs,
    cursor::{Cursor, Position, stream_of},
    feed::Feed,
    platform_line,
    reading::MOST_LINES,
};
use crate::{
    engine::OutputQuery,
    error::Result,
    limits,
    mask::Mask,
    name::{DeploymentId, ReplicaId, ServiceId},
};

/// Lines that are read at least.
const FEW_LINES: usize = 64;
/// What is read is several times more, when it was too little.
const MORE: usize = 4;
/// Bytes that a kept line takes at least.
const LEAST_BYTES: u64 = 100;

/// A container whose lines are being kept.
pub(super) struct Watched {
    service: ServiceId,
    deployment: DeploymentId,
    replica: ReplicaId,
    kept: tokio::sync::Mutex<Kept>,
    /// What keeps them from time to time.
    task: Mutex<Option<AbortHandle>>,
}

/// How far a container's lines are kept.
struct Kept {
    /// None when the files have to tell.
    cursor: Option<Cursor>,
    /// Lines that were new the last time: the engine is asked for a few more.
    new: usize,
}

impl Logs {
    /// A container was started: keeps what it writes.
    pub fn started(
        self: &Arc<Self>,
        service: ServiceId,
        deployment: DeploymentId,
        replica: &ReplicaId,
    ) {
        self.watch(service, deployment, replica, Some(Cursor::default()));
        if let Some(feed) = self.feeds.of(service) {
            feed.started(replica, deployment);
        }
    }

    /// A container that runs was found: keeps what it writes, and what it wrote unless that is kept.
    pub fn found(
        self: &Arc<Self>,
        service: ServiceId,
        deployment: DeploymentId,
        replica: &ReplicaId,
    ) {
        self.watch(service, deployment, replica, None);
    }

    /// Keeps the rest of what a container wrote, before it is removed, and why it is, when that is
    /// news.
    ///
    /// # Errors
    /// Those of the engine, the store and the files.
    pub async fn keep(
        &self,
        service: ServiceId,
        deployment: DeploymentId,
        replica: &ReplicaId,
        why: Option<String>,
    ) -> Result<()> {
        let known = self.watched.lock().get(replica).map(Arc::clone);
        let watched =
            known.unwrap_or_else(|| Arc::new(Watched::new(service, deployment, replica, None)));
        let mut kept = watched.kept.lock().await;
        if let Some(task) = watched.task.lock().take() {
            task.abort();
        }
        let mask = self.masks.of(service, deployment).await?;
        let outcome = self.catch_up(&watched, &mut kept, &mask, self.feeds.of(service)).await;
        self.watched.lock().remove(replica);
        if let Some(line) = why {
            self.tell(service, platform_line(replica, mask.text(&line))).await?;
        }
        outcome
    }

    fn watch(
        self: &Arc<Self>,
        service: ServiceId,
        deployment: DeploymentId,
        replica: &ReplicaId,
        cursor: Option<Cursor>,
    ) {
        let watched = Arc::new(Watched::new(service, deployment, replica, cursor));
        let task = keep_on(Arc::clone(self), Arc::clone(&watched));
        let mut all = self.watched.lock();
        if !all.contains_key(replica) {
            *watched.task.lock() = self.tasks.begin(task);
            all.insert(replica.clone(), watched);
        }
    }

    /// Keeps what is new. When it is the last time, `last` gets it as well.
    async fn catch_up(
        &self,
        watched: &Watched,
        kept: &mut Kept,
        mask: &Mask,
        last: Option<Arc<Feed>>,
    ) -> Result<()> {
        let Watched { service, replica, .. } = watched;
        let cursor = match &kept.cursor {
            Some(cursor) => cursor.clone(),
            None => Cursor::behind(self.kept_position(*service, replica).await?),
        };
        let most = usize::try_from(self.bytes / 2 / LEAST_BYTES).unwrap_or(MOST_LINES);
        let most = most.clamp(FEW_LINES, MOST_LINES);
        let mut tail = (kept.new * 2).clamp(FEW_LINES, most);
        let (output, read, cursor) = loop {
            let query = OutputQuery { tail, since: None, until: None };
            let output = self.engine.output(&self.instance, replica, &query).await?;
            let mut next = cursor.clone();
            let joins = cursor.joins(&output)
                && last.as_ref().is_none_or(|feed| feed.joins(replica, &output));
            let read = next.read(replica, mask, output.clone());
            if tail == most || (joins && !(read.unsure && output.cut)) {
                next.settle();
                break (output, read, next);
            }
            tail = (tail * MORE).min(most);
        };
        // Nobody reads the log of a service that is deleted, and nobody knows its secrets any more.
        let is_there = self.store.view(*service).await?.route.is_some();
        let entries = if is_there { read.entries } else { Vec::new() };
        let outcome = self.files.append(*service, &entries).await;
        if outcome.is_ok() {
            *kept = Kept { cursor: Some(cursor), new: read.new };
        }
        if let Some(feed) = last {
            feed.finish(replica, mask, output);
        }
        outcome
    }

    async fn kept_position(&self, service: ServiceId, replica: &ReplicaId) -> Result<Position> {
        let replica = replica.clone();
        self.files
            .scan(service, Position::default(), move |position, entry| {
                if entry.replica == replica {
                    position.see(entry.stream, entry.at);
                }
            })
            .await
    }
}

impl Watched {
    fn new(
        service: ServiceId,
        deployment: DeploymentId,
        replica: &ReplicaId,
        cursor: Option<Cursor>,
    ) -> Self {
        let kept = tokio::sync::Mutex::new(Kept { cursor, new: 0 });
        Self { service, deployment, replica: replica.clone(), kept, task: Mutex::default() }
    }
}

/// Keeps a container's lines until it is aborted.
async fn keep_on(logs: Arc<Logs>, watched: Arc<Watched>) {
    loop {
        sleep(limits::LOG_KEPT_WITHIN).await;
        let position = {
            let mut kept = watched.kept.lock().await;
            let outcome = async {
                let mask = logs.masks.of(watched.service, watched.deployment).await?;
                let _turn = logs.keeps.acquire().await;
                logs.catch_up(&watched, &mut kept, &mask, None).await
            };
            if let Err(error) = outcome.await {
                let Watched { service, replica, .. } = &*watched;
                tracing::debug!(%service, %replica, %error, "output was not kept; tried again later");
            }
            kept.cursor.as_ref().map(Cursor::position).unwrap_or_default()
        };
        logs.more_than(&watched.replica, &position).await;
    }
}

impl Logs {
    /// Waits until a container has written more than was seen, as far as the engine says so.
    async fn more_than(&self, replica: &ReplicaId, seen: &Position) {
        // When too many are waited for already, the others are read without being asked for.
        let Ok(_place) = self.watches.try_acquire() else { return };
        let query = OutputQuery { tail: 1, since: None, until: None };
        let Ok(mut lines) = self.engine.follow_output(&self.instance, replica, &query) else {
            return;
        };
        while let Some(Ok(line)) = lines.next().await {
            if !seen.has(stream_of(&line), line.at) {
                return;
            }
        }
    }
}
