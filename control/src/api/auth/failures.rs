//! Slows down who guesses: wrong tokens per address. An address that has none left is told to wait,
//! and its token is not looked at, unless that very token was good from there before: one script
//! with an old token must not lock out everybody behind the same proxy.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    api::{
        error::ApiError,
        throttle::{REMEMBERED, Throttle},
    },
    token::Token,
};

/// Wrong tokens per minute, and at once.
const FAILURES: NonZeroU32 = NonZeroU32::new(30).expect("is not zero");

/// Who failed how often.
pub(super) struct Failures {
    throttle: Throttle<IpAddr>,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// Nothing from there is looked at before this time.
    barred: HashMap<IpAddr, Instant>,
    /// What was good from where.
    good: HashSet<(IpAddr, [u8; 32])>,
}

impl Default for Failures {
    fn default() -> Self {
        Self { throttle: Throttle::per_minute(FAILURES), places: Mutex::default() }
    }
}

impl Failures {
    /// Whether a token from this address may be looked at now.
    pub(super) fn check(&self, address: Option<IpAddr>, token: &Token) -> Result<(), ApiError> {
        let Some(address) = address.map(network) else { return Ok(()) };
        let mut places = self.places.lock();
        let Some(until) = places.barred.get(&address).copied() else { return Ok(()) };
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            places.barred.remove(&address);
        } else if !places.good.contains(&(address, *token.digest())) {
            return Err(ApiError::throttled(wait));
        }
        Ok(())
    }

    /// Notes that a token was good.
    pub(super) fn passed(&self, address: Option<IpAddr>, token: &Token) {
        let Some(address) = address.map(network) else { return };
        let good = &mut self.places.lock().good;
        if good.len() >= REMEMBERED {
            good.clear();
        }
        good.insert((address, *token.digest()));
    }

    /// Notes that a token was wrong.
    ///
    /// # Errors
    /// `Throttled` when it was one too many.
    pub(super) fn failed(&self, address: Option<IpAddr>) -> Result<(), ApiError> {
        let Some(address) = address.map(network) else { return Ok(()) };
        let Err(wait) = self.throttle.count(&address) else { return Ok(()) };
        let barred = &mut self.places.lock().barred;
        let now = Instant::now();
        if barred.len() >= REMEMBERED {
            barred.retain(|_, until| *until > now);
        }
        if barred.len() < REMEMBERED {
            barred.insert(address, now + wait.max(Duration::from_millis(1)));
        }
        Err(ApiError::throttled(wait))
    }
}

/// Who has one IPv6 address has all of its network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn who_guesses_has_to_wait_and_others_have_not() {
        let failures = Failures::default();
        let (guesser, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let (good, guess) = (Token::presented("good"), Token::presented("guess"));
        failures.passed(guesser, &good);
        for _ in 0..FAILURES.get() {
            assert_eq!(failures.check(guesser, &guess), Ok(()));
            assert_eq!(failures.failed(guesser), Ok(()));
        }
        assert!(failures.failed(guesser).is_err());
        assert!(failures.check(guesser, &guess).is_err());
        assert_eq!(failures.check(guesser, &good), Ok(()));
        assert_eq!(failures.check(other, &guess), Ok(()));
        assert_eq!(failures.failed(other), Ok(()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let failures = Failures::default();
        for host in 0..FAILURES.get() {
            assert_eq!(failures.failed(address(&format!("2001:db8::{host:x}"))), Ok(()));
        }
        assert!(failures.failed(address("2001:db8::ffff")).is_err());
        assert_eq!(failures.failed(address("2001:db8:0:1::1")), Ok(()));
    }
}
