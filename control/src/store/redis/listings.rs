//! This process's copy of the listings: brought up to date before each list by what has changed since.

use std::collections::{HashMap, HashSet};

use ::redis::pipe;

use super::{
    link::Request,
    server::{Server, at_once},
    transaction::{STAMP, Stamp},
};
use crate::{
    name::ServiceId,
    store::{
        Listing, Page, ServiceQuery, listing,
        tables::{Effect, Fault, Table},
    },
};

/// Listings that are read by one call.
const BATCH: usize = 500;
/// How often the copy is brought up to date before it is said that this comes to no end.
const ATTEMPTS: usize = 8;

#[derive(Default)]
pub(super) struct Listings {
    services: HashMap<ServiceId, Listing>,
    /// The version up to which all changes are in.
    known: u64,
    /// The connection that last told so. Behind another one there may be less than was known: a backup,
    /// or a Redis that took over and had not heard of everything.
    connection: u64,
    /// The ids of services whose replicas cannot be started.
    obstructed: HashSet<Vec<u8>>,
}

impl Listings {
    /// Reads what has changed.
    pub(super) async fn bring_up_to_date(&mut self, server: &Server) -> Result<(), Fault> {
        for _ in 0..ATTEMPTS {
            let keys = &server.keys;
            let mut commands = pipe();
            commands.cmd("HMGET").arg(&keys.meta).arg(&STAMP);
            let since = format!("({}", self.known);
            commands.cmd("ZRANGEBYSCORE").arg(&keys.changed).arg(since).arg("+inf");
            commands.cmd("ZCARD").arg(&keys.changed);
            commands.cmd("HKEYS").arg(&keys.obstacles);
            let answer = server.link.ask(Request::Script(&at_once(&commands))).await?;
            let (stamp, changed, count, obstructed): (Stamp, Vec<Vec<u8>>, usize, _) = answer.value;
            let version = server.version(&stamp)?;
            let is_other = answer.connection != self.connection || version < self.known;
            self.connection = answer.connection;
            if is_other && self.known > 0 {
                (self.services, self.known) = (HashMap::new(), 0);
                continue;
            }
            for ids in changed.chunks(BATCH) {
                self.read(server, ids).await?;
            }
            self.known = version;
            self.obstructed = obstructed;
            // All that there is, is in; so the same number means that there is nothing else.
            if self.services.len() == count {
                return Ok(());
            }
            (self.services, self.known) = (HashMap::new(), 0);
        }
        Err(Fault::Broken("services come and go faster than they can be listed".to_owned()))
    }

    async fn read(&mut self, server: &Server, ids: &[Vec<u8>]) -> Result<(), Fault> {
        let mut commands = pipe();
        commands.cmd("HMGET").arg(server.keys.table(Table::Listings)).arg(ids);
        let (found,): (Vec<Option<Vec<u8>>>,) = server.ask(&commands).await?;
        for json in found.into_iter().flatten() {
            let listing: Listing = serde_json::from_slice(&json)?;
            self.services.insert(listing.route.service, listing);
        }
        Ok(())
    }

    /// Takes over what this process committed itself.
    pub(super) fn follow(&mut self, effect: Effect, version: u64) {
        match effect {
            Effect::Listed(listing) => {
                self.services.insert(listing.route.service, *listing);
            }
            Effect::Deleted(service) => {
                self.services.remove(&service);
            }
            Effect::Nothing | Effect::Kept | Effect::Changed(_) => {}
        }
        if version == self.known + 1 {
            self.known = version;
        }
    }

    /// The ids of one page of the services that a query takes.
    pub(super) fn select(
        &self,
        query: &ServiceQuery,
        offset: usize,
        limit: usize,
    ) -> Page<ServiceId> {
        let listed = self.services.values();
        let listed = listed.map(|listing| {
            (listing, self.obstructed.contains(listing.route.service.as_bytes().as_slice()))
        });
        listing::select(listed, query, offset, limit)
    }
}
