//! What is counted of one service. A service that nobody has called yet costs a pointer.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::count::{Outcomes, Seconds};
use crate::observe::Record;

/// Counts of one service's requests, or of those that belong to none.
#[derive(Debug, Default)]
pub(crate) struct Stats(OnceLock<Box<Counts>>);

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) outcomes: Outcomes,
    pub(super) request_bytes: AtomicU64,
    pub(super) response_bytes: AtomicU64,
    pub(super) queue: Seconds,
    pub(super) wake: Seconds,
    pub(super) exec: Seconds,
}

impl Stats {
    /// Counts a request that has ended.
    pub(super) fn add(&self, record: &Record<'_>) {
        let counts = self.0.get_or_init(Box::default);
        counts.outcomes.add(record.outcome);
        for (counter, bytes) in [
            (&counts.request_bytes, record.request_bytes),
            (&counts.response_bytes, record.response_bytes()),
        ] {
            if bytes > 0 {
                counter.fetch_add(bytes, Relaxed);
            }
        }
        let timing = &record.timing;
        for (counter, time) in [
            (&counts.queue, timing.queue),
            (&counts.wake, timing.wake),
            (&counts.exec, timing.exec),
        ] {
            if !time.is_zero() {
                counter.add(time);
            }
        }
    }

    /// None when there has been no request.
    pub(super) fn read(&self) -> Option<&Counts> {
        self.0.get().map(Box::as_ref)
    }
}
