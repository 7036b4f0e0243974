//! Packets of every kind from clients and from upstream servers.

use hickory_proto::{
    op::{OpCode, ResponseCode},
    rr::DNSClass,
};
use proptest::prelude::*;

use super::{
    server::{Say, encode, reply},
    *,
};

fn edited(edit: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = question("public.example.", RecordType::A);
    edit(&mut message);
    encode(&message)
}

fn of_type(kind: RecordType) -> Vec<u8> {
    edited(|m| m.queries[0].query_type = kind)
}

#[tokio::test]
async fn only_questions_of_programs_are_answered() {
    let server = Server::start(|_| "public.example. 60 A 1.1.1.1".into()).await;
    let bench = Bench::start(&[&server]).await;
    let mut cases = vec![
        ("ANY", of_type(RecordType::ANY), Some(ResponseCode::Refused)),
        ("AXFR", of_type(RecordType::AXFR), Some(ResponseCode::Refused)),
        ("IXFR", of_type(RecordType::IXFR), Some(ResponseCode::Refused)),
        ("DNSKEY", of_type(RecordType::DNSKEY), Some(ResponseCode::Refused)),
        ("NULL", of_type(RecordType::NULL), Some(ResponseCode::Refused)),
        ("unknown type", of_type(RecordType::Unknown(4711)), Some(ResponseCode::Refused)),
        (
            "class CH",
            edited(|m| m.queries[0].query_class = DNSClass::CH),
            Some(ResponseCode::Refused),
        ),
        (
            "two questions",
            edited(|m| m.queries.push(m.queries[0].clone())),
            Some(ResponseCode::FormErr),
        ),
        ("no question", edited(|m| m.queries.clear()), Some(ResponseCode::FormErr)),
        (
            "EDNS version 1",
            edited(|m| {
                m.edns.as_mut().expect("EDNS").set_version(1);
            }),
            Some(ResponseCode::BADVERS),
        ),
        (
            "records",
            edited(|m| *m = reply(m, ResponseCode::NoError, "a.example. 60 A 1.1.1.1"))
                .into_iter()
                .enumerate()
                .map(|(at, byte)| if at == 2 { byte & 0x7f } else { byte })
                .collect(),
            Some(ResponseCode::FormErr),
        ),
        ("cut off", edited(|_| ())[..20].to_vec(), Some(ResponseCode::FormErr)),
        ("header only", vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], Some(ResponseCode::FormErr)),
        (
            "a name that points to itself",
            [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[0xc0, 12, 0, 1, 0, 1]].concat(),
            Some(ResponseCode::FormErr),
        ),
        ("an answer", edited(|m| *m = reply(m, ResponseCode::NoError, "")), None),
        ("empty", Vec::new(), None),
        ("short", vec![0; 11], None),
        ("long", [edited(|_| ()), vec![0; 2000]].concat(), None),
    ];
    for op_code in [OpCode::Update, OpCode::Notify, OpCode::Status] {
        let packet = edited(|m| m.metadata.op_code = op_code);
        cases.push(("op code", packet, Some(ResponseCode::NotImp)));
    }
    for (what, packet, expected) in cases {
        let client = Client::new(bench.address, 1).await;
        client.send(&packet).await;
        if let Some(expected) = expected {
            let answer = Message::from_vec(&client.receive().await).expect("decoded");
            // By number: 16 has two names.
            assert_eq!(u16::from(answer.response_code), u16::from(expected), "{what}");
            assert_eq!(answer.id.to_be_bytes(), packet[..2], "{what}");
            assert!(answer.answers.is_empty(), "{what}");
        }
        // Where silence is expected, this answer is the next packet.
        client.ask(&question(CANARY, RecordType::A)).await;
    }
    assert_eq!(server.asked(), [""; 0]);
}

