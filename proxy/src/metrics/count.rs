//! What counts on a request's way: relaxed additions to atomics, without a lock or a look-up by name.
//! The library's own histogram takes a lock for each value, so that only its writing is used.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Upper bounds of the histograms of times: 0.5 ms to the longest run that settings allow.
const BOUNDS: [Duration; 18] = {
    let ms = Duration::from_millis;
    [
        Duration::from_micros(500),
        ms(1),
        Duration::from_micros(2_500),
        ms(5),
        ms(10),
        ms(25),
        ms(50),
        ms(100),
        ms(250),
        ms(500),
        ms(1_000),
        ms(2_500),
        ms(5_000),
        ms(10_000),
        ms(30_000),
        ms(60_000),
        ms(120_000),
        ms(300_000),
    ]
};

/// A counter of nanoseconds, shown as seconds.
#[derive(Debug, Default)]
pub(crate) struct Seconds(AtomicU64);

impl Seconds {
    pub(crate) fn add(&self, time: Duration) {
        // 580 years of work fit in.
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(0), Relaxed);
    }

    pub(crate) fn get(&self) -> f64 {
        self.0.load(Relaxed) as f64 / 1e9
    }
}

/// How long something took, over many times.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// One more than there are bounds: what is longer than all of them.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: Seconds,
}

impl Times {
    pub(crate) fn add(&self, time: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < time);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.add(time);
    }

    /// The sum in seconds, and how many times lay between each bound and the one before.
    pub(super) fn read(&self) -> (f64, Vec<(f64, u64)>) {
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|count| count.load(Relaxed));
        (self.sum.get(), bounds.zip(counts).collect())
    }
}

/// How a request ended: the status that was sent, and why it was that one.
pub(crate) type Outcome = (u16, &'static str);

/// Different outcomes that are told apart per service. A function chooses its status, so without
/// a bound a hostile one could make hundreds of series.
const KINDS: usize = 24;
/// All others.
const OTHER: Outcome = (0, "other");

/// Counts by outcome. Each one that is new takes the next free slot, so that the usual ones are found
/// at once.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    slots: [Slot; KINDS],
    other: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    outcome: OnceLock<Outcome>,
    count: AtomicU64,
}

impl Outcomes {
    pub(crate) fn add(&self, outcome: Outcome) {
        let slot = self.slots.iter().find(|slot| *slot.outcome.get_or_init(|| outcome) == outcome);
        slot.map_or(&self.other, |slot| &slot.count).fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> impl Iterator<Item = (Outcome, u64)> {
        let slots = self.slots.iter().map_while(|slot| {
            let outcome = slot.outcome.get()?;
            Some((*outcome, slot.count.load(Relaxed)))
        });
        slots.chain([(OTHER, self.other.load(Relaxed))].into_iter().filter(|(_, count)| *count > 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_of_the_next_bound() {
        let times = Times::default();
        for micros in [0, 500, 501, 300_000_000, 300_000_001] {
            times.add(Duration::from_micros(micros));
        }
        let (sum, buckets) = times.read();
        assert!((sum - 600.001_002).abs() < 1e-9, "{sum}");
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 5);
        assert_eq!((buckets[0], buckets[1]), ((0.0005, 2), (0.001, 1)));
        assert_eq!(buckets[17..], [(300.0, 1), (f64::INFINITY, 1)]);
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn nothing_is_lost_when_all_count_at_once() {
        let outcomes = Outcomes::default();
        let codes: Vec<u16> = (0..KINDS as u16 + 10).collect();
        std::thread::scope(|scope| {
            for start in 0..4 {
                let (outcomes, codes) = (&outcomes, &codes);
                scope.spawn(move || {
                    for n in 0..1_000 {
                        outcomes.add((codes[(start * 7 + n) % codes.len()], "ok"));
                    }
                });
            }
        });
        let read: Vec<_> = outcomes.read().collect();
        assert_eq!(read.len(), KINDS + 1);
        assert_eq!(read.iter().map(|(_, count)| count).sum::<u64>(), 4_000);
        let distinct: std::collections::HashSet<_> = read.iter().map(|(o, _)| *o).collect();
        assert_eq!(distinct.len(), read.len());
    }

    proptest! {
        #[test]
        fn each_outcome_is_counted_by_itself_as_long_as_there_is_room(
            codes in prop::collection::vec(200..300_u16, 0..100),
        ) {
            let outcomes = Outcomes::default();
            let mut kinds = Vec::new();
            for code in &codes {
                outcomes.add((*code, "ok"));
                if !kinds.contains(code) {
                    kinds.push(*code);
                }
            }
            let told_apart = &kinds[..kinds.len().min(KINDS)];
            let mut expected: Vec<_> = told_apart
                .iter()
                .map(|kind| ((*kind, "ok"), codes.iter().filter(|code| *code == kind).count() as u64))
                .collect();
            let others = codes.iter().filter(|code| !told_apart.contains(code)).count() as u64;
            expected.extend((others > 0).then_some((OTHER, others)));
            prop_assert_eq!(outcomes.read().collect::<Vec<_>>(), expected);
        }
    }
}
