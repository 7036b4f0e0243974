//! The private socket of the process that serves. Through it the process that it replaced passes on
//! what still comes over its own connections: HTTP/1.1, and beside the request who asked it.

use std::{
    fs::Permissions,
    io,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use http::Method;
use pingora_core::protocols::l4::stream::Stream;
use tokio::{net::UnixStream, task::JoinSet, time::Instant};

use crate::{
    bound::Alarm,
    client::Peer,
    denial::Denial,
    exchange::{self, Answer},
    gateway::Gateway,
    http1,
    link::Link,
};

/// Pause before a hatch that is too busy, or not open yet, is tried again.
const AGAIN: Duration = Duration::from_millis(10);
/// How often it is tried.
const TRIES: usize = 100;

/// Opens the hatch at a path, in one step: whoever dials finds this process or the one before. Only
/// this user, and root, can pass.
pub(crate) fn open(path: &Path) -> io::Result<UnixListener> {
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    std::fs::rename(fresh, path)?;
    Ok(listener)
}

/// Answers what comes through the hatch, until it is dropped.
pub(crate) async fn serve(listener: UnixListener, gateway: Arc<Gateway>) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the private socket cannot be served: upgrades will lose requests");
            return;
        }
    };
    let own = nix::unistd::Uid::effective().as_raw();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let user = stream.peer_cred().map(|peer| peer.uid());
                    if !user.is_ok_and(|user| user == own || user == 0) {
                        continue; // it may have dialled before the mode was set
                    }
                    let gateway = gateway.clone();
                    tasks.spawn(async move {
                        let _connection = gateway.traffic.connect();
                        let stream = Box::new(Stream::from(stream));
                        http1::serve(stream, &gateway, &Peer::passing_on()).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the private socket did not accept");
                    tokio::time::sleep(AGAIN).await;
                }
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Has the process behind a hatch answer a request, whose head `write` writes.
pub(crate) async fn pass(
    hatch: &Path,
    write: impl FnOnce(&mut Vec<u8>),
    method: &Method,
    body: &[u8],
    within: Duration,
) -> Result<Answer, Denial> {
    let deadline = Instant::now() + within;
    let mut link = dial(hatch).await.and_then(Link::new).map_err(|error| {
        tracing::warn!(%error, "a request was not passed on");
        Denial::Stopping
    })?;
    write(&mut link.wire);
    // That process has its own bounds, and keeps to them.
    let mut alarm = Alarm::default();
    let answer = exchange::run(link, method, body, usize::MAX, deadline, &mut alarm).await;
    answer.map_err(|fault| {
        tracing::warn!(?fault, "a request that was passed on was not answered");
        Denial::Stopping
    })
}

async fn dial(hatch: &Path) -> io::Result<UnixStream> {
    let mut tries = 0;
    loop {
        tries += 1;
        match UnixStream::connect(hatch).await {
            // Many requests come at the same moment.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < TRIES => {
                tokio::time::sleep(AGAIN).await;
            }
            outcome => return outcome,
        }
    }
}
