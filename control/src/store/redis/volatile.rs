//! The volatile verbs over Redis: one script, which takes each of them as one step.

use std::{collections::HashMap, sync::LazyLock};

use ::redis::{Script, pipe};
use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::{broadcast, watch};

use super::{Redis, link::Request, server::at_once};
use crate::{
    error::Result,
    name::{ReplicaId, ServiceId},
    service::{Obstacle, Replica, Seen, ServiceView, Wish},
    store::{
        Change, Listing, Volatile,
        tables::{Fault, Table},
    },
};

static VOLATILE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("volatile.lua")));

/// Whose it is, the listing, the volatile hash, and the obstacle.
type Answer = (Option<String>, Option<Vec<u8>>, HashMap<String, String>, Option<String>);

impl Redis {
    /// Runs one verb, and tells watchers when it changed something, or may have.
    async fn change(
        &self,
        operation: &'static str,
        service: ServiceId,
        verb: &[&str],
    ) -> Result<()> {
        let server = &self.server;
        let mut script = VOLATILE.prepare_invoke();
        script.key(&server.keys.meta).key(server.keys.table(Table::Listings));
        script.key(server.keys.volatile(Some(service))).key(&server.keys.obstacles);
        script.key(&server.keys.with_replicas);
        script.arg(server.instance.as_str()).arg(&server.keys.channel);
        script.arg(server.hint(Some(service))).arg(service.as_bytes().as_slice()).arg(verb);
        let answer = server.link.ask::<String>(Request::Script(&script)).await;
        if !matches!(&answer, Ok(answer) if answer.value == "same" && !answer.repeated) {
            server.hint_here(Change::Service(service));
        }
        match answer.map_err(|fault| fault.during(operation))?.value.as_str() {
            "emptied" => Err(server.emptied().during(operation)),
            _ => Ok(()),
        }
    }

    async fn read_with_replicas(&self) -> Result<Vec<ServiceId>, Fault> {
        let keys = &self.server.keys;
        let mut commands = pipe();
        commands.cmd("HGET").arg(&keys.meta).arg("instance");
        commands.cmd("SMEMBERS").arg(&keys.with_replicas);
        let answer: (Option<String>, Vec<Vec<u8>>) =
            self.server.script(&at_once(&commands)).await?;
        let (instance, services) = answer;
        self.server.version(&(instance, None))?;
        let odd = |id: &[u8]| Fault::Broken(format!("{id:?} is no service's id"));
        services.iter().map(|id| ServiceId::from_slice(id).ok_or_else(|| odd(id))).collect()
    }

    async fn read_view(&self, service: ServiceId) -> Result<ServiceView, Fault> {
        let keys = &self.server.keys;
        let mut commands = pipe();
        commands.cmd("HGET").arg(&keys.meta).arg("instance");
        let id = service.as_bytes().as_slice();
        commands.cmd("HGET").arg(keys.table(Table::Listings)).arg(id);
        commands.cmd("HGETALL").arg(keys.volatile(Some(service)));
        commands.cmd("HGET").arg(&keys.obstacles).arg(id);
        let answer: Answer = self.server.script(&at_once(&commands)).await?;
        let (instance, listing, volatile, obstacle) = answer;
        self.server.version(&(instance, None))?;
        let listing: Option<Listing> =
            listing.map(|json| serde_json::from_slice(&json)).transpose()?;
        let obstacle = obstacle.map(|json| serde_json::from_str(&json)).transpose()?;
        Ok(ServiceView {
            latest_phase: listing.as_ref().map(|listing| listing.latest.1),
            route: listing.map(|listing| listing.route),
            replicas: replicas(service, &volatile)?,
            demand: volatile.get("demand").and_then(|demand| demand.parse().ok()).unwrap_or(0),
            obstacle,
        })
    }
}

/// The replicas of a volatile hash, in the order in which they were made.
fn replicas(service: ServiceId, volatile: &HashMap<String, String>) -> Result<Vec<Replica>, Fault> {
    let mut replicas = Vec::new();
    for (field, text) in volatile {
        let Some(id) = field.strip_prefix("r:") else { continue };
        let odd = || Fault::Broken(format!("replica {id}: what is kept of it is not understood"));
        let (place, deployment) = text.split_once(' ').ok_or_else(odd)?;
        let place: u64 = place.parse().map_err(|_| odd())?;
        let wish = volatile.get(&format!("w:{id}")).ok_or_else(odd)?;
        let seen = volatile.get(&format!("s:{id}"));
        let replica = Replica {
            id: ReplicaId::parse(id).map_err(|_| odd())?,
            service,
            deployment: deployment.parse().map_err(|_| odd())?,
            wish: serde_json::from_str(wish)?,
            seen: seen.map(|seen| serde_json::from_str(seen)).transpose()?,
        };
        replicas.push((place, replica));
    }
    replicas.sort_by_key(|(place, _)| *place);
    Ok(replicas.into_iter().map(|(_, replica)| replica).collect())
}

fn json(operation: &'static str, record: &impl Serialize) -> Result<String> {
    serde_json::to_string(record).map_err(|error| Fault::from(error).during(operation))
}

#[async_trait]
impl Volatile for Redis {
    async fn put_replica(&self, replica: Replica) -> Result<()> {
        let operation = "put replica";
        let deployment = replica.deployment.to_string();
        let wish = json(operation, &replica.wish)?;
        let seen = replica.seen.as_ref().map(|seen| json(operation, seen)).transpose()?;
        let seen = seen.unwrap_or_default();
        let verb = ["put", replica.id.as_str(), &deployment, &wish, &seen];
        self.change(operation, replica.service, &verb).await
    }

    async fn wish_replica(&self, service: ServiceId, id: &ReplicaId, wish: Wish) -> Result<()> {
        let operation = "wish replica";
        let wish = json(operation, &wish)?;
        self.change(operation, service, &["wish", id.as_str(), &wish]).await
    }

    async fn remove_replica(&self, service: ServiceId, id: &ReplicaId) -> Result<()> {
        self.change("remove replica", service, &["remove", id.as_str()]).await
    }

    async fn report_replica(
        &self,
        service: ServiceId,
        id: &ReplicaId,
        seen: Seen,
        demand: u32,
    ) -> Result<()> {
        let operation = "report replica";
        let (seen, demand) = (json(operation, &seen)?, demand.to_string());
        self.change(operation, service, &["demand", id.as_str(), &demand, &seen]).await
    }

    async fn request_capacity(&self, service: ServiceId, demand: u32) -> Result<()> {
        let demand = demand.to_string();
        self.change("request capacity", service, &["demand", "", &demand]).await
    }

    async fn set_obstacle(&self, service: ServiceId, obstacle: Option<Obstacle>) -> Result<()> {
        let operation = "set obstacle";
        let obstacle = obstacle.as_ref().map(|obstacle| json(operation, obstacle)).transpose()?;
        self.change(operation, service, &["obstacle", "", &obstacle.unwrap_or_default()]).await
    }

    async fn services_with_replicas(&self) -> Result<Vec<ServiceId>> {
        self.read_with_replicas().await.map_err(|fault| fault.during("list replicas"))
    }

    async fn view(&self, service: ServiceId) -> Result<ServiceView> {
        self.read_view(service).await.map_err(|fault| fault.during("view"))
    }

    fn watch(&self) -> broadcast::Receiver<Change> {
        self.server.changes.subscribe()
    }

    fn problem(&self) -> watch::Receiver<Option<String>> {
        self.server.problem.subscribe()
    }
}
