//! The table of who can be reached and who cannot, from both runtimes.

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    path::Path,
};

use serde_json::json;

use super::{Function, probe, probe::Attempt};
use crate::{
    docker,
    grid::Grid,
    internet::{Host, outside, servers::http},
    lab::ip,
};

const RANGES: &str = include_str!("../../../../runners/egress/ranges.txt");

/// Addresses at which servers wait in vain, in ascending order.
const FORBIDDEN: [[u8; 4]; 10] = [
    [10, 20, 30, 40],
    [100, 64, 0, 2],
    [100, 127, 255, 254],
    [168, 63, 129, 16],
    [169, 254, 169, 254],
    [172, 16, 5, 5],
    [192, 0, 0, 192],
    [192, 168, 250, 250],
    [198, 19, 255, 254],
    [203, 0, 113, 7],
];

/// Public addresses next to denied ranges.
const EDGES: [[u8; 4]; 7] = [
    [100, 63, 255, 254],
    [100, 128, 0, 1],
    [169, 253, 255, 254],
    [172, 15, 255, 254],
    [172, 32, 0, 1],
    [192, 167, 255, 254],
    [223, 255, 255, 254],
];

/// The first and the last address of each denied IPv4 range that is not the container's own.
fn edges_of_denied_ranges() -> Vec<Ipv4Addr> {
    let ranges = RANGES.lines().filter_map(|line| {
        let range = line.strip_prefix("deny")?.split_whitespace().next()?;
        let (first, bits) = range.split_once('/')?;
        let (first, bits) = (first.parse::<Ipv4Addr>().ok()?, bits.parse::<u32>().ok()?);
        let last = Ipv4Addr::from(u32::from(first) | u32::MAX.checked_shr(bits).unwrap_or(0));
        Some([first, last])
    });
    let own = |address: &Ipv4Addr| address.is_loopback() || address.is_unspecified();
    let edges: Vec<_> = ranges.flatten().filter(|address| !own(address)).collect();
    assert!(edges.len() >= 30, "{edges:?}");
    edges
}

/// Nobody there answered; and an attempt to connect to one machine was refused at once.
fn assert_denied(attempts: &[Attempt], outcomes: &[String]) {
    for (attempt, outcome) in attempts.iter().zip(outcomes) {
        let (protocol, to, _) = attempt;
        assert!(!["answered", "connected"].contains(&outcome.as_str()), "{attempt:?}: {outcome}");
        let Ok(IpAddr::V4(to)) = to.parse() else { continue };
        if *protocol == "tcp" && !to.is_multicast() && !to.is_broadcast() {
            assert_eq!(outcome, "ECONNREFUSED", "{attempt:?}");
        }
    }
}

#[test]
fn denied_addresses_are_not_reached() {
    let hosts = FORBIDDEN.map(|address| Host::at(address.into()));
    let servers: Vec<_> = hosts.iter().map(|host| (host.tcp(80), host.udp(80))).collect();
    let mut attempts: Vec<Attempt> =
        hosts.iter().flat_map(|host| probe::both(host.address(), 80)).collect();
    for address in edges_of_denied_ranges() {
        attempts.extend(probe::both(address, 443));
    }
    attempts.extend([probe::udp([224, 0, 0, 251], 5353), probe::udp([239, 1, 2, 3], 80)]);
    let grid = Grid::start();
    for function in [Function::node(&grid, "deny-n"), Function::python(&grid, "deny-p")] {
        assert_denied(&attempts, &function.attempts(&grid, &attempts));
    }
    for host in &hosts {
        assert_eq!(host.packets(), 0, "{}", host.address());
    }
    // Each of them was there all the time.
    for (host, (web, _)) in hosts.iter().zip(&servers) {
        drop(std::net::TcpStream::connect(web.address()).expect("a server"));
        assert!(host.packets() > 0, "{}", host.address());
    }
}

