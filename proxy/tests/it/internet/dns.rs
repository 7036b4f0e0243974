//! A name server of the tests' internet, which answers as a resolver of an operator would, and whose
//! answers may change from question to question.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{IpAddr, TcpStream},
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Edns, Message, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
};

use super::{
    Place,
    servers::{Acceptor, Datagrams},
};

/// What a name server knows: for each name and type the answers in their order, of which the last is
/// repeated.
#[derive(Default)]
pub(crate) struct Zone {
    ttl: u32,
    answers: HashMap<(Name, RecordType), Vec<Vec<RData>>>,
}

/// A name without regard to case, as names are compared.
fn name(text: &str) -> Name {
    let mut name = Name::from_utf8(text).expect("a name");
    name.set_fqdn(true);
    name.to_lowercase()
}

impl Zone {
    /// For how many seconds answers may be kept; otherwise not at all.
    pub(crate) fn ttl(self, ttl: u32) -> Self {
        Self { ttl, ..self }
    }

    /// The next answer for a name's addresses, of one family or both.
    pub(crate) fn addresses(self, host: &str, addresses: &[IpAddr]) -> Self {
        let (v4, v6): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv4());
        let data =
            |addresses: Vec<&IpAddr>| addresses.into_iter().map(|a| RData::from(*a)).collect();
        let mut zone = self;
        if !v4.is_empty() {
            zone = zone.data(host, RecordType::A, data(v4));
        }
        if !v6.is_empty() {
            zone = zone.data(host, RecordType::AAAA, data(v6));
        }
        zone
    }

    /// A name that stands for another one.
    pub(crate) fn alias(self, host: &str, target: &str) -> Self {
        self.data(host, RecordType::CNAME, vec![RData::CNAME(CNAME(name(target)))])
    }

    /// The next answer for a name and a type; it may be empty.
    pub(crate) fn data(mut self, host: &str, kind: RecordType, data: Vec<RData>) -> Self {
        self.answers.entry((name(host), kind)).or_default().push(data);
        self
    }

    /// The present answer; the next question gets the next one.
    fn next(&mut self, host: &Name, kind: RecordType) -> Option<Vec<RData>> {
        let answers = self.answers.get_mut(&(host.to_lowercase(), kind))?;
        if answers.len() > 1 { Some(answers.remove(0)) } else { answers.first().cloned() }
    }

    /// Follows aliases, as far as they are known here.
    fn answer(&mut self, query: &Message) -> Message {
        let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
        reply.metadata.recursion_desired = query.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        if query.edns.is_some() {
            reply.set_edns(Edns::new());
        }
        let Some(question) = query.queries.first() else {
            reply.metadata.response_code = ResponseCode::FormErr;
            return reply;
        };
        reply.add_query(question.clone());
        let (mut host, kind) = (question.name().clone(), question.query_type());
        // A circle of aliases is answered by a long list.
        for _ in 0..32 {
            let (data, alias) = match self.next(&host, kind) {
                Some(data) => (data, None),
                None => match self.next(&host, RecordType::CNAME).as_deref() {
                    Some([RData::CNAME(target)]) => {
                        (vec![RData::CNAME(target.clone())], Some(target.0.clone()))
                    }
                    _ => {
                        if !self.answers.keys().any(|(known, _)| *known == host.to_lowercase()) {
                            reply.metadata.response_code = ResponseCode::NXDomain;
                        }
                        break;
                    }
                },
            };
            let ttl = self.ttl;
            reply.add_answers(data.into_iter().map(|d| Record::from_rdata(host.clone(), ttl, d)));
            match alias {
                Some(target) => host = target,
                None => break,
            }
        }
        reply
    }
}

/// A question: the name in lower case with its last dot, and the type.
pub(crate) type Question = (String, RecordType);

/// Answers questions over UDP and TCP.
pub(crate) struct NameServer {
    _udp: Datagrams,
    _tcp: Acceptor,
    asked: Arc<Mutex<Vec<Question>>>,
}

impl NameServer {
    pub(super) fn start(place: Arc<Place>, zone: Zone) -> Self {
        let asked = Arc::<Mutex<Vec<Question>>>::default();
        let zone = Arc::new(Mutex::new(zone));
        let reply = {
            let asked = Arc::clone(&asked);
            move |bytes: &[u8], udp: bool| -> Option<Vec<u8>> {
                let query = Message::from_vec(bytes).ok()?;
                for question in &query.queries {
                    let host = question.name().to_lowercase().to_ascii();
                    asked.lock().expect("a lock").push((host, question.query_type()));
                }
                let reply = zone.lock().expect("a lock").answer(&query);
                let bytes = reply.to_vec().ok()?;
                // What is too long for a datagram is asked for again over TCP.
                if udp && bytes.len() > usize::from(query.max_payload()) {
                    return reply.truncate().to_vec().ok();
                }
                Some(bytes)
            }
        };
        let reply = Arc::new(reply);
        let over_tcp = Arc::clone(&reply);
        let tcp = Acceptor::start((place.address, 53).into(), move |stream, _| {
            drop(converse(stream, |bytes| over_tcp(bytes, false)));
        });
        let udp =
            Datagrams::answering(place, 53, move |bytes| reply(bytes, true).unwrap_or_default());
        Self { _udp: udp, _tcp: tcp, asked }
    }

    /// The questions so far, in their order. One that was answered is among them.
    pub(crate) fn asked(&self) -> Vec<Question> {
        self.asked.lock().expect("a lock").clone()
    }
}

/// Questions and answers on one connection, each after its length.
fn converse(
    mut stream: TcpStream,
    reply: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> std::io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut bytes)?;
        let Some(answer) = reply(&bytes) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())?;
    }
}
