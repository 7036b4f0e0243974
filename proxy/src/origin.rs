//! Who a request comes from. Behind a proxy that is trusted it is whom the proxy names; nobody else
//! is believed, since a client can write the same headers.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    middleware::{self, Next},
    response::Response,
};
use http::{HeaderValue, uri::Scheme};
use ipnet::IpNet;

use crate::{
    client::Peer,
    fields::{Fields, trim},
};

/// The proxies before this server.
#[derive(Debug, Default)]
pub(crate) struct Proxies(Vec<IpNet>);

/// What counts as one client: an IPv4 address, or the network of 64 bits that an IPv6 host has for
/// itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey(u64);

impl ClientKey {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // Where IPv6 has its multicast groups, from which nobody connects.
            IpAddr::V4(ip) => Self(0xffff << 48 | u64::from(u32::from(ip))),
            IpAddr::V6(ip) => Self((u128::from(ip) >> 64) as u64), // the upper half
        }
    }
}

impl Proxies {
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        Self(networks.to_vec())
    }

    /// Whether an address is that of a trusted proxy.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whose request it is that came over a connection.
    pub(crate) fn origin<'a>(&self, peer: &'a Peer, fields: &Fields) -> Cow<'a, Peer> {
        let Some(proxy) = peer.address.filter(|_| peer.is_proxy) else {
            return Cow::Borrowed(peer);
        };
        let address = self.client(proxy, fields.all("x-forwarded-for").collect());
        let scheme = scheme(fields.all("x-forwarded-proto").last()).unwrap_or(peer.scheme);
        Cow::Owned(Peer {
            address: Some(address),
            source: address.to_string(),
            scheme,
            is_proxy: self.has(address),
            passes_on: false,
        })
    }

    /// Each proxy adds whom it was asked by to the end of `X-Forwarded-For`. So from the end on each
    /// address is true as long as the one behind it is a trusted proxy's. An entry that is no address
    /// ends the walk at the proxy that wrote it.
    fn client(&self, proxy: IpAddr, mut lines: Vec<&[u8]>) -> IpAddr {
        let mut client = proxy;
        while let Some(line) = lines.pop() {
            for entry in line.rsplit(|byte| *byte == b',') {
                if !self.has(client) {
                    return client;
                }
                match address(trim(entry)) {
                    Some(address) => client = address,
                    None => return client,
                }
            }
        }
        client
    }
}

/// The admin API behind the same proxies: what it knows as the address of a connection is the client's,
/// and the [`Scheme`] among a request's extensions is what the client speaks.
pub(crate) fn behind(proxies: Proxies, api: Router) -> Router {
    api.layer(middleware::from_fn_with_state(Arc::new(proxies), name_client))
}

async fn name_client(
    State(proxies): State<Arc<Proxies>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some((client, scheme)) = named(&proxies, &request) {
        request.extensions_mut().insert(ConnectInfo(client));
        request.extensions_mut().insert(scheme);
    }
    next.run(request).await
}

fn named(proxies: &Proxies, request: &Request) -> Option<(SocketAddr, Scheme)> {
    let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    let address = peer.ip().to_canonical();
    let lines = |name| request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
    let client = proxies.client(address, lines("x-forwarded-for").collect());
    let said = lines("x-forwarded-proto").next_back().filter(|_| proxies.has(address));
    let scheme = if scheme(said) == Some("https") { Scheme::HTTPS } else { Scheme::HTTP };
    Some((SocketAddr::new(client, peer.port()), scheme))
}

/// An address, perhaps with a port, as proxies write it.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = plain.parse().ok().or_else(with_port)?;
    Some(IpAddr::to_canonical(&address))
}

