//! One reading of a service's lines: the engine's of what runs, and the kept ones.

use std::{collections::HashMap, ops::RangeInclusive};

use futures_util::StreamExt;
use jiff::Timestamp;

use super::{
    LogEntry, LogQuery, LogStream, Logs,
    cursor::{Cursor, Position, Read, stream_of},
    newest::Newest,
};
use crate::{
    engine::{Container, Output, OutputQuery},
    error::{Error, Result},
    name::{DeploymentId, ReplicaId, ServiceId},
};

/// Lines that one container is asked for at most. What the engine keeps of one is less.
pub(super) const MOST_LINES: usize = 100_000;
/// Containers that are read at one time.
const AT_ONCE: usize = 4;

/// What was read.
#[derive(Default)]
pub(super) struct Reading {
    /// Those that were asked for, newest last.
    pub(super) entries: Vec<LogEntry>,
    /// The engine's containers, and how far they were read; none when the engine is away.
    pub(super) containers: Option<Vec<(ReplicaId, DeploymentId, Cursor)>>,
    /// How far each container was read, the removed ones too.
    pub(super) positions: HashMap<ReplicaId, Position>,
}

/// From when to when the engine's output of one container reaches, in each stream. What was kept of
/// this time is the same.
#[derive(Debug, Clone, Default)]
struct Reach([Option<RangeInclusive<Timestamp>>; 2]);

impl Logs {
    /// Lines of one service, newest last.
    ///
    /// # Errors
    /// `File` when the kept lines cannot be read, `Store` when it is not known what they must not show.
    /// An engine that is away only leaves out its part.
    pub async fn read(&self, service: ServiceId, query: &LogQuery) -> Result<Vec<LogEntry>> {
        Ok(self.reading(service, query, false).await?.entries)
    }

    /// As [`Logs::read`]. With `to_end`, each container is read to its end, whatever times are asked
    /// for.
    pub(super) async fn reading(
        &self,
        service: ServiceId,
        query: &LogQuery,
        to_end: bool,
    ) -> Result<Reading> {
        let _turn = self.reads.acquire().await;
        let mut newest = Newest::new(query.tail);
        let mut positions = HashMap::new();
        let mut reaches = HashMap::new();
        // The engine first: what a container that is being removed wrote is in the files before it is
        // gone.
        let containers = match self.engine.containers(&self.instance, Some(service)).await {
            Err(error) => self.left_out(service, &error),
            Ok(containers) => {
                let mut read = Vec::with_capacity(containers.len());
                let each = containers.into_iter().map(|found| self.of(found, query, to_end));
                let mut each = futures_util::stream::iter(each).buffered(AT_ONCE);
                loop {
                    let (container, cursor, reach, entries) = match each.next().await {
                        Some(Ok(found)) => found,
                        // It would not answer for the others either.
                        Some(Err(error @ Error::EngineAway { .. })) => {
                            break self.left_out(service, &error);
                        }
                        Some(Err(error)) => return Err(error),
                        None => break Some(read),
                    };
                    let asked_for = entries.into_iter().filter(|entry| query.takes(entry));
                    asked_for.for_each(|entry| newest.add(entry));
                    let Container { replica, deployment, .. } = container;
                    reaches.insert(replica.clone(), reach);
                    positions.insert(replica.clone(), cursor.position());
                    read.push((replica, deployment, cursor));
                }
            }
        };
        let query = query.clone();
        let (newest, positions) = self
            .files
            .scan(service, (newest, positions), move |(newest, positions), entry| {
                let position: &mut Position = positions.entry(entry.replica.clone()).or_default();
                position.see(entry.stream, entry.at);
                let twice = reaches.get(&entry.replica).is_some_and(|reach| reach.has(&entry));
                if !twice && query.takes(&entry) {
                    newest.add(entry);
                }
            })
            .await?;
        Ok(Reading { entries: newest.finish(), containers, positions })
    }

    fn left_out<T>(&self, service: ServiceId, error: &Error) -> Option<T> {
        tracing::warn!(%service, %error, "log lines of running containers left out");
        None
    }

    /// What one container wrote.
    async fn of(
        &self,
        container: Container,
        query: &LogQuery,
        to_end: bool,
    ) -> Result<(Container, Cursor, Reach, Vec<LogEntry>)> {
        let Container { service, deployment, replica, .. } = &container;
        let mask = self.masks.of(*service, *deployment).await?;
        let (since, until) = if to_end { (None, None) } else { (query.since, query.until) };
        // With a filter the lines may be anywhere; without one, two marks stand beside each line at
        // most, and the engine counts the newest lines of all times.
        let tail = match (&query.request_id, until) {
            (None, None) => (query.tail * 3 + 100).min(MOST_LINES),
            _ => MOST_LINES,
        };
        let mut asked = OutputQuery { tail, since, until };
        loop {
            let output = match self.engine.output(&self.instance, replica, &asked).await {
                Ok(output) => output,
                Err(error @ Error::EngineAway { .. }) => return Err(error),
                Err(error) => {
                    tracing::warn!(%service, %replica, %error, "log lines of a container left out");
                    Output::default()
                }
            };
            let reach = Reach::of(&output);
            let cut = output.cut;
            let mut cursor = Cursor::default();
            let Read { entries, unsure, .. } = cursor.read(replica, &mask, output);
            // It may have begun in the middle of a request: then once more from further back.
            let further = OutputQuery { tail: MOST_LINES, since: None, until };
            if unsure && cut && asked != further {
                asked = further;
                continue;
            }
            return Ok((container, cursor, reach, entries));
        }
    }
}

impl Reach {
    fn of(output: &Output) -> Self {
        let mut reach = Self::default();
        for line in &output.lines {
            let stream = &mut reach.0[stream_of(line) as usize];
            *stream = Some(match stream.take() {
                Some(so_far) => (*so_far.start()).min(line.at)..=(*so_far.end()).max(line.at),
                None => line.at..=line.at,
            });
        }
        reach
    }

    fn has(&self, entry: &LogEntry) -> bool {
        match entry.stream {
            LogStream::Platform => false,
            stream => self.0[stream as usize].as_ref().is_some_and(|r| r.contains(&entry.at)),
        }
    }
}
