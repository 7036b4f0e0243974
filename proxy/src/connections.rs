//! How many connections are open, in all and of each client.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use pingora_core::upstreams::peer::Tracing;

use crate::origin::ClientKey;

/// Counts connections.
#[derive(Debug)]
pub(crate) struct Connections {
    most: usize,
    /// None for any number.
    most_of_client: Option<usize>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// Those that have some; so there are never more than connections.
    clients: HashMap<ClientKey, usize>,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    client: Option<ClientKey>,
}

/// There are enough already; so many are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full(pub(crate) usize);

impl Connections {
    /// At most so many, of which one client may have so many; 0 for any number. Some stay for others
    /// in any case.
    pub(crate) fn new(most: usize, most_of_client: usize) -> Arc<Self> {
        let most_of_client = (most_of_client > 0).then(|| most_of_client.min(most - most / 4));
        Arc::new(Self { most, most_of_client, open: Mutex::default() })
    }

    /// Counts a new connection.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Place, Full> {
        let mut open = self.open.lock();
        if open.all >= self.most {
            return Err(Full(self.most));
        }
        open.all += 1;
        Ok(Place { connections: self.clone(), client: None })
    }
}

impl Place {
    /// Counts the connection as one of a client's, once that is known.
    pub(crate) fn belongs_to(&mut self, client: ClientKey) -> Result<(), Full> {
        let Some(most) = self.connections.most_of_client else { return Ok(()) };
        let mut open = self.connections.open.lock();
        let count = open.clients.entry(client).or_default();
        if *count >= most {
            return Err(Full(most));
        }
        *count += 1;
        drop(open);
        self.client = Some(client);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.all -= 1;
        let Some(client) = self.client else { return };
        if let Some(count) = open.clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                open.clients.remove(&client);
            }
        }
    }
}

/// Pingora lets a connection carry this with it to its end, through TLS too.
#[derive(Debug)]
pub(crate) struct Carried(pub(crate) Arc<Place>);

impl Tracing for Carried {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {}

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(Self(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn client(n: u8) -> ClientKey {
        ClientKey::of(IpAddr::from([192, 0, 2, n]))
    }

    fn connect(connections: &Arc<Connections>, n: u8) -> Result<Place, Full> {
        let mut place = connections.enter()?;
        place.belongs_to(client(n))?;
        Ok(place)
    }

    #[test]
    fn each_client_and_all_together_have_a_cap() {
        let connections = Connections::new(10, 4);
        let mut open: Vec<_> = (0..4).map(|_| connect(&connections, 1).expect("a place")).collect();
        assert_eq!(connect(&connections, 1).err(), Some(Full(4)));
        open.extend((0..4).map(|_| connect(&connections, 2).expect("a place")));
        let proxies: Vec<_> = std::iter::from_fn(|| connections.enter().ok()).collect();
        assert_eq!(proxies.len(), 2, "one that belongs to no client counts as well");
        assert_eq!(connect(&connections, 3).err(), Some(Full(10)));
        open.pop();
        assert_eq!(connect(&connections, 1).err(), Some(Full(4)));
        assert!(connect(&connections, 2).is_ok());
        drop((open, proxies));
        let open = connections.open.lock();
        assert_eq!((open.all, open.clients.len()), (0, 0));
    }

    #[test]
    fn one_client_never_gets_all() {
        for (most, of_client, expected) in [(100, 99, 75), (100, 10, 10), (100, 0, 100), (1, 1, 1)]
        {
            let connections = Connections::new(most, of_client);
            let open: Vec<_> = std::iter::from_fn(|| connect(&connections, 1).ok()).collect();
            assert_eq!(open.len(), expected, "{of_client} of {most}");
        }
    }

    proptest! {
        /// However they come and go, nothing is counted twice or forgotten.
        #[test]
        fn counts_are_those_of_what_is_open(steps in prop::collection::vec((0u8..4, any::<bool>()), 0..200)) {
            let connections = Connections::new(20, 7);
            let mut open: Vec<(u8, Place)> = Vec::new();
            for (n, comes) in steps {
                let of_client = open.iter().filter(|(who, _)| *who == n).count();
                if comes {
                    let place = connect(&connections, n);
                    prop_assert_eq!(place.is_ok(), of_client < 7 && open.len() < 20);
                    open.extend(place.map(|place| (n, place)));
                } else if let Some(at) = open.iter().position(|(who, _)| *who == n) {
                    drop(open.swap_remove(at));
                }
                prop_assert_eq!(connections.open.lock().all, open.len());
            }
        }
    }
}
