//! The sockets: UDP and TCP at one address, every question in a task of its own.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Resolver, limits, wire::Transport};
use crate::error::{Error, Result};

/// Pause after an `accept` that failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A resolver with its sockets.
#[derive(Debug)]
pub struct Listening {
    resolver: Arc<Resolver>,
    address: SocketAddr,
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

impl Resolver {
    /// Binds UDP and TCP. With port 0 both get the same free one.
    ///
    /// # Errors
    /// [`Error::Resolver`] with the address and what to do.
    pub async fn bind(self: Arc<Self>, address: SocketAddr) -> Result<Listening> {
        let problem = |reason: String| Error::Resolver {
            operation: "listen on",
            subject: address.to_string(),
            reason,
        };
        if self.upstream.servers().contains(&address) {
            let reason = "it is also an upstream server, and would ask itself; name another one";
            return Err(problem(reason.to_owned()));
        }
        let explain = |error: io::Error| {
            problem(match error.kind() {
                io::ErrorKind::AddrInUse => format!("{error}; stop the DNS server that has it"),
                io::ErrorKind::PermissionDenied => {
                    format!("{error}; run Grid as root or with CAP_NET_BIND_SERVICE")
                }
                io::ErrorKind::AddrNotAvailable => {
                    format!("{error}; it must be an address of this host")
                }
                _ => error.to_string(),
            })
        };
        let tcp = tcp(address).map_err(explain)?;
        let address = tcp.local_addr().map_err(explain)?;
        let udp = Arc::new(udp(address).map_err(explain)?);
        Ok(Listening { resolver: self, address, udp, tcp })
    }
}

/// A second Grid of the same user can bind beside the first: in an upgrade both answer for a while.
fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// See [`tcp`].
fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

impl Listening {
    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped, and everything that it started ends with it.
    ///
    /// # Errors
    /// A socket fails in a way that will not pass.
    pub async fn serve(self) -> Result<()> {
        let error = tokio::select! {
            error = self.serve_udp() => error,
            error = self.serve_tcp() => error,
        };
        let subject = self.address.to_string();
        Err(Error::Resolver { operation: "serve", subject, reason: error.to_string() })
    }

    async fn serve_udp(&self) -> io::Error {
        let mut tasks = JoinSet::new();
        // One byte more than is taken, to tell a longer packet.
        let mut buffer = [0; limits::QUESTION_BYTES + 1];
        loop {
            reap(&mut tasks);
            let (length, client) = match self.udp.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) if passes(&error) => continue,
                Err(error) => return error,
            };
            // A client that is over its bounds hears nothing and asks again later.
            let lease = self.resolver.clients.question(client.ip());
            let (Some(lease), true) = (lease, length <= limits::QUESTION_BYTES) else { continue };
            let packet = buffer[..length].to_vec();
            let (resolver, udp) = (Arc::clone(&self.resolver), Arc::clone(&self.udp));
            tasks.spawn(async move {
                let _lease = lease;
                if let Some(answer) = resolver.answer(client.ip(), &packet, Transport::Udp).await {
                    let _ = udp.send_to(&answer, client).await;
                }
            });
        }
    }

    async fn serve_tcp(&self) -> io::Error {
        let mut tasks = JoinSet::new();
        loop {
            reap(&mut tasks);
            let (stream, client) = match self.tcp.accept().await {
                Ok(accepted) => accepted,
                Err(error) if passes(&error) => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return error,
                Err(error) => {
                    tracing::warn!(address = %self.address, %error, "resolver: accept");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(lease) = self.resolver.clients.connection(client.ip()) else { continue };
            let resolver = Arc::clone(&self.resolver);
            tasks.spawn(async move {
                let _lease = lease;
                // How a client's connection ends is the client's affair.
                let _ = converse(&resolver, stream, client).await;
            });
        }
    }
}

/// Answers the questions of one connection, one after the other.
async fn converse(
    resolver: &Resolver,
    mut stream: TcpStream,
    client: SocketAddr,
) -> io::Result<()> {
    loop {
        let question = read(&mut stream, limits::QUESTION_BYTES);
        let packet = timeout(limits::TCP_IDLE, question).await??;
        let Some(_lease) = resolver.clients.question(client.ip()) else { return Ok(()) };
        let answer = resolver.answer(client.ip(), &packet, Transport::Tcp).await;
        let Some(answer) = answer else { return Ok(()) };
        timeout(limits::TCP_IDLE, write(&mut stream, &answer)).await??;
    }
}

/// Forgets the tasks that have ended. One that panicked has been reported by the panic itself.
fn reap(tasks: &mut JoinSet<()>) {
    while tasks.try_join_next().is_some() {}
}

/// Whether an error is about one packet or one connection, and not about the socket.
fn passes(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkDown, NetworkUnreachable, WouldBlock,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | WouldBlock
    )
}

/// A message with its length in front of it, as DNS over TCP has it.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?.into();
    if length > most {
        let problem = format!("a message of {length} bytes where {most} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// See [`read`]; in one piece, for the sake of clients that read it as one.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}
