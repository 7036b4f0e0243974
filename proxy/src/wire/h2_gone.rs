//! HTTP/2: clients that reset streams or hang up, connections that rest, and the stop.

use std::time::Duration;

use bytes::Bytes;
use control::limits;
use h2::Reason;

use super::{
    h2_client::{H2, request},
    world::{QUEUE, World, quiet},
};

const CHUNKS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_reset_stream_gives_up_its_place_and_finishes_what_runs() {
    let mut world = World::new();
    let mut client = world.h2().await;
    // In the middle of its body.
    let mut asking = client.open(request("POST", "/fn/f"), false).await;
    asking.body.send_data(Bytes::from("x"), false).expect("room");
    quiet().await;
    asking.body.send_reset(Reason::CANCEL);
    quiet().await;
    assert_eq!(world.gateway.traffic.running(), 0);
    // While it waits.
    let mut waiting = Vec::new();
    for _ in 0..QUEUE {
        waiting.push(client.open(request("GET", "/fn/f"), true).await);
    }
    quiet().await;
    for mut asking in waiting {
        asking.body.send_reset(Reason::CANCEL);
    }
    quiet().await;
    assert_eq!(world.gateway.traffic.running(), 0);
    // While it runs, and in the middle of its answer.
    let mut replica = world.replica();
    for answer in ["HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", "1\r\nx\r\n0\r\n\r\n"] {
        let mut asking = client.open(request("GET", "/fn/f"), true).await;
        replica.asked().await.expect("a request");
        if !answer.starts_with("HTTP") {
            replica.say(format!("{CHUNKS}1\r\na\r\n")).await;
            quiet().await;
        }
        asking.body.send_reset(Reason::CANCEL);
        quiet().await;
        assert_ne!(world.gateway.traffic.running(), 0);
        replica.say(answer).await;
        quiet().await;
        assert_eq!(world.gateway.traffic.running(), 0);
    }
    assert_eq!(world.given_up(), []);
    replica.serve();
    assert!(client.is_usable().await);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_takes_its_waiting_requests_along() {
    let mut world = World::new();
    let mut replica = world.replica();
    let mut client = world.h2().await;
    let _runs = client.open(request("GET", "/fn/f/runs"), true).await;
    replica.asked().await.expect("a request");
    let _waits = client.open(request("GET", "/fn/f/waits"), true).await;
    let mut half = client.open(request("POST", "/fn/f/half"), false).await;
    half.body.send_data(Bytes::from("x"), false).expect("room");
    quiet().await;
    assert_eq!(world.gateway.traffic.running(), 3);
    client.driver.abort();
    quiet().await;
    assert_eq!(world.gateway.traffic.running(), 1, "what runs is finished for nobody");
    assert!(!client.served.is_finished());
    replica.answer("late").await;
    quiet().await;
    assert!(client.served.is_finished());
    assert_eq!(world.given_up(), []);
    let asked = replica.serve();
    assert!(world.h2().await.is_usable().await);
    assert_eq!(asked.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_asked_to_go_and_then_ended() {
    let world = World::new();
    world.replica().serve();
    let mut client = world.h2().await;
    tokio::time::sleep(limits::KEEP_ALIVE - Duration::from_secs(1)).await;
    assert!(client.is_usable().await);
    tokio::time::sleep(limits::KEEP_ALIVE - Duration::from_secs(1)).await;
    assert!(!client.driver.is_finished());
    tokio::time::sleep(Duration::from_secs(2)).await;
    // A client that obeys goes by itself.
    let H2 { open, driver, served } = client;
    assert!(open.ready().await.is_err());
    assert!(driver.await.expect("it ended").is_ok());
    quiet().await;
    assert!(served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_running_request_is_no_idleness() {
    let world = World::new();
    let mut client = world.h2().await;
    let mut replica = world.replica();
    let asking = client.open(request("GET", "/fn/f"), true).await;
    replica.asked().await.expect("a request");
    replica.say(format!("{CHUNKS}1\r\na\r\n")).await;
    // As long as the function may take.
    tokio::time::sleep(Duration::from_secs(29)).await;
    replica.say("0\r\n\r\n").await;
    assert_eq!(asking.answer().await.expect("an answer").body, b"a");
    replica.serve();
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(client.is_usable().await);
}
