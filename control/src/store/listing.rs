//! Lists of services: what they are filtered and ordered by. The same for every store, which keeps
//! one [`Listing`] per service at hand so that a page costs no look at the records beyond its own.

use std::{cmp::Ordering, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Page;
use crate::{
    name::{DeploymentId, ServiceId, ServiceName, UserName},
    service::{Phase, Route, Service, Status},
};

/// What is known of a service without reading its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Where it is called, and which deployment serves.
    pub route: Route,
    /// Whose it is.
    pub owner: UserName,
    /// Its name.
    pub name: ServiceName,
    /// Its newest deployment, and how far that is.
    pub latest: (DeploymentId, Phase),
    /// Its place in the order of creation.
    pub place: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its owner last changed it.
    pub updated_at: Timestamp,
}

impl Listing {
    /// The listing of a service whose newest deployment is in `phase`.
    pub fn of(service: &Service, place: u64, phase: Phase) -> Self {
        Self {
            route: Route::from(service),
            owner: service.owner.clone(),
            name: service.name.clone(),
            latest: (service.latest_deployment, phase),
            place,
            created_at: service.created_at,
            updated_at: service.updated_at,
        }
    }

    /// How the service is; `obstructed` says that its replicas cannot be started.
    pub fn status(&self, obstructed: bool) -> Status {
        Status::of(self.route.live_deployment, self.latest.1, obstructed)
    }
}

/// Which services are asked for, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceQuery {
    /// Of this user; none for everybody's.
    pub owner: Option<UserName>,
    /// With exactly this name. It is text, because a name that no service can have is no error here.
    pub name: Option<String>,
    /// In this state.
    pub status: Option<Status>,
    /// First by the first; those that are equal in all of them in the order of creation.
    pub ordering: Vec<Order>,
}

/// One key of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// What is compared.
    pub by: OrderKey,
    /// Greatest first.
    pub descending: bool,
}

/// What services can be ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderKey {
    /// Their names, bytewise.
    Name,
    /// When they were made.
    CreatedAt,
    /// When they were last changed.
    UpdatedAt,
}

impl FromStr for Order {
    type Err = ();

    /// `name`, or `-name` for the greatest first.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (descending, key) = match text.strip_prefix('-') {
            Some(key) => (true, key),
            None => (false, text),
        };
        let by = match key {
            "name" => OrderKey::Name,
            "created_at" => OrderKey::CreatedAt,
            "updated_at" => OrderKey::UpdatedAt,
            _ => return Err(()),
        };
        Ok(Self { by, descending })
    }
}

/// The ids of one page of the services that a query takes; with each listing, whether the replicas
/// of its service cannot be started.
pub(super) fn select<'a>(
    listings: impl Iterator<Item = (&'a Listing, bool)>,
    query: &ServiceQuery,
    offset: usize,
    limit: usize,
) -> Page<ServiceId> {
    let taken = listings.filter(|(listing, obstructed)| query.takes(listing, *obstructed));
    let mut found: Vec<&Listing> = taken.map(|(listing, _)| listing).collect();
    found.sort_by(|a, b| query.compare(a, b));
    let page = found.iter().skip(offset).take(limit);
    Page { count: found.len() as u64, items: page.map(|found| found.route.service).collect() }
}

impl ServiceQuery {
    /// Everything of everybody.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether the service is among them; `obstructed` as for [`Listing::status`].
    pub fn takes(&self, listing: &Listing, obstructed: bool) -> bool {
        self.owner.as_ref().is_none_or(|owner| *owner == listing.owner)
            && self.name.as_ref().is_none_or(|name| name == listing.name.as_str())
            && self.status.is_none_or(|status| status == listing.status(obstructed))
    }

    /// Which of two comes first.
    pub fn compare(&self, a: &Listing, b: &Listing) -> Ordering {
        let by = |order: &Order| {
            let ordering = match order.by {
                OrderKey::Name => a.name.cmp(&b.name),
                OrderKey::CreatedAt => a.created_at.cmp(&b.created_at),
                OrderKey::UpdatedAt => a.updated_at.cmp(&b.updated_at),
            };
            if order.descending { ordering.reverse() } else { ordering }
        };
        let given = self.ordering.iter().map(by).find(|ordering| ordering.is_ne());
        given.unwrap_or_else(|| a.place.cmp(&b.place))
    }
}
