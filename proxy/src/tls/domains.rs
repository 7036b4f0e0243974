//! The public domains of existing services, as the edge sees them: for these, and no others, a
//! certificate authority is asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use control::name::{PublicDomain, ServiceId};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Which services have which domain.
#[derive(Debug, Default)]
pub(crate) struct Domains {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Known {
    by_service: HashMap<ServiceId, PublicDomain>,
    /// How many services have it.
    count: BTreeMap<PublicDomain, usize>,
}

impl Domains {
    /// Notes the domain of one service; None when the service is gone.
    pub(crate) fn set(&self, service: ServiceId, domain: Option<&PublicDomain>) {
        let mut known = self.known.lock();
        if known.by_service.get(&service) == domain {
            return;
        }
        if let Some(old) = known.by_service.remove(&service)
            && let Some(count) = known.count.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                known.count.remove(&old);
            }
        }
        if let Some(domain) = domain {
            *known.count.entry(domain.clone()).or_default() += 1;
            known.by_service.insert(service, domain.clone());
        }
        self.changed.notify_one();
    }

    /// All domains.
    pub(crate) fn all(&self) -> BTreeSet<PublicDomain> {
        self.known.lock().count.keys().cloned().collect()
    }

    /// Waits for a change since the last wait. For one waiter.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_there_as_long_as_a_service_has_it() {
        let domains = Domains::default();
        let (one, two) = (ServiceId::new(), ServiceId::new());
        let [a, b] = ["a.example", "b.example"].map(|d| PublicDomain::parse(d).expect("valid"));
        domains.set(one, Some(&a));
        domains.set(two, Some(&a));
        domains.set(one, Some(&b));
        assert_eq!(domains.all(), BTreeSet::from([a.clone(), b.clone()]));
        domains.set(two, None);
        domains.set(two, None);
        assert_eq!(domains.all(), BTreeSet::from([b]));
    }

    #[tokio::test]
    async fn a_change_is_noticed_once_and_a_repetition_is_none() {
        let domains = Domains::default();
        let service = ServiceId::new();
        let a = PublicDomain::parse("a.example").expect("valid");
        domains.set(service, Some(&a));
        domains.changed().await;
        domains.set(service, Some(&a));
        assert!(is_pending(domains.changed()));
        domains.set(service, None);
        domains.changed().await;
    }

    /// Whether a future is not ready when it is polled once.
    fn is_pending(future: impl Future<Output = ()>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(future).poll(&mut context).is_pending()
    }
}
