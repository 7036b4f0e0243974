//! Which function answers at which host and path.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use control::{
    name::{FunctionName, PublicDomain, ServiceId},
    service::Route,
};
use parking_lot::RwLock;

use crate::pool::Pool;

/// All routes. Looked up by every request, changed when a service is.
#[derive(Default)]
pub(crate) struct Routes(RwLock<Table>);

#[derive(Default)]
struct Table {
    hosts: HashMap<String, HashMap<String, Arc<Target>>>,
    by_service: HashMap<ServiceId, (PublicDomain, FunctionName)>,
}

/// Where a request goes.
pub(crate) struct Target {
    /// The function's name, as the runner is told.
    pub(crate) function: FunctionName,
    /// Its replicas and queue.
    pub(crate) pool: Arc<Pool>,
}

impl Routes {
    /// Sets or removes the route of one service.
    pub(crate) fn set(&self, service: ServiceId, route: Option<&Route>, pool: &Arc<Pool>) {
        let wanted = route.map(|r| (r.public_domain.clone(), r.function_name.clone()));
        let mut table = self.0.write();
        if table.by_service.get(&service) == wanted.as_ref() {
            return;
        }
        if let Some((domain, function)) = table.by_service.remove(&service) {
            table.remove(service, &domain, &function);
        }
        if let Some((domain, function)) = wanted {
            let target = Arc::new(Target { function: function.clone(), pool: pool.clone() });
            let functions = table.hosts.entry(domain.to_string()).or_default();
            functions.insert(function.to_string(), target);
            table.by_service.insert(service, (domain, function));
        }
    }

    /// The target of a request: the host without its port, and the first two parts of the path.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<Arc<Target>> {
        let host = host_name(host)?;
        let function = function_name(path)?;
        self.0.read().hosts.get(host.as_ref())?.get(function).cloned()
    }
}

impl Table {
    fn remove(&mut self, service: ServiceId, domain: &PublicDomain, function: &FunctionName) {
        let Some(functions) = self.hosts.get_mut(domain.as_str()) else { return };
        // Another service may have taken the address over in the meantime.
        let owner =
            |other: &(PublicDomain, FunctionName)| other.0 == *domain && other.1 == *function;
        if self.by_service.iter().any(|(id, other)| *id != service && owner(other)) {
            return;
        }
        functions.remove(function.as_str());
        if functions.is_empty() {
            self.hosts.remove(domain.as_str());
        }
    }
}

/// The name in a Host header: lower case, without port and trailing dot.
fn host_name(host: &str) -> Option<Cow<'_, str>> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) => return None,
        None => host,
    };
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
        Route {
            service,
            public_domain: PublicDomain::parse(domain).expect("valid"),
            function_name: FunctionName::parse(function).expect("valid"),
            live_deployment: None,
            min_replicas: 0,
            max_replicas: 1,
        }
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

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_panics(host in ".{0,60}", path in ".{0,60}") {
            let _ = Routes::default().find(&host, &path);
        }
    }
}
