//! Which function answers at which host and path. A lookup costs the same for ten routes and for a
//! hundred thousand: one hash of host and name, and one comparison.

use std::{borrow::Cow, collections::HashMap, hash::BuildHasher, sync::Arc};

use control::{
    name::{FunctionName, PublicDomain, ServiceId},
    service::Route,
};
use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::RwLock;

use crate::{
    address,
    pool::Pool,
    rate::{Rate, ServiceRate},
};

/// All routes. Looked up by every request, changed when a service is.
#[derive(Default)]
pub(crate) struct Routes {
    table: RwLock<Table>,
    /// The rate of services that have none of their own.
    usual_rate: Option<Rate>,
}

#[derive(Default)]
struct Table {
    /// By host and name, which are in the targets themselves.
    targets: HashTable<Arc<Target>>,
    by_service: HashMap<ServiceId, Arc<Target>>,
    hasher: DefaultHashBuilder,
}

/// Where a request goes.
pub(crate) struct Target {
    domain: PublicDomain,
    /// The function's name, as the runner is told.
    pub(crate) function: FunctionName,
    /// Its replicas and queue.
    pub(crate) pool: Arc<Pool>,
    /// How often it may be called.
    pub(crate) rate: ServiceRate,
}

impl Routes {
    pub(crate) fn new(usual_rate: Option<Rate>) -> Self {
        Self { usual_rate, ..Self::default() }
    }

    /// Sets or removes the route of one service.
    pub(crate) fn set(&self, service: ServiceId, route: Option<&Route>, pool: &Arc<Pool>) {
        let rate = route.and_then(|route| Rate::of(route, self.usual_rate));
        let mut table = self.table.write();
        if let (Some(target), Some(route)) = (table.by_service.get(&service), route)
            && target.answers(route.public_domain.as_str(), route.function_name.as_str())
            && target.rate.is(rate)
        {
            return;
        }
        table.remove(service);
        if let Some(route) = route {
            table.add(
                Arc::new(Target {
                    domain: route.public_domain.clone(),
                    function: route.function_name.clone(),
                    pool: pool.clone(),
                    rate: ServiceRate::new(rate),
                }),
                service,
            );
        }
    }

    /// The target of a request: the host without its port, and the first two parts of the path.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<Arc<Target>> {
        let host = host_name(host)?;
        let function = function_name(path)?;
        self.table.read().get(&host, function).cloned()
    }
}

impl Table {
    fn get(&self, domain: &str, function: &str) -> Option<&Arc<Target>> {
        let hash = self.hasher.hash_one((domain, function));
        self.targets.find(hash, |target| target.answers(domain, function))
    }

    fn add(&mut self, target: Arc<Target>, service: ServiceId) {
        let Self { targets, by_service, hasher } = self;
        let key = |target: &Arc<Target>| {
            hasher.hash_one((target.domain.as_str(), target.function.as_str()))
        };
        let same =
            |other: &Arc<Target>| other.answers(target.domain.as_str(), target.function.as_str());
        by_service.insert(service, target.clone());
        // Another service may still have this address: it has given it up, and its own news follow.
        match targets.entry(key(&target), same, key) {
            hashbrown::hash_table::Entry::Occupied(mut other) => *other.get_mut() = target,
            hashbrown::hash_table::Entry::Vacant(place) => drop(place.insert(target)),
        }
    }

    fn remove(&mut self, service: ServiceId) {
        let Some(target) = self.by_service.remove(&service) else { return };
        let hash = self.hasher.hash_one((target.domain.as_str(), target.function.as_str()));
        // Another service may have taken the address over in the meantime.
        if let Ok(place) = self.targets.find_entry(hash, |other| Arc::ptr_eq(other, &target)) {
            place.remove();
        }
    }
}

impl Target {
    fn answers(&self, domain: &str, function: &str) -> bool {
        self.domain.as_str() == domain && self.function.as_str() == function
    }
}

