//! How often clients may call, and services be called: token buckets (crate `governor`), one for
//! each service and one for each client address, of which a bounded number is known.

mod table;

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use control::{limits, service::Route};
use governor::{
    NotUntil, Quota, RateLimiter,
    clock::Clock,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

use crate::origin::ClientKey;

use table::Table;

/// The time of the runtime, so that tests can stop it.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeClock;

impl Clock for RuntimeClock {
    type Instant = std::time::Instant;

    fn now(&self) -> Self::Instant {
        Instant::now().into_std()
    }
}

/// So many requests in the long run, and so many at once after a quiet time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

/// The buckets of all client addresses.
#[derive(Debug, Default)]
pub(crate) struct ClientRates(Option<RateLimiter<ClientKey, Table, RuntimeClock>>);

/// The bucket of one service.
#[derive(Debug, Default)]
pub(crate) struct ServiceRate(Option<(Rate, RateLimiter<NotKeyed, InMemoryState, RuntimeClock>)>);

/// Why a request is not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) of: Of,
    /// Requests that are taken at once after a quiet time.
    pub(crate) burst: u32,
    /// Time until the next one is taken.
    pub(crate) wait: Duration,
}

/// Whose rate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Client,
    Service,
}

impl Rate {
    /// Without a burst, one second's worth may come at once. No rate when `per_second` is 0.
    pub(crate) fn new(per_second: u32, burst: Option<u32>) -> Option<Self> {
        let per_second = NonZeroU32::new(per_second)?;
        Some(Self { per_second, burst: burst.and_then(NonZeroU32::new).unwrap_or(per_second) })
    }

    /// The rate of a service, when `usual` is that of those which have none of their own.
    pub(crate) fn of(route: &Route, usual: Option<Self>) -> Option<Self> {
        match (route.rate_limit, route.rate_burst) {
            (None, None) => usual,
            (None, burst) => Self::new(usual?.per_second.get(), burst),
            (Some(per_second), burst) => Self::new(per_second, burst),
        }
    }

    fn quota(self) -> Quota {
        Quota::per_second(self.per_second).allow_burst(self.burst)
    }
}

impl ClientRates {
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        let bucket = |rate: Rate| {
            RateLimiter::new(rate.quota(), Table::new(limits::RATED_CLIENTS), RuntimeClock)
        };
        Self(rate.map(bucket))
    }

    /// Takes a request of a client into account; one without an address is always taken.
    pub(crate) fn check(&self, client: Option<IpAddr>) -> Result<(), TooMany> {
        let (Some(buckets), Some(address)) = (&self.0, client) else { return Ok(()) };
        let taken = buckets.check_key(&ClientKey::of(address));
        taken.map_err(|early| TooMany::new(Of::Client, &early))
    }
}

impl ServiceRate {
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        let bucket = |rate: Rate| RateLimiter::direct_with_clock(rate.quota(), RuntimeClock);
        Self(rate.map(|rate| (rate, bucket(rate))))
    }

    /// Whether this is the rate.
    pub(crate) fn is(&self, rate: Option<Rate>) -> bool {
        self.0.as_ref().map(|(rate, _)| *rate) == rate
    }

    /// Takes a request to the service into account.
    pub(crate) fn check(&self) -> Result<(), TooMany> {
        let Some((_, bucket)) = &self.0 else { return Ok(()) };
        bucket.check().map_err(|early| TooMany::new(Of::Service, &early))
    }
}

impl TooMany {
    fn new(of: Of, early: &NotUntil<std::time::Instant>) -> Self {
        let burst = early.quota().burst_size().get();
        Self { of, burst, wait: early.wait_time_from(RuntimeClock.now()) }
    }

    /// Whole seconds after which a request is taken.
    pub(crate) fn seconds(&self) -> u64 {
        self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0 || self.wait.is_zero())
    }
}

#[cfg(test)]
mod tests;
