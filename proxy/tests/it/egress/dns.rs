//! The resolver, asked by functions: real names of a name server of the tests' internet.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Function, probe, siblings};
use crate::{
    grid::{Grid, wait_until},
    internet::{
        Host,
        dns::{NameServer, Zone},
    },
};

/// A Grid whose resolver asks one name server.
fn grid_asking(zone: Zone) -> (Grid, NameServer) {
    let host = Host::public();
    let names = host.dns(zone);
    (Grid::with(&[("GRID_EGRESS_DNS_SERVERS", &host.address().to_string())]), names)
}

fn functions(grid: &Grid, name: &str) -> [Function; 2] {
    [Function::node(grid, &format!("{name}-n")), Function::python(grid, &format!("{name}-p"))]
}

fn was_asked(names: &NameServer, name: &str) -> bool {
    names.asked().iter().any(|(asked, _)| asked.trim_end_matches('.').eq_ignore_ascii_case(name))
}

/// An attempt by name, on which no guard looks.
fn by_name(name: &str) -> [probe::Attempt; 1] {
    [("tcp", name.to_owned(), 80)]
}

#[test]
fn public_names_are_resolved() {
    let host = Host::public();
    let web = host.tcp(80);
    let zone = Zone::default()
        .addresses("www.example.com", &[host.address()])
        .alias("alias.example.com", "www.example.com");
    let (grid, names) = grid_asking(zone);
    for function in functions(&grid, "name") {
        for name in ["www.example.com", "alias.example.com"] {
            assert_eq!(function.attempts(&grid, &by_name(name)), ["answered"], "{name}");
            let answer = function.fetch(&grid, &format!("http://{name}/"));
            assert_eq!((answer.status, answer.json()), (200, json!({"text": "internet"})));
        }
        assert_eq!(function.attempts(&grid, &by_name("nowhere.example.com")), ["ENOTFOUND"]);
        assert_eq!(function.denied(&grid)["count"], 0, "{}", function.denied(&grid));
    }
    assert!(was_asked(&names, "www.example.com"));
    assert_eq!(web.seen().len(), 8);
}

#[test]
fn an_answer_with_a_private_address_is_withheld() {
    let (public, private) = (Host::public(), Host::at([10, 20, 30, 42].into()));
    let (web, trap) = (public.tcp(80), private.tcp(80));
    let addresses = [public.address(), private.address()];
    let zone = Zone::default()
        .addresses("private.example.com", &addresses[1..])
        .addresses("mixed.example.com", &addresses)
        .alias("chain.example.com", "link.example.com")
        .alias("link.example.com", "private.example.com");
    let (grid, _names) = grid_asking(zone);
    for function in functions(&grid, "hide") {
        for name in ["private.example.com", "mixed.example.com", "chain.example.com"] {
            assert_eq!(function.attempts(&grid, &by_name(name)), ["ENOTFOUND"], "{name}");
            let counted = |target: &Value| {
                let to = target["to"].as_str().unwrap_or_default();
                target["protocol"] == "dns" && to.starts_with(name) && to.contains("10.20.30.42")
            };
            wait_until("the count", || {
                let denied = function.denied(&grid);
                denied["targets"].as_array().expect("a list").iter().any(counted)
            });
        }
        let told = grid.logs(&function.service, "?tail=100");
        let line = |line: &Value| {
            line["line"]
                .as_str()
                .is_some_and(|l| l.starts_with("egress denied: dns private.exampl"))
        };
        assert!(told.iter().any(line), "{told:?}");
    }
    assert!(web.seen().is_empty());
    assert_eq!(private.packets(), 0);
    drop(trap);
}

#[test]
fn a_name_that_changes_its_address_gains_nothing() {
    let (public, private) = (Host::public(), Host::at([10, 20, 30, 43].into()));
    let (web, trap) = (public.tcp(80), private.tcp(80));
    let mut zone = Zone::default();
    // Every other question, so that lookups and connections meet both answers.
    for _ in 0..60 {
        zone = zone.addresses("rebind.example.com", &[public.address()]);
        zone = zone.addresses("rebind.example.com", &[private.address()]);
    }
    let (grid, names) = grid_asking(zone);
    let [node, python] = functions(&grid, "bind");
    for _ in 0..25 {
        for function in [&node, &python] {
            // Through the guard, by the same name: once or never.
            let status = function.fetch(&grid, "http://rebind.example.com/").status;
            assert!([200, 452, 502].contains(&status), "{status}");
        }
        node.attempts(&grid, &by_name("rebind.example.com"));
    }
    assert!(names.asked().len() > 50, "it was kept: {}", names.asked().len());
    assert!(!web.seen().is_empty());
    assert_eq!(private.packets(), 0);
    drop(trap);
}

