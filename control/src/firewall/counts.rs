//! How far the counters of the kernel's sets have come, from one reading to the next. Pure.
//!
//! The kernel lists a set in pieces while packets go on adding to it. Whatever moves meanwhile is
//! listed twice, or not at all. So a counter is known by its element for as long as the kernel keeps
//! that: an attempt is counted when its counter shows it for the first time.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use tokio::time::Instant;

use super::ruleset::Copy;
use crate::denied::Target;

/// `expires` is listed in whole seconds, rounded down.
const ROUNDED: Duration = Duration::from_secs(1);

/// An element of a set, as the kernel listed it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// Whose set.
    pub(super) copy: Copy,
    /// Who tried.
    pub(super) source: Ipv4Addr,
    /// Where to.
    pub(super) target: Target,
    /// Since the element was added.
    pub(super) packets: u64,
    /// Until the kernel forgets it, when nothing is added meanwhile.
    pub(super) remaining: Duration,
}

/// What is known of every element that the kernel still has.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<(Copy, Ipv4Addr, Target), Known>);

#[derive(Debug)]
struct Known {
    packets: u64,
    until: Instant,
}

impl Counts {
    /// What has been added since the readings before, by who tried and where to.
    pub(super) fn grow(
        &mut self,
        listed: Vec<Listed>,
        now: Instant,
    ) -> BTreeMap<(Ipv4Addr, Target), u64> {
        self.0.retain(|_, known| known.until > now);
        let mut added = BTreeMap::new();
        for Listed { copy, source, target, packets, remaining } in listed {
            let until = now + remaining + ROUNDED;
            let known =
                self.0.entry((copy, source, target.clone())).or_insert(Known { packets: 0, until });
            // One that is less than before was forgotten within the last second and began anew.
            let new = packets.checked_sub(known.packets).unwrap_or(packets);
            *known = Known { packets, until };
            if new > 0 {
                *added.entry((source, target)).or_default() += new;
            }
        }
        added
    }

    /// The sets of a copy are new, and empty.
    pub(super) fn forget(&mut self, copy: Copy) {
        self.0.retain(|(of, ..), _| *of != copy);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEPT: Duration = Duration::from_secs(600);

    fn element(port: u16, packets: u64, remaining: Duration) -> Listed {
        let target =
            Target { protocol: "tcp".to_owned(), to: "10.0.0.1".to_owned(), port: Some(port) };
        let source = Ipv4Addr::new(172, 30, 0, 2);
        Listed { copy: Copy::Kept, source, target, packets, remaining }
    }

    fn sum(added: &BTreeMap<(Ipv4Addr, Target), u64>) -> u64 {
        added.values().sum()
    }

    /// What happens between two readings.
    #[derive(Debug, Clone)]
    struct Round {
        /// Ports, and how many for each.
        packets: Vec<(usize, u64)>,
        /// How often the element of each port is in the listing.
        times_listed: Vec<usize>,
    }

    fn round() -> impl Strategy<Value = Round> {
        let packets = prop::collection::vec((0_usize..8, 1_u64..5), 0..10);
        let times_listed = prop::collection::vec(0_usize..3, 8);
        (packets, times_listed).prop_map(|(packets, times_listed)| Round { packets, times_listed })
    }

    proptest! {
        #[test]
        fn every_attempt_counts_once_however_its_element_is_listed(rounds in prop::collection::vec(round(), 1..20)) {
            let (mut counts, now) = (Counts::default(), Instant::now());
            let (mut kernel, mut counted) = ([0_u64; 8], 0);
            let all = rounds.into_iter().chain([Round { packets: Vec::new(), times_listed: vec![1; 8] }]);
            for Round { packets, times_listed } in all {
                // Both of an element's places in a listing are read one after the other.
                let mut listed = Vec::new();
                for pass in 0..2 {
                    for (port, n) in packets.iter().skip(pass).step_by(2) {
                        kernel[*port] += n;
                    }
                    for (port, times) in times_listed.iter().enumerate() {
                        if *times > pass && kernel[port] > 0 {
                            listed.push(element(port as u16, kernel[port], KEPT));
                        }
                    }
                }
                counted += sum(&counts.grow(listed, now));
                prop_assert!(counted <= kernel.iter().sum());
            }
            prop_assert_eq!(counted, kernel.iter().sum::<u64>());
        }
    }

    #[test]
    fn an_element_that_was_forgotten_counts_from_nothing() {
        let (mut counts, start) = (Counts::default(), Instant::now());
        assert_eq!(sum(&counts.grow(vec![element(80, 3, KEPT)], start)), 3);
        // In its last second it may be listed with none left.
        let last = start + KEPT;
        assert_eq!(sum(&counts.grow(vec![element(80, 3, Duration::ZERO)], last)), 0);
        // Forgotten and begun anew at once, and long after.
        assert_eq!(sum(&counts.grow(vec![element(80, 2, KEPT)], last + ROUNDED / 2)), 2);
        let later = last + KEPT + ROUNDED * 2;
        assert_eq!(sum(&counts.grow(vec![element(80, 5, KEPT)], later)), 5);
    }

    #[test]
    fn new_sets_count_from_nothing() {
        let (mut counts, now) = (Counts::default(), Instant::now());
        let held = Listed { copy: Copy::Held, ..element(80, 4, KEPT) };
        assert_eq!(sum(&counts.grow(vec![element(80, 3, KEPT), held.clone()], now)), 7);
        counts.forget(Copy::Kept);
        assert_eq!(sum(&counts.grow(vec![element(80, 3, KEPT), held], now)), 3);
    }
}
