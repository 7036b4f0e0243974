//! The host's own DNS servers: which they are, and asking them. Ids, source ports and what counts
//! as an answer to a question over UDP are hickory's.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV6},
    sync::atomic::{AtomicUsize, Ordering},
};

use hickory_net::{
    runtime::TokioRuntimeProvider,
    udp::UdpClientStream,
    xfer::{DnsRequestSender, FirstAnswer},
};
use hickory_proto::{
    op::{DnsRequest, DnsRequestOptions, Message, MessageType, Query, ResponseCode},
    rr::{Name, RecordType},
};
use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{limits, listen};
use crate::error::{Error, Result};

/// Upstream servers in the text of the host's `/etc/resolv.conf`.
///
/// # Errors
/// It names none.
pub fn upstreams_of(resolv_conf: &str) -> Result<Vec<SocketAddr>> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next().and_then(server))?
    };
    let servers: Vec<SocketAddr> = resolv_conf.lines().filter_map(address).collect();
    if servers.is_empty() {
        return Err(Error::Resolver {
            operation: "find DNS servers in",
            subject: "/etc/resolv.conf".to_owned(),
            reason: "no line `nameserver ADDRESS`; add one, or name the servers in GRID_EGRESS_DNS_SERVERS"
                .to_owned(),
        });
    }
    Ok(servers)
}

/// An address as resolv.conf has it; a link-local one may carry the number of its interface.
fn server(word: &str) -> Option<SocketAddr> {
    if let Some((address, scope)) = word.split_once('%') {
        let scope = scope.parse().ok()?;
        return Some(SocketAddrV6::new(address.parse().ok()?, 53, 0, scope).into());
    }
    let address: IpAddr = word.parse().ok()?;
    Some(SocketAddr::new(address, 53))
}

/// The servers, and which of them answered last.
#[derive(Debug)]
pub(super) struct Upstream {
    servers: Vec<SocketAddr>,
    preferred: AtomicUsize,
    /// When it was last said that none answers.
    told: Mutex<Option<Instant>>,
}

impl Upstream {
    pub(super) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, preferred: AtomicUsize::new(0), told: Mutex::default() }
    }

    pub(super) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// The first answer that says what there is or that there is nothing; none when no server gave
    /// one.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Option<Message> {
        let (least, most) = limits::ATTEMPTS;
        let first = self.preferred.load(Ordering::Relaxed);
        let mut silent = true;
        for attempt in 0..self.servers.len().clamp(least, most) {
            let index = (first + attempt) % self.servers.len();
            let server = self.servers[index];
            let query = Query::query(name.clone(), kind);
            let problem = match timeout(limits::ATTEMPT, exchange(server, query)).await {
                Ok(Ok(reply)) => match reply.response_code {
                    ResponseCode::NoError | ResponseCode::NXDomain => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Some(reply);
                    }
                    code => {
                        silent = false;
                        code.to_string()
                    }
                },
                Ok(Err(problem)) => problem,
                Err(_) => "no answer in time".to_owned(),
            };
            tracing::debug!(%server, %name, %kind, %problem, "an upstream DNS server is no help");
        }
        if silent && self.is_news() {
            // Only a line: whoever makes a name that no server can find in time would else take
            // Grid out of service.
            tracing::warn!(%name, servers = ?self.servers, "no upstream DNS server answers: functions cannot resolve names");
        }
        None
    }

    /// Whether it has not been said for a while.
    fn is_news(&self) -> bool {
        let mut told = self.told.lock();
        let news = told.is_none_or(|at| at.elapsed() >= limits::SILENCE_TOLD_EVERY);
        if news {
            *told = Some(Instant::now());
        }
        news
    }
}

/// One question to one server, over UDP and, when the answer does not fit, over TCP.
async fn exchange(server: SocketAddr, query: Query) -> Result<Message, String> {
    let request = DnsRequest::from_query(query, DnsRequestOptions::default());
    let mut udp = UdpClientStream::builder(server, TokioRuntimeProvider::new())
        .with_timeout(Some(limits::ATTEMPT))
        .with_max_retries(2)
        .with_retry_interval_floor(limits::REPEAT_MILLIS)
        .build();
    let reply = udp.send_message(request.clone()).first_answer().await;
    let reply = reply.map_err(|e| e.to_string())?.into_message();
    let reply = if reply.truncation { over_tcp(server, &request).await? } else { reply };
    let is_answer = reply.message_type == MessageType::Response
        && reply.id == request.id
        && reply.queries == request.queries;
    if is_answer { Ok(reply) } else { Err("it answered something else".to_owned()) }
}

async fn over_tcp(server: SocketAddr, request: &Message) -> Result<Message, String> {
    let request = request.to_vec().map_err(|e| e.to_string())?;
    let mut stream = TcpStream::connect(server).await.map_err(|e| e.to_string())?;
    listen::write(&mut stream, &request).await.map_err(|e| e.to_string())?;
    let reply = listen::read(&mut stream, limits::UPSTREAM_BYTES).await;
    Message::from_vec(&reply.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_servers_are_read() {
        let text = "# a comment\n; another\nsearch example.com\nnameserver 9.9.9.9\n\
            nameserver\t2620:fe::fe # trailing\n  nameserver 127.0.0.53\nnameserver fe80::1%2\n\
            nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\noptions edns0\n\
            #nameserver 1.1.1.1\nnameservers 1.1.1.1\n";
        let servers = upstreams_of(text).expect("servers");
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["9.9.9.9:53", "[2620:fe::fe]:53", "127.0.0.53:53", "[fe80::1%2]:53"]);
    }

    #[test]
    fn a_host_without_servers_is_told() {
        for text in ["", "search example.com", "nameserver x", "# nameserver 1.1.1.1"] {
            let error = upstreams_of(text).expect_err(text).to_string();
            assert!(error.contains("/etc/resolv.conf") && error.contains("nameserver"), "{error}");
        }
    }
}
