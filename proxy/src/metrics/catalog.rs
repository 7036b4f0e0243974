//! Which services there are to be shown. Changed when a service is, read by scrapes; requests do not
//! come here.

use std::{collections::HashMap, sync::Arc};

use control::{
    name::{FunctionName, ServiceId},
    service::{Seen, ServiceView},
};
use parking_lot::Mutex;

use crate::pool::Pool;

/// The services and their pools.
#[derive(Default)]
pub(crate) struct Catalog(Mutex<HashMap<ServiceId, Entry>>);

/// One service as a scrape finds it.
#[derive(Clone)]
pub(super) struct Entry {
    /// None for a service that is deleted and whose replicas are not gone yet.
    pub(super) function: Option<FunctionName>,
    pub(super) pool: Arc<Pool>,
    /// Replicas that have not called home yet.
    pub(super) starting: u64,
    /// Replicas that serve no more and are not removed yet.
    pub(super) stopping: u64,
}

impl Catalog {
    /// Takes over what the store says of a service.
    pub(crate) fn set(&self, service: ServiceId, view: &ServiceView, pool: &Arc<Pool>) {
        if view.route.is_none() && view.replicas.is_empty() {
            self.0.lock().remove(&service);
            return;
        }
        let count = |state: fn(&Option<Seen>) -> bool| {
            view.replicas.iter().filter(|replica| state(&replica.seen)).count() as u64
        };
        let entry = Entry {
            function: view.route.as_ref().map(|route| route.function_name.clone()),
            pool: pool.clone(),
            starting: count(|seen| seen.is_none()),
            stopping: count(|seen| {
                matches!(seen, Some(Seen::Gone { .. } | Seen::Unloadable { .. }))
            }),
        };
        self.0.lock().insert(service, entry);
    }

    /// All of them, in a lasting order.
    pub(super) fn entries(&self) -> Vec<(ServiceId, Entry)> {
        let mut entries: Vec<_> =
            self.0.lock().iter().map(|(id, entry)| (*id, entry.clone())).collect();
        entries.sort_unstable_by_key(|(id, _)| *id);
        entries
    }
}
