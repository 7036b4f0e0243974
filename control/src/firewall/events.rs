//! Tells when somebody changes packet filter rules, links or routes of this machine. What changed
//! is not read: every message means "look again".

use std::{io, time::Duration};

use netlink_sys::{
    AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};

/// Group 7 of netfilter: changes of nftables, and quotas that are used up.
const NFTABLES: u32 = 1 << 6;
/// Group 1 of routing: links.
const LINKS: u32 = 1;
/// Groups 7, 8 and 19 of routing: IPv4 routes and rules, IPv6 rules.
const ROUTES: u32 = 1 << 6 | 1 << 7 | 1 << 18;
/// A message may be longer; its rest is dropped.
const BUFFER: usize = 8 * 1024;

/// What changed, roughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Packet filter rules; or the first denial since denials were read.
    Rules,
    /// Links: also when a container starts or ends, so what follows from it has to be cheap.
    Links,
    /// Routes or routing rules.
    Routes,
}

/// A subscription to all of them.
pub(super) struct Events {
    filter: TokioSocket,
    links: TokioSocket,
    routes: TokioSocket,
}

impl Events {
    pub(super) fn subscribe() -> io::Result<Self> {
        Ok(Self {
            filter: subscribe(NETLINK_NETFILTER, NFTABLES)?,
            links: subscribe(NETLINK_ROUTE, LINKS)?,
            routes: subscribe(NETLINK_ROUTE, ROUTES)?,
        })
    }

    /// Waits for the next change, and takes all of its kind that have come by then: one look is
    /// enough for all of them.
    pub(super) async fn next(&mut self) -> Change {
        let change = tokio::select! {
            () = message(&mut self.filter) => Change::Rules,
            () = message(&mut self.links) => Change::Links,
            () = message(&mut self.routes) => Change::Routes,
        };
        let socket = match change {
            Change::Rules => &mut self.filter,
            Change::Links => &mut self.links,
            Change::Routes => &mut self.routes,
        };
        while tokio::time::timeout(Duration::ZERO, message(socket)).await.is_ok() {}
        change
    }
}

/// The next message. An error is one of too many at once: then something has changed as well.
async fn message(socket: &mut TokioSocket) {
    let _ = socket.recv(&mut Vec::with_capacity(BUFFER)).await;
}

fn subscribe(protocol: isize, groups: u32) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}
