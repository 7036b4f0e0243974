//! An upstream server that says what a test tells it to, and remembers what it was asked.

use std::sync::Arc;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType},
};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use super::{super::listen, name};

/// A question as the server sees it.
pub(super) struct Ask<'a> {
    pub(super) request: &'a Message,
    pub(super) name: &'a str,
    pub(super) kind: RecordType,
    pub(super) tcp: bool,
    /// How often it was asked before.
    pub(super) before: usize,
}

/// What the server says.
pub(super) enum Say {
    /// Lines `OWNER TTL TYPE DATA`; `+` in front puts one in the additional section, `-` in the
    /// authority section.
    Records(String),
    /// The same with a code.
    Code(ResponseCode, String),
    /// These packets.
    Packets(Vec<Vec<u8>>),
    Nothing,
}

impl From<&str> for Say {
    fn from(lines: &str) -> Self {
        Say::Records(lines.to_owned())
    }
}

pub(super) struct Server {
    pub(super) address: std::net::SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

type Script = dyn Fn(&Ask) -> Say + Send + Sync;

impl Server {
    pub(super) async fn start(script: impl Fn(&Ask) -> Say + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            // The same port may be another test's over TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("an address")).await {
                break (Arc::new(udp), tcp);
            }
        };
        let address = udp.local_addr().expect("an address");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let script: Arc<Script> = Arc::new(script);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&script), Arc::clone(&asked)));
        tasks.spawn(serve_tcp(tcp, script, Arc::clone(&asked)));
        Self { address, asked, _tasks: tasks }
    }

    /// What was asked so far, as `NAME TYPE`, with ` tcp` behind it when it came that way.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

async fn serve_udp(udp: Arc<UdpSocket>, script: Arc<Script>, asked: Arc<Mutex<Vec<String>>>) {
    let mut packet = [0; 4096];
    loop {
        let (length, from) = udp.recv_from(&mut packet).await.expect("received");
        for answer in answers(&packet[..length], false, &*script, &asked) {
            udp.send_to(&answer, from).await.expect("sent");
        }
    }
}

async fn serve_tcp(tcp: TcpListener, script: Arc<Script>, asked: Arc<Mutex<Vec<String>>>) {
    loop {
        let (mut stream, _): (TcpStream, _) = tcp.accept().await.expect("accepted");
        let packet = listen::read(&mut stream, 4096).await.expect("a question");
        for answer in answers(&packet, true, &*script, &asked) {
            listen::write(&mut stream, &answer).await.expect("written");
        }
    }
}

fn answers(packet: &[u8], tcp: bool, script: &Script, asked: &Mutex<Vec<String>>) -> Vec<Vec<u8>> {
    let request = Message::from_vec(packet).expect("hickory asks well");
    assert!(request.recursion_desired, "upstream is asked to do the work");
    let question = &request.queries[0];
    let (name, kind) = (question.name.to_ascii().to_ascii_lowercase(), question.query_type);
    let line = format!("{name} {kind}{}", if tcp { " tcp" } else { "" });
    let before = asked.lock().iter().filter(|known| **known == line).count();
    asked.lock().push(line);
    match script(&Ask { request: &request, name: &name, kind, tcp, before }) {
        Say::Records(lines) => vec![encode(&reply(&request, ResponseCode::NoError, &lines))],
        Say::Code(code, lines) => vec![encode(&reply(&request, code, &lines))],
        Say::Packets(packets) => packets,
        Say::Nothing => Vec::new(),
    }
}

pub(super) fn reply(request: &Message, code: ResponseCode, lines: &str) -> Message {
    let mut message = Message::response(request.id, request.op_code);
    message.metadata.response_code = code;
    message.metadata.recursion_available = true;
    message.queries.clone_from(&request.queries);
    for line in lines.split('\n').map(str::trim).filter(|line| !line.is_empty()) {
        let section = match line.as_bytes()[0] {
            b'+' => &mut message.additionals,
            b'-' => &mut message.authorities,
            _ => &mut message.answers,
        };
        section.push(record(line.trim_start_matches(['+', '-', ' '])));
    }
    message
}

fn record(line: &str) -> Record {
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    let [owner, ttl, kind, data] = words[..] else { panic!("`{line}` has not four words") };
    let kind: RecordType = kind.parse().expect(line);
    let data = RData::try_from_str(kind, data).expect(line);
    Record::from_rdata(name(owner), ttl.parse().expect(line), data)
}

pub(super) fn encode(message: &Message) -> Vec<u8> {
    message.to_vec().expect("encoded")
}
