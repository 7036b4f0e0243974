//! Clients that go away, in each phase of a request: what becomes of the request, and of the replica.

use control::service::GoneCause;

use super::{
    table::{get, post},
    world::{DEADLINE, QUEUE, Replica, Wire, World, quiet},
};

/// The client hangs up, and the edge notices.
async fn goes(client: Wire) -> tokio::task::JoinHandle<()> {
    drop(client.stream);
    quiet().await;
    client.served
}

/// The replica serves the next request.
async fn is_kept(world: &mut World, replica: Replica) {
    assert_eq!(world.given_up(), []);
    replica.serve();
    assert!(world.client().is_usable().await);
}

#[tokio::test(start_paused = true)]
async fn before_the_request_is_complete() {
    let mut world = World::new();
    let replica = world.replica();
    let start = post("Content-Length: 9\r\n", "abc");
    for part in [0, 10, start.len() - 4, start.len()] {
        let mut client = world.client();
        client.send(&start[..part]).await;
        assert!(goes(client).await.is_finished(), "{part}");
    }
    let mut chunked = world.client();
    chunked.send(post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n")).await;
    assert!(goes(chunked).await.is_finished());
    let asked = replica.serve();
    assert!(world.client().is_usable().await);
    assert_eq!(asked.lock().len(), 1);
    assert_eq!(world.given_up(), []);
}

#[tokio::test(start_paused = true)]
async fn while_it_waits_its_turn() {
    let mut world = World::new();
    let mut waiting: Vec<_> = (0..QUEUE).map(|_| world.client()).collect();
    for client in &mut waiting {
        client.send(get("")).await;
    }
    quiet().await;
    assert_eq!(world.client().ask(get("")).await.short(), "429 queue_full");
    let leaves = waiting.remove(0);
    assert!(goes(leaves).await.is_finished());
    let mut next = world.client(); // into the place that is free now
    next.send(get("")).await;
    quiet().await;
    let asked = world.replica().serve();
    for client in waiting.iter_mut().chain([&mut next]) {
        assert_eq!(client.told().await.answers[0].status, 200);
    }
    assert_eq!(asked.lock().len(), QUEUE);
    assert_eq!(world.given_up(), []);
}

/// One that sends the next request early is still there.
#[tokio::test(start_paused = true)]
async fn a_client_that_waits_and_asks_more_is_not_gone() {
    let world = World::new();
    let mut client = world.client();
    client.send(get("")).await;
    quiet().await;
    client.send(get("")).await;
    quiet().await;
    let asked = world.replica().serve();
    assert_eq!(client.told().await.answers.len(), 2);
    assert_eq!(asked.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn while_the_function_runs() {
    let mut world = World::new();
    let mut replica = world.replica();
    let mut client = world.client();
    client.send(get("")).await;
    replica.asked().await.expect("a request");
    let served = goes(client).await;
    assert!(!served.is_finished(), "the run is finished for nobody");
    replica.answer("late").await;
    quiet().await;
    assert!(served.is_finished());
    is_kept(&mut world, replica).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_answer_is_written() {
    let mut world = World::new();
    let mut replica = world.replica();
    let mut client = world.client();
    client.send(get("")).await;
    replica.asked().await.expect("a request");
    // More than a socket takes.
    let length = 1_000_000;
    replica.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")).await;
    replica.say("x".repeat(length)).await;
    quiet().await;
    assert!(goes(client).await.is_finished());
    is_kept(&mut world, replica).await;
}

#[tokio::test(start_paused = true)]
async fn in_the_middle_of_an_answer_that_flows() {
    let mut world = World::new();
    let mut replica = world.replica();
    let mut client = world.client();
    client.send(get("")).await;
    replica.asked().await.expect("a request");
    replica.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").await;
    client.told().await;
    let served = goes(client).await;
    for _ in 0..3 {
        replica.say("1\r\nb\r\n").await;
        quiet().await;
    }
    assert!(served.is_finished());
    replica.say("0\r\n\r\n").await;
    quiet().await;
    is_kept(&mut world, replica).await;
}

#[tokio::test(start_paused = true)]
async fn a_flow_for_nobody_ends_at_the_deadline() {
    let mut world = World::new();
    let mut replica = world.replica();
    let mut client = world.client();
    client.send(get("")).await;
    replica.asked().await.expect("a request");
    replica.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").await;
    client.told().await;
    goes(client).await;
    tokio::time::sleep(DEADLINE).await;
    assert_eq!(world.given_up(), [GoneCause::TimedOut]);
    assert!(replica.asked().await.is_none());
}
