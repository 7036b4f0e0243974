use proptest::{prelude::*, test_runner::TestRunner};
use tempfile::TempDir;

use super::*;
use crate::{
    engine::{Engine, LineStart, Output, OutputLine, docker::Docker},
    environment::EnvVar,
    logs::{LogStream, cursor::Cursor, feeds::Feeds},
    mask::Mask,
    name::{DeploymentId, EnvKey, UserName},
    secret::{FernetKeys, Keyring},
    service::{Deployment, Replica, Service, example},
    store::{Durable, Store, Volatile, embedded::Embedded},
};

/// What happens to one container that is followed.
#[derive(Debug, Clone)]
enum Step {
    /// It writes so many lines.
    Write(usize),
    /// The engine's stream brings so many, after some that were brought before.
    Stream(usize, usize),
    /// Somebody begins to follow, and has read what is there when the second number of further steps
    /// are done.
    Enter(usize),
    /// All followers read what is there.
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..5).prop_map(Step::Write),
        4 => (0usize..6, 0usize..3).prop_map(|(on, back)| Step::Stream(on, back)),
        1 => (0usize..6).prop_map(Step::Enter),
        1 => Just(Step::Read),
    ]
}

fn output(written: usize) -> Output {
    let line = |nth: usize| OutputLine {
        at: Timestamp::from_second(nth as i64 + 4_000_000_000).expect("a time"),
        stderr: nth.is_multiple_of(3),
        line: nth.to_string(),
        start: LineStart::Line,
        cut_end: false,
    };
    Output { lines: (0..written).map(line).collect(), cut: false }
}

/// A container in the hands of its feed.
struct World {
    logs: Arc<Logs>,
    feeds: Feeds,
    service: ServiceId,
    replica: ReplicaId,
    written: usize,
    followers: Vec<Following>,
}

struct Following {
    follower: Follower,
    /// Steps until the past is read.
    opens_in: Option<usize>,
    got: Vec<usize>,
}

impl World {
    fn enter(&mut self, opens_in: usize) {
        let query = LogQuery { tail: 1000, ..LogQuery::default() };
        let (feed, seat, _) =
            self.feeds.enter(self.service, &UserName::operator(), end_of(&query)).expect("a seat");
        let logs = Arc::clone(&self.logs);
        let follower = Follower::new(logs, self.service, feed, seat, query);
        let opens_in = Some(opens_in);
        self.followers.push(Following { follower, opens_in, got: Vec::new() });
    }

    /// Reads the past of those whose time it is, as `follow` does.
    fn open(&mut self) {
        for Following { follower, opens_in, .. } in &mut self.followers {
            match opens_in {
                Some(0) => {
                    let mut cursor = Cursor::default();
                    let read = cursor.read(&self.replica, &Mask::default(), output(self.written));
                    follower.seen = HashMap::from([(self.replica.clone(), cursor.position())]);
                    follower.past = read.entries.into_iter();
                    follower.feed.add(&self.replica, DeploymentId::new(), cursor);
                    *opens_in = None;
                }
                Some(steps) => *steps -= 1,
                None => {}
            }
        }
    }

    fn stream(&self, on: usize, back: usize, streamed: &mut Option<usize>) {
        let Some(feed) = self.feeds.of(self.service) else { return };
        // Where it begins is told by the feed, to the second.
        let Some(position) = feed.position(&self.replica) else { return };
        let from = streamed.get_or_insert_with(|| {
            position.since().map_or(0, |since| (since.as_second() - 4_000_000_000) as usize)
        });
        let begin = from.saturating_sub(back);
        let end = (*from + on).min(self.written);
        let lines = output(self.written).lines.drain(begin..end.max(begin)).collect();
        feed.take(&self.replica, &Mask::default(), lines);
        *from = end.max(*from);
    }

    async fn read(&mut self) {
        for following in self.followers.iter_mut().filter(|f| f.opens_in.is_none()) {
            while let Some(Followed::Lines(lines)) = following.follower.next().await {
                following
                    .got
                    .extend(lines.iter().map(|line| line.line.parse::<usize>().expect("a number")));
            }
        }
    }
}

