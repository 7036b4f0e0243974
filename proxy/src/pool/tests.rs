//! The pool with real Unix sockets in the place of replicas, on paused time.

use std::time::Duration;

use control::{
    name::{FunctionName, PublicDomain},
    service::{Replica, Route, ServiceView, Wish},
};
use jiff::Timestamp;
use tokio::net::UnixStream;

use super::*;
use crate::bound::Alarm;

struct World {
    pool: Arc<Pool>,
    notes: mpsc::UnboundedReceiver<Note>,
    view: ServiceView,
    /// The replicas' ends: while they live, so do the connections.
    ends: Vec<UnixStream>,
}

impl World {
    fn new(queue_length: usize) -> Self {
        let service = ServiceId::new();
        let (sender, notes) = mpsc::unbounded_channel();
        let domain = PublicDomain::parse("a.localhost").expect("valid");
        let function = FunctionName::parse("a").expect("valid");
        let route = Route { max_replicas: 4, ..Route::new(service, domain, function) };
        let view = ServiceView {
            route: Some(route),
            replicas: Vec::new(),
            demand: 0,
            obstacle: None,
            latest_phase: None,
        };
        Self { pool: Pool::new(service, queue_length, sender), notes, view, ends: Vec::new() }
    }

    fn activate(&mut self, deployment: DeploymentId) {
        if let Some(route) = &mut self.view.route {
            route.live_deployment = Some(deployment);
        }
        self.pool.apply(&self.view);
    }

    fn join(&mut self, deployment: DeploymentId) -> ReplicaId {
        let id = ReplicaId::random();
        self.view.replicas.push(Replica {
            id: id.clone(),
            service: self.pool.service,
            deployment,
            wish: Wish::Serve,
            seen: None,
        });
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        self.ends.push(theirs);
        self.pool.join(id.clone(), deployment, Link::new(ours).expect("a link"), None);
        id
    }

    fn drain(&mut self, id: &ReplicaId) {
        for replica in self.view.replicas.iter_mut().filter(|replica| replica.id == *id) {
            replica.wish = Wish::Drain;
        }
        self.pool.apply(&self.view);
    }

