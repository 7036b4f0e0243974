//! What functions may connect to: one fixed policy, pure, read from the list that the guards in the
//! runners read too. The firewall and the resolver are made from it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The list itself, as it is also put into every runner layer.
pub const RANGES: &str = include_str!("../../runners/egress/ranges.txt");

/// The policy. There is only one: [`EgressPolicy::fixed`].
#[derive(Debug)]
pub struct EgressPolicy {
    denied_v4: Vec<Ipv4Net>,
    allowed_v6: Vec<Ipv6Net>,
    denied_v6: Vec<Ipv6Net>,
    /// What each denied range is, in the list's words.
    names: Vec<(IpNet, String)>,
}

/// An address that functions may not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is not allowed: {range}")]
pub struct Blocked<'a> {
    /// The address; the IPv4 address when it was carried inside an IPv6 one.
    pub address: IpAddr,
    /// What it is, for a person.
    pub range: &'a str,
}

impl EgressPolicy {
    /// The policy that everything works by.
    pub fn fixed() -> &'static EgressPolicy {
        static FIXED: LazyLock<EgressPolicy> = LazyLock::new(|| {
            EgressPolicy::parse(RANGES).expect("runners/egress/ranges.txt is part of the program")
        });
        &FIXED
    }

    /// Whether a function may connect to an address. An IPv4 address that an IPv6 address carries
    /// is checked as well, and named when it is denied.
    ///
    /// # Errors
    /// [`Blocked`] with what the address is.
    pub fn check(&self, address: IpAddr) -> Result<(), Blocked<'_>> {
        match address {
            IpAddr::V4(v4) => self.check_v4(v4),
            IpAddr::V6(v6) => {
                if let Some(carried) = carried_v4(v6) {
                    self.check_v4(carried)?;
                }
                let inside = self.allowed_v6.iter().any(|range| range.contains(&v6));
                if inside && !self.denied_v6.iter().any(|range| range.contains(&v6)) {
                    return Ok(());
                }
                Err(Blocked { address, range: self.name(address) })
            }
        }
    }

    /// The denied IPv4 ranges.
    pub fn denied_v4(&self) -> &[Ipv4Net] {
        &self.denied_v4
    }

    /// The IPv6 ranges outside of which everything is denied.
    pub fn allowed_v6(&self) -> &[Ipv6Net] {
        &self.allowed_v6
    }

    /// The denied IPv6 ranges.
    pub fn denied_v6(&self) -> &[Ipv6Net] {
        &self.denied_v6
    }

    fn check_v4(&self, v4: Ipv4Addr) -> Result<(), Blocked<'_>> {
        if self.denied_v4.iter().any(|range| range.contains(&v4)) {
            let address = v4.into();
            return Err(Blocked { address, range: self.name(address) });
        }
        Ok(())
    }

    fn name(&self, address: IpAddr) -> &str {
        let range = self.names.iter().find(|(range, _)| range.contains(&address));
        range.map_or("outside of the global unicast range", |(_, name)| name)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut policy = Self {
            denied_v4: Vec::new(),
            allowed_v6: Vec::new(),
            denied_v6: Vec::new(),
            names: Vec::new(),
        };
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let mut words = line.split_whitespace();
            let (Some(verb), Some(range)) = (words.next(), words.next()) else {
                return Err(format!("`{line}` has not two words"));
            };
            let name = words.collect::<Vec<_>>().join(" ");
            let range: IpNet = range.parse().map_err(|e| format!("`{line}`: {e}"))?;
            match (verb, range) {
                ("deny", IpNet::V4(range)) => policy.denied_v4.push(range),
                ("deny", IpNet::V6(range)) => policy.denied_v6.push(range),
                ("allow", IpNet::V6(range)) => policy.allowed_v6.push(range),
                _ => return Err(format!("`{line}`: neither deny nor, for IPv6, allow")),
            }
            if verb == "deny" {
                policy.names.push((range, name));
            }
        }
        Ok(policy)
    }
}

