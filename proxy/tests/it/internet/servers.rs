//! Servers of a host of the tests' internet. Each ends with its owner, and tells who came.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use nix::sys::socket;

use super::{Place, outside};
use crate::grid::wait_until;

/// Somebody who came: from where, and what was sent.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) from: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

impl Visit {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

type Visits = Arc<Mutex<Vec<Visit>>>;

/// Those who came before somebody of our own did.
fn strangers(visits: &Visits, own: SocketAddr) -> Vec<Visit> {
    wait_until("our own visit", || visits.lock().expect("a lock").iter().any(|v| v.from == own));
    let mut all = visits.lock().expect("a lock").clone();
    all.retain(|visit| visit.from.ip() != own.ip());
    all
}

/// An HTTP answer.
pub(crate) fn http(status: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    (text + "\r\n" + body).into_bytes()
}

/// Accepts connections at one port until it is dropped, and with it all that are open.
pub(crate) struct Acceptor {
    pub(crate) address: SocketAddr,
    socket: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    pub(crate) fn start(
        address: SocketAddr,
        each: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
    ) -> Self {
        let socket = outside(|| TcpListener::bind(address));
        let socket = socket.unwrap_or_else(|error| panic!("listen at {address}: {error}"));
        let listener = socket.try_clone().expect("a socket");
        let thread = thread::spawn(move || accept(&listener, &each));
        Self { address, socket, thread: Some(thread) }
    }
}

fn accept(listener: &TcpListener, each: &(impl Fn(TcpStream, SocketAddr) + Sync)) {
    let mut open = Vec::new();
    thread::scope(|scope| {
        loop {
            match listener.accept() {
                Ok((stream, from)) => {
                    open.push(stream.try_clone().expect("a socket"));
                    scope.spawn(move || each(stream, from));
                }
                Err(error) if error.kind() == ErrorKind::InvalidInput => break, // shut down
                Err(_) => {}
            }
        }
        for stream in &open {
            drop(stream.shutdown(Shutdown::Both));
        }
    });
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // On Linux this wakes whoever waits in accept().
        let _ = socket::shutdown(self.socket.as_raw_fd(), socket::Shutdown::Both);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// A web server.
pub(crate) struct Listener {
    acceptor: Acceptor,
    visits: Visits,
    _place: Arc<Place>,
}

impl Listener {
    pub(super) fn start(
        place: Arc<Place>,
        port: u16,
        answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let visits = Visits::default();
        let kept = Arc::clone(&visits);
        let acceptor = Acceptor::start((place.address, port).into(), move |stream, from| {
            converse(stream, from, &kept, &answer);
        });
        Self { acceptor, visits, _place: place }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.acceptor.address
    }

    /// All connections so far, also those that only just came.
    pub(crate) fn seen(&self) -> Vec<Visit> {
        // They are accepted one after the other: when this one was, all before it were.
        let own = outside(|| TcpStream::connect(self.address())).expect("a connection of our own");
        strangers(&self.visits, own.local_addr().expect("an address"))
    }
}

/// Requests and answers on one connection.
fn converse(
    mut stream: TcpStream,
    from: SocketAddr,
    visits: &Visits,
    answer: &impl Fn(&str) -> Vec<u8>,
) {
    let number = {
        let mut visits = visits.lock().expect("a lock");
        visits.push(Visit { from, bytes: Vec::new() });
        visits.len() - 1
    };
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        request.extend_from_slice(&buffer[..length]);
        visits.lock().expect("a lock")[number].bytes.extend_from_slice(&buffer[..length]);
        while let Some(end) = end_of_request(&request) {
            let rest = request.split_off(end);
            let bytes = answer(&String::from_utf8_lossy(&request));
            if bytes.is_empty() || stream.write_all(&bytes).is_err() {
                return drop(stream.shutdown(Shutdown::Both));
            }
            request = rest;
        }
    }
}

/// Where the first request ends, when all of it is there.
fn end_of_request(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let end = head + length.unwrap_or(0_usize);
    (bytes.len() >= end).then_some(end)
}

/// A socket for datagrams.
pub(crate) struct Datagrams {
    pub(crate) address: SocketAddr,
    socket: Arc<UdpSocket>,
    visits: Visits,
    thread: Option<JoinHandle<()>>,
    _place: Arc<Place>,
}

impl Datagrams {
    pub(super) fn start(place: Arc<Place>, port: u16) -> Self {
        Self::answering(place, port, |_| b"internet".to_vec())
    }

    pub(super) fn answering(
        place: Arc<Place>,
        port: u16,
        answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let address = SocketAddr::from((place.address, port));
        let socket = outside(|| UdpSocket::bind(address));
        let socket =
            Arc::new(socket.unwrap_or_else(|error| panic!("receive at {address}: {error}")));
        let visits = Visits::default();
        let (listening, kept) = (Arc::clone(&socket), Arc::clone(&visits));
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            // Fails when the socket is shut down: then nobody sent it.
            while let Ok((length, from)) = listening.recv_from(&mut buffer) {
                let bytes = buffer[..length].to_vec();
                if from.ip() != address.ip() {
                    drop(listening.send_to(&answer(&bytes), from));
                }
                kept.lock().expect("a lock").push(Visit { from, bytes });
            }
        });
        Self { address, socket, visits, thread: Some(thread), _place: place }
    }

    /// All datagrams so far, also those that only just came.
    pub(crate) fn seen(&self) -> Vec<Visit> {
        let own = outside(|| UdpSocket::bind((self.address.ip(), 0))).expect("a socket of our own");
        own.send_to(b"", self.address).expect("sent");
        strangers(&self.visits, own.local_addr().expect("an address"))
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        // Complains that there is no connection, and wakes whoever waits for a datagram.
        let _ = socket::shutdown(self.socket.as_raw_fd(), socket::Shutdown::Both);
        drop(self.thread.take().map(JoinHandle::join));
    }
}
