//! The newest lines of a service, for all who follow it: each reads at its own pace, and who is so far
//! behind that lines are gone hears of it. Nobody waits for anybody.

use std::{collections::VecDeque, sync::Arc};

use super::{LogEntry, newest::size};

/// Lines with numbers that go up by one; the oldest go when there are too many bytes.
pub(super) struct Ring {
    lines: VecDeque<Arc<LogEntry>>,
    /// The number of the first of them.
    first: u64,
    bytes: usize,
    most: usize,
}

/// The next line that was to be read is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Behind;

impl Ring {
    /// Holds `most` bytes at most, but always the newest line.
    pub(super) fn new(most: usize) -> Self {
        Self { lines: VecDeque::new(), first: 0, bytes: 0, most }
    }

    /// The number of the line that comes next.
    pub(super) fn next(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    /// The oldest line that is there still, or will be.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn push(&mut self, line: LogEntry) {
        self.bytes += size(&line);
        self.lines.push_back(Arc::new(line));
        while self.bytes > self.most && self.lines.len() > 1 {
            if let Some(gone) = self.lines.pop_front() {
                self.bytes -= size(&gone);
                self.first += 1;
            }
        }
    }

    /// Lines from number `from` on, of about `bytes` at most, one at least when there is one.
    pub(super) fn read(&self, from: u64, bytes: usize) -> Result<Vec<Arc<LogEntry>>, Behind> {
        let skip = from.checked_sub(self.first).ok_or(Behind)?;
        let mut room = bytes;
        let mut read = Vec::new();
        for line in self.lines.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
            read.push(Arc::clone(line));
            room = room.saturating_sub(size(line));
            if room == 0 {
                break;
            }
        }
        Ok(read)
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &LogEntry> {
        self.lines.iter().map(|line| &**line)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::{logs::LogStream, name::ReplicaId};

    const MOST: usize = 2000;

    fn entry(nth: usize, length: usize) -> LogEntry {
        LogEntry {
            at: Timestamp::from_second(nth as i64).expect("a time"),
            stream: LogStream::Stdout,
            replica: ReplicaId::parse("abcdefghijkl").expect("an id"),
            request_id: None,
            line: "x".repeat(length),
        }
    }

    proptest! {
        /// Each reader gets every line once and in order, or hears that it is behind; and what waits
        /// is bounded.
        #[test]
        fn readers_get_all_or_hear_that_they_do_not(
            steps in prop::collection::vec(prop_oneof![
                (0usize..3000).prop_map(Some), // a line of this length
                Just(None), // a reading
            ], 0..80),
            bytes in 1usize..1000,
        ) {
            let mut ring = Ring::new(MOST);
            let (mut pushed, mut next) = (0, 0);
            for step in steps {
                if let Some(length) = step {
                    ring.push(entry(pushed, length));
                    pushed += 1;
                    prop_assert!(ring.bytes <= MOST || ring.lines.len() == 1);
                    prop_assert_eq!(ring.next(), pushed as u64);
                    continue;
                }
                match ring.read(next, bytes) {
                    Ok(lines) => {
                        prop_assert_eq!(lines.is_empty(), next == ring.next());
                        for line in lines {
                            prop_assert_eq!(line.at.as_second(), next as i64);
                            next += 1;
                        }
                    }
                    Err(Behind) => {
                        prop_assert!(next < ring.first());
                        next = ring.first();
                    }
                }
            }
        }
    }
}
