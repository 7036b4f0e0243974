//! Requests that are sent ahead, over real sockets to runners of the tests' own, on paused time.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use control::{
    name::{DeploymentId, ReplicaId, ServiceId},
    service::{Replica, Route, ServiceView, Wish},
};
use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    task::JoinHandle,
};

use super::*;
use crate::{
    bound::Alarm,
    exchange::{self, Begun, Fault},
    line::MOST,
    pool::{Again, Lease, Place, Turn},
};

const SLOW: Duration = Duration::from_millis(50);
const MINUTE: Duration = Duration::from_secs(60);

struct World {
    pool: Arc<Pool>,
    view: ServiceView,
    live: DeploymentId,
    dir: tempfile::TempDir,
    _notes: mpsc::UnboundedReceiver<super::super::Note>,
}

/// The runner's side of a connection, in the hands of the test.
struct Runner {
    id: ReplicaId,
    end: UnixStream,
    recalls: PathBuf,
    buffer: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let service = ServiceId::new();
        let (sender, notes) = mpsc::unbounded_channel();
        let domain = "a.localhost".parse().expect("valid");
        let mut route = Route::new(service, domain, "a".parse().expect("valid"));
        let live = DeploymentId::new();
        (route.max_replicas, route.live_deployment) = (4, Some(live));
        let view = ServiceView {
            route: Some(route),
            replicas: Vec::new(),
            demand: 0,
            obstacle: None,
            latest_phase: None,
        };
        let pool = Pool::new(service, 100, sender);
        pool.apply(&view);
        let dir = tempfile::tempdir().expect("a directory");
        Self { pool, view, live, dir, _notes: notes }
    }

    fn join(&mut self) -> Runner {
        let id = ReplicaId::random();
        let (ours, end) = UnixStream::pair().expect("a socket pair");
        let recalls = self.dir.path().join(id.as_str());
        let file = File::create(&recalls).expect("a file");
        let link = Link::new(ours).expect("a link");
        self.view.replicas.push(Replica {
            id: id.clone(),
            service: self.pool.service,
            deployment: self.live,
            wish: Wish::Serve,
            seen: None,
        });
        self.pool.join(id.clone(), self.live, link, Some(file));
        Runner { id, end, recalls, buffer: Vec::new() }
    }

    /// One that has answered a request in no time.
    async fn join_quick(&mut self) -> Runner {
        let mut runner = self.join();
        let first = self.call("first");
        assert_eq!(runner.takes().await, ("/first".to_owned(), 0));
        runner.answers("first").await;
        assert_eq!(first.await.expect("ends"), Ok("first".to_owned()));
        runner
    }

    fn call(&self, name: &str) -> JoinHandle<Result<String, String>> {
        let (pool, name) = (self.pool.clone(), name.to_owned());
        tokio::spawn(async move { call(&pool, &name, MINUTE).await })
    }

    /// A request that is on its way before the next line runs.
    async fn called(&self, name: &str) -> JoinHandle<Result<String, String>> {
        let call = self.call(name);
        settle_down().await;
        call
    }
}

impl Runner {
    /// The next request and its number, 0 when it was not sent ahead.
    async fn takes(&mut self) -> (String, u64) {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert_ne!(self.end.read_buf(&mut self.buffer).await.expect("reads"), 0, "it ended");
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).expect("text");
        let turn = head.lines().find_map(|line| line.strip_prefix("x-grid-turn: "));
        let target = head.split(' ').nth(1).expect("a target").to_owned();
        (target, turn.map_or(0, |turn| turn.parse().expect("a number")))
    }

    /// Nothing was sent that was not taken.
    fn has_nothing(&mut self) -> bool {
        let mut byte = [0];
        self.buffer.is_empty() && self.end.try_read(&mut byte).is_err()
    }

    async fn answers(&mut self, text: &str) {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        self.end.write_all(answer.as_bytes()).await.expect("writes");
    }

    /// Takes a request and answers it, as one that looks what was called back.
    async fn serves(&mut self) -> String {
        let (target, turn) = self.takes().await;
        if turn > 0 && turn <= called_back(&self.recalls) {
            let answer =
                b"HTTP/1.1 200 OK\r\nx-grid-outcome: called-back\r\ncontent-length: 0\r\n\r\n";
            self.end.write_all(answer).await.expect("writes");
            return format!("not {target}");
        }
        self.answers(&target).await;
        target
    }
}

fn called_back(recalls: &Path) -> u64 {
    let mut last = [0; 8];
    let file = File::open(recalls).expect("opens");
    file.read_exact_at(&mut last, 0).map_or(0, |()| u64::from_le_bytes(last))
}

