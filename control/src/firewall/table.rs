//! The tables in the kernel: put there, compared with what was put there, and read for what they
//! denied.

use std::time::Duration;

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Child};

use super::{
    counts::Listed,
    ruleset::{self, Copy, DENIED, DENIED_OTHER, WATCHED},
};
use crate::{
    denied::Target,
    egress::EgressPolicy,
    engine::Network,
    error::{Error, Result},
    limits,
    tool::NFT,
};

/// How long the process that holds a copy may take to put it in place.
const HOLD: Duration = Duration::from_secs(5);

/// The kept copy, as the kernel described it right after it was put there.
#[derive(Debug)]
pub(super) struct Kept {
    network: Network,
    inet: Value,
    bridge: Value,
}

/// The held copy; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    process: Child,
}

impl Kept {
    /// Puts the kept copy in place, whatever was there before.
    pub(super) async fn install(network: &Network, policy: &EgressPolicy) -> Result<Self> {
        let script = ruleset::script(Copy::Kept, network, policy);
        NFT.run(&["-f", "-"], &script).await?;
        let [inet, bridge] = read_back(network).await?;
        Ok(Self { network: network.clone(), inet, bridge })
    }

    /// Whether the kernel still has exactly what was put there.
    pub(super) async fn check(&self) -> Result<()> {
        let name = Copy::Kept.table(&self.network);
        let now = read_back(&self.network).await;
        let [inet, bridge] =
            now.map_err(|_| Error::Firewall(format!("somebody removed the table {name}")))?;
        if inet == self.inet && bridge == self.bridge {
            return Ok(());
        }
        Err(Error::Firewall(format!("somebody changed the table {name}")))
    }
}

