//! The state of many buckets in a fixed amount of memory. An address has its place in one of many
//! small sets; when a set is full, a new address takes the place of the one that is nearest to a full
//! bucket. One that is at its limit is thus the last to be forgotten, and all that forgetting does is
//! to give an address its burst again.

use std::hash::{BuildHasher, RandomState};

use governor::{nanos::Nanos, state::StateStore};
use parking_lot::Mutex;

use crate::origin::ClientKey;

/// Addresses in one set.
const WAYS: usize = 8;

/// Buckets by address.
#[derive(Debug)]
pub(super) struct Table {
    sets: Box<[Mutex<Set>]>,
    /// Its secret keeps addresses from being chosen so that they meet in one set.
    hasher: RandomState,
}

/// A time says when the address's bucket is full; 0, the beginning of all times, is a free place.
#[derive(Debug, Default)]
struct Set {
    addresses: [ClientKey; WAYS],
    full_at: [u64; WAYS],
}

impl Table {
    /// For at least so many addresses.
    pub(super) fn new(addresses: usize) -> Self {
        let sets = addresses.div_ceil(WAYS).next_power_of_two();
        Self { sets: (0..sets).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    fn set(&self, address: ClientKey) -> &Mutex<Set> {
        let hash = self.hasher.hash_one(address);
        // The number of sets is a power of two.
        let at = usize::try_from(hash & (self.sets.len() as u64 - 1)).unwrap_or(0);
        &self.sets[at]
    }
}

impl Set {
    /// The place of an address, or the one that it takes.
    fn place(&self, address: ClientKey) -> (usize, Option<Nanos>) {
        let mut least = 0;
        for way in 0..WAYS {
            if self.addresses[way] == address && self.full_at[way] > 0 {
                return (way, Some(self.full_at[way].into()));
            }
            if self.full_at[way] < self.full_at[least] {
                least = way;
            }
        }
        (least, None)
    }
}

impl StateStore for Table {
    type Key = ClientKey;

    fn measure_and_replace<T, F, E>(&self, address: &ClientKey, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut set = self.set(*address).lock();
        let (place, full_at) = set.place(*address);
        let (outcome, full_at) = measure(full_at)?;
        set.addresses[place] = *address;
        set.full_at[place] = full_at.into();
        Ok(outcome)
    }
}