/// What the last proxy says that its client speaks.
fn scheme(last_line: Option<&[u8]>) -> Option<&'static str> {
    let said = trim(last_line?.rsplit(|byte| *byte == b',').next()?);
    ["http", "https"].into_iter().find(|scheme| said.eq_ignore_ascii_case(scheme.as_bytes()))
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use proptest::prelude::*;

    use super::*;

    const TRUSTED: [&str; 3] = ["10.0.0.0/8", "192.0.2.1/32", "2001:db8:1::/48"];

    fn proxies() -> Proxies {
        Proxies::new(&TRUSTED.map(|network| network.parse().expect("a network")))
    }

    fn peer(address: &str) -> Peer {
        let ip: IpAddr = address.parse().expect("an address");
        Peer {
            address: Some(ip),
            source: address.to_owned(),
            scheme: "http",
            is_proxy: proxies().has(ip),
            passes_on: false,
        }
    }

    fn source(from: &str, lines: &[&str]) -> String {
        let mut fields = Fields::default();
        for line in lines {
            fields.push("x-forwarded-for", line.as_bytes());
        }
        let peer = peer(from);
        let origin = proxies().origin(&peer, &fields).into_owned();
        assert_eq!(origin.address.map(|ip| ip.to_string()), Some(origin.source.clone()));
        origin.source
    }

    #[test]
    fn the_right_most_address_that_is_no_proxy_is_the_client() {
        let client = "203.0.113.7";
        for (lines, expected) in [
            (&["203.0.113.7"][..], client),
            (&["203.0.113.7, 10.1.2.3"], client),
            (&["203.0.113.7,10.1.2.3 ,\t192.0.2.1"], client),
            (&["1.1.1.1, 203.0.113.7, 10.1.2.3"], client), // what the client wrote itself
            (&["1.1.1.1", "203.0.113.7", "10.1.2.3"], client),
            (&["203.0.113.7:55000"], client),
            (&["::ffff:203.0.113.7"], client),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["[2001:db8::7]:443, 2001:db8:1::1"], "2001:db8::7"),
            (&["10.9.9.9, 10.1.2.3"], "10.9.9.9"), // it comes from within
            // What is no address is as if it were not there, with all that is before it.
            (&[], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&["unknown"], "10.0.0.1"),
            (&["203.0.113.7, _hidden"], "10.0.0.1"),
            (&["203.0.113.7, 999.1.1.1, 10.1.2.3"], "10.1.2.3"),
            (&["203.0.113.7,"], "10.0.0.1"),
            (&["203.0.113.7 10.1.2.3"], "10.0.0.1"),
            (&["[203.0.113.7"], "10.0.0.1"),
            (&["fe80::1%eth0"], "10.0.0.1"),
            (&["010.0.0.1"], "10.0.0.1"),
            (&["\u{fffd}\u{0}"], "10.0.0.1"),
        ] {
            assert_eq!(source("10.0.0.1", lines), expected, "{lines:?}");
        }
        assert_eq!(source("2001:db8:1::9", &["203.0.113.7"]), client);
    }

    #[test]
    fn nobody_else_is_believed() {
        for lines in [&["203.0.113.7"][..], &["10.0.0.1"], &["x"], &[]] {
            assert_eq!(source("198.51.100.1", lines), "198.51.100.1", "{lines:?}");
            assert_eq!(source("192.0.2.2", lines), "192.0.2.2", "{lines:?}");
        }
        let mut fields = Fields::default();
        fields.push("x-forwarded-proto", b"https");
        assert_eq!(proxies().origin(&peer("198.51.100.1"), &fields).scheme, "http");
        let unix = Peer { address: None, ..peer("10.0.0.1") };
        assert_eq!(proxies().origin(&unix, &fields).scheme, "http");
    }

    #[tokio::test]
    async fn the_admin_api_knows_the_client_too() {
        let echo = |ConnectInfo(peer): ConnectInfo<SocketAddr>,
                    Extension(scheme): Extension<Scheme>| async move {
            format!("{scheme} {peer}")
        };
        let api = Router::new().route("/", axum::routing::get(echo));
        let api = TowerToHyperService::new(behind(proxies(), api));
        let ask = async |from: &str, lines: &[&str]| {
            let from: SocketAddr = from.parse().expect("an address");
            let mut request = http::Request::new(axum::body::Body::empty());
            request.extensions_mut().insert(ConnectInfo(from));
            for line in lines {
                let line = HeaderValue::from_str(line).expect("a header value");
                request.headers_mut().append("x-forwarded-for", line);
            }
            let https = HeaderValue::from_static("http, https");
            request.headers_mut().append("x-forwarded-proto", https);
            let Ok(answer) = api.call(request).await;
            let body = axum::body::to_bytes(answer.into_body(), 100).await.expect("a body");
            String::from_utf8_lossy(&body).into_owned()
        };
        let client = "https 203.0.113.7:5";
        assert_eq!(ask("10.0.0.1:5", &["1.1.1.1, 203.0.113.7", "10.1.2.3"]).await, client);
        assert_eq!(ask("[::ffff:10.0.0.1]:5", &["203.0.113.7"]).await, client);
        assert_eq!(ask("10.0.0.1:5", &[]).await, "https 10.0.0.1:5");
        assert_eq!(ask("198.51.100.1:5", &["203.0.113.7"]).await, "http 198.51.100.1:5");
    }

    #[test]
    fn a_proxy_says_what_its_client_speaks() {
        for (lines, expected) in [
            (&["https"][..], "https"),
            (&["HTTPS"], "https"),
            (&["http, https "], "https"),
            (&["https", "http"], "http"),
            (&["gopher"], "http"),
            (&[""], "http"),
            (&[], "http"),
        ] {
            let mut fields = Fields::default();
            for line in lines {
                fields.push("x-forwarded-proto", line.as_bytes());
            }
            assert_eq!(proxies().origin(&peer("10.0.0.1"), &fields).scheme, expected, "{lines:?}");
        }
    }

    #[test]
    fn clients_are_addresses_or_networks_of_64_bits() {
        let key = |text: &str| ClientKey::of(text.parse().expect("an address"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:0:0:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.2"), key("192.0.2.1"));
        assert_ne!(key("::1"), key("0.0.0.0"));
    }

    proptest! {
        /// Whatever is written before it, the address that a proxy saw is the client.
        #[test]
        fn a_client_cannot_write_its_own_address(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
            forged in "[0-9a-f:.,\\[\\] ]{0,40}",
        ) {
            let mut fields = Fields::default();
            for line in &lines {
                fields.push("x-forwarded-for", line);
                fields.push("x-forwarded-proto", line);
            }
            fields.push("x-forwarded-for", format!("{forged}, 203.0.113.7").as_bytes());
            let peer = peer("10.0.0.1");
            prop_assert_eq!(&proxies().origin(&peer, &fields).source, "203.0.113.7");
        }

        #[test]
        fn nothing_that_a_proxy_sends_panics(line in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut fields = Fields::default();
            fields.push("x-forwarded-for", &line);
            fields.push("x-forwarded-proto", &line);
            let peer = peer("10.0.0.1");
            let origin = proxies().origin(&peer, &fields).into_owned();
            prop_assert!(["http", "https"].contains(&origin.scheme));
        }
    }
}
