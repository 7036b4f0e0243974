//! What the embedded store keeps in memory: the volatile state, a copy of every route so that the
//! edge's reads cost no disk, and what lists of services are filtered and ordered by. Each change
//! tells whether it changed anything.

use std::collections::BTreeMap;

use crate::{
    name::{ReplicaId, ServiceId},
    service::{Obstacle, Replica, Seen, ServiceView, Wish},
    store::{Listing, Page, ServiceQuery, listing},
};

/// One entry per service that is kept or has replicas, and none else: an edge that asks for
/// services that do not exist cannot make it grow.
#[derive(Default)]
pub(super) struct Memory {
    services: BTreeMap<ServiceId, Entry>,
}

#[derive(Default)]
struct Entry {
    /// None when the service is gone.
    listing: Option<Listing>,
    /// In the order in which they were made.
    replicas: Vec<Replica>,
    demand: u32,
    obstacle: Option<Obstacle>,
}

impl Memory {
    pub(super) fn list(&mut self, listing: Listing) {
        let entry = self.services.entry(listing.route.service).or_default();
        entry.listing = Some(listing);
    }

    pub(super) fn unlist(&mut self, service: ServiceId) {
        if let Some(entry) = self.services.get_mut(&service) {
            entry.listing = None;
            entry.obstacle = None;
        }
        self.forget_if_empty(service);
    }

    /// Lists these services and no others. Tells for which of them, or of those that were listed,
    /// that is a change.
    pub(super) fn relist(&mut self, listings: Vec<Listing>) -> Vec<ServiceId> {
        let mut listings: BTreeMap<_, _> =
            listings.into_iter().map(|listing| (listing.route.service, listing)).collect();
        let listed = self.services.iter().filter(|(_, entry)| entry.listing.is_some());
        let mut changed: Vec<ServiceId> =
            listed.map(|(id, _)| *id).filter(|id| !listings.contains_key(id)).collect();
        for id in &changed {
            self.unlist(*id);
        }
        listings.retain(|id, listing| {
            let known = self.services.get(id).and_then(|entry| entry.listing.as_ref());
            known != Some(listing)
        });
        changed.extend(listings.keys());
        for listing in listings.into_values() {
            self.list(listing);
        }
        changed
    }

    /// The ids of one page of the services that a query takes.
    pub(super) fn select(
        &self,
        query: &ServiceQuery,
        offset: usize,
        limit: usize,
    ) -> Page<ServiceId> {
        let listed = self.services.values();
        let listed =
            listed.filter_map(|entry| Some((entry.listing.as_ref()?, entry.obstacle.is_some())));
        listing::select(listed, query, offset, limit)
    }

    pub(super) fn put_replica(&mut self, replica: Replica) -> bool {
        let entry = self.services.entry(replica.service).or_default();
        match entry.replicas.iter_mut().find(|known| known.id == replica.id) {
            Some(known) => replace(known, replica),
            None => {
                entry.replicas.push(replica);
                true
            }
        }
    }

    pub(super) fn wish(&mut self, service: ServiceId, id: &ReplicaId, wish: Wish) -> bool {
        self.replica(service, id).is_some_and(|replica| replace(&mut replica.wish, wish))
    }

    pub(super) fn see(&mut self, service: ServiceId, id: &ReplicaId, seen: Seen) -> bool {
        self.replica(service, id).is_some_and(|replica| replace(&mut replica.seen, Some(seen)))
    }

    pub(super) fn remove_replica(&mut self, service: ServiceId, id: &ReplicaId) -> bool {
        let Some(entry) = self.services.get_mut(&service) else {
            return false;
        };
        let before = entry.replicas.len();
        entry.replicas.retain(|replica| replica.id != *id);
        let removed = entry.replicas.len() != before;
        self.forget_if_empty(service);
        removed
    }

    pub(super) fn demand(&mut self, service: ServiceId, demand: u32) -> bool {
        let entry = self.services.get_mut(&service);
        entry.is_some_and(|entry| replace(&mut entry.demand, demand))
    }

    pub(super) fn obstacle(&mut self, service: ServiceId, obstacle: Option<Obstacle>) -> bool {
        let entry = self.services.get_mut(&service);
        entry.is_some_and(|entry| replace(&mut entry.obstacle, obstacle))
    }

    pub(super) fn with_replicas(&self) -> Vec<ServiceId> {
        let occupied = self.services.iter().filter(|(_, entry)| !entry.replicas.is_empty());
        occupied.map(|(id, _)| *id).collect()
    }

    pub(super) fn view(&self, service: ServiceId) -> ServiceView {
        let entry = self.services.get(&service);
        let listing = entry.and_then(|entry| entry.listing.as_ref());
        ServiceView {
            route: listing.map(|listing| listing.route.clone()),
            replicas: entry.map(|entry| entry.replicas.clone()).unwrap_or_default(),
            demand: entry.map_or(0, |entry| entry.demand),
            obstacle: entry.and_then(|entry| entry.obstacle.clone()),
            latest_phase: listing.map(|listing| listing.latest.1),
        }
    }

    fn replica(&mut self, service: ServiceId, id: &ReplicaId) -> Option<&mut Replica> {
        let entry = self.services.get_mut(&service)?;
        entry.replicas.iter_mut().find(|replica| replica.id == *id)
    }

    fn forget_if_empty(&mut self, service: ServiceId) {
        let empty = |entry: &Entry| entry.listing.is_none() && entry.replicas.is_empty();
        if self.services.get(&service).is_some_and(empty) {
            self.services.remove(&service);
        }
    }
}

/// Puts `value` in place and tells whether it is another one.
fn replace<T: PartialEq>(place: &mut T, value: T) -> bool {
    let news = *place != value;
    *place = value;
    news
}
