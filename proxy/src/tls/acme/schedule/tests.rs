//! The plan under invented time and chance.

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn domain(name: &str) -> PublicDomain {
    PublicDomain::parse(name).expect("valid")
}

fn plan(names: &[&str]) -> Schedule {
    let mut schedule = Schedule::new(Pace::default());
    schedule.set(names.iter().map(|name| domain(name)), |_| None);
    schedule
}

fn days(now: Timestamp, days: u32) -> Validity {
    Validity { not_before: now, not_after: now + DAY * days }
}

fn failure(fault: Fault) -> Failure {
    Failure { fault, reason: "no".to_owned(), account_unknown: false }
}

#[test]
fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
    let now = start();
    let mut schedule = plan(&["a.example"]);
    assert_eq!(schedule.next(now), Next::Start(domain("a.example")));
    assert_eq!(schedule.next(now), Next::Idle);
    schedule.succeeded(&domain("a.example"), days(now, 90));
    assert_eq!(schedule.next(now), Next::Wait(now + DAY * 60));
    assert_eq!(schedule.next(now + DAY * 60), Next::Start(domain("a.example")));
    // One that was there at the start.
    let mut schedule = Schedule::new(Pace::default());
    schedule.set([domain("a.example")], |_| Some(days(now, 6)));
    assert_eq!(schedule.next(now), Next::Wait(now + DAY * 4));
    schedule.set([], |_| None);
    assert_eq!(schedule.next(now), Next::Idle);
}

#[test]
fn a_domain_that_fails_waits_twice_as_long_each_time_up_to_a_day() {
    let mut now = start();
    let mut schedule = plan(&["a.example"]);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        assert_eq!(schedule.next(now), Next::Start(domain("a.example")));
        let next = schedule.failed(&domain("a.example"), &failure(Fault::Domain), 0, now);
        pauses.push(Duration::try_from(next.duration_since(now)).expect("later"));
        assert_eq!(schedule.next(now), Next::Wait(next));
        now = next;
    }
    assert_eq!(pauses[..3], [5 * MINUTE, 10 * MINUTE, 20 * MINUTE]);
    assert_eq!(pauses[11], DAY);
    let status = &schedule.status()[0];
    assert_eq!((status.failures, status.last_error.as_deref()), (12, Some("no")));
    assert_eq!(status.next_attempt, Some(now));
    schedule.next(now);
    assert_eq!(schedule.status()[0].next_attempt, None);
    schedule.succeeded(&domain("a.example"), days(now, 90));
    assert_eq!((schedule.status()[0].failures, &schedule.status()[0].last_error), (0, &None));
}

#[test]
fn an_authority_that_is_away_makes_all_wait_and_is_not_held_against_the_domain() {
    let now = start();
    let mut schedule = plan(&["a.example", "b.example"]);
    assert_eq!(schedule.next(now), Next::Start(domain("a.example")));
    let next = schedule.failed(&domain("a.example"), &failure(Fault::Authority(None)), 0, now);
    assert_eq!(next, now + MINUTE);
    assert_eq!(schedule.next(now), Next::Wait(now + MINUTE));
    assert_eq!(schedule.status()[0].failures, 0);
    let now = now + MINUTE;
    // Two that fail at once are one failure.
    for _ in 0..2 {
        assert!(matches!(schedule.next(now), Next::Start(_)));
    }
    for name in ["a.example", "b.example"] {
        let next = schedule.failed(&domain(name), &failure(Fault::Authority(None)), 0, now);
        assert_eq!(next, now + 2 * MINUTE);
    }
    let now = now + 2 * MINUTE;
    assert!(matches!(schedule.next(now), Next::Start(_)));
    let asked = failure(Fault::Authority(Some(5 * HOUR)));
    let next = schedule.failed(&domain("a.example"), &asked, 0, now);
    assert_eq!(next, now + 5 * HOUR);
}

#[test]
fn a_limit_holds_the_domain_for_as_long_as_asked_and_the_others_for_an_hour() {
    let now = start();
    let mut schedule = plan(&["a.example", "b.example"]);
    assert_eq!(schedule.next(now), Next::Start(domain("a.example")));
    let limit = failure(Fault::Limit(Some(30 * HOUR)));
    assert_eq!(schedule.failed(&domain("a.example"), &limit, 0, now), now + 30 * HOUR);
    assert_eq!(schedule.next(now), Next::Wait(now + HOUR));
    assert_eq!(schedule.next(now + HOUR), Next::Start(domain("b.example")));
    // A pause without end is not taken.
    let limit = failure(Fault::Limit(Some(Duration::MAX)));
    let next = schedule.failed(&domain("b.example"), &limit, 0, now + HOUR);
    assert_eq!(next, now + HOUR + 48 * HOUR);
}

