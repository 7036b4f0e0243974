//! The sockets that Grid listens on. Each one is bound here, or taken over from the process that is
//! replaced, or from systemd; and can be shared with the process that comes next.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use parking_lot::Mutex;

/// Listeners, those that came with the process first.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    inherited: Mutex<Vec<TcpListener>>,
    /// A second descriptor of each one that is used.
    kept: Mutex<Vec<TcpListener>>,
}

impl Sockets {
    /// With listeners that came with the process.
    pub(crate) fn with(inherited: Vec<TcpListener>) -> Self {
        Self { inherited: Mutex::new(inherited), kept: Mutex::default() }
    }

    /// A listener for an address, so that one that is taken stops the start with a clear line.
    /// Port 0 takes the first one of its address that is left.
    pub(crate) fn listen(&self, setting: &str, address: SocketAddr) -> Result<TcpListener, String> {
        let bound = match self.take(address) {
            Some(listener) => Ok(listener),
            None => TcpListener::bind(address),
        };
        let kept = bound.and_then(|listener| Ok((listener.try_clone()?, listener)));
        let (second, listener) = kept.map_err(|e| {
            format!("{setting}: cannot listen on {address}: {e}; stop what listens there, or set {setting} to another address")
        })?;
        self.kept.lock().push(second);
        Ok(listener)
    }

    /// Closes what came with the process and is not used; gives the addresses.
    pub(crate) fn close_unused(&self) -> Vec<SocketAddr> {
        let unused = std::mem::take(&mut *self.inherited.lock());
        unused.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// A descriptor of each, in the order in which they were asked for.
    pub(crate) fn share(&self) -> io::Result<Vec<OwnedFd>> {
        let kept = self.kept.lock();
        kept.iter().map(|listener| Ok(OwnedFd::from(listener.try_clone()?))).collect()
    }

    /// Lets go of them, so that the sockets end with those who accept on them.
    pub(crate) fn close(&self) {
        self.kept.lock().clear();
    }

    fn take(&self, address: SocketAddr) -> Option<TcpListener> {
        let mut inherited = self.inherited.lock();
        let fits = |listener: &TcpListener| {
            listener.local_addr().is_ok_and(|own| {
                own == address || (address.port() == 0 && own.ip() == address.ip())
            })
        };
        let place = inherited.iter().position(fits)?;
        Some(inherited.remove(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> SocketAddr {
        "127.0.0.1:0".parse().expect("an address")
    }

    #[test]
    fn what_one_process_shares_the_next_one_takes() {
        let first = Sockets::default();
        let public = first.listen("GRID_HTTP_ADDR", free()).expect("binds");
        let admin = first.listen("GRID_ADMIN_ADDR", free()).expect("binds");
        let addresses = [public, admin].map(|listener| listener.local_addr().expect("bound"));
        let second = Sockets::with(
            first.share().expect("shares").into_iter().map(TcpListener::from).collect(),
        );
        let taken = second.listen("GRID_ADMIN_ADDR", addresses[1]).expect("takes");
        assert_eq!(taken.local_addr().expect("bound"), addresses[1]);
        let any = second.listen("GRID_HTTP_ADDR", free()).expect("takes");
        assert_eq!(any.local_addr().expect("bound"), addresses[0]);
        let other = second.listen("GRID_HTTP_ADDR", free()).expect("binds");
        assert!(!addresses.contains(&other.local_addr().expect("bound")));

        let refused = second.listen("GRID_HTTP_ADDR", addresses[0]).expect_err("in use");
        assert!(refused.starts_with("GRID_HTTP_ADDR: cannot listen on"), "{refused}");
        assert_eq!(second.close_unused(), []);
    }

    #[test]
    fn a_socket_ends_with_those_who_accept_on_it() {
        let sockets = Sockets::default();
        let listener = sockets.listen("GRID_HTTP_ADDR", free()).expect("binds");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        assert!(std::net::TcpStream::connect(address).is_ok(), "it can still be shared");
        sockets.close();
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