    fn now(&self) -> Lease {
        match self.pool.enter(Again::No) {
            Ok(Turn::Now(lease)) => lease,
            Ok(Turn::Later(_)) => panic!("had to wait"),
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    fn later(&self) -> Place {
        match self.pool.enter(Again::No) {
            Ok(Turn::Later(place)) => place,
            Ok(Turn::Now(_)) => panic!("did not have to wait"),
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    /// All that was said has reached the store.
    fn arrive(&mut self) -> Vec<Note> {
        let mut said = Vec::new();
        while let Ok(note) = self.notes.try_recv() {
            self.pool.arrived();
            said.push(note);
        }
        said
    }

    fn seen(&mut self) -> Vec<(Seen, u32)> {
        let mut seen = Vec::new();
        while let Ok(note) = self.notes.try_recv() {
            if let Note::Seen { seen: what, demand, .. } = note {
                seen.push((what, demand));
            }
        }
        seen
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

async fn waits(place: &mut Place) -> bool {
    tokio::time::timeout(Duration::ZERO, place.turn(soon(), &mut Alarm::default())).await.is_err()
}

fn finish(mut lease: Lease) {
    let link = lease.start().expect("a lease has its connection");
    lease.give_back(link);
}

#[tokio::test(start_paused = true)]
async fn one_request_at_a_time_and_first_come_first_served() {
    let mut world = World::new(10);
    let live = DeploymentId::new();
    world.activate(live);
    world.join(live);
    let first = world.now();
    let (mut second, mut third) = (world.later(), world.later());
    finish(first);
    let lease = second.turn(soon(), &mut Alarm::default()).await.expect("its turn");
    assert!(waits(&mut third).await);
    finish(lease);
    assert!(third.turn(soon(), &mut Alarm::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_nobody_took_goes_to_the_next() {
    let mut world = World::new(10);
    let live = DeploymentId::new();
    world.activate(live);
    world.join(live);
    let running = world.now();
    let (gives_up, mut waits) = (world.later(), world.later());
    finish(running); // the grant is on its way to the first of them
    drop(gives_up);
    assert!(waits.turn(soon(), &mut Alarm::default()).await.is_ok());
    assert!(world.seen().iter().all(|(seen, _)| *seen == Seen::Ready), "no replica was lost");
}

#[tokio::test(start_paused = true)]
async fn a_lease_dropped_in_the_middle_costs_the_replica_and_an_unused_one_does_not() {
    let mut world = World::new(10);
    let live = DeploymentId::new();
    world.activate(live);
    world.join(live);
    drop(world.now());
    let mut lease = world.now();
    let link = lease.start();
    drop(lease);
    drop(link);
    let gone = Seen::Gone { cause: GoneCause::Garbled };
    assert_eq!(world.seen().last(), Some(&(gone, 0)));
    let _waits = world.later();
}

#[tokio::test(start_paused = true)]
async fn the_switch_moves_waiting_requests_to_the_new_version() {
    let mut world = World::new(10);
    let (old, new) = (DeploymentId::new(), DeploymentId::new());
    world.activate(old);
    let old_replica = world.join(old);
    let running = world.now();
    let mut waits = world.later();
    let candidate = world.join(new);
    assert!(self::waits(&mut waits).await);

    world.activate(new);
    let lease = waits.turn(soon(), &mut Alarm::default()).await.expect("the candidate serves");
    assert_eq!(*lease.replica(), candidate);

    finish(running); // the old version finishes, and rests without getting anything more
    let _queued = world.later();
    world.drain(&old_replica);
    let drained = Seen::Gone { cause: GoneCause::Drained };
    assert!(world.seen().iter().any(|(seen, _)| *seen == drained));
}

#[tokio::test(start_paused = true)]
async fn a_draining_replica_finishes_its_request_first() {
    let mut world = World::new(10);
    let live = DeploymentId::new();
    world.activate(live);
    let replica = world.join(live);
    let running = world.now();
    world.seen();
    world.drain(&replica);
    assert_eq!(world.seen(), []);
    finish(running);
    assert_eq!(world.seen(), [(Seen::Gone { cause: GoneCause::Drained }, 0)]);
}

#[tokio::test(start_paused = true)]
async fn steady_traffic_says_nothing_and_rising_demand_says_each_step_once() {
    let mut world = World::new(2);
    let live = DeploymentId::new();
    world.activate(live);
    world.join(live);
    for _ in 0..100 {
        finish(world.now());
    }
    world.seen();
    let running = world.now();
    let waiting = (world.later(), world.later());
    assert_eq!(world.pool.enter(Again::No).err().map(|r| r == Refusal::QueueFull), Some(true));
    let demand = |note| match note {
        Note::Demand { demand, .. } => demand,
        Note::Seen { .. } => panic!("nothing was seen"),
    };
    assert_eq!(world.notes.try_recv().map(demand), Ok(2));
    assert_eq!(world.notes.try_recv().map(demand), Ok(3));
    assert!(world.notes.try_recv().is_err());
    drop(waiting);
    finish(running);
}

#[tokio::test(start_paused = true)]
async fn an_idle_replica_is_reported_once_and_again_when_it_works() {
    let mut world = World::new(2);
    let live = DeploymentId::new();
    world.activate(live);
    let replica = world.join(live);
    world.seen();
    world.pool.tell_idle(&replica);
    world.pool.tell_idle(&replica);
    assert_eq!(world.seen(), [(Seen::Idle, 0)]);
    // A health check is no work.
    finish(world.pool.borrow(&replica).expect("it rests"));
    assert_eq!(world.seen(), []);
    finish(world.now());
    assert_eq!(world.seen(), [(Seen::Ready, 1)]);
}

#[tokio::test(start_paused = true)]
async fn work_that_comes_during_a_health_check_ends_the_rest() {
    let mut world = World::new(2);
    let live = DeploymentId::new();
    world.activate(live);
    let replica = world.join(live);
    world.pool.tell_idle(&replica);
    let check = world.pool.borrow(&replica).expect("it rests");
    world.seen();
    let mut waits = world.later();
    finish(check);
    let lease = waits.turn(soon(), &mut Alarm::default()).await.expect("its turn");
    assert_eq!(world.seen(), [(Seen::Ready, 1)]);
    finish(lease);
    world.pool.tell_idle(&replica);
    assert_eq!(world.seen(), [(Seen::Idle, 0)]);
}

#[tokio::test(start_paused = true)]
async fn what_the_store_lost_is_said_again_and_its_replicas_serve_on() {
    let mut world = World::new(2);
    let live = DeploymentId::new();
    world.activate(live);
    let (kept, gone) = (world.join(live), world.join(live));
    world.pool.leave(&gone, GoneCause::TimedOut);
    let _running = world.now();
    let _waits = world.later();
    world.arrive();

    let replicas = std::mem::take(&mut world.view.replicas);
    world.pool.apply(&world.view);
    assert!(world.pool.knows(&kept) && world.pool.knows(&gone));
    assert_eq!(world.arrive(), [Note::Demand { service: world.pool.service, demand: 2 }]);

    world.view.demand = 2;
    world.view.replicas = replicas; // control puts them there again
    world.pool.apply(&world.view);
    world.pool.apply(&world.view); // what is on its way is not repeated
    assert_eq!(world.seen(), [(Seen::Ready, 2), (Seen::Gone { cause: GoneCause::TimedOut }, 2)]);
}

#[tokio::test(start_paused = true)]
async fn what_another_process_gave_up_is_not_used_again() {
    let mut world = World::new(2);
    let live = DeploymentId::new();
    world.activate(live);
    let replica = world.join(live);
    world.arrive();
    world.view.replicas[0].seen = Some(Seen::Gone { cause: GoneCause::TimedOut });
    world.pool.apply(&world.view);
    assert_eq!(world.seen(), []);
    assert!(!world.pool.connected::<Vec<_>>().contains(&replica));
    world.later();
}

#[tokio::test(start_paused = true)]
async fn an_obstacle_is_told_to_those_who_wait_and_to_those_who_come() {
    let mut world = World::new(2);
    world.activate(DeploymentId::new());
    let mut waits = world.later();
    let obstacle = Obstacle { message: "no engine".to_owned(), retry_at: Timestamp::now() };
    world.view.obstacle = Some(obstacle.clone());
    world.pool.apply(&world.view);
    assert_eq!(
        waits.turn(soon(), &mut Alarm::default()).await.err(),
        Some(Refusal::Obstacle(obstacle.clone()))
    );
    assert_eq!(world.pool.enter(Again::No).err(), Some(Refusal::Obstacle(obstacle)));
    world.view.obstacle = None;
    world.pool.apply(&world.view);
    world.later();
}

#[tokio::test(start_paused = true)]
async fn no_obstacle_is_in_the_way_of_those_who_wait_for_a_busy_replica() {
    let mut world = World::new(2);
    let live = DeploymentId::new();
    world.activate(live);
    let replica = world.join(live);
    let lease = world.now();
    let obstacle = Obstacle { message: "no engine".to_owned(), retry_at: Timestamp::now() };
    world.view.obstacle = Some(obstacle.clone());
    world.pool.apply(&world.view);
    let mut waits = world.later();
    finish(lease);
    finish(
        waits.turn(soon(), &mut Alarm::default()).await.expect("the replica, now that it is free"),
    );
    assert!(world.pool.leave(&replica, GoneCause::Closed));
    // Without it there is nothing to wait for.
    assert_eq!(world.pool.enter(Again::No).err(), Some(Refusal::Obstacle(obstacle)));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_function_refuses_those_who_wait() {
    let mut world = World::new(2);
    let mut waits = world.later();
    world.view.route = None;
    world.pool.apply(&world.view);
    assert_eq!(waits.turn(soon(), &mut Alarm::default()).await.err(), Some(Refusal::Deleted));
}
