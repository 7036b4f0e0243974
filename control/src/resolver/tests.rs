//! The resolver as a function sees it: real sockets on loopback, and upstream servers that say what
//! a test tells them to.

mod answers;
mod bounds;
mod packets;
mod server;
mod withheld;

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Edns, Query};
use hickory_proto::rr::Name;
use hickory_proto::{op::Message, rr::RecordType};
use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    task::JoinHandle,
};

use self::server::Server;
use super::*;

/// A resolver that serves, and what it refused.
struct Bench {
    address: SocketAddr,
    refusals: mpsc::Receiver<Refusal>,
    serving: JoinHandle<Result<()>>,
}

impl Bench {
    async fn start(upstreams: &[&Server]) -> Self {
        let upstreams = upstreams.iter().map(|server| server.address).collect();
        let (sender, refusals) = mpsc::channel(4);
        let settings = Settings { upstreams, policy: EgressPolicy::fixed() };
        let resolver = Arc::new(Resolver::new(settings, sender).expect("a resolver"));
        let listening = loop {
            // The free TCP port may be another test's UDP port.
            let bound = Arc::clone(&resolver).bind((Ipv4Addr::LOCALHOST, 0).into()).await;
            if let Ok(listening) = bound {
                break listening;
            }
        };
        let address = listening.local_addr();
        Self { address, refusals, serving: tokio::spawn(listening.serve()) }
    }

    /// Asks from 127.0.0.1 over UDP, with EDNS.
    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let client = Client::new(self.address, 1).await;
        client.ask(&question(name, kind)).await
    }

    /// Asks over TCP.
    async fn ask_over_tcp(&self, request: &Message) -> Message {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        tell(&mut stream, request).await
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A function: a UDP socket at a loopback address of its own.
struct Client {
    socket: UdpSocket,
    resolver: SocketAddr,
}

impl Client {
    async fn new(resolver: SocketAddr, n: u16) -> Self {
        let [high, low] = n.to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, high, low));
        let socket = UdpSocket::bind((address, 0)).await.expect("a socket");
        Self { socket, resolver }
    }

    async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        let address = self.socket.local_addr().expect("an address").ip();
        socket.bind((address, 0).into()).expect("bound");
        socket.connect(self.resolver).await.expect("connected")
    }

    async fn send(&self, packet: &[u8]) {
        self.socket.send_to(packet, self.resolver).await.expect("sent");
    }

    async fn receive(&self) -> Vec<u8> {
        let mut packet = vec![0; 65_535];
        let (length, from) = self.socket.recv_from(&mut packet).await.expect("received");
        assert_eq!(from, self.resolver);
        packet.truncate(length);
        packet
    }

    /// The next packet must be the answer to this question.
    async fn ask(&self, request: &Message) -> Message {
        self.send(&request.to_vec().expect("encoded")).await;
        let answer = Message::from_vec(&self.receive().await).expect("decoded");
        assert_eq!(answer.id, request.id);
        assert_eq!(answer.queries, request.queries);
        answer
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect(text)
}

fn bare_question(text: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(name(text), kind));
    message.metadata.recursion_desired = true;
    message
}

/// A question with EDNS, as most clients send it.
fn question(text: &str, kind: RecordType) -> Message {
    let mut message = bare_question(text, kind);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.set_edns(edns);
    message
}

async fn tell(stream: &mut TcpStream, request: &Message) -> Message {
    listen::write(stream, &request.to_vec().expect("encoded")).await.expect("written");
    let answer = listen::read(stream, 65_535).await.expect("an answer");
    let answer = Message::from_vec(&answer).expect("decoded");
    assert_eq!(answer.id, request.id);
    answer
}

/// An answer as text: the code, then each record without its time to live.
fn show(answer: &Message) -> String {
    assert!(answer.authorities.is_empty() && answer.additionals.is_empty(), "{answer}");
    let mut text = format!("{:?}", answer.response_code);
    for record in &answer.answers {
        text += &format!("; {} {} {}", record.name, record.record_type(), record.data);
    }
    text
}
