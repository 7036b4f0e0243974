//! The lines of one service as they come, for all who follow it. A feed is there as long as somebody
//! does. It knows how far each container was read, so that the stream from the engine and what is read
//! when the container is removed add up, and it decides who has to go.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, watch},
    task::AbortHandle,
    time::Instant,
};

use super::{
    LogEntry,
    cursor::{Cursor, Position},
    newest::size,
    pace::{BURST, Pace},
    platform_line,
    ring::Ring,
};
use crate::{
    engine::{Output, OutputLine},
    limits,
    mask::Mask,
    name::{DeploymentId, ReplicaId, ServiceId},
};

/// Lines of a container that ended before it was known are new when they are not older than the feed,
/// give or take what two clocks differ.
const CLOCKS: Duration = Duration::from_secs(10);

/// Why following ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The follower reads too slowly.
    Slow,
    /// It has lasted as long as it may.
    TooLong,
    /// The last time that was asked for has come.
    Until,
    /// The service is deleted.
    Deleted,
    /// Grid ends, or is replaced.
    Stopping,
}

/// One service's.
pub(super) struct Feed {
    pub(super) service: ServiceId,
    begun: Timestamp,
    state: Mutex<State>,
    /// Followers look again.
    news: watch::Sender<()>,
    /// The feed's task does.
    pub(super) work: Notify,
}

struct State {
    ring: Ring,
    sources: HashMap<ReplicaId, Source>,
    /// Containers that are gone: they do not come again.
    finished: HashSet<ReplicaId>,
    seats: HashMap<u64, Seat>,
    next_seat: u64,
    ended: Option<Ending>,
    pace: Pace,
}

/// A container.
struct Source {
    deployment: DeploymentId,
    cursor: Cursor,
    stage: Stage,
}

enum Stage {
    /// It is to be streamed.
    Waiting,
    /// It is.
    Streaming(AbortHandle),
    /// Its stream has ended.
    Silent,
}

/// A follower.
struct Seat {
    /// The next line to read.
    next: u64,
    /// When it ends, and why.
    until: (Instant, Ending),
    ended: Option<Ending>,
    /// One of all seats and one of the user's, given back when it has ended, also if nobody looks.
    place: Option<[OwnedSemaphorePermit; 2]>,
}

/// A container that a stream is to be opened for.
pub(super) struct ToStream {
    pub(super) replica: ReplicaId,
    pub(super) deployment: DeploymentId,
}

impl Feed {
    pub(super) fn new(service: ServiceId) -> Self {
        let state = State {
            ring: Ring::new(limits::LOG_FOLLOW_BYTES),
            sources: HashMap::new(),
            finished: HashSet::new(),
            seats: HashMap::new(),
            next_seat: 0,
            ended: None,
            pace: Pace::new(Instant::now()),
        };
        let (news, work) = (watch::Sender::new(()), Notify::new());
        Self { service, begun: Timestamp::now(), state: Mutex::new(state), news, work }
    }

    /// Takes a seat, if there is one left.
    pub(super) fn seat(
        &self,
        place: [OwnedSemaphorePermit; 2],
        until: (Instant, Ending),
    ) -> Option<u64> {
        let mut state = self.state.lock();
        if state.seats.values().filter(|seat| seat.ended.is_none()).count()
            >= limits::LOG_FOLLOWERS.1
        {
            return None;
        }
        let (number, next) = (state.next_seat, state.ring.next());
        state.next_seat += 1;
        state.seats.insert(number, Seat { next, until, ended: None, place: Some(place) });
        drop(state);
        self.work.notify_one(); // its deadline may be the next one
        Some(number)
    }

    /// What tells a follower to look again.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// The next lines for a seat; why there will be none when it has ended.
    pub(super) fn read(&self, seat: u64, bytes: usize) -> Result<Vec<Arc<LogEntry>>, Ending> {
        let mut state = self.state.lock();
        let State { ring, seats, .. } = &mut *state;
        let seat = seats.get_mut(&seat).ok_or(Ending::Stopping)?;
        if seat.ended == Some(Ending::Slow) {
            return Err(Ending::Slow);
        }
        let lines = ring.read(seat.next, bytes).map_err(|_| Ending::Slow)?;
        seat.next += lines.len() as u64;
        match seat.ended {
            Some(ending) if lines.is_empty() => Err(ending),
            _ => Ok(lines),
        }
    }

    /// Why a seat has ended, when it has.
    pub(super) fn ending(&self, seat: u64) -> Option<Ending> {
        self.state.lock().seats.get(&seat).map_or(Some(Ending::Stopping), |seat| seat.ended)
    }

    /// A follower is gone.
    pub(super) fn leave(&self, seat: u64) {
        self.state.lock().seats.remove(&seat);
        self.work.notify_one();
    }

    /// The containers of which lines may still come, or wait.
    pub(super) fn containers(&self) -> HashSet<ReplicaId> {
        let state = self.state.lock();
        let waiting = state.ring.lines().map(|line| &line.replica);
        state.sources.keys().chain(waiting).cloned().collect()
    }

    /// Follows a container from `cursor` on, unless it is known.
    pub(super) fn add(&self, replica: &ReplicaId, deployment: DeploymentId, cursor: Cursor) {
        let mut state = self.state.lock();
        if !state.finished.contains(replica) && !state.sources.contains_key(replica) {
            let source = Source { deployment, cursor, stage: Stage::Waiting };
            state.sources.insert(replica.clone(), source);
            drop(state);
            self.work.notify_one();
        }
    }

