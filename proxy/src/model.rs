//! Edge, control plane and deployments under random schedules of crashes, failing stores and engines,
//! and notices that are lost, repeated or late. All of them are the real ones, on a real store, with
//! real sockets between edge and containers; simulated are the engine and what runs in containers. Time
//! is paused, so that minutes of waiting cost nothing.
//!
//! While a schedule runs: a service has one live deployment at most, and no container serves two
//! requests at once. When the faults are over: every change that was accepted is live or failed, one
//! that is made then becomes live and answers, and what exists in the engine, in the store and at the
//! edge is the same and no more than is wanted.
//!
//! `PROPTEST_CASES` says how many schedules are tried.

mod chance;
mod engine;
mod line;
mod runner;
mod world;

use std::{
    future::Future,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use control::store::{
    Store,
    redis::{Part, RedisSettings},
};
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::runtime::{Builder, Handle};

use self::{engine::Mood, line::Weather, runner::Code, world::World};

/// Schedules that are tried when nothing else is asked for.
const SCHEDULES: u32 = 150;

/// A store.
#[derive(Clone)]
struct Subject {
    store: Arc<dyn Store>,
    /// Where its tasks run when it is one that waits for others: in real time, whatever the clock of
    /// those who use it does.
    home: Option<Handle>,
}

impl Subject {
    /// Runs a verb. The clock of the caller stands still meanwhile.
    async fn call<T: Send + 'static>(&self, verb: impl Future<Output = T> + Send + 'static) -> T {
        let Some(home) = self.home.clone() else { return verb.await };
        let (send, receive) = mpsc::sync_channel(1);
        home.spawn(async move { send.send(verb.await) });
        let answer = tokio::task::spawn_blocking(move || receive.recv());
        answer.await.expect("not aborted").expect("the verb does not panic")
    }
}

/// One thing that happens, and how long nothing else does.
#[derive(Debug, Clone)]
struct Step {
    event: Happening,
    pause: Duration,
}

#[derive(Debug, Clone)]
enum Happening {
    /// The owner changes the code,
    Patch(Code),
    /// or how many replicas there may be.
    Resize(u32, u32),
    /// Clients call.
    Calls(u8),
    /// A side ends without warning, or both do, and is there again after so many seconds.
    Crash {
        control: bool,
        edge: bool,
        away: u64,
    },
    /// The store forgets what is volatile, with or without a notice.
    Forget {
        noticed: bool,
    },
    /// The line to the store changes, that of control or that of the edge.
    Line {
        control: bool,
        weather: Weather,
    },
    EngineUp(bool),
    EngineMood(Mood),
    /// A container's process ends.
    Exit(usize),
}

fn percent() -> impl Strategy<Value = u8> {
    prop_oneof![2 => Just(0u8), 2 => 1..40u8, 1 => 40..=100u8]
}

fn weather() -> impl Strategy<Value = Weather> {
    let parts = (percent(), percent(), percent(), percent(), percent(), percent());
    parts.prop_map(|(refused, unanswered, slow, lost, repeated, late)| Weather {
        refused,
        unanswered,
        slow,
        lost,
        repeated,
        late,
    })
}

fn code() -> impl Strategy<Value = Code> {
    prop_oneof![
        4 => Just(Code::Good),
        2 => Just(Code::Hangs),
        1 => Just(Code::Unloadable),
        1 => Just(Code::Exits)
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => code().prop_map(Happening::Patch),
        1 => (0..3u32, 1..4u32).prop_map(|(min, max)| Happening::Resize(min.min(max), max)),
        5 => (1..9u8).prop_map(Happening::Calls),
        3 => (any::<bool>(), any::<bool>(), 0..20u64).prop_map(|(control, both, away)| {
            Happening::Crash { control: control || both, edge: !control || both, away }
        }),
        2 => any::<bool>().prop_map(|noticed| Happening::Forget { noticed }),
        4 => (any::<bool>(), weather())
            .prop_map(|(control, weather)| Happening::Line { control, weather }),
        1 => any::<bool>().prop_map(Happening::EngineUp),
        1 => (percent(), percent())
            .prop_map(|(refused, late)| Happening::EngineMood(Mood { refused, late })),
        2 => any::<usize>().prop_map(Happening::Exit),
    ]
}

