//! Random draws that a schedule's seed decides, so that a schedule says all there is to say.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A sequence of draws.
#[derive(Debug)]
pub(super) struct Chance(AtomicU64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// True so many times of a hundred.
    pub(super) fn hits(&self, percent: u8) -> bool {
        self.draw() % 100 < u64::from(percent)
    }

    /// Some time below `most`, which is below seconds.
    pub(super) fn within(&self, most: Duration) -> Duration {
        most.mul_f64((self.draw() % 1000) as f64 / 1000.0)
    }

    /// The finalizer of splitmix64 over a counter.
    fn draw(&self) -> u64 {
        let mut mixed = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
