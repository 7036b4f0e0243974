//! One replica, and requests that wait for it.

use std::{
    io::{self, Read as _},
    os::{fd::AsFd, unix::net::UnixStream},
};

use bytes::Bytes;

use super::{
    table::get,
    world::{HOST, World, quiet},
};
use crate::{
    bound::Alarm,
    client::{Client, Peer, Reply},
    denial::Denial,
    request::Request,
};

/// A client that looks at what the replica has got when its own answer comes.
struct Looks {
    replica: UnixStream,
    seen: Vec<u8>,
}

impl Client for Looks {
    async fn body(&mut self, _: usize) -> Result<Bytes, Denial> {
        Ok(Bytes::new())
    }

    async fn gone(&mut self) {
        std::future::pending().await
    }

    async fn send(&mut self, _: Reply<'_>) -> io::Result<()> {
        // It does not block: it is the same socket that the test waits with.
        match self.replica.read_to_end(&mut self.seen) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            outcome => panic!("the edge keeps it open: {outcome:?}"),
        }
    }
}

/// What a client gets to see of the replica when it is answered, while somebody waits or nobody.
async fn seen_when_answered(somebody: bool) -> String {
    let world = World::new();
    let mut replica = world.replica();
    let second = replica.stream.as_fd().try_clone_to_owned().expect("a descriptor");
    let mut client = Looks { replica: second.into(), seen: Vec::new() };
    let request = Request { target: "/fn/f/first".into(), host: HOST.into(), ..Request::default() };
    let gateway = world.gateway.clone();
    let first = tokio::spawn(async move {
        gateway
            .answer(
                &mut client,
                &request,
                &Peer { scheme: "http", ..Peer::default() },
                &mut Alarm::default(),
            )
            .await;
        String::from_utf8(client.seen).expect("a head")
    });
    assert_eq!(replica.asked().await.expect("a request").target(), "/fn/f/first");
    let mut waits = world.client();
    if somebody {
        waits.send(get("")).await;
        quiet().await;
    }
    replica.answer("done").await;
    first.await.expect("answered")
}

#[tokio::test(start_paused = true)]
async fn a_replica_has_its_next_request_before_its_last_answer_is_passed_on() {
    let seen = seen_when_answered(true).await;
    assert!(seen.starts_with("GET /fn/f") && seen.ends_with("\r\n\r\n"), "{seen}");
    assert_eq!(seen_when_answered(false).await, "");
}
