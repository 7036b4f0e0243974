//! What is accepted as a question, and how an answer is written.

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode},
    rr::{DNSClass, Record, RecordType, rdata::opt::EdnsOption},
};

use super::limits;

/// The types that programs ask for. Transfers, ANY and the rest are for servers.
const TYPES: [RecordType; 12] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::CAA,
    RecordType::CNAME,
    RecordType::HTTPS,
    RecordType::MX,
    RecordType::NS,
    RecordType::PTR,
    RecordType::SOA,
    RecordType::SRV,
    RecordType::SVCB,
    RecordType::TXT,
];

/// "Extended DNS error" option (RFC 8914) and its code 15: blocked by the operator's policy.
const EXTENDED_ERROR: u16 = 15;
const BLOCKED: [u8; 2] = [0, 15];
const BLOCKED_TEXT: &[u8] = b"functions may not connect to an address in the answer";

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    /// How large the answer may be.
    pub(super) fn limit(self, request: Option<&Message>) -> usize {
        match self {
            Transport::Udp => {
                request.map_or(512, |r| r.max_payload().min(limits::UDP_BYTES)).into()
            }
            Transport::Tcp => u16::MAX.into(),
        }
    }
}

/// Reads a packet. One that is no question that we answer gives the refusal, or nothing when an
/// answer to it could be mistaken for a question or answer to the wrong one.
pub(super) fn read(packet: &[u8]) -> Result<Message, Option<Box<Message>>> {
    let [id_high, id_low, flags, ..] = *packet else { return Err(None) };
    let is_answer = flags & 0x80 != 0;
    if packet.len() < 12 || is_answer {
        return Err(None);
    }
    // What follows in a message of another kind need not be readable for us.
    let id = u16::from_be_bytes([id_high, id_low]);
    let op_code = OpCode::from_u8((flags >> 3) & 0xf);
    let without_question = |code| Err(Some(Box::new(Message::error_msg(id, op_code, code))));
    if op_code != OpCode::Query {
        return without_question(ResponseCode::NotImp);
    }
    let Ok(request) = Message::from_vec(packet) else {
        return without_question(ResponseCode::FormErr);
    };
    let refuse = |code| Err(Some(Box::new(answer(&request, code, Vec::new()))));
    let [question] = &request.queries[..] else {
        return without_question(ResponseCode::FormErr);
    };
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return refuse(ResponseCode::BADVERS);
    }
    if question.query_class != DNSClass::IN || !TYPES.contains(&question.query_type) {
        return refuse(ResponseCode::Refused);
    }
    if !request.answers.is_empty() || !request.authorities.is_empty() {
        return refuse(ResponseCode::FormErr);
    }
    Ok(request)
}

/// The answer to a question. Recursion is all that there is, so whether it is desired says nothing.
pub(super) fn answer(request: &Message, code: ResponseCode, records: Vec<Record>) -> Message {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.recursion_available = true;
    metadata.response_code = code;
    let mut message = Message::new(metadata.id, MessageType::Response, metadata.op_code);
    message.metadata = metadata;
    message.queries.clone_from(&request.queries);
    message.answers = records;
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(limits::UDP_BYTES);
        message.edns = Some(edns);
    }
    message
}

/// The answer in place of one that was withheld: the name does not exist. Resolver libraries take
/// that for final, where they would repeat a question after REFUSED or SERVFAIL.
pub(super) fn withheld(request: &Message) -> Message {
    let mut message = answer(request, ResponseCode::NXDomain, Vec::new());
    if let Some(edns) = &mut message.edns {
        let error = [&BLOCKED[..], BLOCKED_TEXT].concat();
        edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, error));
    }
    message
}

/// The bytes of an answer, cut down to "ask again over TCP" when there are too many.
pub(super) fn encode(message: Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= limit { Some(bytes) } else { message.truncate().to_vec().ok() }
}
