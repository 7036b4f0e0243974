//! What a gateway needs of the other side of a request, whichever version of HTTP it speaks.

use std::{borrow::Cow, io, net::IpAddr};

use bytes::Bytes;
use http::StatusCode;
use pingora_core::protocols::Stream;

use crate::{denial::Denial, fields::Fields, flow::Flow, origin::Proxies, request::Request};

/// Who asks one request.
pub(crate) trait Client: Send {
    /// Reads the whole body, of at most so many bytes.
    fn body(&mut self, most_bytes: usize) -> impl Future<Output = Result<Bytes, Denial>> + Send;

    /// Ends when the client has hung up. A client that sends its next request early is still there.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;

    /// Writes the reply, as fast as the client reads it.
    fn send(&mut self, reply: Reply<'_>) -> impl Future<Output = io::Result<()>> + Send;
}

/// What a client is told.
pub(crate) struct Reply<'a> {
    pub(crate) status: StatusCode,
    /// Without those that frame the body.
    pub(crate) fields: &'a Fields,
    pub(crate) body: Body,
    /// The connection ends with this reply.
    pub(crate) last: bool,
}

impl Reply<'_> {
    /// The length that its head tells, when it tells one.
    pub(crate) fn length(&self) -> Option<u64> {
        let bodiless = matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = match &self.body {
            Body::Whole(body) => Some(body.len() as u64),
            Body::Absent(length) => *length,
            Body::Flow(flow) => flow.length,
        };
        length.filter(|_| !bodiless)
    }
}

/// A reply's body.
#[derive(Debug)]
pub(crate) enum Body {
    Whole(Bytes),
    /// None, but so long would it be: the answer to HEAD.
    Absent(Option<u64>),
    /// It is still being made.
    Flow(Flow),
}

/// Where a connection comes from, or a request that a proxy passes on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// None for connections without an address.
    pub(crate) address: Option<IpAddr>,
    /// The address as text, once per connection.
    pub(crate) source: String,
    pub(crate) scheme: &'static str,
    /// What it says of its clients is believed.
    pub(crate) is_proxy: bool,
    /// It is a process of ours, which says with each request who asked it.
    pub(crate) passes_on: bool,
}

impl Peer {
    /// Who is on the other side of a new connection.
    pub(crate) fn of(stream: &Stream, proxies: &Proxies) -> Self {
        let digest = stream.get_socket_digest();
        let address = digest.as_ref().and_then(|d| d.peer_addr()?.as_inet()).map(|addr| addr.ip());
        // An IPv4 client of a socket for both kinds is an IPv4 client.
        let address = address.map(|ip| ip.to_canonical());
        Self {
            address,
            source: address.map(|ip| ip.to_string()).unwrap_or_default(),
            scheme: if stream.get_ssl_digest().is_some() { "https" } else { "http" },
            is_proxy: address.is_some_and(|ip| proxies.has(ip)),
            passes_on: false,
        }
    }

    /// A process that passes on what others ask.
    pub(crate) fn passing_on() -> Self {
        Self { scheme: "http", passes_on: true, ..Self::default() }
    }

    /// Who asked a request: this one, or who it says.
    pub(crate) fn behind(&self, request: &Request) -> Cow<'_, Self> {
        if !self.passes_on {
            return Cow::Borrowed(self);
        }
        let told = |name| std::str::from_utf8(request.fields.get(name)?).ok();
        let source = told("x-grid-source-ip").unwrap_or_default();
        Cow::Owned(Self {
            address: source.parse().ok(),
            source: source.to_owned(),
            scheme: if told("x-grid-scheme") == Some("https") { "https" } else { "http" },
            is_proxy: false, // it was asked already whom it names
            passes_on: true,
        })
    }
}
