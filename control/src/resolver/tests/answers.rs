//! What a function is told, and what reaches the upstream server.

use std::time::Duration;

use hickory_proto::{op::ResponseCode, rr::rdata::opt::EdnsOption};

use super::{
    server::{Ask, Say},
    *,
};

const SOA: &str = "- example. 60 SOA ns.example. admin.example. 1 2 3 4 60";
const MAPPED: &str = "::ffff:10.0.0.1";

/// What the one upstream server of these tests knows.
fn zone(ask: &Ask) -> Say {
    let owner = ask.name;
    let (first, _) = owner.split_once('.').expect("no single label gets here");
    match (first, ask.kind) {
        ("public", RecordType::A) => {
            Say::Records(format!("{owner} 60 A 1.1.1.1\n{owner} 60 A 1.0.0.1"))
        }
        ("public", RecordType::AAAA) => Say::Records(format!("{owner} 60 AAAA 2606:4700::1111")),
        ("public", RecordType::TXT) => Say::Records(format!("{owner} 60 TXT hello")),
        ("private", RecordType::A) => Say::Records(format!("{owner} 60 A 10.0.0.1")),
        ("private", RecordType::AAAA) => Say::Records(format!("{owner} 60 AAAA fd00::1")),
        ("metadata", RecordType::A) => Say::Records(format!("{owner} 60 A 169.254.169.254")),
        ("mapped", RecordType::AAAA) => Say::Records(format!("{owner} 60 AAAA {MAPPED}")),
        ("nat64", RecordType::AAAA) => Say::Records(format!("{owner} 60 AAAA 64:ff9b::a00:1")),
        ("mixed", RecordType::A) => {
            Say::Records(format!("{owner} 60 A 1.1.1.1\n{owner} 60 A 192.168.0.1"))
        }
        // Public for one type and private for the other: each answer is taken for itself.
        ("half", RecordType::A) => Say::Records(format!("{owner} 60 A 1.1.1.1")),
        ("half", RecordType::AAAA) => Say::Records(format!("{owner} 60 AAAA fd00::1")),
        ("foreign", RecordType::A) => Say::Records(format!(
            "{owner} 60 A 1.1.1.1\nother.example. 60 A 1.1.1.2\n{owner} 60 TXT x\n\
             - example. 60 NS ns.example.\n+ ns.example. 60 A 1.1.1.3"
        )),
        ("glue", _) => Say::Records(format!("{owner} 60 A 1.1.1.1\n+ ns.example. 60 A 127.0.0.1")),
        ("hidden", _) => Say::Records(format!("{owner} 60 A 1.1.1.1\nother.example. 60 AAAA ::1")),
        ("mail", RecordType::MX) => {
            Say::Records(format!("{owner} 60 MX 10 mx.example.\n+ mx.example. 60 A 1.1.1.1"))
        }
        ("inner-mail", RecordType::MX) => {
            Say::Records(format!("{owner} 60 MX 10 mx.example.\n+ mx.example. 60 A 10.0.0.1"))
        }
        ("web", RecordType::HTTPS) => Say::Records(format!(
            "{owner} 60 HTTPS 1 . mandatory=ipv4hint,alpn alpn=h2 ipv4hint=1.1.1.1 \
             ipv6hint=2606:4700::1111"
        )),
        ("web-hinted", RecordType::SVCB) => {
            Say::Records(format!("{owner} 60 SVCB 1 . mandatory=ipv4hint ipv4hint=1.1.1.1"))
        }
        ("inner-web", RecordType::HTTPS) => {
            Say::Records(format!("{owner} 60 HTTPS 1 . alpn=h2 ipv4hint=1.1.1.1,10.0.0.1"))
        }
        ("inner-web6", RecordType::SVCB) => {
            Say::Records(format!("{owner} 60 SVCB 1 . ipv6hint=fe80::1"))
        }
        ("alias", RecordType::CNAME) => Say::Records(format!("{owner} 60 CNAME public.example.")),
        ("alias", _) => {
            Say::Records(format!("{owner} 60 CNAME public.example.\npublic.example. 60 A 1.1.1.1"))
        }
        ("half-alias", _) => Say::Records(format!("{owner} 60 CNAME public.example.")),
        ("bad-alias", _) => Say::Records(format!("{owner} 60 CNAME private.example.")),
        ("nothing-alias", _) => Say::Records(format!("{owner} 60 CNAME public.example.\n{SOA}")),
        ("inner-alias", _) => Say::Records(format!("{owner} 60 CNAME db.corp.internal.")),
        ("self", _) => Say::Records(format!("{owner} 60 CNAME {owner}")),
        ("loop1", _) => Say::Records(format!("{owner} 60 CNAME loop2.example.")),
        ("loop2", _) => Say::Records(format!("{owner} 60 CNAME loop1.example.")),
        ("ring", _) => Say::Records(format!(
            "{owner} 60 CNAME ring2.example.\nring2.example. 60 CNAME {owner}"
        )),
        ("chain8" | "chain9" | "chain20", _) => {
            let length: usize = first[5..].parse().expect("a number");
            let link = |n| if n == 0 { owner.to_owned() } else { format!("c{n}.example.") };
            let mut lines: Vec<_> =
                (0..length).map(|n| format!("{} 60 CNAME {}", link(n), link(n + 1))).collect();
            lines.push(format!("{} 60 A 1.1.1.1", link(length)));
            lines.reverse();
            Say::Records(lines.join("\n"))
        }
        ("step0" | "step1" | "step2", _) => {
            let n: usize = first[4..].parse().expect("a number");
            Say::Records(format!("{owner} 60 CNAME step{}.example.", n + 1))
        }
        ("step3", _) => Say::Records(format!("{owner} 60 A 1.1.1.1")),
        (
            "long0" | "long1" | "long2" | "long3" | "long4" | "long5" | "long6" | "long7" | "long8",
            _,
        ) => {
            let n: usize = first[4..].parse().expect("a number");
            Say::Records(format!("{owner} 60 CNAME long{}.example.", n + 1))
        }
        ("gone", _) => Say::Code(ResponseCode::NXDomain, SOA.to_owned()),
        ("gone-alias", _) => {
            Say::Code(ResponseCode::NXDomain, format!("{owner} 60 CNAME gone.example.\n{SOA}"))
        }
        ("broken", _) => Say::Code(ResponseCode::ServFail, String::new()),
        ("unwilling", _) => Say::Code(ResponseCode::Refused, String::new()),
        ("1", RecordType::PTR) => Say::Records(format!("{owner} 60 PTR one.example.")),
        _ => SOA.into(),
    }
}

