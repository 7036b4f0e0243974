//! A fault of the network at every request of a deployment's life.

use control::store::{Creation, Durable, redis::Part};
use futures_util::{StreamExt, stream};

use super::life::Life;
use crate::{
    redis::{
        Server,
        chaos::{Chaos, Fault},
        open,
    },
    store::service,
};

/// Lives that are lived at once: most of the time they wait.
const AT_ONCE: usize = 64;

/// Lives as often as a life has requests, and lets the fault strike at another one each time.
async fn strike_everywhere(fault: Fault) {
    let server = Server::start();
    // The first one teaches Redis the scripts.
    live(&server, None, fault).await;
    let count = live(&server, None, fault).await.0;
    assert!(count > 60, "{count} requests");
    let outcomes: Vec<_> = stream::iter(1..=count)
        .map(|nth| live(&server, Some(nth), fault))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let struck = outcomes.iter().filter(|(_, has_struck)| *has_struck).count() as u64;
    // How many requests there are depends a little on who comes first.
    assert!(struck + 10 > count, "{struck} of {count}");
}

/// How many requests there were that the fault may strike, and whether it struck.
async fn live(server: &Server, nth: Option<u64>, fault: Fault) -> (u64, bool) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let chaos = Chaos::before(&server.socket());
    // Who opens a store waits for Redis, but not for ever.
    let is_outage = matches!(fault, Fault::AwayBefore | Fault::AwayAfter);
    let plan = || nth.into_iter().for_each(|nth| chaos.plan(nth, fault));
    if !is_outage {
        plan();
    }
    let mut life = Life::begin(&chaos, &format!("grid-{}", uuid::Uuid::new_v4()), dir.path()).await;
    let opening = if is_outage { chaos.requests() } else { 0 };
    if is_outage {
        plan();
    }
    life.live().await;
    (chaos.requests() - opening, chaos.has_struck())
}

macro_rules! everywhere {
    ($($name:ident: $fault:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                strike_everywhere(Fault::$fault).await;
            }
        )*
    };
}

everywhere!(
    a_request_is_cut_before: CutBefore,
    a_request_is_cut_within: CutWithin,
    an_answer_is_cut: CutAfter,
    a_request_is_late: Delay,
    a_connection_is_half_closed: HalfClose,
    a_request_is_lost: Hang,
    an_answer_is_lost: Swallow,
    nobody_listens_for_a_moment: Refuse,
    redis_goes_away_before_a_request: AwayBefore,
    redis_goes_away_after_a_request: AwayAfter,
);

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_no_error() {
    for fault in [Fault::CutAfter, Fault::Swallow, Fault::CutWithin, Fault::Refuse] {
        let (server, dir) = (Server::start(), tempfile::tempdir().expect("temporary directory"));
        let chaos = Chaos::before(&server.socket());
        let opened = open(&chaos.socket(), dir.path(), Part::Control).await;
        let store = opened.expect("opens");
        let (taught, first) = service("taught");
        store.create_service(&taught, &first, None).await.expect("creates");
        let (a, first) = service("a");
        let before = chaos.requests();
        store.create_service(&a, &first, None).await.expect("creates");
        let commit = chaos.requests() - before;
        let (b, first) = service("b");
        chaos.plan(commit, fault);
        let made = store.create_service(&b, &first, None).await.expect("creates");
        assert!(chaos.has_struck());
        assert_eq!(made, Creation::New);
        assert_eq!(server.cli(&["HGET", "{grid}:meta", "version"]), "3", "{fault:?}");
    }
}