impl Held {
    /// Puts the held copy in place, and waits until the kernel shows it.
    pub(super) async fn install(network: &Network, policy: &EgressPolicy) -> Result<Self> {
        let script = ruleset::script(Copy::Held, network, policy);
        // A home that is not there: it would write its history of commands.
        let mut process = NFT
            .command(&["-i"])
            .env("HOME", "/nonexistent")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .map_err(|e| NFT.missing(&e))?;
        let mut commands = process.stdin.take();
        if let Some(commands) = &mut commands {
            let line = format!("{script}\n");
            commands.write_all(line.as_bytes()).await.map_err(|e| NFT.missing(&e))?;
        }
        // Its end of input would end it.
        process.stdin = commands;
        let seen = async {
            while NFT.run(&["list", "table", "inet", &Copy::Held.table(network)], "").await.is_err()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(HOLD, seen).await {
            Ok(()) => Ok(Self { process }),
            Err(_) => Err(NFT.error("does not keep a table that belongs to it (nft -i)")),
        }
    }

    /// Takes it away: its name is free when this is over.
    pub(super) async fn end(mut self) {
        if let Err(error) = self.process.kill().await {
            tracing::warn!(%error, "the process that holds a copy of the rules was not ended");
        }
    }

    /// Whether the kernel still has it.
    pub(super) async fn check(network: &Network) -> Result<()> {
        let name = Copy::Held.table(network);
        let listed = NFT.run(&["list", "table", "inet", &name], "").await;
        listed.map(|_| ()).map_err(|_| Error::Firewall(format!("the table {name} is gone")))
    }
}

/// What both copies have counted, and from now on the next denial tells again.
pub(super) async fn denied(network: &Network) -> Result<Vec<Listed>> {
    let mut elements = Vec::new();
    for copy in [Copy::Kept, Copy::Held] {
        let table = copy.table(network);
        if copy == Copy::Kept {
            // First: what is denied after this line is told by an event of its own.
            NFT.run(&["reset", "quota", "inet", &table, WATCHED], "").await?;
        }
        for set in [DENIED, DENIED_OTHER] {
            let text = NFT.run(&["-j", "list", "set", "inet", &table, set], "").await;
            match text.and_then(|text| listed(copy, &text)) {
                Ok(listed) => elements.extend(listed),
                Err(error) if copy == Copy::Kept => return Err(error),
                Err(_) => {}
            }
        }
    }
    Ok(elements)
}

/// Removes everything that belongs to a network.
pub(super) async fn remove(network: &Network) -> Result<()> {
    let table = Copy::Kept.table(network);
    let script: String = ["inet", "bridge"]
        .map(|family| format!("add table {family} {table}; delete table {family} {table}; "))
        .concat();
    NFT.run(&["-f", "-"], &script).await.map(|_| ())
}

async fn read_back(network: &Network) -> Result<[Value; 2]> {
    let table = Copy::Kept.table(network);
    let inet = NFT.run(&["-j", "list", "table", "inet", &table], "").await?;
    let bridge = NFT.run(&["-j", "list", "table", "bridge", &table], "").await?;
    Ok([lasting(&inet)?, lasting(&bridge)?])
}

/// A table without what changes by itself: counters, and the elements that packets add.
fn lasting(text: &str) -> Result<Value> {
    let mut table = parsed(text)?;
    let objects = table["nftables"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
    for object in objects {
        for inner in object.as_object_mut().into_iter().flat_map(|o| o.values_mut()) {
            let Some(inner) = inner.as_object_mut() else { continue };
            inner.remove("used");
            if inner.get("timeout").is_some() {
                inner.remove("elem");
            }
        }
    }
    Ok(table)
}

/// The elements of a set that counts.
fn listed(copy: Copy, text: &str) -> Result<Vec<Listed>> {
    let listing = parsed(text)?;
    let objects = listing["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let elements = objects.iter().filter_map(|o| o["set"]["elem"].as_array()).flatten();
    Ok(elements.filter_map(|element| listed_one(copy, &element["elem"])).collect())
}

/// One of them: `{"val": {"concat": [source, destination, protocol, port]}, …}`.
fn listed_one(copy: Copy, element: &Value) -> Option<Listed> {
    let [source, to, protocol, rest @ ..] = element["val"]["concat"].as_array()?.as_slice() else {
        return None;
    };
    Some(Listed {
        copy,
        source: source.as_str()?.parse().ok()?,
        target: Target {
            to: to.as_str()?.to_owned(),
            protocol: protocol.as_str().map_or_else(|| protocol.to_string(), str::to_owned),
            port: rest.first().and_then(port),
        },
        packets: element["counter"]["packets"].as_u64()?,
        remaining: Duration::from_secs(
            element["expires"].as_u64().unwrap_or(limits::DENIED_SECONDS),
        ),
    })
}

fn parsed(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| NFT.error(format!("wrote no JSON: {e}")))
}

/// Ports that have a name are listed by it in some versions.
fn port(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"name": "denied",
        "timeout": 600, "elem": [
        {"elem": {"val": {"concat": ["172.30.0.2", "192.0.2.1", "tcp", 9]}, "expires": 598,
            "counter": {"packets": 3, "bytes": 180}}},
        {"elem": {"val": {"concat": ["172.30.0.2", "10.2.2.2", "icmp"]}, "expires": 598,
            "counter": {"packets": 1, "bytes": 87}}}, {"odd": 1}]}}]}"#;

    #[test]
    fn what_was_denied_is_read_from_a_listing() {
        let elements = listed(Copy::Kept, LISTING).expect("a listing");
        let shown: Vec<_> = elements
            .iter()
            .map(|e| format!("{} {} {} {:?}", e.source, e.target, e.packets, e.remaining))
            .collect();
        assert_eq!(shown, ["172.30.0.2 tcp 192.0.2.1:9 3 598s", "172.30.0.2 icmp 10.2.2.2 1 598s"]);
    }

    #[test]
    fn what_packets_change_is_not_compared() {
        let one = lasting(LISTING).expect("JSON");
        let other = lasting(&LISTING.replace("10.2.2.2", "10.2.2.3")).expect("JSON");
        assert_eq!(one, other);
        let changed = lasting(&LISTING.replace("denied", "allowed")).expect("JSON");
        assert_ne!(one, changed);
    }
}