/// 140 addresses: more than a UDP answer holds.
fn many(owner: &str) -> String {
    let line = |n| format!("{owner} 60 A 1.1.1.{n}");
    (0..140).map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_large_answer_comes_over_tcp() {
    let server = Server::start(|ask| {
        if ask.tcp {
            return Say::Records(many(ask.name));
        }
        let mut cut = reply(ask.request, ResponseCode::NoError, "");
        cut.metadata.truncation = true;
        Say::Packets(vec![encode(&cut)])
    })
    .await;
    let bench = Bench::start(&[&server]).await;
    let client = Client::new(bench.address, 1).await;
    // (What the client says that it takes, what it then gets at most.)
    for (payload, most) in [(None, 512), (Some(100), 512), (Some(1000), 1000), (Some(65_000), 1232)]
    {
        let mut request = bare_question("many.example.", RecordType::A);
        request.edns = payload.map(|bytes| {
            let mut edns = Edns::new();
            edns.set_max_payload(bytes);
            edns
        });
        client.send(&encode(&request)).await;
        let packet = client.receive().await;
        let answer = Message::from_vec(&packet).expect("decoded");
        assert!(packet.len() <= most && answer.truncation && answer.answers.is_empty(), "{most}");

        let answer = bench.ask_over_tcp(&request).await;
        assert_eq!((answer.answers.len(), answer.truncation), (140, false));
    }
    assert_eq!(server.asked()[..2], ["many.example. A", "many.example. A tcp"]);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_none() {
    let server = Server::start(|ask| {
        let mut cut = reply(ask.request, ResponseCode::NoError, "");
        cut.metadata.truncation = true;
        let large = (0..20).map(|_| many(ask.name)).collect::<Vec<_>>().join("\n");
        if ask.tcp { Say::Records(large) } else { Say::Packets(vec![encode(&cut)]) }
    })
    .await;
    let bench = Bench::start(&[&server]).await;
    assert_eq!(show(&bench.ask("huge.example.", RecordType::A).await), "ServFail");
}

#[tokio::test]
async fn only_the_answer_to_the_question_counts() {
    let server = Server::start(|ask| {
        let right =
            reply(ask.request, ResponseCode::NoError, &format!("{} 60 A 1.1.1.1", ask.name));
        let forged = |edit: fn(&mut Message)| {
            let lines = format!("{} 60 A 6.6.6.6", ask.name);
            let mut message = reply(ask.request, ResponseCode::NoError, &lines);
            edit(&mut message);
            encode(&message)
        };
        let id = forged(|m| m.metadata.id ^= 1);
        let other = forged(|m| m.queries[0].name = name("other.example."));
        let kind = forged(|m| m.queries[0].query_type = RecordType::TXT);
        let none = forged(|m| m.queries.clear());
        let unreadable = [&ask.request.id.to_be_bytes()[..], &[0xff; 30]].concat();
        let right = encode(&right);
        match ask.name {
            name if name.starts_with("tcp-") && !ask.tcp => {
                let mut cut = reply(ask.request, ResponseCode::NoError, "");
                cut.metadata.truncation = true;
                Say::Packets(vec![encode(&cut)])
            }
            "tcp-id.example." => Say::Packets(vec![id]),
            "tcp-other.example." => Say::Packets(vec![other]),
            "tcp-question.example." => Say::Packets(vec![encode(ask.request)]),
            "tcp-garbage.example." => Say::Packets(vec![unreadable]),
            "tcp-right.example." => Say::Packets(vec![right]),
            "forged.example." => Say::Packets(vec![vec![1], id, other, kind, none, right]),
            "question.example." => Say::Packets(vec![encode(ask.request)]),
            "garbage.example." => Say::Packets(vec![unreadable]),
            // Once: another attempt is made.
            _ if ask.before == 0 => Say::Packets(vec![unreadable]),
            _ => Say::Packets(vec![right]),
        }
    })
    .await;
    let bench = Bench::start(&[&server]).await;
    for (name, expected) in [
        ("forged.example.", "NoError; forged.example. A 1.1.1.1"),
        ("question.example.", "ServFail"),
        ("garbage.example.", "ServFail"),
        ("tcp-id.example.", "ServFail"),
        ("tcp-other.example.", "ServFail"),
        ("tcp-question.example.", "ServFail"),
        ("tcp-garbage.example.", "ServFail"),
        ("tcp-right.example.", "NoError; tcp-right.example. A 1.1.1.1"),
        ("once.example.", "NoError; once.example. A 1.1.1.1"),
    ] {
        assert_eq!(show(&bench.ask(name, RecordType::A).await), expected);
    }
}

/// Any bytes, and questions with a few bytes changed.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        prop::collection::vec(change, 1..6).prop_map(|changes| {
            let mut packet = edited(|_| ());
            for (at, byte) in changes {
                let at = at.index(packet.len());
                packet[at] = byte;
            }
            packet
        }),
    ]
}

#[test]
fn no_packet_ends_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let nothing = |_: &server::Ask<'_>| Say::Code(ResponseCode::NXDomain, String::new());
    let server = runtime.block_on(Server::start(nothing));
    let bench = runtime.block_on(Bench::start(&[&server]));
    // A client of its own for each packet, so that the rate is not what is tested.
    let clients = std::cell::Cell::new(1);
    proptest!(ProptestConfig::with_cases(1000), |(packet in packet())| {
        runtime.block_on(async {
            clients.set(clients.get() + 1);
            let client = Client::new(bench.address, clients.get()).await;
            client.send(&packet).await;
            let request = question(CANARY, RecordType::A);
            client.send(&encode(&request)).await;
            loop {
                let answer = client.receive().await;
                assert!(answer.len() <= 1232);
                let answer = Message::from_vec(&answer).expect("decoded");
                if answer.queries == request.queries && answer.id == request.id {
                    break assert_eq!(answer.response_code, ResponseCode::NoError);
                }
            }
            let mut stream = client.connect().await;
            listen::write(&mut stream, &packet).await.expect("written");
            let mut stream = client.connect().await;
            tell(&mut stream, &request).await;
        });
    });
}
