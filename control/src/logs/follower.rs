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
    reading::MOST_LINES,
    streams,
};
use crate::{
    error::Error,
    limits,
    name::{ReplicaId, ServiceId},
};

/// Bytes of lines that are given out together, about.
const CHUNK: usize = 64 * 1024;
/// Lines of the past that are shown of a container that could not be read at first.
const LATE_LINES: usize = 100;

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
    feed: Arc<Feed>,
    seat: u64,
    news: watch::Receiver<()>,
    query: LogQuery,
    /// The newest lines of the past.
    past: std::vec::IntoIter<LogEntry>,
    /// How far they reach.
    seen: HashMap<ReplicaId, Position>,
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
        query: LogQuery,
    ) -> Result<Follower, NotFollowed> {
        let entered = self.feeds.enter(service, end_of(&query));
        let (feed, seat, is_new) = entered.map_err(NotFollowed::Refused)?;
        // From here on it is given back when this is dropped.
        let mut follower = Follower {
            news: feed.news(),
            feed,
            seat,
            query,
            past: Vec::new().into_iter(),
            seen: HashMap::new(),
            quiet_at: Instant::now() + limits::LOG_FOLLOW_QUIET,
            has_ended: false,
        };
        let feed = &follower.feed;
        if is_new {
            self.tasks.begin(streams::keep_going(Arc::clone(self), Arc::clone(feed)));
        }
        // What comes from now on waits in the feed; what was there before is read.
        let comes = follower.query.until.is_none_or(|until| until > Timestamp::now());
        let reading = self.reading(service, &follower.query, comes).await;
        let mut reading = reading.map_err(NotFollowed::Failed)?;
        if !comes {
            follower.past = reading.entries.into_iter();
            return Ok(follower);
        }
        let late = reading.containers.is_none();
        for (replica, deployment, cursor) in reading.containers.into_iter().flatten() {
            feed.add(&replica, deployment, cursor, MOST_LINES);
        }
        // Those that are being started, or all when the engine is away.
        let view = self.store.view(service).await.map_err(NotFollowed::Failed)?;
        for replica in view.replicas {
            let position = reading.positions.get(&replica.id).copied().unwrap_or_default();
            let tail = if late { LATE_LINES } else { MOST_LINES };
            feed.add(&replica.id, replica.deployment, Cursor::behind(position), tail);
        }
        let concerned = feed.containers();
        reading.positions.retain(|replica, _| concerned.contains(replica));
        follower.seen = reading.positions;
        follower.past = reading.entries.into_iter();
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
    /// What comes next; none when it has ended.
    pub async fn next(&mut self) -> Option<Followed> {
        if self.has_ended {
            return None;
        }
        let past = self.past();
        if !past.is_empty() {
            return self.lines(past);
        }
        loop {
            self.news.borrow_and_update();
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
                self.quiet_at = Instant::now() + limits::LOG_FOLLOW_QUIET;
                return Some(Followed::Quiet);
            }
        }
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
        let seen = self.seen.get(&line.replica);
        self.query.takes(line) && !seen.is_some_and(|seen| seen.has(line.stream, line.at))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.feed.leave(self.seat);
    }
}

#[cfg(test)]
mod tests;