#[tokio::test]
async fn answers_are_checked() {
    use RecordType::{A, AAAA, CNAME, HTTPS, MX, PTR, SVCB, TXT};
    // Name, type, answer, address of the refusal.
    let cases = [
        ("public", A, "NoError; public.example. A 1.1.1.1; public.example. A 1.0.0.1", ""),
        ("PUBLIC", AAAA, "NoError; PUBLIC.example. AAAA 2606:4700::1111", ""),
        ("public", TXT, "NoError; public.example. TXT hello", ""),
        ("public", MX, "NoError", ""),
        ("private", A, "NXDomain", "10.0.0.1"),
        ("private", AAAA, "NXDomain", "fd00::1"),
        ("metadata", A, "NXDomain", "169.254.169.254"),
        ("mapped", AAAA, "NXDomain", "10.0.0.1"),
        ("nat64", AAAA, "NXDomain", "10.0.0.1"),
        ("mixed", A, "NXDomain", "192.168.0.1"),
        ("half", A, "NoError; half.example. A 1.1.1.1", ""),
        ("half", AAAA, "NXDomain", "fd00::1"),
        ("foreign", A, "NoError; foreign.example. A 1.1.1.1", ""),
        ("glue", A, "NXDomain", "127.0.0.1"),
        ("hidden", A, "NXDomain", "::1"),
        ("mail", MX, "NoError; mail.example. MX 10 mx.example.", ""),
        ("inner-mail", MX, "NXDomain", "10.0.0.1"),
        ("web", HTTPS, "NoError; web.example. HTTPS 1 . mandatory=alpn, alpn=h2,", ""),
        ("web-hinted", SVCB, "NoError; web-hinted.example. SVCB 1 .", ""),
        ("inner-web", HTTPS, "NXDomain", "10.0.0.1"),
        ("inner-web6", SVCB, "NXDomain", "fe80::1"),
        ("alias", CNAME, "NoError; alias.example. CNAME public.example.", ""),
        (
            "alias",
            A,
            "NoError; alias.example. CNAME public.example.; public.example. A 1.1.1.1",
            "",
        ),
        (
            "half-alias",
            A,
            "NoError; half-alias.example. CNAME public.example.; public.example. A 1.1.1.1; \
             public.example. A 1.0.0.1",
            "",
        ),
        ("bad-alias", A, "NXDomain", "10.0.0.1"),
        ("nothing-alias", A, "NoError; nothing-alias.example. CNAME public.example.", ""),
        ("inner-alias", A, "NXDomain; inner-alias.example. CNAME db.corp.internal.", ""),
        ("self", A, "ServFail", ""),
        ("loop1", A, "ServFail", ""),
        ("ring", A, "ServFail", ""),
        ("chain9", A, "ServFail", ""),
        ("chain20", A, "ServFail", ""),
        (
            "step0",
            A,
            "NoError; step0.example. CNAME step1.example.; step1.example. CNAME step2.example.; \
             step2.example. CNAME step3.example.; step3.example. A 1.1.1.1",
            "",
        ),
        ("long0", A, "ServFail", ""),
        ("gone", A, "NXDomain", ""),
        ("gone-alias", A, "NXDomain; gone-alias.example. CNAME gone.example.", ""),
        ("broken", A, "ServFail", ""),
        ("unwilling", A, "ServFail", ""),
        ("1.1.1.1.in-addr.arpa.", PTR, "NoError; 1.1.1.1.in-addr.arpa. PTR one.example.", ""),
    ];
    let server = Server::start(zone).await;
    let mut bench = Bench::start(&[&server]).await;
    for (first, kind, expected, refused) in cases {
        let full = if first.ends_with('.') { first.into() } else { format!("{first}.example.") };
        let answer = bench.ask(&full, kind).await;
        assert_eq!(show(&answer), expected, "{full} {kind}");
        assert!(answer.recursion_available && answer.recursion_desired && !answer.authoritative);
        assert!(!answer.authentic_data, "nothing was validated");
        // The refusal was sent before the answer.
        let refusal = bench.refusals.try_recv().ok();
        let expected = (!refused.is_empty()).then(|| Refusal {
            client: Ipv4Addr::new(127, 0, 0, 1).into(),
            name: full.clone(),
            address: refused.parse().expect("an address"),
        });
        assert_eq!(refusal, expected, "{full} {kind}");
    }

    let answer = bench.ask("chain8.example.", A).await;
    assert_eq!(answer.answers.len(), 9);
    assert!(show(&answer).ends_with("; c8.example. A 1.1.1.1"));
    let asked = server.asked();
    assert_eq!(asked.iter().filter(|line| line.starts_with("chain8.")).count(), 1);
    assert!(asked.iter().all(|line| !line.contains("internal")), "{asked:?}");
    // A loop is seen when it closes.
    assert_eq!(asked.iter().filter(|line| line.starts_with("loop1.")).count(), 1);
    // Eight CNAMEs are followed and not one more.
    assert!(asked.iter().any(|line| line.starts_with("long8.")), "{asked:?}");
    assert!(asked.iter().all(|line| !line.starts_with("long9.")), "{asked:?}");
}

