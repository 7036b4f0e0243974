//! Somebody who follows a service: first the newest lines, then what comes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    Ending, LogEntry, LogQuery, Logs, Refusal,
    cursor::{Cursor, Position},
    feed::Feed,
    newest::size,
    streams,
};
use crate::{
    error::Error,
    limits,
    name::{ReplicaId, ServiceId, UserName},
};

/// Bytes of lines that are given out together, about.
const CHUNK: usize = 64 * 1024;

/// What a follower gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Followed {
    /// Lines, in the order of each container.
    Lines(Vec<Arc<LogEntry>>),
    /// There were none for [`limits::LOG_FOLLOW_QUIET`].
    Quiet,
    /// There will be none.
    Ended(Ending),
}

/// Gives out lines. Dropping it ends it.
pub struct Follower {
    logs: Arc<Logs>,
    service: ServiceId,
    feed: Arc<Feed>,
    seat: u64,
    news: watch::Receiver<()>,
    query: LogQuery,
    /// The newest lines of the past.
    past: std::vec::IntoIter<LogEntry>,
    /// How far they reach.
    seen: HashMap<ReplicaId, Position>,
    /// When the past is read once more, because the engine was away.
    again_at: Option<Instant>,
    quiet_at: Instant,
    has_ended: bool,
}

/// Why a log is not followed.
#[derive(Debug)]
pub enum NotFollowed {
    /// It may not be.
    Refused(Refusal),
    /// It could not be read.
    Failed(Error),
}

impl Logs {
    /// Follows a service: `query.tail` of the newest lines, then those that come, of all its containers.
    ///
    /// # Errors
    /// When too many follow, or when the lines of the past cannot be read, see [`Logs::read`].
    pub async fn follow(
        self: &Arc<Self>,
        service: ServiceId,
        user: &UserName,
        query: LogQuery,
    ) -> Result<Follower, NotFollowed> {
        let entered = self.feeds.enter(service, user, end_of(&query));
        let (feed, seat, is_new) = entered.map_err(NotFollowed::Refused)?;
        // From here on it is given back when this is dropped.
        let mut follower = Follower::new(Arc::clone(self), service, feed, seat, query);
        if is_new {
            let feed = Arc::clone(&follower.feed);
            self.tasks.begin(streams::keep_going(Arc::clone(self), feed));
        }
        follower.read_past().await.map_err(NotFollowed::Failed)?;
        Ok(follower)
    }
}

/// When a follower's time is over, and what that means.
fn end_of(query: &LogQuery) -> (Instant, Ending) {
    let now = Instant::now();
    let longest = (now + limits::LOG_FOLLOW, Ending::TooLong);
    let Some(until) = query.until else { return longest };
    let left = until.duration_since(Timestamp::now());
    let left = Duration::try_from(left).unwrap_or_default(); // it may have come already
    if left < limits::LOG_FOLLOW { (now + left, Ending::Until) } else { longest }
}

impl Follower {
    /// One that has seen nothing yet.
    fn new(
        logs: Arc<Logs>,
        service: ServiceId,
        feed: Arc<Feed>,
        seat: u64,
        query: LogQuery,
    ) -> Self {
        Self {
            logs,
            service,
            news: feed.news(),
            feed,
            seat,
            query,
            past: Vec::new().into_iter(),
            seen: HashMap::new(),
            again_at: None,
            quiet_at: Instant::now() + limits::LOG_FOLLOW_QUIET,
            has_ended: false,
        }
    }

    /// Reads what was there before; what comes since the seat was taken waits in the feed.
    async fn read_past(&mut self) -> Result<(), Error> {
        let comes = self.query.until.is_none_or(|until| until > Timestamp::now());
        let reading = self.logs.reading(self.service, &self.query, comes).await?;
        let mut entries = reading.entries;
        entries.retain(|entry| !has(&self.seen, entry));
        self.past = entries.into_iter();
        self.seen = reading.positions;
        if !comes {
            return Ok(());
        }
        let Some(containers) = reading.containers else {
            self.again_at = Some(Instant::now() + limits::ENGINE_RETRY);
            return Ok(());
        };
        self.again_at = None;
        for (replica, deployment, cursor) in containers {
            self.feed.add(&replica, deployment, cursor);
        }
        // And those that are just being started.
        for replica in self.logs.store.view(self.service).await?.replicas {
            self.feed.add(&replica.id, replica.deployment, Cursor::default());
        }
        let concerned = self.feed.containers();
        self.seen.retain(|replica, _| concerned.contains(replica));
        Ok(())
    }

    /// What comes next; none when it has ended.
    pub async fn next(&mut self) -> Option<Followed> {
        if self.has_ended {
            return None;
        }
        loop {
            let past = self.past();
            if !past.is_empty() {
                return self.lines(past);
            }
            self.news.borrow_and_update();
            if let Some(again_at) = self.again_at {
                if let Some(ending) = self.feed.ending(self.seat) {
                    self.has_ended = true;
                    return Some(Followed::Ended(ending));
                }
                let _ = timeout_at(again_at.min(self.quiet_at), self.news.changed()).await;
                let now = Instant::now();
                if now >= again_at
                    && let Err(error) = self.read_past().await
                {
                    tracing::debug!(service = %self.service, %error, "the past is not read yet");
                    self.again_at = Some(now + limits::ENGINE_RETRY);
                }
                if now >= self.quiet_at {
                    return self.quiet();
                }
                continue;
            }
            match self.feed.read(self.seat, CHUNK) {
                Ok(lines) if lines.is_empty() => {}
                Ok(mut lines) => {
                    lines.retain(|line| self.wants(line));
                    if !lines.is_empty() {
                        return self.lines(lines);
                    }
                    continue;
                }
                Err(ending) => {
                    self.has_ended = true;
                    return Some(Followed::Ended(ending));
                }
            }
            // The feed is ours as well, so its end is no reason.
            if timeout_at(self.quiet_at, self.news.changed()).await.is_err() {
                return self.quiet();
            }
        }
    }

    fn quiet(&mut self) -> Option<Followed> {
        self.quiet_at = Instant::now() + limits::LOG_FOLLOW_QUIET;
        Some(Followed::Quiet)
    }

    fn lines(&mut self, lines: Vec<Arc<LogEntry>>) -> Option<Followed> {
        self.quiet_at = Instant::now() + limits::LOG_FOLLOW_QUIET;
        Some(Followed::Lines(lines))
    }

    fn past(&mut self) -> Vec<Arc<LogEntry>> {
        let mut room = CHUNK;
        let mut lines = Vec::new();
        while room > 0
            && let Some(entry) = self.past.next()
        {
            room = room.saturating_sub(size(&entry));
            lines.push(Arc::new(entry));
        }
        lines
    }

    /// Whether a line is new to this one, and asked for.
    fn wants(&self, line: &LogEntry) -> bool {
        self.query.takes(line) && !has(&self.seen, line)
    }
}

fn has(seen: &HashMap<ReplicaId, Position>, line: &LogEntry) -> bool {
    seen.get(&line.replica).is_some_and(|seen| seen.has(line.stream, line.at))
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.feed.leave(self.seat);
    }
}

#[cfg(test)]
mod tests;