/// What the gateway does with a request.
async fn call(pool: &Arc<Pool>, name: &str, within: Duration) -> Result<String, String> {
    let until = Instant::now() + within;
    let head = format!("GET /{name} HTTP/1.1\r\n").into_bytes();
    let mut again = Again::No;
    loop {
        let turn = pool.enter(again).map_err(|refusal| format!("{refusal:?}"))?;
        let mut lease = match turn {
            Turn::Now(lease) => lease,
            Turn::Later(mut place) => {
                place.offer(Parcel { head: head.clone(), body: Bytes::new() });
                place
                    .turn(until, &mut Alarm::default())
                    .await
                    .map_err(|refusal| format!("{refusal:?}"))?
            }
        };
        let mut link = lease.start().expect("a connection");
        link.wire = [&head[..], b"\r\n"].concat();
        match exchange::run(link, &Method::GET, b"", 1000, until, &mut Alarm::default())
            .await
            .map(|answer| answer.body)
        {
            Ok(Begun::Whole { body, link }) => {
                lease.settle(link, Instant::now()).await;
                return Ok(String::from_utf8_lossy(&body).into_owned());
            }
            Ok(Begun::CalledBack { link }) => {
                lease.settle(link, Instant::now()).await;
                again = Again::Yes;
            }
            Ok(_) => panic!("no such answer"),
            Err(fault) => {
                lease.retire(match fault {
                    Fault::TimedOut => GoneCause::TimedOut,
                    _ => GoneCause::Closed,
                });
                return Err(format!("{fault:?}"));
            }
        }
    }
}

/// Lets everything happen that can without time.
async fn settle_down() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn place(pool: &Arc<Pool>, name: &str) -> Place {
    let Ok(Turn::Later(place)) = pool.enter(Again::No) else { panic!("it need not wait") };
    let head = format!("GET /{name} HTTP/1.1\r\n").into_bytes();
    place.offer(Parcel { head, body: Bytes::new() });
    place
}

#[tokio::test(start_paused = true)]
async fn a_quick_replica_has_its_next_requests_before_it_has_answered() {
    let mut world = World::new();
    let mut runner = world.join_quick().await;
    let mut calls = Vec::new();
    let all = MOST + 3;
    for number in 0..all {
        calls.push(world.called(&number.to_string()).await);
    }
    assert_eq!(runner.takes().await, ("/0".to_owned(), 0));
    let half = MOST / 2 + 1;
    for number in 1..=half {
        assert_eq!(runner.takes().await, (format!("/{number}"), number as u64));
    }
    assert!(runner.has_nothing(), "the next ones go together");
    assert_eq!(world.pool.census().waiting, all as u64 - 1, "those with the replica wait too");
    runner.answers("0").await;
    settle_down().await;
    for number in half + 1..=MOST + 1 {
        assert_eq!(runner.takes().await, (format!("/{number}"), number as u64));
    }
    assert!(runner.has_nothing(), "no more than that");
    for number in 1..all {
        runner.answers(&number.to_string()).await;
    }
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.expect("ends"), Ok(number.to_string()));
    }
    assert!(matches!(world.pool.enter(Again::No), Ok(Turn::Now(_))), "it is free again");
}

