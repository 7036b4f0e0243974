//! What functions tried to reach and could not: counted per service, shown in its record and its
//! log. Bounded in what is remembered and in what is said: a function may try as often as it likes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::Ipv4Addr,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::name::{ReplicaId, ServiceId};

/// Destinations that are remembered per service; the least recent one makes room.
const TARGETS: usize = 32;
/// Lines that are written to a service's log within [`LOG_PERIOD`].
const LINES: u32 = 20;
/// See [`LINES`].
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// Where a function wanted to go: `tcp 10.0.0.1:80`, `icmp 10.0.0.1`, `dns db.example.com (10.0.0.1)`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(as = Destination)]
pub struct Target {
    /// `tcp`, `udp`, another protocol, or `dns` for an answer that was withheld.
    pub protocol: String,
    /// Address; for `dns` the name, and the address in parentheses.
    pub to: String,
    /// Port, where there is one.
    pub port: Option<u16>,
}

/// How often one destination was denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeniedTarget {
    /// Where to.
    #[serde(flatten)]
    pub target: Target,
    /// Attempts: packets of connections, queries.
    pub count: u64,
    /// The last one, to a second or two.
    pub last_at: Timestamp,
}

/// `{"count": 12, "targets": [{"protocol": "tcp", "to": "10.0.0.1", "port": 80, "count": 12, "last_at": "…"}]}`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EgressDenied)]
pub struct Summary {
    /// All attempts since Grid started.
    pub count: u64,
    /// The most recent destinations first, bounded.
    pub targets: Vec<DeniedTarget>,
}

/// A line for a service's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whose log.
    pub service: ServiceId,
    /// Who tried.
    pub replica: ReplicaId,
    /// What to say.
    pub text: String,
}

/// Who has which address, and what was denied to whom.
#[derive(Debug, Default)]
pub struct Denied(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// An address stays with its last owner: what it did may be read later.
    owners: HashMap<Ipv4Addr, (ServiceId, ReplicaId)>,
    services: HashMap<ServiceId, Record>,
}

#[derive(Debug)]
struct Record {
    total: u64,
    targets: BTreeMap<Target, (u64, Timestamp)>,
    period: Instant,
    lines: u32,
}

impl Target {
    /// A DNS answer that was withheld.
    pub fn dns(name: &str, address: impl fmt::Display) -> Self {
        Self { protocol: "dns".to_owned(), to: format!("{name} ({address})"), port: None }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.to)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Denied {
    /// A replica has an address from now on.
    pub fn assign(&self, address: Ipv4Addr, service: ServiceId, replica: ReplicaId) {
        self.0.lock().owners.insert(address, (service, replica));
    }

    /// Counts attempts from an address. What is to be said about it, if anything.
    pub fn add(&self, source: Ipv4Addr, target: Target, attempts: u64) -> Option<Line> {
        let mut inner = self.0.lock();
        let (service, replica) = inner.owners.get(&source)?.clone();
        let record = inner.services.entry(service).or_insert_with(Record::new);
        let text = record.add(target, attempts)?;
        Some(Line { service, replica, text })
    }

    /// What was denied to a service.
    pub fn of(&self, service: ServiceId) -> Summary {
        self.0.lock().services.get(&service).map(Record::summary).unwrap_or_default()
    }

    /// Attempts of every service that made any.
    pub fn totals(&self) -> Vec<(ServiceId, u64)> {
        self.0.lock().services.iter().map(|(service, record)| (*service, record.total)).collect()
    }

    /// The service is gone.
    pub fn forget(&self, service: ServiceId) {
        let mut inner = self.0.lock();
        inner.services.remove(&service);
        inner.owners.retain(|_, (owner, _)| *owner != service);
    }
}

impl Record {
    fn new() -> Self {
        Self { total: 0, targets: BTreeMap::new(), period: Instant::now(), lines: 0 }
    }

    fn add(&mut self, target: Target, attempts: u64) -> Option<String> {
        self.total = self.total.saturating_add(attempts);
        let now = Timestamp::now();
        if !self.targets.contains_key(&target) && self.targets.len() >= TARGETS {
            let oldest = self.targets.iter().min_by_key(|(_, (_, at))| *at).map(|(t, _)| t.clone());
            oldest.map(|target| self.targets.remove(&target));
        }
        let entry = self.targets.entry(target.clone()).or_insert((0, now));
        *entry = (entry.0.saturating_add(attempts), now);
        let in_all = entry.0;
        if self.period.elapsed() >= LOG_PERIOD {
            (self.period, self.lines) = (Instant::now(), 0);
        }
        self.lines += 1;
        match self.lines.cmp(&LINES) {
            std::cmp::Ordering::Less => {
                let times = if in_all == 1 { "once" } else { &format!("{in_all} times in all") };
                Some(format!("egress denied: {target} ({times})"))
            }
            std::cmp::Ordering::Equal => Some(
                "egress denied: more attempts are counted in the service's record, but not \
                 written here for a minute"
                    .to_owned(),
            ),
            std::cmp::Ordering::Greater => None,
        }
    }

    fn summary(&self) -> Summary {
        let mut targets: Vec<_> = self
            .targets
            .iter()
            .map(|(target, (count, at))| DeniedTarget {
                target: target.clone(),
                count: *count,
                last_at: *at,
            })
            .collect();
        targets.sort_by_key(|target| std::cmp::Reverse(target.last_at));
        Summary { count: self.total, targets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(n: u32) -> Target {
        let to = Ipv4Addr::from(0x0a00_0000 + n).to_string();
        Target { protocol: "tcp".to_owned(), to, port: Some(80) }
    }

    fn assigned() -> (Denied, Ipv4Addr, ServiceId) {
        let (denied, address, service) =
            (Denied::default(), Ipv4Addr::new(172, 30, 0, 2), ServiceId::new());
        denied.assign(address, service, ReplicaId::random());
        (denied, address, service)
    }

    #[test]
    fn attempts_are_counted_for_the_service_of_the_address() {
        let (denied, address, service) = assigned();
        let line = denied.add(address, target(1), 3).expect("a line");
        assert_eq!(
            (line.service, line.text.as_str()),
            (service, "egress denied: tcp 10.0.0.1:80 (3 times in all)")
        );
        assert_eq!(denied.add(Ipv4Addr::LOCALHOST, target(1), 3), None);
        let summary = denied.of(service);
        assert_eq!((summary.count, summary.targets.len()), (3, 1));
        assert_eq!(denied.totals(), [(service, 3)]);
        denied.forget(service);
        assert_eq!(denied.totals(), []);
        assert_eq!(denied.of(service), Summary::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_bounded_in_memory_and_words() {
        let (denied, address, service) = assigned();
        let lines = (0..10_000).filter_map(|n| denied.add(address, target(n), 1)).count();
        assert_eq!(lines, LINES as usize);
        let summary = denied.of(service);
        assert_eq!((summary.count, summary.targets.len()), (10_000, TARGETS));
        assert!(summary.targets.iter().any(|t| t.target == target(9_999)));
        tokio::time::advance(LOG_PERIOD).await;
        assert!(denied.add(address, target(1), 1).is_some(), "a new minute");
    }
}