/// Whoever follows, from whenever on, gets each line once and in order: those of the past, those that
/// the stream brought, and those that were read when the container was removed.
#[test]
fn each_line_comes_once() {
    let dir = TempDir::new().expect("a directory");
    let store = Arc::new(Embedded::open(dir.path()).expect("a store"));
    let logs = Arc::new(over(&dir, &store, Keyring::new(&FernetKeys::generate())));
    let histories = (prop::collection::vec(step(), 1..40), any::<bool>());
    let outcome = TestRunner::default().run(&histories, |(steps, known)| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(live(&logs, steps, known));
        Ok(())
    });
    outcome.expect("each line once");
}

/// Lets a container live and end; `known` is whether somebody follows from its beginning on.
async fn live(logs: &Arc<Logs>, steps: Vec<Step>, known: bool) {
    let mut world = World {
        logs: Arc::clone(logs),
        feeds: Feeds::default(),
        service: ServiceId::new(),
        replica: ReplicaId::parse("abcdefghijkl").expect("an id"),
        written: 0,
        followers: Vec::new(),
    };
    let mut streamed = None;
    if known {
        world.enter(0);
        world.open();
    }
    for step in steps {
        match step {
            Step::Write(lines) => world.written += lines,
            Step::Stream(on, back) => world.stream(on, back, &mut streamed),
            Step::Enter(opens_in) if world.followers.len() < 8 => world.enter(opens_in),
            Step::Enter(_) => {}
            Step::Read => world.read().await,
        }
        world.open();
    }
    // It is removed, and what it wrote stays readable.
    if let Some(feed) = world.feeds.of(world.service) {
        feed.finish(&world.replica, &Mask::default(), output(world.written));
    }
    for _ in 0..8 {
        world.open();
    }
    world.read().await;
    for Following { got, .. } in &world.followers {
        assert_eq!(*got, (0..world.written).collect::<Vec<_>>());
    }
}

/// Logs without an engine.
fn over(dir: &TempDir, store: &Arc<Embedded>, keyring: Keyring) -> Logs {
    let engine: Arc<dyn Engine> = Arc::new(Docker::new("unix:///nowhere.sock"));
    let (instance, files) = (store.instance_id().clone(), dir.path().join("logs"));
    Logs::new(engine, Arc::clone(store) as Arc<dyn Store>, keyring, instance, files, 1024 * 1024)
}

/// What its secret is.
const SECRET: &str = "correct horse";

fn service(keyring: &Keyring) -> (Service, Deployment) {
    let now = Timestamp::now();
    let secret = EnvVar {
        key: EnvKey::parse("SECRET").expect("a name"),
        value: keyring.seal(SECRET),
        is_secret: true,
    };
    example::service("told", example::function("x", vec![secret]), now)
}

/// A service with a log, and no engine.
async fn logs(dir: &TempDir) -> (Arc<Logs>, Arc<Embedded>, Service) {
    let store = Arc::new(Embedded::open(dir.path()).expect("a store"));
    let keyring = Keyring::new(&FernetKeys::generate());
    let logs = over(dir, &store, keyring.clone());
    let (service, first) = service(&keyring);
    store.create_service(&service, &first, None).await.expect("created");
    (Arc::new(logs), store, service)
}

fn texts(followed: Option<Followed>) -> Vec<String> {
    match followed {
        Some(Followed::Lines(lines)) => lines.iter().map(|line| line.line.clone()).collect(),
        other => panic!("{other:?}"),
    }
}

async fn followed(logs: &Arc<Logs>, service: &Service, query: LogQuery) -> Follower {
    logs.follow(service.id, &UserName::operator(), query).await.expect("followed")
}