#[test]
fn this_machine_is_not_reached() {
    let grid = Grid::with(&[("GRID_HTTP_ADDR", "0.0.0.0:0"), ("GRID_ADMIN_ADDR", "0.0.0.0:0")]);
    let web = TcpListener::bind("0.0.0.0:0").expect("a port");
    web.set_nonblocking(true).expect("a socket");
    let port = web.local_addr().expect("an address").port();
    let datagrams = UdpSocket::bind(("0.0.0.0", port)).expect("a port");
    datagrams.set_nonblocking(true).expect("a socket");
    let image = docker::docker(&["image", "ls", "-q", "grid/base-node18"]);
    let published = Published::start(image.lines().next().expect("a base image"));

    for function in [Function::node(&grid, "host-n"), Function::python(&grid, "host-p")] {
        let (own, gateway) = function.addresses();
        let public = Ipv4Addr::new(11, 0, 0, 1);
        let engine = Ipv4Addr::new(172, 17, 0, 1);
        let mut attempts = Vec::new();
        for address in [gateway, public, engine] {
            for port in [port, grid.public.port(), grid.admin.port(), published.port, 22, 5353] {
                attempts.extend(probe::both(address, port));
            }
        }
        attempts.extend(probe::both(public, 53));
        attempts.extend(probe::both(engine, 53));
        attempts.extend(probe::both(published.address, 8000));
        let [a, b, ..] = own.octets();
        for broadcast in [Ipv4Addr::BROADCAST, Ipv4Addr::new(a, b, 255, 255)] {
            attempts.push(probe::udp(broadcast, port));
        }
        attempts.push(probe::udp([224, 0, 0, 1], port));
        assert_denied(&attempts, &function.attempts(&grid, &attempts));
        // The one exception: the gateway's name server. It hangs up on what is no question.
        let dns = function.attempts(&grid, &[probe::tcp(gateway, 53)]);
        assert!(["connected", "ECONNRESET"].contains(&dns[0].as_str()), "{dns:?}");
    }
    assert!(web.accept().is_err(), "somebody came");
    assert!(datagrams.recv_from(&mut [0; 64]).is_err(), "something came");
    // What is published can be reached, by others.
    drop(outside(|| std::net::TcpStream::connect(("11.0.0.1", published.port))).expect("reached"));
}

/// A web server in a container of somebody else, at a published port.
struct Published {
    container: String,
    address: Ipv4Addr,
    port: u16,
}

impl Published {
    fn start(image: &str) -> Self {
        let code = "require('http').createServer((_, a) => a.end('x')).listen(8000, () => console.log('up'))";
        let container = docker::docker(&["run", "-d", "-p", "8000", image, "node", "-e", code]);
        let seen = docker::inspect(&container)["NetworkSettings"].clone();
        let port = seen["Ports"]["8000/tcp"][0]["HostPort"].as_str().and_then(|p| p.parse().ok());
        let address = seen["Networks"]["bridge"]["IPAddress"].as_str().and_then(|a| a.parse().ok());
        crate::grid::wait_until("the server", || docker::docker(&["logs", &container]) == "up");
        let (address, port) = (address.expect("an address"), port.expect("a port"));
        Self { container, address, port }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        drop(docker::try_docker(&["rm", "-f", "-v", &self.container]));
    }
}

#[test]
fn public_addresses_are_reached() {
    let mut hosts = vec![Host::public(), Host::public()];
    hosts.extend(EDGES.map(|address| Host::at(address.into())));
    let servers: Vec<_> = hosts.iter().map(|host| (host.tcp(80), host.udp(9000))).collect();
    let grid = Grid::start();
    for function in [Function::node(&grid, "open-n"), Function::python(&grid, "open-p")] {
        let attempts: Vec<_> = hosts
            .iter()
            .flat_map(|host| [probe::tcp(host.address(), 80), probe::udp(host.address(), 9000)])
            .collect();
        let outcomes = function.attempts(&grid, &attempts);
        for (attempt, outcome) in attempts.iter().zip(&outcomes) {
            assert_eq!(outcome, "answered", "{attempt:?}");
        }
        // And by code that does not go round the guard.
        for host in &hosts {
            let answer = function.fetch(&grid, &format!("http://{}/", host.address()));
            assert_eq!((answer.status, answer.json()), (200, json!({"text": "internet"})));
        }
    }
    for (web, echo) in &servers {
        let (web, echo) = (web.seen(), echo.seen());
        assert_eq!((web.len(), echo.len()), (4, 2));
        for visit in web.iter().chain(&echo) {
            assert_eq!(visit.from.ip(), IpAddr::from([11, 0, 0, 1]), "not the container's own");
        }
    }
}

