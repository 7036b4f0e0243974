//! Who asks, how often and how much at once. A client is an address; what is known about it is
//! forgotten when it has been quiet for as long as its burst takes to fill up again.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    state::{InMemoryState, NotKeyed},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::limits;

/// The time of the runtime, so that tests can stop it.
#[derive(Debug, Clone)]
struct RuntimeClock;

impl Clock for RuntimeClock {
    type Instant = std::time::Instant;

    fn now(&self) -> Self::Instant {
        Instant::now().into_std()
    }
}

#[derive(Debug)]
struct Client {
    rate: RateLimiter<NotKeyed, InMemoryState, RuntimeClock>,
    seen: Instant,
    questions: usize,
    connections: usize,
}

#[derive(Debug, Default)]
struct Table {
    clients: HashMap<IpAddr, Client>,
    questions: usize,
    connections: usize,
}

/// All clients.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<Table>);

#[derive(Debug, Clone, Copy)]
enum Use {
    Question,
    Connection,
}

/// A question that is being answered or a connection that is open; counted until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    clients: Arc<Clients>,
    address: IpAddr,
    what: Use,
}

impl Clients {
    /// Counts a question; none when the client asks too often or too much is being answered.
    pub(super) fn question(self: &Arc<Self>, address: IpAddr) -> Option<Lease> {
        let mut table = self.0.lock();
        let Table { questions, .. } = *table;
        let client = table.client(address)?;
        let (per_client, total) = limits::QUESTIONS;
        if client.rate.check().is_err() || client.questions >= per_client || questions >= total {
            return None;
        }
        client.questions += 1;
        table.questions += 1;
        Some(Lease { clients: Arc::clone(self), address, what: Use::Question })
    }

    /// Counts a TCP connection; none when there are enough.
    pub(super) fn connection(self: &Arc<Self>, address: IpAddr) -> Option<Lease> {
        let mut table = self.0.lock();
        let Table { connections, .. } = *table;
        let client = table.client(address)?;
        let (per_client, total) = limits::CONNECTIONS;
        if client.connections >= per_client || connections >= total {
            return None;
        }
        client.connections += 1;
        table.connections += 1;
        Some(Lease { clients: Arc::clone(self), address, what: Use::Connection })
    }
}

impl Table {
    fn client(&mut self, address: IpAddr) -> Option<&mut Client> {
        let now = Instant::now();
        if self.clients.len() >= limits::CLIENTS && !self.clients.contains_key(&address) {
            let refill = Duration::from_secs(1) * limits::BURST.get() / limits::RATE.get();
            self.clients.retain(|_, client| {
                client.questions + client.connections > 0
                    || now.saturating_duration_since(client.seen) < refill
            });
            if self.clients.len() >= limits::CLIENTS {
                return None;
            }
        }
        let client = self.clients.entry(address).or_insert_with(|| {
            let quota = Quota::per_second(limits::RATE).allow_burst(limits::BURST);
            Client {
                rate: RateLimiter::direct_with_clock(quota, RuntimeClock),
                seen: now,
                questions: 0,
                connections: 0,
            }
        });
        client.seen = now;
        Some(client)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut table = self.clients.0.lock();
        // A client with a lease is never forgotten, so it is there.
        let Some(client) = table.clients.get_mut(&self.address) else { return };
        match self.what {
            Use::Question => {
                client.questions -= 1;
                table.questions -= 1;
            }
            Use::Connection => {
                client.connections -= 1;
                table.connections -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn client(n: usize) -> IpAddr {
        Ipv4Addr::from(u32::try_from(n).expect("small")).into()
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_has_a_burst_and_a_rate() {
        let clients = Arc::<Clients>::default();
        let asked = |n| (0..1000).filter(|_| clients.question(client(n)).is_some()).count();
        assert_eq!(asked(1), 200);
        assert_eq!(asked(2), 200, "another client is not touched by it");
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(asked(1), 10);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(asked(1), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_open_is_bounded_and_given_back() {
        let clients = Arc::<Clients>::default();
        let take = |n| std::iter::from_fn(|| clients.question(client(n))).collect::<Vec<_>>();
        let first = take(0);
        assert_eq!(first.len(), 64);
        let rest: Vec<_> = (1..20).flat_map(take).collect();
        assert_eq!(first.len() + rest.len(), 512);
        drop(first);
        assert_eq!(take(19).len(), 64);

        let connect = |n| std::iter::from_fn(|| clients.connection(client(n))).collect::<Vec<_>>();
        let first = connect(0);
        assert_eq!(first.len(), 8);
        let rest: Vec<_> = (1..20).flat_map(connect).collect();
        assert_eq!(first.len() + rest.len(), 64);
        drop(rest);
        assert_eq!(connect(1).len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let clients = Arc::<Clients>::default();
        let busy = clients.question(client(0)).expect("a lease");
        let known = |range: std::ops::Range<usize>| {
            range.filter(|n| clients.question(client(*n)).is_some()).count()
        };
        assert_eq!(known(1..10_000), limits::CLIENTS - 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(known(10_000..10_001), 1);
        assert_eq!(clients.0.lock().clients.len(), 2, "the busy one and the new one");
        drop(busy);
        assert_eq!(clients.0.lock().questions, 0);
    }
}
