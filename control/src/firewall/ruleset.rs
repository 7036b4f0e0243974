//! The policy as nftables rules. Pure: text in, text out.
//!
//! Packets from functions are judged once, before routing and before any address translation, so
//! that what a name resolved to, how an address was spelled and what the engine publishes do not
//! matter. Everything is refused but: replies to the platform, DNS to the gateway, and TCP and UDP
//! to public addresses. What is allowed, DNS as well, takes a place in the kernel's table of
//! connections, which the whole host shares: so new ones are limited for each container.

use ipnet::Ipv4Net;

use crate::{egress::EgressPolicy, engine::Network, limits};

/// Name of the quota whose first use tells that something was denied.
pub(super) const WATCHED: &str = "watched";
/// Name of the set that counts denied TCP and UDP.
pub(super) const DENIED: &str = "denied";
/// Name of the set that counts denied packets of other protocols.
pub(super) const DENIED_OTHER: &str = "denied_other";

/// One of the two copies of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Copy {
    /// Stays when Grid ends; anybody with the right to can remove it.
    Kept,
    /// Belongs to a process of ours: nobody else can remove it, and it ends with Grid.
    Held,
}

impl Copy {
    /// Name of the table in the kernel.
    pub(super) fn table(self, network: &Network) -> String {
        let name = network.bridge.replace('-', "_");
        match self {
            Copy::Kept => name,
            Copy::Held => format!("{name}_held"),
        }
    }

    /// Hooks of the held copy come right after those of the kept one.
    fn after(self) -> u8 {
        match self {
            Copy::Kept => 0,
            Copy::Held => 1,
        }
    }
}

/// What puts a copy in place, in one transaction: at no moment there are no rules, or old and new
/// ones.
pub(super) fn script(copy: Copy, network: &Network, policy: &EgressPolicy) -> String {
    let table = copy.table(network);
    let mut script = String::new();
    if copy == Copy::Kept {
        // `add` first, so that `delete` finds something.
        for family in ["inet", "bridge"] {
            script += &format!("add table {family} {table}; delete table {family} {table}; ");
        }
    }
    script += &functions_table(copy, network, policy);
    if copy == Copy::Kept {
        script += &siblings_table(network);
    }
    script
}

fn functions_table(copy: Copy, network: &Network, policy: &EgressPolicy) -> String {
    let Network { bridge, subnet, gateway, .. } = network;
    let (name, after) = (copy.table(network), copy.after());
    let owner = if copy == Copy::Held { "flags owner;" } else { "" };
    // Ranges that touch or overlap are one to nftables.
    let denied = Ipv4Net::aggregate(&policy.denied_v4().to_vec());
    let denied = denied.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let remembered = limits::DENIED_SECONDS;
    let (rate, burst) = limits::NEW_CONNECTIONS;
    one_line(&format!(
        "table inet {name} {{
            {owner}
            quota {WATCHED} {{ over 1 bytes; }};
            set deny4 {{ type ipv4_addr; flags interval; elements = {{ {denied} }}; }};
            set {DENIED} {{
                type ipv4_addr . ipv4_addr . inet_proto . inet_service;
                size 4096; flags dynamic,timeout; timeout {remembered}s; counter;
            }};
            set {DENIED_OTHER} {{
                type ipv4_addr . ipv4_addr . inet_proto;
                size 1024; flags dynamic,timeout; timeout {remembered}s; counter;
            }};
            set rates {{
                type ipv4_addr; size 65535; flags dynamic,timeout; timeout 60s;
            }};
            chain arriving {{
                type filter hook prerouting priority mangle + {after}; policy accept;
                iifname \"{bridge}\" goto functions;
            }};
            chain functions {{
                meta nfproto ipv6 drop;
                ct state invalid drop;
                ip saddr != {subnet} drop;
                ct direction reply ct state established accept;
                ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 goto allow;
                fib daddr type != unicast goto deny;
                ip daddr @deny4 goto deny;
                meta l4proto != {{ tcp, udp }} goto deny;
                goto allow;
            }};
            chain allow {{
                ct state new update @rates {{ ip saddr limit rate over {rate}/second burst {burst} packets }} drop;
                accept;
            }};
            chain deny {{
                quota name \"{WATCHED}\";
                meta l4proto {{ tcp, udp }} update @{DENIED} {{ ip saddr . ip daddr . meta l4proto . th dport }};
                meta l4proto != {{ tcp, udp }} update @{DENIED_OTHER} {{ ip saddr . ip daddr . meta l4proto }};
                meta l4proto tcp reject with tcp reset;
                reject with icmpx type admin-prohibited;
            }};
            chain leaving {{
                type nat hook postrouting priority srcnat + {after}; policy accept;
                ip saddr {subnet} oifname != \"{bridge}\" masquerade;
            }};
        }}; "
    ))
}

/// Frames between siblings do not pass the hooks above, unless the host sends them there. The
/// isolated ports of the bridge (see `latch`) say the same once more.
fn siblings_table(network: &Network) -> String {
    let (name, subnet) = (Copy::Kept.table(network), network.subnet);
    one_line(&format!(
        "table bridge {name} {{
            chain siblings {{
                type filter hook forward priority filter; policy accept;
                ip saddr {subnet} ip daddr {subnet} drop;
            }};
        }}; "
    ))
}

/// The process that holds a copy reads commands line by line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ") + " "
}