/// What happens in a world, and what decides all the rest of its chances.
fn schedule() -> impl Strategy<Value = (u64, Vec<Step>)> {
    let pause = prop_oneof![3 => 0..2_000u64, 1 => 2_000..40_000u64];
    let step = (happening(), pause)
        .prop_map(|(event, ms)| Step { event, pause: Duration::from_millis(ms) });
    (any::<u64>(), prop::collection::vec(step, 1..14))
}

/// Tries schedules on one store, in a world of its own each.
fn survives(subject: &Subject) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: cases.unwrap_or(SCHEDULES),
        max_shrink_time: 10_000,
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let share = world::share();
    let outcome = runner.run(&schedule(), |(seed, steps)| {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let outcome = runtime.block_on(World::run(subject, share.path(), seed, &steps));
        runtime.shutdown_background();
        outcome.map_err(TestCaseError::fail)
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// An embedded store, and the directory that it is in.
fn embedded_subject() -> (tempfile::TempDir, Subject) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = control::store::embedded::Embedded::open(dir.path()).expect("opens");
    (dir, Subject { store: Arc::new(store), home: None })
}

#[test]
fn embedded() {
    let (_dir, subject) = embedded_subject();
    survives(&subject);
}

/// While the store refuses everything, what is due stays due. On paused time a driver that looks again
/// without a pause then keeps the clock from going on, for ever.
#[test]
fn a_driver_rests_while_the_store_refuses_everything() {
    let refuses = Weather { refused: 100, ..Weather::default() };
    let step = |event, seconds| Step { event, pause: Duration::from_secs(seconds) };
    let steps = vec![
        step(Happening::Patch(Code::Hangs), 1),
        step(Happening::Line { control: true, weather: refuses }, 120),
    ];
    let (done, outcome) = mpsc::channel();
    std::thread::spawn(move || {
        let (_dir, subject) = embedded_subject();
        let share = world::share();
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
        let outcome =
            runtime.expect("a runtime").block_on(World::run(&subject, share.path(), 1, &steps));
        done.send(outcome)
    });
    let outcome = outcome.recv_timeout(Duration::from_secs(60)).expect("it gets on");
    assert_eq!(outcome, Ok(()));
}

/// Ten thousand services that sleep are no reason to have ten thousand tasks at one time.
#[test]
fn control_begins_with_a_few_services_at_a_time() {
    let (_dir, subject) = embedded_subject();
    let share = world::share();
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    let most =
        runtime.expect("a runtime").block_on(World::start_over_many(&subject, share.path(), 1000));
    // Those that are told meanwhile that the engine is away look a second time.
    assert!((64..150).contains(&most), "{most}");
}

/// A real Redis. Its calls take real time, and so fewer schedules are tried.
#[test]
fn in_redis() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("redis.sock");
    let redis = Redis::start(&socket);
    let home = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let home = home.expect("a runtime");
    let url = format!("unix://{}", socket.display()).parse().expect("a URL");
    let settings = RedisSettings { url, prefix: "grid".to_owned() };
    let store =
        home.block_on(control::store::redis::Redis::open(&settings, dir.path(), Part::Control));
    let subject =
        Subject { store: Arc::new(store.expect("opens")), home: Some(home.handle().clone()) };
    survives(&subject);
    drop((subject, redis));
}

/// Ended when it is dropped.
struct Redis(Child);

impl Redis {
    fn start(socket: &Path) -> Self {
        let started = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(socket)
            .stdout(Stdio::null())
            .spawn();
        Self(started.expect("redis-server is installed: scripts/setup test"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
