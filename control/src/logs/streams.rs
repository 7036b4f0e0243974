//! What keeps a feed going: one task per feed, and in it one stream from the engine per container.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use tokio::{
    sync::broadcast::error::RecvError,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Ending, Logs,
    feed::{Feed, ToStream},
};
use crate::{
    engine::OutputQuery,
    error::Result,
    limits,
    name::{ReplicaId, ServiceId},
};

/// Lines that are taken together at most.
const BATCH: usize = 64;
/// Lines behind the last one that was read, when a stream is opened: more than come in between.
const MISSED_LINES: usize = 10_000;

/// Runs until nobody follows any more, the service is deleted, or Grid ends.
pub(super) async fn keep_going(logs: Arc<Logs>, feed: Arc<Feed>) {
    let mut hints = logs.store.watch();
    let mut streams = JoinSet::new();
    let mut is_there = logs.is_there(feed.service).await;
    loop {
        if !is_there {
            feed.end(Ending::Deleted);
        }
        let next = feed.expire(Instant::now());
        if logs.feeds.leave(&feed) {
            return;
        }
        feed.open_streams(|to_stream| {
            let (logs, feed) = (Arc::clone(&logs), Arc::clone(&feed));
            streams.spawn(stream(logs, feed, to_stream))
        });
        let until_next = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            hint = hints.recv() => match hint {
                Ok(change) if !change.may_concern(feed.service) => {}
                Err(RecvError::Closed) => feed.end(Ending::Stopping),
                Ok(_) | Err(RecvError::Lagged(_)) => is_there = logs.is_there(feed.service).await,
            },
            Some(ended) = streams.join_next() => {
                // One that was aborted has no source any more.
                if let Ok(replica) = ended {
                    feed.silent(&replica);
                }
            }
            () = feed.work.notified() => {}
            () = until_next => {}
        }
    }
}

/// Streams a container's lines into its feed until it has ended.
async fn stream(
    logs: Arc<Logs>,
    feed: Arc<Feed>,
    ToStream { replica, deployment }: ToStream,
) -> ReplicaId {
    let _place = logs.streams.acquire().await;
    loop {
        let Some(position) = feed.position(&replica) else { return replica };
        let query = OutputQuery { tail: MISSED_LINES, since: position.since(), until: None };
        // Without its mask nothing of it may be shown.
        let opened = logs.masks.of(feed.service, deployment).await.and_then(|mask| {
            let lines = logs.engine.follow_output(&logs.instance, &replica, &query)?;
            Ok((mask, lines))
        });
        match opened {
            Ok((mask, mut lines)) => {
                while let Some(Ok(line)) = lines.next().await {
                    let mut batch = vec![line];
                    while let Some(Some(Ok(line))) = lines.next().now_or_never() {
                        batch.push(line);
                        if batch.len() == BATCH {
                            break;
                        }
                    }
                    let Some(pause) = feed.take(&replica, &mask, batch) else { return replica };
                    if !pause.is_zero() {
                        sleep(pause).await;
                    }
                }
            }
            Err(error) => {
                tracing::debug!(service = %feed.service, %replica, %error, "output is not followed")
            }
        }
        // It ends with the container; or because the engine went away, or lost its place.
        sleep(limits::ENGINE_RETRY).await;
        if matches!(logs.runs(feed.service, &replica).await, Ok(false)) {
            return replica;
        }
    }
}

impl Logs {
    async fn is_there(&self, service: ServiceId) -> bool {
        // A store that does not answer says nothing against it.
        self.store.view(service).await.map_or(true, |view| view.route.is_some())
    }

    async fn runs(&self, service: ServiceId, replica: &ReplicaId) -> Result<bool> {
        let containers = self.engine.containers(&self.instance, Some(service)).await?;
        Ok(containers.iter().any(|container| container.replica == *replica && container.running))
    }
}
