//! The second latch, outside of the packet filter: routes that lead nowhere, for packets that come
//! from functions, and bridge ports that do not see each other. It holds when every rule is gone.

use serde_json::Value;

use crate::{egress::EgressPolicy, engine::Network, error::Result, tool::IP};

/// Routing tables of ours are numbered from here, by the interface's index.
const FIRST_TABLE: u64 = 7_300_000;
/// Before every rule of the host but the one for its own addresses.
const PREFERENCE: &str = "1";

/// Puts routes and rules in place, whatever was there before.
pub(super) async fn install(network: &Network, policy: &EgressPolicy) -> Result<()> {
    let bridge = network.bridge.as_str();
    let table = table(network).await?;
    let mut batch = String::new();
    for _ in rules(network).await? {
        batch += &format!("rule del iif {bridge} pref {PREFERENCE}\n");
    }
    for range in policy.denied_v4() {
        batch += &format!("route replace unreachable {range} table {table}\n");
    }
    batch += &format!("rule add iif {bridge} pref {PREFERENCE} lookup {table}\n");
    run_batch(&batch).await?;
    // Functions have no IPv6 at all.
    if ipv6_is_on() && !has_v6_rule(network).await? {
        v6_rule(network, "add").await?;
    }
    isolate_ports(network).await.map(|_| ())
}

/// Whether routes and rules are in place.
pub(super) async fn check(network: &Network, policy: &EgressPolicy) -> Result<()> {
    let table = table(network).await?;
    if !rules(network).await?.iter().any(|rule| leads_to(rule, table)) {
        return Err(IP.error(format!("the rule for {} is gone", network.bridge)));
    }
    if ipv6_is_on() && !has_v6_rule(network).await? {
        return Err(IP.error(format!("the IPv6 rule for {} is gone", network.bridge)));
    }
    let routes = json(&["-4", "route", "show", "table", &table.to_string()]).await?;
    let known: Vec<_> = list(&routes)
        .iter()
        .filter(|route| route["type"] == "unreachable")
        .filter_map(|route| route["dst"].as_str())
        .collect();
    for range in policy.denied_v4() {
        let plain = range.to_string();
        let plain = plain.strip_suffix("/32").unwrap_or(&plain);
        if !known.contains(&plain) {
            return Err(IP.error(format!("the unreachable route to {range} is gone")));
        }
    }
    Ok(())
}

/// Whether a packet of a function to an address would end at these routes.
pub(super) async fn stops(network: &Network, address: &str) -> bool {
    let from = network.subnet.hosts().last().unwrap_or(network.gateway).to_string();
    let route = ["route", "get", address, "from", &from, "iif", &network.bridge];
    IP.run(&route, "").await.is_err()
}

/// Takes the bridge out of service, or puts it back: a function without network harms nobody.
pub(super) async fn set_bridge(network: &Network, up: bool) -> Result<()> {
    let state = if up { "up" } else { "down" };
    IP.run(&["link", "set", "dev", &network.bridge, state], "").await.map(|_| ())
}

/// Removes routes and rules.
pub(super) async fn remove(network: &Network) -> Result<()> {
    let (bridge, table) = (network.bridge.as_str(), table(network).await?);
    let mut batch = String::new();
    for _ in rules(network).await? {
        batch += &format!("rule del iif {bridge} pref {PREFERENCE}\n");
    }
    if ipv6_is_on() && has_v6_rule(network).await? {
        v6_rule(network, "del").await?;
    }
    batch += &format!("route flush table {table}\n");
    run_batch(&batch).await
}

/// Isolates ports that are new. Isolated ports of a bridge reach only ports that are not: so
/// containers reach the host alone. A port is there some tenths of a second before anything in its
/// container runs. Tells whether the bridge is up.
pub(super) async fn isolate_ports(network: &Network) -> Result<bool> {
    let bridge = network.bridge.as_str();
    let links = json(&["-d", "link", "show"]).await?;
    for port in list(&links).iter().filter(|link| link["master"] == bridge) {
        let isolated = &port["linkinfo"]["info_slave_data"]["isolated"];
        if let (Some(name), Some(false)) = (port["ifname"].as_str(), isolated.as_bool()) {
            let set = ["link", "set", "dev", name, "type", "bridge_slave", "isolated", "on"];
            match IP.run(&set, "").await {
                Ok(_) => {}
                // Ports come and go with containers.
                Err(_) if !exists(name).await => {}
                Err(error) => return Err(error),
            }
        }
    }
    let flags = list(&links).iter().find(|link| link["ifname"] == bridge).map(|l| &l["flags"]);
    Ok(flags.is_some_and(|flags| list(flags).contains(&"UP".into())))
}

async fn exists(link: &str) -> bool {
    IP.run(&["link", "show", "dev", link], "").await.is_ok()
}

async fn table(network: &Network) -> Result<u64> {
    let link = json(&["link", "show", "dev", &network.bridge]).await?;
    let index = list(&link).first().and_then(|link| link["ifindex"].as_u64());
    index.map(|index| FIRST_TABLE + index).ok_or_else(|| {
        IP.error(format!("the bridge {} of Docker Engine is not on this machine", network.bridge))
    })
}

async fn rules(network: &Network) -> Result<Vec<Value>> {
    let rules = json(&["-4", "rule", "show"]).await?;
    Ok(list(&rules).iter().filter(|rule| rule["iif"] == network.bridge.as_str()).cloned().collect())
}

async fn has_v6_rule(network: &Network) -> Result<bool> {
    let rules = json(&["-6", "rule", "show"]).await?;
    Ok(list(&rules).iter().any(|rule| rule["iif"] == network.bridge.as_str()))
}

async fn v6_rule(network: &Network, verb: &str) -> Result<()> {
    let rule = ["-6", "rule", verb, "iif", &network.bridge, "pref", PREFERENCE, "unreachable"];
    IP.run(&rule, "").await.map(|_| ())
}

fn leads_to(rule: &Value, table: u64) -> bool {
    rule["table"]
        .as_str()
        .map(str::to_owned)
        .or_else(|| rule["table"].as_u64().map(|n| n.to_string()))
        == Some(table.to_string())
}

fn ipv6_is_on() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

async fn run_batch(batch: &str) -> Result<()> {
    IP.run(&["-batch", "-"], batch).await.map(|_| ())
}

async fn json(args: &[&str]) -> Result<Value> {
    let args: Vec<_> = std::iter::once("-j").chain(args.iter().copied()).collect();
    let text = IP.run(&args, "").await?;
    if text.trim().is_empty() {
        return Ok(Value::Array(Vec::new()));
    }
    serde_json::from_str(&text).map_err(|e| IP.error(format!("wrote no JSON: {e}")))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