#[tokio::test(start_paused = true)]
async fn lines_are_followed_without_any_container_or_engine() {
    let dir = TempDir::new().expect("a directory");
    let (logs, store, service) = logs(&dir).await;
    let replica = ReplicaId::parse("abcdefghijkl").expect("an id");
    let note = |text: &str| logs.note(service.id, &replica, text.to_owned());
    for text in ["one", "two", "three"] {
        note(text).await.expect("kept");
    }
    let query = LogQuery { tail: 2, ..LogQuery::default() };
    let mut follower = followed(&logs, &service, query.clone()).await;
    assert_eq!(texts(follower.next().await), ["two", "three"]);
    let begin = Instant::now();
    assert_eq!(follower.next().await, Some(Followed::Quiet));
    assert_eq!(begin.elapsed().as_secs(), limits::LOG_FOLLOW_QUIET.as_secs());
    note("four").await.expect("kept");
    assert_eq!(texts(follower.next().await), ["four"]);

    let until = Timestamp::now().checked_add(Duration::from_secs(100)).ok();
    let ends = LogQuery { tail: 1, until, ..LogQuery::default() };
    let mut ends = followed(&logs, &service, ends).await;
    assert_eq!(texts(ends.next().await), ["four"]);
    let begin = Instant::now();
    while ends.next().await == Some(Followed::Quiet) {}
    assert!((95..=100).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert_eq!(ends.next().await, None);

    let past = LogQuery { tail: 9, until: Some(Timestamp::now()), ..LogQuery::default() };
    let mut past = followed(&logs, &service, past).await;
    assert_eq!(texts(past.next().await).len(), 4);
    assert_eq!(past.next().await, Some(Followed::Ended(Ending::Until)));

    let mut longest = followed(&logs, &service, query.clone()).await;
    assert!(store.delete_service(service.id, None).await.expect("deleted"));
    let mut last = None;
    while let Some(next) = follower.next().await {
        last = Some(next);
    }
    assert_eq!(last, Some(Followed::Ended(Ending::Deleted)));
    assert_eq!(texts(longest.next().await), ["three", "four"]);
    assert_eq!(longest.next().await, Some(Followed::Ended(Ending::Deleted)));
}

#[tokio::test(start_paused = true)]
async fn following_ends_with_its_time_and_with_grid() {
    let dir = TempDir::new().expect("a directory");
    let (logs, _store, service) = logs(&dir).await;
    let mut follower = followed(&logs, &service, LogQuery::default()).await;
    let begin = Instant::now();
    while follower.next().await == Some(Followed::Quiet) {}
    assert_eq!(begin.elapsed().as_secs(), limits::LOG_FOLLOW.as_secs());

    let mut follower = followed(&logs, &service, LogQuery::default()).await;
    let (stop, stopped) = watch::channel(false);
    let run = logs.run(stopped);
    let end = async {
        stop.send_replace(true);
        follower.next().await
    };
    let (_, last) = tokio::join!(run, end);
    assert_eq!(last, Some(Followed::Ended(Ending::Stopping)));
    let refused = logs.follow(service.id, &UserName::operator(), LogQuery::default()).await.err();
    assert!(matches!(refused, Some(NotFollowed::Refused(Refusal::Ending))));
}

#[tokio::test]
async fn what_grid_says_of_a_container_is_masked_and_goes_with_its_service() {
    let dir = TempDir::new().expect("a directory");
    let (logs, store, service) = logs(&dir).await;
    let gone = ServiceId::new();
    for id in [gone, service.id] {
        let replica = ReplicaId::random();
        let known = Replica::new(replica.clone(), id, service.latest_deployment);
        store.put_replica(known).await.expect("known");
        logs.note(id, &replica, format!("no way to {SECRET}.example")).await.expect("kept");
    }
    let query = LogQuery { tail: 5, ..LogQuery::default() };
    let entries = logs.read(service.id, &query).await.expect("read");
    let seen: Vec<_> = entries.iter().map(|e| (e.stream, e.line.as_str())).collect();
    assert_eq!(seen, [(LogStream::Platform, "no way to ********.example")]);
    assert_eq!(logs.files.services().await.expect("listed"), [gone, service.id].into());
    logs.sweep().await.expect("swept");
    assert_eq!(logs.files.services().await.expect("listed"), [service.id].into());
}
