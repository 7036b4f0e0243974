//! Rates on paused time.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use control::name::{FunctionName, PublicDomain, ServiceId};
use governor::{
    clock::FakeRelativeClock, middleware::NoOpMiddleware, nanos::Nanos,
    state::keyed::HashMapStateStore,
};
use proptest::prelude::*;
use tokio::time::advance;

use super::*;

fn client(n: u32) -> Option<IpAddr> {
    Some(Ipv4Addr::from(n).into())
}

fn rate(per_second: u32, burst: u32) -> Option<Rate> {
    Rate::new(per_second, Some(burst))
}

/// How many of a thousand requests are taken now.
fn taken(check: impl Fn() -> Result<(), TooMany>) -> usize {
    (0..1000).filter(|_| check().is_ok()).count()
}

#[tokio::test(start_paused = true)]
async fn a_client_has_a_burst_and_a_rate() {
    let rates = ClientRates::new(rate(10, 50));
    assert_eq!(taken(|| rates.check(client(1))), 50);
    assert_eq!(taken(|| rates.check(client(2))), 50, "another client is not touched by it");
    let refused = rates.check(client(1)).expect_err("too many");
    assert_eq!((refused.of, refused.burst), (Of::Client, 50));
    assert_eq!((refused.wait, refused.seconds()), (Duration::from_millis(100), 1));
    advance(Duration::from_millis(99)).await;
    assert!(rates.check(client(1)).is_err(), "not before the time that was told");
    advance(Duration::from_millis(1)).await;
    assert_eq!(taken(|| rates.check(client(1))), 1);
    advance(Duration::from_secs(60)).await;
    assert_eq!(taken(|| rates.check(client(1))), 50);
    assert_eq!(taken(|| rates.check(None)), 1000, "who has no address is not counted");
}

#[tokio::test(start_paused = true)]
async fn an_ipv6_client_is_its_network() {
    let rates = ClientRates::new(rate(1, 3));
    let address = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
    for n in 0..3u16 {
        let one = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, n, n, n, n);
        assert!(rates.check(Some(one.into())).is_ok());
    }
    assert!(rates.check(address("2001:db8:0:1:ffff::1")).is_err());
    assert!(rates.check(address("2001:db8:0:2::1")).is_ok());
    assert_eq!(taken(|| rates.check(address("::1"))), 3);
    assert_eq!(taken(|| rates.check(address("::ffff:192.0.2.1"))), 3);
    assert_eq!(taken(|| rates.check(address("192.0.2.1"))), 0, "the same client");
    assert_eq!(taken(|| rates.check(address("192.0.2.2"))), 3);
}

#[tokio::test(start_paused = true)]
async fn a_service_has_its_own_rate_or_the_usual_one() {
    let domain = PublicDomain::parse("a.localhost").expect("valid");
    let function = FunctionName::parse("a").expect("valid");
    let route = Route::new(ServiceId::new(), domain, function);
    let with = |rate_limit, rate_burst| Route { rate_limit, rate_burst, ..route.clone() };
    let usual = rate(10, 20);
    for (route, expected) in [
        (with(None, None), 20),
        (with(None, Some(5)), 5),
        (with(Some(7), None), 7),
        (with(Some(7), Some(30)), 30),
        (with(Some(0), None), 1000),
        (with(Some(0), Some(1)), 1000),
    ] {
        let service = ServiceRate::new(Rate::of(&route, usual));
        assert_eq!(taken(|| service.check()), expected, "{route:?}");
    }
    let unlimited = ServiceRate::new(Rate::of(&with(None, Some(5)), None));
    assert_eq!(taken(|| unlimited.check()), 1000);
    let slow = ServiceRate::new(rate(1, 1));
    assert!(slow.check().is_ok());
    assert_eq!(slow.check().expect_err("too many").of, Of::Service);
}

/// A million addresses come by, each within its rate: memory stays what it was, and who was at the
/// limit is still there.
#[tokio::test(start_paused = true)]
async fn a_million_addresses_take_no_memory_and_hide_nobody() {
    let rates = ClientRates::new(rate(1, 10));
    let known: Vec<_> = (0..100).collect();
    for n in &known {
        assert_eq!(taken(|| rates.check(client(*n))), 10);
    }
    let before = resident();
    for n in 1_000_000..2_000_000 {
        assert!(rates.check(client(n)).is_ok());
    }
    let grown = resident().saturating_sub(before);
    // The table alone, of which pages are touched for the first time; a map would need 40 MB.
    assert!(grown < 4 << 20, "{grown} bytes more");
    for n in &known {
        assert!(rates.check(client(*n)).is_err(), "{n} was forgotten");
    }
}

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<usize>().ok()).expect("a number") << 10
}

/// Buckets whose clock is turned by hand.
type Turned<S> = RateLimiter<ClientKey, S, FakeRelativeClock, NoOpMiddleware<Nanos>>;

proptest! {
    /// As long as the addresses fit, the table decides as governor's own map does.
    #[test]
    fn the_table_decides_as_a_map(
        per_second in 1u32..50,
        burst in 1u32..10,
        steps in prop::collection::vec((0u64..8, 0u64..300), 0..200),
    ) {
        let quota = rate(per_second, burst).expect("a rate").quota();
        let clock = FakeRelativeClock::default();
        let ours: Turned<Table> = RateLimiter::new(quota, Table::new(8), clock.clone());
        let theirs: Turned<HashMapStateStore<ClientKey>> =
            RateLimiter::hashmap_with_clock(quota, clock.clone());
        for (n, milliseconds) in steps {
            clock.advance(Duration::from_millis(milliseconds));
            let key = ClientKey::of(IpAddr::from([10, 0, 0, u8::try_from(n).expect("small")]));
            prop_assert_eq!(ours.check_key(&key), theirs.check_key(&key));
        }
    }

    /// However many addresses share a set, one that is refused was taken `burst` times before.
    #[test]
    fn nobody_is_refused_for_others(burst in 1u32..5, steps in prop::collection::vec(0u8..40, 0..400)) {
        let quota = rate(1, burst).expect("a rate").quota();
        let limiter: Turned<Table> =
            RateLimiter::new(quota, Table::new(8), FakeRelativeClock::default());
        let mut asked = HashMap::<u8, u32>::new();
        for n in steps {
            let count = asked.entry(n).or_default();
            *count += 1;
            let taken = limiter.check_key(&ClientKey::of(IpAddr::from([10, 0, 0, n]))).is_ok();
            prop_assert!(taken || *count > burst);
        }
    }
}
