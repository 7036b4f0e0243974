//! How often somebody may do something: one bucket for each of them, while they are remembered.

use std::{hash::Hash, num::NonZeroU32, time::Duration};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock};

/// Who is known before those that have been quiet are forgotten.
pub(super) const REMEMBERED: usize = 10_000;

/// So many per minute, also at once.
pub(super) struct Throttle<K: Clone + Eq + Hash>(DefaultKeyedRateLimiter<K>);

impl<K: Clone + Eq + Hash> Throttle<K> {
    pub(super) fn per_minute(most: NonZeroU32) -> Self {
        Self(RateLimiter::keyed(Quota::per_minute(most)))
    }

    /// Counts one more.
    ///
    /// # Errors
    /// How long it has to wait when it is one too many; then it is not counted.
    pub(super) fn count(&self, who: &K) -> Result<(), Duration> {
        if self.0.len() > REMEMBERED {
            self.0.retain_recent();
        }
        self.0.check_key(who).map_err(|refusal| refusal.wait_time_from(self.0.clock().now()))
    }
}