    /// A container was started: a stream that was opened before has brought nothing.
    pub(super) fn started(&self, replica: &ReplicaId, deployment: DeploymentId) {
        self.add(replica, deployment, Cursor::default());
        let mut state = self.state.lock();
        if let Some(source) = state.sources.get_mut(replica) {
            source.close(Stage::Waiting);
        }
        drop(state);
        self.work.notify_one();
    }

    /// Gives each container that waits for it to `open`, which begins to stream it.
    pub(super) fn open_streams(&self, mut open: impl FnMut(ToStream) -> AbortHandle) {
        let mut state = self.state.lock();
        for (replica, source) in &mut state.sources {
            if matches!(source.stage, Stage::Waiting) {
                let to_stream =
                    ToStream { replica: replica.clone(), deployment: source.deployment };
                source.stage = Stage::Streaming(open(to_stream));
            }
        }
    }

    /// A container's stream has ended.
    pub(super) fn silent(&self, replica: &ReplicaId) {
        let mut state = self.state.lock();
        if let Some(source) = state.sources.get_mut(replica) {
            source.stage = Stage::Silent;
        }
    }

    /// How far a container was read, which is where its stream has to begin. None when it is gone.
    pub(super) fn position(&self, replica: &ReplicaId) -> Option<Position> {
        Some(self.state.lock().sources.get(replica)?.cursor.position())
    }

    /// Takes what a container's stream brought. How long the next lines have to wait; none when the
    /// container is gone.
    pub(super) fn take(
        &self,
        replica: &ReplicaId,
        mask: &Mask,
        lines: Vec<OutputLine>,
    ) -> Option<Duration> {
        let bytes = lines.iter().map(|line| line.line.len() + 128).sum();
        let mut state = self.state.lock();
        let source = state.sources.get_mut(replica)?;
        let read = source.cursor.read(replica, mask, Output { lines, cut: false });
        state.push(read.entries);
        let pause = state.pace.spend(bytes, Instant::now());
        drop(state);
        self.news.send_replace(());
        Some(pause)
    }

    /// Whether what was read of a container goes on where its stream ended.
    pub(super) fn joins(&self, replica: &ReplicaId, output: &Output) -> bool {
        let state = self.state.lock();
        state.sources.get(replica).is_none_or(|source| source.cursor.joins(output))
    }

    /// Takes all that a container has written, as it was read at its end: what its stream did not bring
    /// any more is new.
    pub(super) fn finish(&self, replica: &ReplicaId, mask: &Mask, output: Output) {
        let mut state = self.state.lock();
        let source = state.sources.remove(replica);
        state.finished.insert(replica.clone());
        let mut entries = match source {
            Some(mut source) => {
                source.close(Stage::Silent);
                source.cursor.read(replica, mask, output).entries
            }
            None => {
                let mut entries = Cursor::default().read(replica, mask, output).entries;
                let begun = self.begun.checked_sub(CLOCKS).unwrap_or(Timestamp::MIN);
                entries.retain(|entry| entry.at >= begun);
                entries
            }
        };
        let mut room = BURST;
        let fits = |entry: &&LogEntry| {
            room = room.saturating_sub(size(entry));
            room > 0
        };
        let left_out = entries.len() - entries.iter().rev().take_while(fits).count();
        if left_out > 0 {
            let told = format!("{left_out} lines came too fast to follow and are left out here");
            entries.drain(..left_out);
            entries.insert(0, platform_line(replica, told));
        }
        state.push(entries);
        drop(state);
        self.news.send_replace(());
    }

    /// Takes a line of Grid's own.
    pub(super) fn tell(&self, entry: LogEntry) {
        self.state.lock().push(vec![entry]);
        self.news.send_replace(());
    }

    /// Ends it for all who follow.
    pub(super) fn end(&self, why: Ending) {
        let mut state = self.state.lock();
        state.ended.get_or_insert(why);
        state.seats.values_mut().for_each(|seat| seat.end(why));
        drop(state);
        self.news.send_replace(());
        self.work.notify_one();
    }

    /// Ends the seats whose time has come; when the next one's comes.
    pub(super) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let mut ended = false;
        for seat in state.seats.values_mut().filter(|seat| seat.ended.is_none()) {
            if seat.until.0 <= now {
                seat.end(seat.until.1);
                ended = true;
            }
        }
        let running = state.seats.values().filter(|seat| seat.ended.is_none());
        let next = running.map(|seat| seat.until.0).min();
        drop(state);
        if ended {
            self.news.send_replace(());
        }
        next
    }

    /// There will be no more lines.
    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().ended.is_some()
    }

    /// Nobody follows, or it has ended.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.ended.is_some() || state.seats.values().all(|seat| seat.ended.is_some())
    }
}

impl State {
    fn push(&mut self, entries: Vec<LogEntry>) {
        entries.into_iter().for_each(|entry| self.ring.push(entry));
        let first = self.ring.first();
        let behind = self.seats.values_mut().filter(|seat| seat.next < first);
        behind.for_each(|seat| seat.end(Ending::Slow));
    }
}

impl Source {
    fn close(&mut self, stage: Stage) {
        if let Stage::Streaming(task) = std::mem::replace(&mut self.stage, stage) {
            task.abort();
        }
    }
}

impl Seat {
    fn end(&mut self, why: Ending) {
        // Lines that it was to read are gone, whatever else it has ended for.
        if self.ended.is_none() || why == Ending::Slow {
            self.ended = Some(why);
        }
        self.place = None;
    }
}

#[cfg(test)]
mod tests;