#[tokio::test(start_paused = true)]
async fn a_replica_has_no_more_ahead_than_it_does_in_the_time_of_a_quick_one() {
    for (took, most) in [(limits::QUICK / 5, 5), (limits::QUICK / 2, 2), (limits::QUICK * 2, 0)] {
        let mut world = World::new();
        let mut runner = world.join();
        let mut calls = Vec::new();
        for number in 0..10 {
            calls.push(world.called(&number.to_string()).await);
        }
        assert_eq!(runner.takes().await.0, "/0");
        tokio::time::advance(took).await;
        runner.answers("0").await;
        settle_down().await;
        calls.push(world.called("last").await);
        let mut had = 0;
        while !runner.has_nothing() {
            runner.takes().await;
            had += 1;
        }
        assert_eq!(had, 1 + most, "{took:?}: its next one, and those that were sent ahead");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_one_a_new_one_and_one_that_cannot_call_back_get_each_at_its_turn() {
    let mut world = World::new();
    let mut runner = world.join();
    let first = world.called("first").await;
    let second = world.called("second").await;
    assert_eq!(runner.takes().await.0, "/first");
    settle_down().await;
    assert!(runner.has_nothing(), "it is new");
    tokio::time::advance(SLOW).await;
    runner.answers("first").await;
    assert_eq!(runner.takes().await, ("/second".to_owned(), 0));
    let third = world.called("third").await;
    assert!(runner.has_nothing(), "its last request was slow");
    runner.answers("second").await;
    assert_eq!(runner.serves().await, "/third");
    for (call, text) in [(first, "first"), (second, "second"), (third, "/third")] {
        assert_eq!(call.await.expect("ends"), Ok(text.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_behind_a_slow_one_when_another_replica_comes() {
    let mut world = World::new();
    let mut runner = world.join_quick().await;
    let slow = world.called("slow").await;
    let others = [world.called("a").await, world.called("b").await];
    assert_eq!(runner.takes().await.0, "/slow");
    tokio::time::advance(SLOW).await;

    let mut other = world.join();
    assert_eq!(other.serves().await, "/a");
    assert_eq!(other.serves().await, "/b");
    for (call, text) in others.into_iter().zip(["/a", "/b"]) {
        assert_eq!(call.await.expect("ends"), Ok(text.to_owned()));
    }
    runner.answers("slow").await;
    assert_eq!(runner.serves().await, "not /a");
    assert_eq!(runner.serves().await, "not /b");
    assert_eq!(slow.await.expect("ends"), Ok("slow".to_owned()));
    assert_eq!(world.pool.census().idle, 2, "and both can be used");
    let last = [world.called("c").await, world.called("d").await];
    assert_eq!(runner.serves().await, "/c");
    assert_eq!(other.serves().await, "/d");
    for call in last {
        call.await.expect("ends").expect("answered");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_behind_a_slow_one_while_another_replica_rests() {
    let mut world = World::new();
    let mut quick = [world.join_quick().await, world.join_quick().await];
    let first = world.called("0").await;
    let second = world.called("1").await;
    let third = world.called("2").await;
    // The last one was sent to either, behind a request that takes its time; the other one ends.
    let (slow, other) = {
        let mut behind = None;
        for (index, runner) in quick.iter_mut().enumerate() {
            runner.takes().await;
            if !runner.has_nothing() {
                behind = Some(index);
            }
        }
        (behind.expect("it was sent ahead"), 1 - behind.expect("it was sent ahead"))
    };
    quick[other].answers("quick").await;
    settle_down().await;
    assert!(quick[other].has_nothing(), "a moment is worth no call back");
    tokio::time::sleep(SLOW).await;
    assert_eq!(quick[other].serves().await, "/2");
    assert_eq!(third.await.expect("ends"), Ok("/2".to_owned()));
    quick[slow].answers("slow").await;
    let mut texts = [first.await.expect("ends"), second.await.expect("ends")];
    texts.sort();
    assert_eq!(texts, [Ok("quick".to_owned()), Ok("slow".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_behind_one_that_becomes_slow_while_another_replica_rests() {
    let mut world = World::new();
    let mut runner = world.join_quick().await;
    let first = world.called("first").await;
    let slow = world.called("slow").await;
    let third = world.called("third").await;
    let mut other = world.join();
    tokio::time::advance(limits::QUICK / 2).await;
    assert_eq!(runner.serves().await, "/first");
    assert_eq!(runner.takes().await.0, "/slow");
    tokio::time::sleep(limits::QUICK / 2).await;
    settle_down().await;
    assert!(other.has_nothing(), "none was slow until now");
    tokio::time::sleep(limits::QUICK * 2).await;
    assert_eq!(other.serves().await, "/third");
    runner.answers("slow").await;
    for call in [first, slow, third] {
        call.await.expect("ends").expect("answered");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_behind_a_request_that_fails_runs_elsewhere_once() {
    for ends in [true, false] {
        let mut world = World::new();
        let mut runner = world.join_quick().await;
        let first = world.called("first").await;
        let others = [world.called("a").await, world.called("b").await];
        assert_eq!(runner.takes().await.0, "/first");
        runner
            .end
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
            .await
            .expect("writes");
        if ends {
            drop(runner.end);
        } else {
            tokio::time::advance(MINUTE / 2).await; // those behind have half of their minute left
            let late = world.called("late").await;
            tokio::time::advance(MINUTE / 2).await;
            settle_down().await;
            assert_eq!(called_back(&runner.recalls), 3);
            late.abort();
        }
        assert!(first.await.expect("ends").is_err());
        if !ends {
            continue; // their time was over as well
        }
        let mut other = world.join();
        assert_eq!([other.serves().await, other.serves().await], ["/a", "/b"]);
        for (call, text) in others.into_iter().zip(["/a", "/b"]) {
            assert_eq!(call.await.expect("ends"), Ok(text.to_owned()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_told_that_no_replica_came_does_not_run() {
    let mut world = World::new();
    let mut runner = world.join_quick().await;
    let slow = world.called("slow").await;
    let pool = world.pool.clone();
    let second = tokio::spawn(async move { call(&pool, "second", SLOW).await });
    settle_down().await;
    let mut left = place(&world.pool, "left").await;
    settle_down().await;
    assert_eq!(runner.takes().await.0, "/slow");
    assert_eq!(second.await.expect("ends"), Err("NoReplica".to_owned()));
    assert!(left.withdraw().await.is_none(), "it came back when the other one did, or comes now");
    runner.answers("slow").await;
    assert_eq!(runner.serves().await, "not /second");
    assert_eq!(runner.serves().await, "not /left");
    assert_eq!(slow.await.expect("ends"), Ok("slow".to_owned()));
    let next = world.called("next").await;
    assert_eq!(runner.serves().await, "/next");
    next.await.expect("ends").expect("answered");
}

#[tokio::test(start_paused = true)]
async fn what_may_have_begun_is_not_taken_back() {
    let mut world = World::new();
    let mut runner = world.join_quick().await;
    let first = world.called("first").await;
    let mut place = place(&world.pool, "second").await;
    assert_eq!(runner.takes().await.0, "/first");
    assert_eq!(runner.takes().await.0, "/second");
    // The edge has not read this yet, so the runner may be at the next one already.
    runner.answers("first").await;
    let mut lease: Lease = place.withdraw().await.expect("it may have begun");
    assert_eq!(first.await.expect("ends"), Ok("first".to_owned()));
    let link = lease.start().expect("a connection");
    assert!(link.is_awaiting);
    runner.answers("second").await;
    let answer = exchange::run(
        link,
        &Method::GET,
        b"",
        1000,
        Instant::now() + MINUTE,
        &mut Alarm::default(),
    )
    .await;
    let Ok(exchange::Answer { body: Begun::Whole { body, link }, .. }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(body, "second");
    lease.settle(link, Instant::now()).await;
    assert_eq!(world.pool.census().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_came_back_at_its_turn_only_is_the_first_of_the_queue() {
    let mut world = World::new();
    let mut runner = world.join_quick().await;
    let first = world.called("first").await;
    let second = world.called("second").await;
    assert_eq!(runner.takes().await.0, "/first");
    // It looks at the file before the edge has seen its answer.
    let file = File::options().write(true).open(&runner.recalls).expect("opens");
    file.write_all_at(&1u64.to_le_bytes(), 0).expect("writes");
    runner.answers("first").await;
    assert_eq!(runner.serves().await, "not /second");
    assert_eq!(runner.takes().await, ("/second".to_owned(), 0));
    runner.answers("now").await;
    assert_eq!(first.await.expect("ends"), Ok("first".to_owned()));
    assert_eq!(second.await.expect("ends"), Ok("now".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_will_read_costs_the_replica() {
    let mut world = World::new();
    let mut runner = world.join_quick().await;
    let first = world.called("first").await;
    let second = world.called("second").await;
    let third = world.called("third").await;
    assert_eq!(runner.takes().await.0, "/first");
    second.abort(); // nobody waits until it has been called back
    runner.answers("first").await;
    assert_eq!(first.await.expect("ends"), Ok("first".to_owned()));
    settle_down().await;
    assert_eq!(world.pool.connected::<Vec<_>>(), Vec::<ReplicaId>::new());
    let mut other = world.join();
    assert_eq!(other.serves().await, "/third");
    assert_eq!(third.await.expect("ends"), Ok("/third".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_is_answered_while_a_replica_drains_and_when_another_process_has_the_rest() {
    let mut world = World::new();
    let mut runner = world.join_quick().await;
    let calls = [world.called("a").await, world.called("b").await, world.called("c").await];
    for replica in world.view.replicas.iter_mut().filter(|replica| replica.id == runner.id) {
        replica.wish = Wish::Drain;
    }
    world.pool.apply(&world.view);
    assert_eq!(runner.serves().await, "/a");
    settle_down().await;
    world.pool.release();
    assert_eq!(runner.serves().await, "/b");
    assert_eq!(runner.serves().await, "/c");
    for call in calls {
        call.await.expect("ends").expect("answered");
    }
    let mut rest = Vec::new();
    runner.end.read_to_end(&mut rest).await.expect("the connection ends");
}

#[tokio::test(start_paused = true)]
async fn a_large_request_keeps_its_place_and_goes_at_its_turn() {
    let mut world = World::new();
    let mut runner = world.join_quick().await;
    let first = world.called("first").await;
    let Ok(Turn::Later(mut large)) = world.pool.enter(Again::No) else {
        panic!("it need not wait")
    };
    large.offer(Parcel { head: b"POST / HTTP/1.1\r\n".to_vec(), body: vec![0; BYTES].into() });
    let last = world.called("last").await;
    assert_eq!(runner.takes().await.0, "/first");
    assert!(runner.has_nothing(), "the last one does not overtake it");
    runner.answers("first").await;
    let lease = large.turn(Instant::now() + MINUTE, &mut Alarm::default()).await.expect("its turn");
    drop(lease);
    assert_eq!(runner.serves().await, "/last");
    first.await.expect("ends").expect("answered");
    last.await.expect("ends").expect("answered");
}