#[tokio::test]
async fn a_withheld_answer_says_so_to_clients_that_understand() {
    let server = Server::start(zone).await;
    let bench = Bench::start(&[&server]).await;
    let client = Client::new(bench.address, 1).await;
    let answer = client.ask(&question("private.example.", RecordType::A)).await;
    let edns = answer.edns.expect("EDNS");
    let Some(EdnsOption::Unknown(15, reason)) = edns.option(15.into()) else {
        panic!("no reason: {edns}")
    };
    assert_eq!(reason[..2], [0, 15], "blocked");
    assert!(String::from_utf8_lossy(&reason[2..]).contains("functions"));

    let answer = client.ask(&bare_question("private.example.", RecordType::A)).await;
    assert_eq!((answer.response_code, answer.edns), (ResponseCode::NXDomain, None));
    let answer = client.ask(&question("gone.example.", RecordType::A)).await;
    assert_eq!(answer.edns.expect("EDNS").option(15.into()), None);
}

#[tokio::test]
async fn a_name_that_changes_is_checked_each_time() {
    let server = Server::start(|ask| {
        let address = ["1.1.1.1", "127.0.0.1", "1.1.1.2", "1.1.1.2"][ask.before];
        Say::Records(format!("{} 0 A {address}", ask.name))
    })
    .await;
    let bench = Bench::start(&[&server]).await;
    for expected in [
        "NoError; rebind.example. A 1.1.1.1",
        "NXDomain",
        "NoError; rebind.example. A 1.1.1.2",
        "NoError; rebind.example. A 1.1.1.2",
    ] {
        assert_eq!(show(&bench.ask("rebind.example.", RecordType::A).await), expected);
    }
    assert_eq!(server.asked().len(), 4, "nothing with a TTL of 0 is kept");
}

