//! How fast lines are given out, so that a flood leaves nobody behind who reads at a fair pace.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits;

/// Bytes per second of one service that are given out at most, after a burst of half the ring: who reads
/// at this pace is never behind. The engine holds the rest, as far as it keeps it.
const PACE: usize = 1024 * 1024;
/// What may come at once after a rest.
pub(super) const BURST: usize = limits::LOG_FOLLOW_BYTES / 2;

/// How many bytes were given out of late.
pub(super) struct Pace {
    spent: usize,
    at: Instant,
}

impl Pace {
    /// One that has rested.
    pub(super) fn new(now: Instant) -> Self {
        Self { spent: 0, at: now }
    }

    /// Counts what is given out now. How long the next has to wait.
    pub(super) fn spend(&mut self, bytes: usize, now: Instant) -> Duration {
        let rested = now.saturating_duration_since(self.at).as_millis();
        let rested = usize::try_from(rested).unwrap_or(usize::MAX);
        self.at = now;
        self.spent = self.spent.saturating_sub(rested.saturating_mul(PACE / 1000)) + bytes;
        let over = self.spent.saturating_sub(BURST);
        Duration::from_millis((over * 1000 / PACE) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_given_out_at_a_pace() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.spend(BURST, start), Duration::ZERO);
        assert_eq!(pace.spend(PACE, start), Duration::from_secs(1));
        let (mut now, mut sent) = (start + Duration::from_secs(1), 0);
        while now < start + Duration::from_secs(11) {
            now += pace.spend(64 * 1024, now).max(Duration::from_millis(1));
            sent += 64 * 1024;
        }
        assert!((PACE * 9..PACE * 11).contains(&sent), "{sent} bytes in ten seconds");
        assert_eq!(
            pace.spend(BURST, now + Duration::from_secs(60)),
            Duration::ZERO,
            "after a rest"
        );
    }
}
