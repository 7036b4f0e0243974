//! The network of Docker Engine that functions share.

use std::collections::HashMap;

use bollard::{
    models::{Ipam, NetworkCreateRequest, NetworkInspect},
    query_parameters::ListNetworksOptionsBuilder,
};
use ipnet::Ipv4Net;

use super::{Docker, call, call_unless_gone};
use crate::{
    engine::{Network, label},
    error::{Error, Result},
    limits,
    name::InstanceId,
};

/// Option of the bridge driver: name of the interface.
const BRIDGE: &str = "com.docker.network.bridge.name";

impl Docker {
    pub(super) async fn ensure_network(&self, instance: &InstanceId) -> Result<Network> {
        if let Some(network) = self.find_network(instance).await? {
            return Ok(network);
        }
        let name = name(instance);
        let create = self.client()?.create_network(request(instance));
        // Somebody may have been faster; then it is there now.
        let created = call("create network", &name, limits::ENGINE_CALL, create).await;
        match (self.find_network(instance).await?, created) {
            (Some(network), _) => Ok(network),
            (None, Err(error)) => Err(explained(error)),
            (None, Ok(_)) => Err(Error::NotFound { what: "network", id: name }),
        }
    }

    pub(super) async fn list_networks(&self) -> Result<Vec<Network>> {
        let ours = HashMap::from([("label".to_owned(), vec![format!("{}=true", label::MANAGED)])]);
        let options = ListNetworksOptionsBuilder::default().filters(&ours).build();
        let list = self.client()?.list_networks(Some(options));
        let found = call("list networks", "of Grid", limits::ENGINE_CALL, list).await?;
        let instance =
            |labels: &HashMap<String, String>| InstanceId::parse(labels.get(label::INSTANCE)?).ok();
        let mut networks = Vec::new();
        for instance in found.into_iter().filter_map(|n| n.labels.as_ref().and_then(instance)) {
            networks.extend(self.find_network(&instance).await?);
        }
        Ok(networks)
    }

    pub(super) async fn delete_network(&self, instance: &InstanceId) -> Result<()> {
        let name = name(instance);
        let removal = self.client()?.remove_network(&name);
        call_unless_gone("remove network", &name, removal).await.map(|_| ())
    }

    async fn find_network(&self, instance: &InstanceId) -> Result<Option<Network>> {
        let name = name(instance);
        let inspect = self.client()?.inspect_network(&name, None);
        let found = call_unless_gone("inspect network", &name, inspect).await?;
        found.map(|found| described(&name, &bridge(instance), found)).transpose()
    }
}

/// After `nft flush ruleset` the engine misses chains that it makes only when it starts.
fn explained(error: Error) -> Error {
    match error {
        Error::Engine { operation, subject, reason } if reason.contains("iptables") => {
            let said = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            let reason = format!(
                "its own packet filter rules seem to be gone: restart Docker Engine (it says: {said})"
            );
            Error::Engine { operation, subject, reason }
        }
        other => other,
    }
}

fn name(instance: &InstanceId) -> String {
    format!("grid-{instance}")
}

/// Interfaces have names of at most 15 bytes.
fn bridge(instance: &InstanceId) -> String {
    format!("grid-{}", &instance.as_str()[..10])
}

/// A bridge with a name of ours for the firewall's rules. Containers do not see each other, have no
/// IPv6, and their addresses are translated by our own rules: those survive what happens to the
/// engine's.
fn request(instance: &InstanceId) -> NetworkCreateRequest {
    let options = [
        (BRIDGE, bridge(instance)),
        ("com.docker.network.bridge.enable_icc", "false".to_owned()),
        ("com.docker.network.bridge.enable_ip_masquerade", "false".to_owned()),
    ];
    let labels = [(label::MANAGED, "true".to_owned()), (label::INSTANCE, instance.to_string())];
    NetworkCreateRequest {
        name: name(instance),
        driver: Some("bridge".to_owned()),
        enable_ipv6: Some(false),
        options: Some(owned(options)),
        labels: Some(owned(labels)),
        ..NetworkCreateRequest::default()
    }
}

fn owned<const N: usize>(pairs: [(&str, String); N]) -> HashMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn described(name: &str, bridge: &str, found: NetworkInspect) -> Result<Network> {
    let refuse = |reason: &str| Error::Engine {
        operation: "use network",
        subject: name.to_owned(),
        reason: format!("{reason}; remove it, Grid makes it anew"),
    };
    if found.options.as_ref().and_then(|options| options.get(BRIDGE)).map(String::as_str)
        != Some(bridge)
    {
        return Err(refuse("is not the one that Grid made"));
    }
    let ranges = found.ipam.and_then(|Ipam { config, .. }| config).unwrap_or_default();
    let range = ranges.into_iter().find_map(|range| {
        let subnet: Ipv4Net = range.subnet?.parse().ok()?;
        // Some engines leave the gateway out when it is the first address.
        let gateway = match range.gateway {
            Some(gateway) => gateway.split('/').next()?.parse().ok()?,
            None => subnet.hosts().next()?,
        };
        Some((subnet.trunc(), gateway))
    });
    let (subnet, gateway) = range.ok_or_else(|| refuse("has no IPv4 range"))?;
    Ok(Network { name: name.to_owned(), bridge: bridge.to_owned(), subnet, gateway })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_lost_its_rules_is_to_be_restarted() {
        let reason = "Failed to program NAT chain: iptables failed: Chain 'DOCKER' does not \
                      exist\nTry `iptables -h'\n (exit status 2)";
        let error = |reason: &str| Error::Engine {
            operation: "create network",
            subject: "grid-x".to_owned(),
            reason: reason.to_owned(),
        };
        let told = explained(error(reason)).to_string();
        assert!(told.contains("restart Docker Engine") && !told.contains('\n'), "{told}");
        let told = explained(error("no address is free")).to_string();
        assert!(!told.contains("restart"), "{told}");
    }
}