#[test]
fn every_hop_of_a_redirect_is_judged() {
    let (public, private) = (Host::public(), Host::at([10, 20, 30, 41].into()));
    let (target, trap) = (public.tcp(8080), private.tcp(80));
    let [good, bad] = [target.address(), trap.address()].map(|to| format!("http://{to}/"));
    let door = Host::public();
    let web = door.tcp_with(80, move |request| {
        let to = if request.starts_with("GET /good") { &good } else { &bad };
        http("302 Found", &[("location", to.as_str())], "")
    });
    let grid = Grid::start();
    for function in [Function::node(&grid, "hop-n"), Function::python(&grid, "hop-p")] {
        let answer = function.fetch(&grid, &format!("http://{}/good", web.address()));
        assert_eq!((answer.status, answer.json()), (200, json!({"text": "internet"})));
        let answer = function.fetch(&grid, &format!("http://{}/bad", web.address()));
        assert_eq!(answer.status, 452, "{}", answer.text());
        assert_eq!(answer.code(), "ssrf_blocked");
    }
    assert_eq!(private.packets(), 0);
}

#[test]
fn there_is_no_ipv6() {
    let on = Path::new("/proc/sys/net/ipv6/conf/all").exists();
    let host = on.then(|| Host::at("2600:1f00::77".parse().expect("an address")));
    let server = host.as_ref().map(|host| (host.tcp(80), host.udp(80)));
    let grid = Grid::start();
    let listing =
        "import json; print(json.dumps([l.split()[5] for l in open('/proc/net/if_inet6')]))";
    let function = Function::python(&grid, "six-p");
    if on {
        let interfaces = function.run(&grid, listing, &json!(null));
        let only_own = interfaces.as_array().expect("a list").iter().all(|name| name == "lo");
        assert!(only_own, "{interfaces}");
    }
    let addresses = ["2600:1f00::77", "2600::1", "fe80::1", "fd00:ec2::254", "ff02::1"]
        .map(|text| text.parse::<IpAddr>().expect("an address"));
    let mapped: IpAddr = "::ffff:10.20.30.40".parse().expect("an address");
    let mut attempts: Vec<_> = addresses.iter().flat_map(|to| probe::both(*to, 80)).collect();
    attempts.extend(probe::both(mapped, 80));
    for function in [function, Function::node(&grid, "six-n")] {
        assert_denied(&attempts, &function.attempts(&grid, &attempts));
    }
    if let Some(host) = &host {
        assert_eq!(host.packets(), 0);
        assert!(
            !ip(&["-6", "neigh", "show"])
                .contains(docker::bridge_of(&grid.network().expect("one")))
        );
    }
    drop(server);
}

#[test]
fn only_tcp_and_udp_sockets_are_made() {
    let code = r#"
import errno, json, socket
def attempt(*what):
    try:
        socket.socket(*what).close()
        return "made"
    except OSError as e:
        return errno.errorcode[e.errno]
print(json.dumps([attempt(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP), attempt(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    attempt(socket.AF_INET, socket.SOCK_STREAM, 132), attempt(socket.AF_INET, socket.SOCK_STREAM, 262), attempt(socket.AF_PACKET, socket.SOCK_RAW, 0),
    attempt(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)]))"#;
    let grid = Grid::start();
    let made = Function::python(&grid, "kinds-p").run(&grid, code, &json!(null));
    let made = made.as_array().expect("a list");
    for outcome in &made[..made.len() - 1] {
        assert!(
            ["EPERM", "EACCES", "EAFNOSUPPORT"].contains(&outcome.as_str().unwrap_or("")),
            "{made:?}"
        );
    }
    assert_eq!(made[made.len() - 1], "made");
}
