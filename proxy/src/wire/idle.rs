//! Very many connections that rest.

use control::limits;
use tokio::io::{AsyncReadExt, duplex};

use super::world::{World, quiet};
use crate::{client::Peer, http1};

/// Each costs what it costs and no more, nobody else waits, and all of them end in time.
#[tokio::test(start_paused = true)]
async fn ten_thousand_idle_connections() {
    let world = World::new();
    world.replica().serve();
    let mut idle = Vec::new();
    for _ in 0..10_000 {
        let (ours, theirs) = duplex(64);
        let gateway = world.gateway.clone();
        let peer = Peer { scheme: "http", ..Peer::default() };
        let served = tokio::spawn(async move {
            http1::serve(Box::new(ours), &gateway, &peer).await;
        });
        idle.push((theirs, served));
    }
    quiet().await;
    let mut client = world.client();
    assert!(client.is_usable().await);
    tokio::time::sleep(limits::KEEP_ALIVE / 2).await;
    assert!(client.is_usable().await);
    assert!(idle.iter().all(|(_, served)| !served.is_finished()));
    tokio::time::sleep(limits::KEEP_ALIVE / 2).await;
    assert!(client.is_usable().await);
    for (mut theirs, served) in idle {
        assert!(served.is_finished());
        assert_eq!(theirs.read(&mut [0]).await.expect("an end"), 0);
    }
}