/// Lets time pass at once. It does not stand still around it: a stopped clock jumps to the next
/// timeout whenever everything waits for a packet.
async fn skip(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn answers_are_kept_for_a_while() {
    let server = Server::start(|ask| match ask.name {
        "long.example." => "long.example. 86400 A 1.1.1.1".into(),
        "blocked.example." => "blocked.example. 600 A 10.0.0.1".into(),
        "gone.example." => Say::Code(ResponseCode::NXDomain, SOA.to_owned()),
        _ => "".into(),
    })
    .await;
    let bench = Bench::start(&[&server]).await;
    let asked = |name: &str| server.asked().iter().filter(|line| line.starts_with(name)).count();
    for (n, expected) in [("long", 1), ("Long", 1), ("gone", 1), ("blocked", 3), ("empty", 3)] {
        let name = format!("{n}.example.");
        for _ in 0..3 {
            bench.ask(&name, RecordType::A).await;
        }
        assert_eq!(asked(&name.to_lowercase()), expected, "{name}");
    }
    let answer = bench.ask("long.example.", RecordType::A).await;
    assert!((1..=300).contains(&answer.answers[0].ttl), "{answer}");
    skip(Duration::from_secs(31)).await;
    bench.ask("gone.example.", RecordType::A).await;
    bench.ask("long.example.", RecordType::A).await;
    assert_eq!((asked("gone."), asked("long.")), (2, 1));
    skip(Duration::from_secs(300)).await;
    bench.ask("long.example.", RecordType::A).await;
    assert_eq!(asked("long."), 2);
}

#[tokio::test]
async fn private_names_never_reach_upstream() {
    let server = Server::start(|_| Say::Nothing).await;
    let mut bench = Bench::start(&[&server]).await;
    for name in [
        "localhost.",
        "db.",
        "metadata.google.internal.",
        "host.docker.internal.",
        "printer.local.",
        "1.0.0.127.in-addr.arpa.",
        "1.0.0.10.in-addr.arpa.",
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa.",
    ] {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::PTR, RecordType::TXT] {
            assert_eq!(show(&bench.ask(name, kind).await), "NXDomain", "{name}");
        }
    }
    let answer = bench.ask(CANARY, RecordType::A).await;
    assert_eq!(show(&answer), "NoError; canary.grid.internal. A 192.0.2.1");
    assert_eq!(answer.answers[0].ttl, 0);
    assert!(EgressPolicy::fixed().check(CANARY_ADDRESS.into()).is_err());
    assert_eq!(show(&bench.ask("Canary.Grid.Internal.", RecordType::AAAA).await), "NoError");
    assert_eq!(server.asked(), [""; 0]);
    assert!(bench.refusals.try_recv().is_err());
}

#[tokio::test]
async fn a_referral_is_not_followed() {
    let elsewhere = Server::start(|_| Say::Nothing).await;
    let port = elsewhere.address.port();
    let server = Server::start(move |ask| {
        let owner = ask.name;
        Say::Records(format!(
            "- {owner} 60 NS ns.example.\n+ ns.example. 60 A 1.1.1.1\n\
             + _dns.ns.example. 60 SRV 0 0 {port} ns.example."
        ))
    })
    .await;
    let bench = Bench::start(&[&server]).await;
    assert_eq!(show(&bench.ask("www.example.", RecordType::A).await), "NoError");
    assert_eq!(server.asked(), ["www.example. A"]);
    assert_eq!(elsewhere.asked(), [""; 0]);
}
