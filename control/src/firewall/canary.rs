//! Proof that the rules work on this machine: a container like a function's tries what functions
//! must not reach. It is started only when routes would stop its packets as well, so that a
//! firewall that fails is found out without a packet leaving.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::net::TcpListener;

use super::latch;
use crate::{
    engine::{Engine, Network, Probe},
    error::{Error, Result},
    resolver,
};

/// An address for documentation: denied, and nobody's.
const DENIED: Ipv4Addr = resolver::CANARY_ADDRESS;
/// Ports that tell the two attempts apart; nothing listens there.
const BY_ADDRESS: u16 = 9;
const BY_NAME: u16 = 10;
/// How long the container may take, start included.
const BOUND: Duration = Duration::from_secs(20);

/// Runs the canary in a container of `image`.
///
/// # Errors
/// `Firewall` with what it could reach, or what else is not as it should be.
pub(crate) async fn sing(
    engine: &Arc<dyn Engine>,
    network: &Network,
    mut probe: Probe,
    resolver: bool,
) -> Result<()> {
    if !latch::stops(network, &DENIED.to_string()).await {
        return Err(Error::Firewall("denied addresses have a route: not tried".to_owned()));
    }
    // What listens on the host must not be reached, not even by a connection without a word.
    let trap = TcpListener::bind((network.gateway, 0)).await;
    let trap = trap.map_err(|e| Error::Firewall(format!("{}: {e}", network.gateway)))?;
    let port = trap.local_addr().map_err(|e| Error::Firewall(e.to_string()))?.port();

    let mut attempts = vec![(DENIED.to_string(), BY_ADDRESS), (network.gateway.to_string(), port)];
    let mut urls: Vec<_> = attempts.iter().map(|(host, port)| url(host, *port)).collect();
    if resolver {
        urls.push(url(resolver::CANARY.trim_end_matches('.'), BY_NAME));
        attempts.push((DENIED.to_string(), BY_NAME));
    }
    let bounds = ["--connect-timeout", "3", "--max-time", "4"];
    probe.command = ["curl", "-sSv", "--noproxy", "*"]
        .into_iter()
        .chain(bounds)
        .map(str::to_owned)
        .chain(urls)
        .collect();
    probe.within = BOUND;
    let said = engine.probe(&probe).await;

    if let Ok(Ok((_, from))) = tokio::time::timeout(Duration::ZERO, trap.accept()).await {
        return Err(Error::Firewall(format!("a container reached this machine (from {from})")));
    }
    let said = said?;
    for (host, port) in attempts {
        if !was_refused(&said, &host, port) {
            return Err(Error::Firewall(format!(
                "a container that connects to {host}:{port} is not refused at once; it said: {}",
                said.lines().rev().take(4).collect::<Vec<_>>().join(" / ")
            )));
        }
    }
    Ok(())
}

fn url(host: &str, port: u16) -> String {
    format!("http://{host}:{port}/")
}

/// curl's words for a connection that was reset: `connect to HOST port PORT failed: Connection
/// refused`, in newer versions with the local address in between.
fn was_refused(said: &str, host: &str, port: u16) -> bool {
    let attempt = format!("connect to {host} port {port} ");
    said.lines().any(|line| line.contains(&attempt) && line.contains("Connection refused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_counts() {
        let old = "* connect to 192.0.2.1 port 9 failed: Connection refused";
        let new = "* connect to 192.0.2.1 port 9 from 172.18.0.2 port 4 failed: Connection refused";
        let late = "* connect to 192.0.2.1 port 9 failed: No route to host";
        assert!(was_refused(old, "192.0.2.1", 9) && was_refused(new, "192.0.2.1", 9));
        assert!(!was_refused(late, "192.0.2.1", 9) && !was_refused(old, "192.0.2.1", 90));
        assert!(!was_refused("* Connected to 192.0.2.1 (192.0.2.1) port 9", "192.0.2.1", 9));
    }
}
