//! What `benches/` measures of the edge: nothing here serves anybody.

use std::sync::Arc;

use control::{
    name::{FunctionName, PublicDomain, ServiceId},
    service::Route,
};
use tokio::sync::mpsc;

use crate::{pool::Pool, route::Routes};

/// An edge's routes to services that sleep.
pub struct Town {
    routes: Routes,
    /// Host and path of each.
    addresses: Vec<(String, String)>,
}

impl Town {
    /// So many services, each with its own host as services have by default.
    pub fn with(count: usize) -> Self {
        let (notes, _) = mpsc::unbounded_channel();
        let mut town = Self { routes: Routes::default(), addresses: Vec::new() };
        for number in 0..count {
            let name = format!("service-{number}");
            let domain = PublicDomain::parse(format!("{name}.localhost")).expect("valid");
            let function = FunctionName::parse(name.as_str()).expect("valid");
            let route = Route::new(ServiceId::new(), domain, function);
            let pool: Arc<Pool> = Pool::new(route.service, 256, notes.clone());
            town.routes.set(route.service, Some(&route), &pool);
        }
        // Only some, so that the benchmark's own memory does not count for much.
        town.addresses = (0..count.min(1000))
            .map(|number| number * (count / count.clamp(1, 1000)))
            .map(|number| {
                (format!("service-{number}.localhost:8080"), format!("/fn/service-{number}/a/b"))
            })
            .collect();
        town
    }

    /// How many addresses [`leads_somewhere`](Self::leads_somewhere) knows.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Looks one of the addresses up, as a request does.
    pub fn leads_somewhere(&self, number: usize) -> bool {
        let (host, path) = &self.addresses[number % self.addresses.len()];
        self.routes.find(host, path).is_some()
    }
}