/// The name in a Host header: lower case, without port and trailing dot.
fn host_name(host: &str) -> Option<Cow<'_, str>> {
    let name = address::host_name(host)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    Some(if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

/// The name in `/fn/<name>` or `/fn/<name>/…`.
fn function_name(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/fn/")?;
    rest.split('/').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::mpsc;

    use super::*;

    fn route(service: ServiceId, domain: &str, function: &str) -> Route {
        let domain = PublicDomain::parse(domain).expect("valid");
        Route::new(service, domain, FunctionName::parse(function).expect("valid"))
    }

    #[test]
    fn a_function_is_found_by_host_and_path_and_moves_with_its_service() {
        let routes = Routes::default();
        let service = ServiceId::new();
        let pool = Pool::new(service, 1, mpsc::unbounded_channel().0);
        routes.set(service, Some(&route(service, "a.example", "hello")), &pool);
        for host in ["a.example", "a.example:8080", "A.Example", "a.example.", "a.example.:1"] {
            assert!(routes.find(host, "/fn/hello").is_some(), "{host}");
        }
        for path in ["/fn/hello/", "/fn/hello/x/y"] {
            assert!(routes.find("a.example", path).is_some(), "{path}");
        }
        for (host, path) in [
            ("b.example", "/fn/hello"),
            ("a.example", "/"),
            ("a.example", "/fn/"),
            ("a.example", "/fn/hello2"),
            ("a.example", "/fn/Hello"),
            ("a.example", "/fn/%68ello"),
            ("a.example", "//fn/hello"),
            ("a.example:x", "/fn/hello"),
            ("", "/fn/hello"),
        ] {
            assert!(routes.find(host, path).is_none(), "{host} {path}");
        }
        routes.set(service, Some(&route(service, "b.example", "bye")), &pool);
        assert!(routes.find("a.example", "/fn/hello").is_none());
        assert!(routes.find("b.example", "/fn/bye").is_some());
        routes.set(service, None, &pool);
        assert!(routes.find("b.example", "/fn/bye").is_none());
    }

    #[test]
    fn an_address_that_changes_hands_is_not_lost() {
        let routes = Routes::default();
        let (first, second) = (ServiceId::new(), ServiceId::new());
        let pools = [first, second].map(|id| Pool::new(id, 1, mpsc::unbounded_channel().0));
        let owner = || {
            let target = routes.find("a.example", "/fn/hello").expect("a target");
            pools.iter().position(|pool| Arc::ptr_eq(pool, &target.pool))
        };
        routes.set(first, Some(&route(first, "a.example", "hello")), &pools[0]);
        assert_eq!(owner(), Some(0));
        // The news of the new owner may come first.
        routes.set(second, Some(&route(second, "a.example", "hello")), &pools[1]);
        assert_eq!(owner(), Some(1));
        routes.set(first, Some(&route(first, "b.example", "hello")), &pools[0]);
        assert_eq!(owner(), Some(1));
        routes.set(first, None, &pools[0]);
        assert_eq!(owner(), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_takes_effect_at_once_and_nothing_else_resets_it() {
        let routes = Routes::new(Rate::new(2, None));
        let service = ServiceId::new();
        let pool = Pool::new(service, 1, mpsc::unbounded_channel().0);
        let mut wanted = route(service, "a.example", "hello");
        let taken = |wanted: &Route| {
            routes.set(service, Some(wanted), &pool);
            let target = routes.find("a.example", "/fn/hello").expect("a route");
            (0..100).filter(|_| target.rate.check().is_ok()).count()
        };
        assert_eq!(taken(&wanted), 2);
        wanted.max_replicas += 1;
        assert_eq!(taken(&wanted), 0, "a change of something else");
        wanted.rate_limit = Some(5);
        assert_eq!(taken(&wanted), 5);
        wanted.rate_limit = Some(0);
        assert_eq!(taken(&wanted), 100);
        wanted.rate_limit = None;
        assert_eq!(taken(&wanted), 2);
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_panics(host in ".{0,60}", path in ".{0,60}") {
            let _ = Routes::default().find(&host, &path);
        }
    }
}