#[test]
fn private_names_are_not_asked_for() {
    let host = Host::at([169, 254, 169, 254].into());
    let trap = host.tcp(80);
    let zone = Zone::default().addresses("metadata.google.internal", &[host.address()]);
    let (grid, names) = grid_asking(zone);
    let sibling = siblings::server(&grid, "named");
    let container = crate::docker::inspect(&sibling.container())["Name"].clone();
    let container = container.as_str().expect("a name").trim_start_matches('/').to_owned();
    for function in functions(&grid, "local") {
        for name in ["metadata.google.internal", "metadata", "router.lan", "example.test"] {
            assert_eq!(function.attempts(&grid, &by_name(name)), ["ENOTFOUND"], "{name}");
            assert!(!was_asked(&names, name), "{name}");
        }
        // The engine's own server knows the containers of a network. It helps nobody.
        let to_sibling = [("tcp", container.clone(), 9999), ("udp", container.clone(), 9999)];
        for outcome in function.attempts(&grid, &to_sibling) {
            assert!(!["answered", "connected"].contains(&outcome.as_str()), "{outcome}");
        }
    }
    assert_eq!(host.packets(), 0);
    siblings::assert_untouched(&sibling);
    drop(trap);
}

/// Asks a name server itself, over TCP and UDP: takes `[host, port, name]`, gives the addresses of
/// the answers or the error.
const ASK: &str = r#"
import errno, json, socket, struct, sys
host, port, name = json.load(sys.stdin)
question = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0)
question += b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0" + struct.pack(">2H", 1, 1)
def whole(s, size):
    got = b""
    while len(got) < size:
        part = s.recv(size - len(got))
        if not part: raise OSError(errno.ECONNRESET, "")
        got += part
    return got
def ask(kind):
    try:
        with socket.socket(type=kind) as s:
            s.settimeout(2)
            s.connect((host, port))
            if kind == socket.SOCK_STREAM:
                s.sendall(struct.pack(">H", len(question)) + question)
                answer = whole(s, struct.unpack(">H", whole(s, 2))[0])
            else:
                s.sendall(question)
                answer = s.recv(4096)
        code, count = struct.unpack(">H", answer[2:4])[0] & 15, struct.unpack(">H", answer[6:8])[0]
        return [code, count]
    except socket.timeout:
        return "silence"
    except OSError as e:
        return errno.errorcode[e.errno]
print(json.dumps([ask(socket.SOCK_STREAM), ask(socket.SOCK_DGRAM)]))
"#;

#[test]
fn name_servers_are_asked_by_address() {
    let private = Host::at([10, 20, 30, 44].into());
    let other = private.dns(Zone::default().addresses("www.example.com", &[private.address()]));
    let many: Vec<IpAddr> = (1..=100).map(|n| IpAddr::from([20, 2, 2, n])).collect();
    let zone = Zone::default()
        .addresses("www.example.com", &many[..1])
        .addresses("many.example.com", &many)
        .addresses("private.example.com", &[private.address()]);
    let (grid, _names) = grid_asking(zone);
    let [node, python] = functions(&grid, "ask");
    let (_, gateway) = python.addresses();
    let ask = |host: &dyn ToString, name: &str| {
        python.run(&grid, ASK, &json!([host.to_string(), 53, name]))
    };
    assert_eq!(ask(&gateway, "www.example.com"), json!([[0, 1], [0, 1]]));
    assert_eq!(ask(&gateway, "many.example.com"), json!([[0, 100], [0, 0]]), "cut over UDP");
    assert_eq!(ask(&gateway, "private.example.com"), json!([[3, 0], [3, 0]]));
    let told = ask(&private.address(), "www.example.com");
    assert_eq!(told[0], "ECONNREFUSED", "{told}");
    assert!(told[1].is_string(), "{told}");
    assert!(other.asked().is_empty());
    assert_eq!(private.packets(), 0);
    // What is too long for a datagram comes over TCP by itself.
    let lookup = "require('dns').resolve4('many.example.com', (error, all) => console.log(error ? 0 : all.length))";
    assert_eq!(node.run(&grid, lookup, &json!(null)), 100);
}
