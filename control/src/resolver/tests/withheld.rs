//! What a function is told when it asks why a name was not found.

use hickory_proto::op::ResponseCode;

use super::{
    server::{Ask, Say},
    *,
};

fn zone(ask: &Ask) -> Say {
    use RecordType::{A, AAAA};
    let owner = ask.name;
    let lines = match (owner.split('.').next().unwrap_or_default(), ask.kind) {
        ("v4" | "both" | "*", A) => format!("{owner} 60 A 10.0.0.1"),
        ("v6" | "both" | "half", AAAA) => format!("{owner} 60 AAAA fd00::1"),
        ("mapped", AAAA) => format!("{owner} 60 AAAA ::ffff:10.0.0.2"),
        ("mixed", A) => format!("{owner} 60 A 1.1.1.1\n{owner} 60 A 192.168.0.1"),
        ("public" | "half", A) => format!("{owner} 60 A 1.1.1.1"),
        ("alias", A) => format!("{owner} 60 CNAME v4.example.\nv4.example. 60 A 10.0.0.1"),
        ("steps", _) => format!("{owner} 60 CNAME v4.example."),
        ("inner", _) => format!("{owner} 60 CNAME db.corp.internal."),
        ("turn", A) if ask.before == 0 => format!("{owner} 60 A 10.0.0.1"),
        ("turn", A) => format!("{owner} 60 A 1.1.1.1"),
        ("broken", _) => return Say::Code(ResponseCode::ServFail, String::new()),
        ("gone", _) => return Say::Code(ResponseCode::NXDomain, String::new()),
        _ => String::new(),
    };
    Say::Records(lines)
}

#[tokio::test]
async fn a_withheld_name_has_its_blocked_address() {
    use RecordType::{A, AAAA, CNAME, MX};
    // Name, type, and the answer: none is NXDOMAIN.
    let cases = [
        ("v4", A, Some("A 10.0.0.1")),
        ("V4", A, Some("A 10.0.0.1")),
        ("v4", AAAA, Some("")),
        ("v4", MX, Some("")),
        ("v6", A, Some("")),
        ("v6", AAAA, Some("AAAA fd00::1")),
        ("both", A, Some("A 10.0.0.1")),
        ("both", AAAA, Some("AAAA fd00::1")),
        ("half", A, Some("")),
        ("half", AAAA, Some("AAAA fd00::1")),
        ("mapped", A, Some("A 10.0.0.2")),
        ("mapped", AAAA, Some("")),
        ("mixed", A, Some("A 192.168.0.1")),
        ("alias", A, Some("A 10.0.0.1")),
        ("alias", CNAME, Some("")),
        ("steps", A, Some("A 10.0.0.1")),
        ("*.v4", A, Some("A 10.0.0.1")),
        ("inner", A, None),
        ("public", A, None),
        ("public", AAAA, None),
        ("gone", A, None),
        ("broken", A, None),
    ];
    let server = Server::start(zone).await;
    let mut bench = Bench::start(&[&server]).await;
    for (first, kind, expected) in cases {
        let asked = format!("{first}.example.{WITHHELD}");
        let answer = bench.ask(&asked, kind).await;
        let expected = match expected {
            None => "NXDomain".to_owned(),
            Some("") => "NoError".to_owned(),
            Some(data) => format!("NoError; {asked} {data}"),
        };
        assert_eq!(show(&answer), expected, "{asked} {kind}");
        assert!(answer.answers.iter().all(|record| record.ttl == 0), "{answer}");
        assert!(bench.refusals.try_recv().is_err(), "{asked}: a question why is no refusal");
    }
    let upper = format!("v4.example.{}", WITHHELD.to_uppercase());
    assert_eq!(show(&bench.ask(&upper, A).await), format!("NoError; {upper} A 10.0.0.1"));
    let asked = server.asked();
    assert!(asked.iter().all(|line| !line.contains("internal")), "{asked:?}");
}

#[tokio::test]
async fn it_is_told_for_names_that_would_be_asked_alone() {
    let server = Server::start(|ask| Say::Records(format!("{} 60 A 10.0.0.1", ask.name))).await;
    let mut bench = Bench::start(&[&server]).await;
    let own = WITHHELD.trim_end_matches('.');
    for subject in [
        "",
        "localhost.",
        "db.",
        "metadata.google.internal.",
        "printer.local.",
        "canary.grid.internal.",
        "1.0.0.10.in-addr.arpa.",
        r"a\.b.example.",
        &format!("{own}."),
        &format!("v4.example.{own}."),
        &format!("v4.example.{own}.{own}."),
    ] {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::TXT] {
            let answer = bench.ask(&format!("{subject}{WITHHELD}"), kind).await;
            assert_eq!(show(&answer), "NXDomain", "{subject}");
        }
    }
    for near in ["v4.example.grid.internal.", "v4.example.notwithheld.grid.internal."] {
        assert_eq!(show(&bench.ask(near, RecordType::A).await), "NXDomain", "{near}");
    }
    assert_eq!(server.asked(), [""; 0]);
    assert!(bench.refusals.try_recv().is_err());
}

#[tokio::test]
async fn the_cache_and_what_was_just_withheld_count() {
    let server = Server::start(zone).await;
    let mut bench = Bench::start(&[&server]).await;
    let ask = |first: &str| format!("{first}.example.");
    let why = |first: &str| format!("{first}.example.{WITHHELD}");
    bench.ask(&ask("public"), RecordType::A).await;
    bench.ask(&why("public"), RecordType::A).await;
    let asked = server.asked();
    assert_eq!(asked.iter().filter(|line| *line == "public.example. A").count(), 1, "{asked:?}");

    assert_eq!(show(&bench.ask(&ask("turn"), RecordType::A).await), "NXDomain");
    assert!(bench.refusals.try_recv().is_ok());
    // The name is public by now; the answer is about the one that was withheld.
    let reason = show(&bench.ask(&why("turn"), RecordType::A).await);
    assert_eq!(reason, format!("NoError; {} A 10.0.0.1", why("turn")));
    let now = show(&bench.ask(&ask("turn"), RecordType::A).await);
    assert_eq!(now, "NoError; turn.example. A 1.1.1.1");
    assert!(bench.refusals.try_recv().is_err());
}
