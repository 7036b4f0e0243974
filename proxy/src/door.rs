//! What a new connection has to pass before anything else is done for it: there must be room, and
//! behind proxies that speak the PROXY protocol, its header.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::BytesMut;
use control::{config::Config, limits};
use governor::{
    Quota, RateLimiter,
    state::{InMemoryState, NotKeyed},
};
use pingora_core::{
    listeners::PreTlsProcess,
    protocols::{
        GetSocketDigest, SocketDigest, Stream,
        l4::{socket::SocketAddr as PeerAddr, stream::Stream as L4Stream},
    },
    upstreams::peer::Tracer,
};
use tokio::{io::AsyncReadExt, time::timeout};

use crate::{
    connections::{Carried, Connections, Full},
    files,
    origin::{ClientKey, Proxies},
    proxy_protocol::{self, BadHeader},
    rate::RuntimeClock,
};

/// How often the log says that connections are refused.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Lets connections in.
pub(crate) struct Door {
    proxies: Arc<Proxies>,
    /// Connections begin with a PROXY header.
    proxy_protocol: bool,
    connections: Arc<Connections>,
    told: Told,
}

/// Why a connection is closed at once.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "{0} connections are open, as many as GRID_MAX_CONNECTIONS and the limit of open files allow"
    )]
    Full(usize),
    #[error(
        "{0} has {1} connections, as many as GRID_CLIENT_CONNECTIONS allows; if it is a proxy, name it in GRID_TRUSTED_PROXIES"
    )]
    FullForClient(IpAddr, usize),
    #[error("{0} is not in GRID_TRUSTED_PROXIES, and GRID_PROXY_PROTOCOL is on")]
    NoProxy(IpAddr),
    #[error("a connection of {0}: {1}, and GRID_PROXY_PROTOCOL is on")]
    BadHeader(IpAddr, BadHeader),
    #[error("it is closed already")]
    Gone,
}

impl Door {
    pub(crate) fn new(config: &Config, proxies: Arc<Proxies>) -> Self {
        let most_of_client = config.client_connections as usize;
        let most = files::connections(config.max_connections, config.max_replicas);
        Self {
            proxies,
            proxy_protocol: config.proxy_protocol,
            connections: Connections::new(most, most_of_client),
            told: Told::new(),
        }
    }

    /// Lets a connection in, or closes it. One with TLS came in before its handshake.
    pub(crate) async fn admit(&self, stream: Stream) -> Option<Stream> {
        if stream.get_ssl_digest().is_some() {
            return Some(stream);
        }
        // There is nothing else than sockets and TLS over them.
        let mut stream = stream.into_any().downcast::<L4Stream>().ok()?;
        self.pass(&mut stream).await.ok()?;
        Some(stream)
    }

    async fn pass(&self, stream: &mut L4Stream) -> Result<(), Refused> {
        let passed = self.try_pass(stream).await;
        if let Err(refused) = &passed {
            self.told.tell(refused);
        }
        passed
    }

    async fn try_pass(&self, stream: &mut L4Stream) -> Result<(), Refused> {
        let mut place = self.connections.enter().map_err(|Full(most)| Refused::Full(most))?;
        let peer = |stream: &L4Stream| {
            let digest = stream.get_socket_digest()?;
            digest.peer_addr()?.as_inet().map(|address| address.ip().to_canonical())
        };
        if self.proxy_protocol
            && let Some(proxy) = peer(stream)
            && let Some(client) = self.header(stream, proxy).await?
        {
            let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
            let _ = digest.peer_addr.set(Some(PeerAddr::Inet(client))); // it is new
            stream.set_socket_digest(digest);
        }
        if let Some(client) = peer(stream).filter(|address| !self.proxies.has(*address)) {
            let counted = place.belongs_to(ClientKey::of(client));
            counted.map_err(|Full(most)| Refused::FullForClient(client, most))?;
        }
        stream.tracer = Some(Tracer(Box::new(Carried(Arc::new(place)))));
        Ok(())
    }

    /// Reads for whom a proxy connects.
    async fn header(
        &self,
        stream: &mut L4Stream,
        proxy: IpAddr,
    ) -> Result<Option<SocketAddr>, Refused> {
        if !self.proxies.has(proxy) {
            // One that hangs up without a word, as our own look at the start does, is not worth one.
            let word = timeout(limits::LINGER, stream.read(&mut [0])).await;
            let silent = matches!(word, Ok(Ok(0) | Err(_)));
            return Err(if silent { Refused::Gone } else { Refused::NoProxy(proxy) });
        }
        let mut buffer = BytesMut::new();
        let header = proxy_protocol::read(stream, &mut buffer);
        let header = timeout(limits::PROXY_HEADER, header).await.unwrap_or(Err(BadHeader::Ended));
        if header == Err(BadHeader::Ended) && buffer.is_empty() {
            return Err(Refused::Gone);
        }
        let client = header.map_err(|bad| Refused::BadHeader(proxy, bad))?;
        stream.rewind(&buffer);
        Ok(client)
    }
}

/// TLS begins behind the PROXY header, and costs something: so its connections pass before it.
#[async_trait]
impl PreTlsProcess for Door {
    async fn process(&self, stream: &mut L4Stream) -> pingora_core::Result<()> {
        use pingora_core::{ErrorType, OrErr};
        self.pass(stream).await.or_err(ErrorType::AcceptError, "refused at the door")
    }
}

/// Tells of each kind of refusal now and then, whatever comes.
struct Told([(RateLimiter<NotKeyed, InMemoryState, RuntimeClock>, AtomicU64); 4]);

impl Told {
    fn new() -> Self {
        Self(std::array::from_fn(|_| {
            let quota = Quota::with_period(TELL_EVERY);
            let quota = quota.unwrap_or(Quota::per_second(NonZeroU32::MIN)); // it is not zero
            (RateLimiter::direct_with_clock(quota, RuntimeClock), AtomicU64::new(0))
        }))
    }

    fn tell(&self, refused: &Refused) {
        let kind = match refused {
            Refused::Full(_) => 0,
            Refused::FullForClient(..) => 1,
            Refused::NoProxy(_) => 2,
            Refused::BadHeader(..) => 3,
            Refused::Gone => return,
        };
        let (rarely, count) = &self.0[kind];
        count.fetch_add(1, Ordering::Relaxed);
        if rarely.check().is_ok() {
            let connections = count.swap(0, Ordering::Relaxed);
            tracing::warn!(connections, "refused: {refused}");
        }
    }
}

#[cfg(test)]
mod tests;