/// The IPv4 address inside an IPv6 one: mapped, compatible, translated (NAT64) or 6to4.
fn carried_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match [a, b, c, d, e, f] {
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0] if g == 0 && h < 2 => None,
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => {
            v4(g, h)
        }
        [0x64, 0xff9b, 1, ..] => v4(g, h),
        [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        address: IpAddr,
        allowed: bool,
    }

    fn allows(address: impl Into<IpAddr>) -> bool {
        EgressPolicy::fixed().check(address.into()).is_ok()
    }

    #[test]
    fn the_shared_cases_hold() {
        let cases = include_str!("../../runners/egress/cases.json");
        let cases: Vec<Case> = serde_json::from_str(cases).expect("cases");
        assert!(cases.len() > 100);
        for Case { address, allowed } in cases {
            assert_eq!(allows(address), allowed, "{address}");
        }
    }

    #[test]
    fn an_error_names_the_real_address() {
        let blocked = |text: &str| {
            let address = text.parse().expect("an address");
            EgressPolicy::fixed().check(address).expect_err("blocked").to_string()
        };
        assert_eq!(blocked("10.1.2.3"), "10.1.2.3 is not allowed: private (RFC 1918)");
        for form in ["::ffff:10.1.2.3", "::10.1.2.3", "64:ff9b::10.1.2.3", "2002:0a01:0203::1"] {
            assert_eq!(blocked(form), "10.1.2.3 is not allowed: private (RFC 1918)", "{form}");
        }
        assert_eq!(blocked("::1"), "::1 is not allowed: loopback");
        assert_eq!(
            blocked("::ffff:8.8.8.8"),
            "::ffff:8.8.8.8 is not allowed: outside of the global unicast range"
        );
    }

    #[test]
    fn a_line_that_makes_no_sense_is_refused() {
        for line in ["deny", "deny 10.0.0.0", "allow 10.0.0.0/8 x", "permit 10.0.0.0/8 x"] {
            assert!(EgressPolicy::parse(line).is_err(), "{line}");
        }
    }

    /// The policy said once more, by arithmetic instead of by ranges.
    fn allowed_v4(n: u32) -> bool {
        let [a, b, c, d] = n.to_be_bytes();
        !(a == 0
            || a == 10
            || a == 127
            || a >= 224
            || (a == 100 && (64..128).contains(&b))
            || (a == 169 && b == 254)
            || (a == 172 && (16..32).contains(&b))
            || (a == 192 && (b == 168 || (b == 0 && (c == 0 || c == 2)) || (b == 88 && c == 99)))
            || (a == 198 && (b == 18 || b == 19 || (b == 51 && c == 100)))
            || (a == 203 && b == 0 && c == 113)
            || (a, b, c, d) == (168, 63, 129, 16))
    }

    fn near_a_range() -> impl Strategy<Value = u32> {
        let edges: Vec<u32> = EgressPolicy::fixed()
            .denied_v4()
            .iter()
            .flat_map(|r| [u32::from(r.network()), u32::from(r.broadcast())])
            .collect();
        (prop::sample::select(edges), -3_i64..=3)
            .prop_map(|(edge, step)| edge.wrapping_add_signed(step as i32))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn every_v4_address_is_classified(n in prop_oneof![any::<u32>(), near_a_range()]) {
            prop_assert_eq!(allows(Ipv4Addr::from(n)), allowed_v4(n));
        }

        #[test]
        fn only_global_unicast_v6_is_allowed(n in any::<u128>(), inside in any::<bool>()) {
            let n = if inside { (n >> 3) | (1 << 125) } else { n };
            let high = (n >> 96) as u32;
            let exempt = high >> 9 == 0x2001_0000 >> 9
                || high == 0x2001_0db8
                || high >> 16 == 0x2002
                || high >> 12 == 0x3fff_0000 >> 12;
            prop_assert_eq!(allows(Ipv6Addr::from(n)), n >> 125 == 1 && !exempt);
        }

        #[test]
        fn no_form_of_a_denied_v4_address_passes(n in near_a_range(), tail in any::<u64>()) {
            let n = u128::from(n);
            let forms = [
                n,
                (0xffff_u128 << 32) | n,
                (0xffff_u128 << 48) | n,
                (0x0064_ff9b_u128 << 96) | n,
                (0x0064_ff9b_0001_u128 << 80) | n,
                (0x2002_u128 << 112) | (n << 80) | u128::from(tail),
            ];
            for form in forms {
                prop_assert!(!allows(Ipv6Addr::from(form)));
            }
        }
    }
}
