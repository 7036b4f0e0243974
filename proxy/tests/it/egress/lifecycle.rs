//! Functions that keep on trying while somebody takes the firewall apart: nothing gets out, public
//! requests go on, and everything is put back.

use std::{
    fs,
    io::Write,
    net::{TcpListener, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use serde_json::json;

use super::{Function, probe, siblings};
use crate::{
    docker,
    grid::{Grid, wait_until},
    http::Connection,
    internet::{Host, exclusive, servers::Listener},
    lab::{ip, nft, rules_of},
    process::output_of,
};

/// Who is attacked, and by whom: a host at a private address, this machine, a sibling.
struct Siege {
    grid: Grid,
    attacker: Function,
    sibling: Function,
    private: Host,
    _trap: Listener,
    web: TcpListener,
    datagrams: UdpSocket,
}

impl Siege {
    fn lay(name: &str) -> Self {
        let private = Host::at([10, 20, 30, 60].into());
        let trap = private.tcp(80);
        let web = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = web.local_addr().expect("an address").port();
        let datagrams = UdpSocket::bind(("0.0.0.0", port)).expect("a port");
        web.set_nonblocking(true).expect("a socket");
        datagrams.set_nonblocking(true).expect("a socket");
        let grid = Grid::start();
        let sibling = siblings::server(&grid, &format!("{name}-s"));
        let attacker = Function::python(&grid, &format!("{name}-a"));
        let (_, gateway) = attacker.addresses();
        let mut targets: Vec<_> = probe::both(private.address(), 80).into();
        targets.extend(probe::both(gateway, port));
        targets.extend(probe::both(sibling.addresses().0, 9999));
        attacker.spawn(&grid, probe::ATTACKER, &json!(targets));
        let siege = Self { grid, attacker, sibling, private, _trap: trap, web, datagrams };
        siege.go_on();
        siege
    }

    fn tried(&self) -> u64 {
        let each = (0..3).map(|n| self.attacker.file(&format!("/tmp/attempts.{n}")));
        each.filter_map(|text| text.parse::<u64>().ok()).sum()
    }

    /// Waits until it has tried some more.
    fn go_on(&self) {
        let before = self.tried();
        wait_until("further attempts", || self.tried() >= before + 300);
    }

    fn bridge(&self) -> String {
        docker::bridge_of(&self.grid.network().expect("a network")).to_owned()
    }

    fn table(&self) -> String {
        self.bridge().replace('-', "_")
    }

    /// Nothing has come through, and who waited there could have been reached.
    fn assert_held(&self) {
        assert_eq!(self.private.packets(), 0, "the private address was reached");
        assert!(self.web.accept().is_err(), "this machine was reached");
        let came = self.datagrams.recv_from(&mut [0; 64]);
        assert!(came.is_err(), "this machine was reached: {came:?}");
        assert_eq!(self.sibling.file("/tmp/seen"), "", "the sibling was reached");
    }

    fn is_whole(&self) -> bool {
        let (bridge, table) = (self.bridge(), self.table());
        let tables = nft(&["list", "tables"]);
        let listed = |line: String| tables.lines().any(|l| l == line);
        let routes = rules_of(&bridge).into_iter().find_map(|(family, table)| {
            (family == "-4").then(|| output_of("ip", &["route", "show", "table", &table?]).ok())?
        });
        listed(format!("table inet {table}"))
            && listed(format!("table bridge {table}"))
            && listed(format!("table inet {table}_held"))
            && routes.is_some_and(|routes| routes.contains("unreachable 10.0.0.0/8"))
            && (!has_ipv6() || rules_of(&bridge).iter().any(|(family, _)| *family == "-6"))
            && ip(&["-o", "link", "show", "dev", &bridge]).contains(",UP")
            && is_ready(&self.grid)
    }
}

/// The process that holds the second copy of the rules.
pub(super) fn holder(grid: &Grid) -> Option<u32> {
    let grid = grid.pid().to_string();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.to_owned();
        (parent == grid && line.starts_with(b"nft\0-i")).then_some(pid)
    })
}

/// What the engine and others had in the packet filter, put back when this goes.
struct Saved(String);

impl Saved {
    fn now() -> Self {
        Self(output_of("iptables-save", &[]).expect("saved"))
    }

    fn restore(&self) {
        let mut child = Command::new("iptables-restore")
            .stdin(Stdio::piped())
            .spawn()
            .expect("iptables-restore");
        child.stdin.take().expect("piped").write_all(self.0.as_bytes()).expect("written");
        assert!(child.wait().expect("waited for").success());
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        self.restore();
    }
}

#[test]
fn alone_flushing_all_rules_lets_nothing_out() {
    let _alone = exclusive();
    let siege = Siege::lay("flush");
    let saved = Saved::now();
    let (over, requests) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let answer = siege.attacker.run(&siege.grid, "print(7)", &json!(null));
                assert_eq!(answer, 7);
                requests.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..20 {
            nft(&["flush", "ruleset"]);
            wait_until("the rules", || siege.is_whole());
            siege.go_on();
        }
        over.store(true, Ordering::Relaxed);
    });
    drop(saved);
    siege.assert_held();
    assert!(requests.load(Ordering::Relaxed) > 20);
    siblings::assert_untouched(&siege.sibling);
}

