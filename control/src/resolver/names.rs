//! Names that are answered here and never asked upstream: those that mean something only on one
//! host or in one private network, the reverse names of blocked ranges, and Grid's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType},
};

use super::cache::Found;
use crate::egress::EgressPolicy;

/// The name by which Grid checks that a function reaches the resolver.
pub const CANARY: &str = "canary.grid.internal.";
/// Its address: a documentation address that functions may not reach, so that no guard can take
/// the check for a connection.
pub const CANARY_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Beneath it, a name that is withheld has the address for which it is: `db.example.com` answers as
/// `db.example.com.withheld.grid.internal`. The guards in the runners ask so.
pub const WITHHELD: &str = "withheld.grid.internal.";

/// Where the two families of addresses end.
const WHOLE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::BROADCAST), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX))];

/// Special use by RFC, or used by private networks because no public name ends so.
const PRIVATE: [&str; 17] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "home.arpa",
    "lan",
    "home",
    "corp",
    "mail",
    "intranet",
    "private",
    "test",
    "invalid",
    "onion",
    "alt",
    "resolver.arpa",
    "service.arpa",
];

/// The answer to a name that is not to be asked upstream.
pub(super) fn local(name: &Name, kind: RecordType, policy: &EgressPolicy) -> Option<Found> {
    // A label may hold any byte; a server behind ours that writes names as text could be confused
    // by a dot inside of a label.
    let plain = |label: &&[u8]| label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
    let labels: Vec<&[u8]> = name.iter().collect();
    if !labels.iter().all(plain) {
        return Some(Found::nothing(ResponseCode::NXDomain));
    }
    let labels: Vec<String> =
        labels.into_iter().map(|l| String::from_utf8_lossy(l).to_ascii_lowercase()).collect();
    let text = labels.join(".");
    if text == CANARY.trim_end_matches('.') {
        return Some(canary(name, kind));
    }
    let private = PRIVATE.iter().any(|end| {
        text.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    let unknown = labels.len() < 2 || private || reverse_of_blocked(&labels, policy);
    unknown.then(|| Found::nothing(ResponseCode::NXDomain))
}

fn canary(name: &Name, kind: RecordType) -> Found {
    let mut found = Found::nothing(ResponseCode::NoError);
    if kind == RecordType::A {
        let data = RData::A(CANARY_ADDRESS.into());
        found.records.push(Record::from_rdata(name.clone(), 0, data));
    }
    found
}

/// Whether a name lies in the reverse tree of a range in which nothing is allowed. Labels in front
/// of the digits (as in DNS-SD or RFC 2317) do not hide the range.
fn reverse_of_blocked(labels: &[String], policy: &EgressPolicy) -> bool {
    let digits = labels.iter().rev().skip(2);
    let (first, last) = match labels {
        [.., zone, arpa] if arpa == "arpa" && zone == "in-addr" => {
            let digits: Vec<u8> = digits.map_while(|label| label.parse().ok()).take(4).collect();
            let edge = |fill: u8| {
                let mut octets = [fill; 4];
                octets[..digits.len()].copy_from_slice(&digits);
                IpAddr::V4(Ipv4Addr::from(octets))
            };
            (edge(0), edge(u8::MAX))
        }
        [.., zone, arpa] if arpa == "arpa" && zone == "ip6" => {
            let digit = |label: &String| match label.as_bytes() {
                [digit] => char::from(*digit).to_digit(16),
                _ => None,
            };
            let digits: Vec<u32> = digits.map_while(digit).take(32).collect();
            let edge = |fill: u32| {
                let all = digits.iter().copied().chain(std::iter::repeat(fill)).take(32);
                IpAddr::V6(all.fold(0, |bits: u128, digit| (bits << 4) | u128::from(digit)).into())
            };
            (edge(0), edge(0xf))
        }
        _ => return false,
    };
    // Without a digit it is the whole tree, whose edges are blocked and whose middle is not.
    let whole = first.is_unspecified() && WHOLE.contains(&last);
    !whole && policy.check(first).is_err() && policy.check(last).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(name: &str) -> Option<ResponseCode> {
        let name = Name::from_ascii(name).expect("a name");
        local(&name, RecordType::PTR, EgressPolicy::fixed()).map(|found| found.code)
    }

    #[test]
    fn private_names_are_not_asked() {
        for name in [
            ".",
            "com.",
            "localhost.",
            "a.localhost.",
            "LocalHost.LocalDomain.",
            "printer.local.",
            "metadata.google.internal.",
            "x.canary.grid.internal.",
            "router.home.arpa.",
            "nas.LAN.",
            "a.test.",
            "a.invalid.",
            "a.onion.",
            "_dns.resolver.arpa.",
            "1.0.0.127.in-addr.arpa.",
            "10.in-addr.arpa.",
            "1.10.in-addr.arpa.",
            "168.192.in-addr.arpa.",
            "254.169.254.169.IN-ADDR.ARPA.",
            "16.129.63.168.in-addr.arpa.",
            "b._dns-sd._udp.1.0.168.192.in-addr.arpa.",
            "c.f.ip6.arpa.",
            "8.e.f.ip6.arpa.",
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa.",
            r"metadata\.google\.internal.",
            r"a\.internal.example.",
        ] {
            assert_eq!(code(name), Some(ResponseCode::NXDomain), "{name}");
        }
    }

    #[test]
    fn names_with_odd_bytes_are_not_asked() {
        for byte in [b'\0', b' ', b'.', b'\n', 0x7f, 0xff] {
            let name = Name::from_labels([&[b'a', byte][..], b"example", b"com"]).expect("a name");
            assert!(local(&name, RecordType::A, EgressPolicy::fixed()).is_some(), "{byte}");
        }
    }

    #[test]
    fn public_names_are_asked() {
        for name in [
            "example.com.",
            "internal.example.com.",
            "notlocal.example.",
            "mylocalhost.example.",
            "xn--bcher-kva.example.",
            "_sip._tcp.example.com.",
            "*.example.com.",
            "1.1.1.1.in-addr.arpa.",
            "172.in-addr.arpa.",
            "192.in-addr.arpa.",
            "in-addr.arpa.",
            "ip6.arpa.",
            "a.in-addr.arpa.",
            "2.ip6.arpa.",
            "0.0.7.4.6.0.6.2.ip6.arpa.",
        ] {
            assert_eq!(code(name), None, "{name}");
        }
    }
}