#[test]
fn renewals_go_first_then_those_that_failed_least() {
    let now = start();
    let mut schedule = Schedule::new(Pace { at_once: 1, ..Pace::default() });
    let old = domain("z.example");
    let set = |schedule: &mut Schedule, names: &[&str]| {
        let validity = days(now - DAY * 80, 90);
        let is_old = old.clone();
        schedule.set(names.iter().map(|name| domain(name)), |domain| {
            (*domain == is_old).then_some(validity)
        });
    };
    set(&mut schedule, &["a.example"]);
    assert_eq!(schedule.next(now), Next::Start(domain("a.example")));
    let next = schedule.failed(&domain("a.example"), &failure(Fault::Domain), 0, now);
    set(&mut schedule, &["a.example", "b.example", "z.example"]);
    for expected in ["z.example", "b.example", "a.example"] {
        assert_eq!(schedule.next(next), Next::Start(domain(expected)));
        assert_eq!(schedule.next(next), Next::Idle, "one at a time");
        schedule.succeeded(&domain(expected), days(next, 90));
    }
}

#[test]
fn a_domain_that_is_not_wanted_any_more_counts_until_its_attempt_has_ended() {
    let now = start();
    let mut schedule = plan(&["a.example", "b.example"]);
    schedule.next(now);
    schedule.set([domain("b.example")], |_| None);
    assert_eq!(schedule.status().len(), 2);
    schedule.failed(&domain("a.example"), &failure(Fault::Domain), 0, now);
    schedule.set([domain("b.example")], |_| None);
    assert_eq!(schedule.status().len(), 1);
}

proptest! {
    /// Whatever happens: the bounds of the hour and of attempts at one time are kept, the plan
    /// never stands still while something is due, and nothing is due before its time.
    #[test]
    fn bounds_are_kept(
        names in prop::collection::btree_set("[a-z]{1,2}\\.example", 1..20),
        events in prop::collection::vec((0_u8..6, any::<u16>(), 0_u64..7200), 1..200),
    ) {
        let pace = Pace { per_hour: 5, at_once: 3, ..Pace::default() };
        let mut schedule = Schedule::new(pace);
        schedule.set(names.iter().map(|name| domain(name)), |_| None);
        let mut now = start();
        let mut running = Vec::new();
        let mut starts: Vec<Timestamp> = Vec::new();
        for (event, chance, pause) in events {
            now += Duration::from_secs(pause);
            loop {
                match schedule.next(now) {
                    Next::Start(domain) => {
                        prop_assert!(!running.contains(&domain));
                        running.push(domain);
                        starts.push(now);
                    }
                    Next::Wait(until) => {
                        prop_assert!(until > now);
                        break;
                    }
                    Next::Idle => {
                        prop_assert!(!running.is_empty());
                        break;
                    }
                }
            }
            prop_assert!(running.len() <= pace.at_once);
            let hour_ago = now - SignedDuration::from_hours(1);
            prop_assert!(starts.iter().filter(|at| **at > hour_ago).count() <= pace.per_hour);
            let Some(domain) = running.pop() else { continue };
            let asked = Some(Duration::from_secs(u64::from(chance)));
            let fault = match event {
                0 | 1 => {
                    schedule.succeeded(&domain, days(now, 1 + u32::from(chance % 90)));
                    continue;
                }
                2 => Fault::Domain,
                3 => Fault::Limit(asked),
                4 => Fault::Authority(asked),
                _ => Fault::Authority(None),
            };
            prop_assert!(schedule.failed(&domain, &failure(fault), chance, now) > now);
        }
    }

    #[test]
    fn pauses_are_shorter_by_a_quarter_at_most(failures in any::<u32>(), chance in any::<u16>()) {
        let pause = backoff((MINUTE, DAY), failures, chance);
        let longest = backoff((MINUTE, DAY), failures, 0);
        prop_assert!(pause <= longest && pause >= longest.mul_f64(0.74) && longest <= DAY);
    }
}