#[test]
fn alone_each_part_that_is_taken_away_is_put_back() {
    let _alone = exclusive();
    let siege = Siege::lay("parts");
    let (bridge, table) = (siege.bridge(), siege.table());
    type Harm<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let routes = || {
        let rules = rules_of(&bridge).into_iter();
        rules.filter_map(|(_, table)| table).next().expect("a table of routes")
    };
    let flush_table = format!("flush table inet {table}");
    let add_hole = format!("insert rule inet {table} functions accept");
    let drop_denied = format!("flush set inet {table} deny4");
    let harms: [Harm<'_>; 12] = [
        ("the kept table deleted", Box::new(|| drop(nft(&["delete", "table", "inet", &table])))),
        (
            "the siblings' table deleted",
            Box::new(|| drop(nft(&["delete", "table", "bridge", &table]))),
        ),
        ("the kept table emptied", Box::new(|| drop(nft(&[&flush_table])))),
        ("a hole in the rules", Box::new(|| drop(nft(&[&add_hole])))),
        ("no denied ranges", Box::new(|| drop(nft(&[&drop_denied])))),
        (
            "the holder killed",
            Box::new(|| {
                let pid = holder(&siege.grid).expect("a process").to_string();
                output_of("kill", &["-9", &pid]).expect("killed");
            }),
        ),
        ("the rule deleted", Box::new(|| drop(ip(&["rule", "del", "iif", &bridge, "pref", "1"])))),
        (
            "the IPv6 rule deleted",
            Box::new(|| {
                if has_ipv6() {
                    ip(&["-6", "rule", "del", "iif", &bridge]);
                }
            }),
        ),
        ("the routes flushed", Box::new(|| drop(ip(&["route", "flush", "table", &routes()])))),
        (
            "one route deleted",
            Box::new(|| {
                drop(ip(&["route", "del", "unreachable", "10.0.0.0/8", "table", &routes()]))
            }),
        ),
        ("the bridge down", Box::new(|| drop(ip(&["link", "set", "dev", &bridge, "down"])))),
        (
            "ports not isolated",
            Box::new(|| {
                let links = ip(&["-o", "link", "show", "master", &bridge]);
                for link in links.lines().filter_map(|line| line.split(": ").nth(1)) {
                    let name = link.split('@').next().expect("a name");
                    ip(&["link", "set", "dev", name, "type", "bridge_slave", "isolated", "off"]);
                }
            }),
        ),
    ];
    for (what, harm) in &harms {
        eprintln!("{what}");
        harm();
        wait_until(what, || siege.is_whole());
        siege.go_on();
        assert!(siege.is_whole(), "{what}");
        siege.assert_held();
    }
    let isolated = ip(&["-d", "link", "show", "master", &bridge]);
    assert!(!isolated.contains("isolated off"), "{isolated}");
    assert_eq!(siege.attacker.run(&siege.grid, "print(7)", &json!(null)), 7);
    siblings::assert_untouched(&siege.sibling);
}

#[test]
fn alone_rules_outlast_a_grid_that_is_killed() {
    let _alone = exclusive();
    let mut siege = Siege::lay("orphan");
    let containers = docker::containers(&siege.attacker.service.id, false);
    siege.grid.kill9();
    siege.go_on();
    siege.assert_held();
    siege.grid.restart();
    siege.go_on();
    siege.assert_held();
    wait_until("the whole", || siege.is_whole());
    assert_eq!(docker::containers(&siege.attacker.service.id, false), containers, "adopted");
    assert_eq!(siege.attacker.run(&siege.grid, "print(7)", &json!(null)), 7);
    siege.grid.stop();
    siege.go_on();
    siege.assert_held();
    siblings::assert_untouched(&siege.sibling);
}

#[test]
fn alone_a_network_that_somebody_removed_is_made_again() {
    let _alone = exclusive();
    let (host, private) = (Host::public(), Host::at([10, 20, 30, 61].into()));
    let (web, trap) = (host.tcp(80), private.tcp(80));
    // It has the addresses that Grid's network would have otherwise.
    let other = docker::docker(&["network", "create", &format!("other-{}", std::process::id())]);
    let grid = Grid::with(&[("GRID_IDLE_SECONDS", "1")]);
    let code = super::PYTHON;
    let service = grid.create("again", "python3.9", code, json!({"max_replicas": 1}));
    let function = Function { service, python: true };
    let network = grid.network().expect("a network");
    let attempts = [probe::tcp(host.address(), 80), probe::tcp(private.address(), 80)];
    let mut gateways = Vec::new();
    for turn in 0..3 {
        assert_eq!(function.attempts(&grid, &attempts), ["answered", "ECONNREFUSED"]);
        let gateway = function.addresses().1;
        let dns = function.attempts(&grid, &[probe::tcp(gateway, 53)]);
        assert!(["connected", "ECONNRESET"].contains(&dns[0].as_str()), "{dns:?}");
        gateways.push(gateway);
        if turn == 1 {
            docker::docker(&["network", "rm", &other]);
        }
        let id = || docker::try_docker(&["network", "inspect", "-f", "{{.Id}}", &network]);
        let old = id().expect("an id");
        wait_until("the network's end", || {
            docker::containers(&function.service.id, true).is_empty()
                && docker::try_docker(&["network", "rm", &network]).is_ok()
        });
        wait_until("the new network", || id().is_ok_and(|id| id != old));
        wait_until("readiness", || is_ready(&grid));
    }
    // Which addresses come is up to the engine; once they were others.
    assert!(gateways.iter().any(|gateway| *gateway != gateways[0]), "{gateways:?}");
    assert_eq!((web.seen().len(), private.packets()), (3, 0));
    drop(trap);
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

pub(super) fn is_ready(grid: &Grid) -> bool {
    let host = [("host", "localhost")];
    Connection::open(grid.admin).request("GET", "/readyz", &host, b"").status == 200
}
