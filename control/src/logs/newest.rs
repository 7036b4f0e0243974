//! Gathers the newest entries of many readings without holding them all.

use super::LogEntry;
use crate::limits;

/// The newest entries of all that were added, in the order of their times.
pub(super) struct Newest {
    entries: Vec<LogEntry>,
    most: usize,
    bytes: usize,
}

impl Newest {
    /// `most` of them, and of these as many as one answer may hold.
    pub(super) fn new(most: usize) -> Self {
        Self { entries: Vec::new(), most, bytes: 0 }
    }

    pub(super) fn add(&mut self, entry: LogEntry) {
        self.bytes += size(&entry);
        self.entries.push(entry);
        if self.entries.len() > 2 * self.most + 64 || self.bytes > 2 * limits::LOG_ANSWER_BYTES {
            self.cut();
        }
    }

    /// Newest last.
    pub(super) fn finish(mut self) -> Vec<LogEntry> {
        self.cut();
        self.entries
    }

    fn cut(&mut self) {
        self.entries.sort_by_key(|entry| entry.at);
        let mut room = limits::LOG_ANSWER_BYTES;
        let fits = |entry: &&LogEntry| {
            let bytes = size(entry);
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        };
        let kept = self.entries.iter().rev().take(self.most).take_while(fits).count();
        self.entries.drain(..self.entries.len() - kept);
        self.bytes = self.entries.iter().map(size).sum();
    }
}

/// What an entry takes, about.
pub(super) fn size(entry: &LogEntry) -> usize {
    128 + entry.line.len() + entry.request_id.as_ref().map_or(0, String::len)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::{logs::LogStream, name::ReplicaId};

    fn entry(at: i64, line: String) -> LogEntry {
        LogEntry {
            at: Timestamp::from_second(at).expect("a time"),
            stream: LogStream::Stdout,
            replica: ReplicaId::parse("abcdefghijkl").expect("an id"),
            request_id: None,
            line,
        }
    }

    proptest! {
        #[test]
        fn it_is_as_if_all_had_been_held(times in prop::collection::vec(0i64..50, 0..400), most in 0usize..40) {
            let mut newest = Newest::new(most);
            let mut all = Vec::new();
            for (nth, at) in times.into_iter().enumerate() {
                newest.add(entry(at, nth.to_string()));
                all.push(entry(at, nth.to_string()));
            }
            all.sort_by_key(|entry| entry.at);
            prop_assert_eq!(newest.finish(), all.split_off(all.len().saturating_sub(most)));
        }
    }

    #[test]
    fn an_answer_is_bounded() {
        let mut newest = Newest::new(10_000);
        for at in 0..10_000 {
            newest.add(entry(at, "x".repeat(limits::LOG_LINE_BYTES)));
        }
        let entries = newest.finish();
        assert_eq!(entries.last().map(|entry| entry.at.as_second()), Some(9_999));
        let bytes: usize = entries.iter().map(size).sum();
        assert!((limits::LOG_ANSWER_BYTES - 20_000..=limits::LOG_ANSWER_BYTES).contains(&bytes));
    }
}
