//! An internet of the tests' own: hosts in the lab's second network namespace, at any address, with
//! servers that record who came. What is not there answers nothing, and nothing lies behind it.

mod checks;
pub(crate) mod dns;
pub(crate) mod servers;

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    panic::resume_unwind,
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

pub(crate) use crate::lab::exclusive;
use crate::{
    internet::{
        dns::{NameServer, Zone},
        servers::{Datagrams, Listener, http},
    },
    lab::{assert_inside, ip, locked, nft},
    process::output_of,
};

/// A host of the test's internet; its address goes with the last of it and its servers.
pub(crate) struct Host(Arc<Place>);

/// An address, and a count of what arrived there.
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    _claim: Option<File>,
}

impl Host {
    /// At an address that the test chooses. Another test that wants the same waits, so: a test that
    /// needs several takes them in ascending order.
    pub(crate) fn at(address: IpAddr) -> Self {
        assert_inside();
        Self::new(address, Some(locked(&format!("hosts/{address}"), File::try_lock)))
    }

    /// At a public address that no other test has: a process's number is its own.
    pub(crate) fn public() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert_inside();
        let slot = NEXT.fetch_add(1, Ordering::Relaxed) % 16;
        let number = (process::id() << 4) | slot;
        let start = u32::from(Ipv4Addr::new(20, 0, 0, 0));
        Self::new(Ipv4Addr::from_bits(start + (number & 0x03ff_ffff)).into(), None)
    }

    fn new(address: IpAddr, claim: Option<File>) -> Self {
        let place = Place { address, _claim: claim };
        ip(&["-n", "grid-lab-net", "address", "replace", &place.prefix(), "dev", "lo"]);
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        let table = place.table();
        // Added and deleted first: one may be left of a test that was killed.
        let script = format!(
            "add table inet {table}; delete table inet {table}; add table inet {table}; \
             add chain inet {table} arrived {{ type filter hook prerouting priority raw; }}; \
             add rule inet {table} arrived iifname lab {family} daddr {address} counter"
        );
        outside(|| nft(&[&script]));
        Self(Arc::new(place))
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.0.address
    }

    /// How many packets have come to this address, of any protocol and to any port.
    pub(crate) fn packets(&self) -> u64 {
        let listed = outside(|| nft(&["-j", "list", "table", "inet", &self.0.table()]));
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let rules = listed["nftables"].as_array().expect("a list").iter();
        let mut parts =
            rules.flat_map(|item| item["rule"]["expr"].as_array().into_iter().flatten());
        parts.find_map(|part| part["counter"]["packets"].as_u64()).expect("a counter")
    }

    /// A web server that answers everything with 200 and the text `internet`.
    pub(crate) fn tcp(&self, port: u16) -> Listener {
        self.tcp_with(port, |_| http("200 OK", &[], "internet"))
    }

    /// A web server that answers a request's text with these bytes; with none it hangs up.
    pub(crate) fn tcp_with(
        &self,
        port: u16,
        answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Listener {
        Listener::start(Arc::clone(&self.0), port, answer)
    }

    /// Answers every datagram with the text `internet`.
    pub(crate) fn udp(&self, port: u16) -> Datagrams {
        Datagrams::start(Arc::clone(&self.0), port)
    }

    /// A name server on port 53, over UDP and TCP.
    pub(crate) fn dns(&self, zone: Zone) -> NameServer {
        NameServer::start(Arc::clone(&self.0), zone)
    }
}

impl Place {
    fn prefix(&self) -> String {
        format!("{}/{}", self.address, if self.address.is_ipv4() { 32 } else { 128 })
    }

    fn table(&self) -> String {
        format!("host_{}", self.address.to_string().replace(['.', ':'], "_"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What fails here must not hide why the test failed.
        let (prefix, table) = (self.prefix(), self.table());
        let delete = ["-n", "grid-lab-net", "address", "delete", &prefix, "dev", "lo"];
        drop(output_of("ip", &delete));
        drop(outside(|| output_of("nft", &["delete", "table", "inet", &table])));
    }
}

/// Does something in the network of the internet: sockets and processes that it makes are there.
pub(crate) fn outside<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let in_there = || {
        let network = File::open("/run/netns/grid-lab-net").expect("the internet of the tests");
        setns(network, CloneFlags::CLONE_NEWNET).expect("entered");
        act()
    };
    let outcome = thread::scope(|scope| scope.spawn(in_there).join());
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}
