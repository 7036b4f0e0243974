//! The tests' internet itself: what is there can be reached. Without this, tests in which something
//! must not be reached would mean little.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    thread,
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RecordType},
};

use super::{Host, dns::Zone, outside, servers::http};
use crate::{docker, grid::PATIENCE};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The address of this side of the cable, as the internet sees it.
fn ours(host: &Host) -> IpAddr {
    address(if host.address().is_ipv4() { "11.0.0.1" } else { "2600::1" })
}

/// Sends text over a connection and reads what comes until the other side has said `last`.
fn exchange(stream: &mut TcpStream, text: &str, last: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(text.as_bytes()).expect("sent");
    let (mut got, mut buffer) = (String::new(), [0; 1024]);
    while !got.ends_with(last) {
        let length = stream.read(&mut buffer).expect("an answer");
        assert_ne!(length, 0, "{got}");
        got.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    got
}

#[test]
fn hosts_at_public_and_at_blocked_addresses_are_reached() {
    let mut hosts = vec![Host::public(), Host::public()];
    hosts.extend(
        ["10.1.2.3", "100.64.0.1", "169.254.169.254", "192.168.7.7"].map(|a| Host::at(address(a))),
    );
    if Path::new("/proc/sys/net/ipv6/conf/all").exists() {
        hosts.extend(["2600:1f00::7", "fd00:ec2::254"].map(|a| Host::at(address(a))));
    }
    for host in &hosts {
        let web = host.tcp(80);
        assert!(web.seen().is_empty());
        assert_eq!(host.packets(), 0, "{}: our own look is not counted", host.address());
        let mut stream = TcpStream::connect(web.address()).expect("a connection");
        let own = stream.local_addr().expect("an address");
        for path in ["/first", "/second"] {
            let answer = exchange(&mut stream, &format!("GET {path} HTTP/1.1\r\n\r\n"), "internet");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
        let seen = web.seen();
        assert_eq!((seen.len(), seen[0].from, own.ip()), (1, own, ours(host)));
        assert_eq!(seen[0].text(), "GET /first HTTP/1.1\r\n\r\nGET /second HTTP/1.1\r\n\r\n");
        assert!(host.packets() >= 3, "{}", host.packets());

        let echo = host.udp(9000);
        assert!(echo.seen().is_empty());
        let socket = UdpSocket::bind((ours(host), 0)).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket.send_to(b"hello", echo.address).expect("sent");
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).expect("an answer");
        assert_eq!((&buffer[..length], from), (b"internet".as_slice(), echo.address));
        let seen = echo.seen();
        assert_eq!((seen.len(), seen[0].bytes.as_slice()), (1, b"hello".as_slice()));
    }
}

#[test]
fn a_server_answers_as_the_test_wants() {
    let host = Host::public();
    let web = host.tcp_with(8080, |request| match request.split(' ').nth(1) {
        Some("/away") => http("302 Found", &[("location", "http://10.0.0.1/")], ""),
        Some("/body") => http("200 OK", &[], request.rsplit("\r\n\r\n").next().unwrap_or_default()),
        _ => Vec::new(),
    });
    let mut stream = TcpStream::connect(web.address()).expect("a connection");
    let answer = exchange(&mut stream, "GET /away HTTP/1.1\r\n\r\n", "\r\n\r\n");
    assert!(answer.contains("302 Found") && answer.contains("location: http://10.0.0.1/\r\n"));
    let answer =
        exchange(&mut stream, "POST /body HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd", "abcd");
    assert!(answer.contains("200 OK"));
    stream.write_all(b"GET /none HTTP/1.1\r\n\r\n").expect("sent");
    assert_eq!(stream.read(&mut [0; 16]).expect("the end"), 0);
}

#[test]
fn a_host_goes_with_its_owner_and_with_its_servers() {
    let host = Host::public();
    let (place, web) = (host.address(), host.tcp(80));
    drop(host);
    let mut open = TcpStream::connect(web.address()).expect("the server keeps it");
    drop(web);
    assert_eq!(open.read(&mut [0; 16]).unwrap_or(0), 0, "connections end with the server");
    let listed =
        outside(|| crate::lab::ip(&["-o", "address"]) + &crate::lab::nft(&["list", "tables"]));
    assert!(!listed.contains(&format!(" {place}/")), "{listed}");
    assert!(
        !listed.contains(&format!("host_{}\n", place.to_string().replace('.', "_"))),
        "{listed}"
    );
    let nobody = TcpStream::connect_timeout(&(place, 80).into(), Duration::from_millis(200));
    assert!(nobody.is_err(), "nothing answers there any more");
}

#[test]
fn the_internet_reaches_the_lab() {
    let server = TcpListener::bind("11.0.0.1:0").expect("a port");
    let at = server.local_addr().expect("an address");
    let accepted = thread::spawn(move || server.accept().expect("a connection").1);
    let stream = outside(|| TcpStream::connect(at)).expect("a connection");
    assert_eq!(accepted.join().expect("accepted"), stream.local_addr().expect("an address"));
    assert_eq!(stream.local_addr().expect("an address").ip(), address("11.0.0.2"));
}

#[test]
fn a_container_on_an_open_bridge_reaches_them() {
    let image = ["node:18-alpine", "grid/base-node18:latest"]
        .into_iter()
        .find(|image| docker::try_docker(&["image", "inspect", image]).is_ok())
        .expect("a base image");
    for host in [Host::public(), Host::at(address("10.1.2.4"))] {
        let web = host.tcp(80);
        let code =
            format!("fetch('http://{}/').then((r) => r.text()).then(console.log)", host.address());
        assert_eq!(docker::docker(&["run", "--rm", image, "node", "-e", &code]), "internet");
        assert_eq!(web.seen().len(), 1);
    }
}

/// Asks over UDP.
fn ask(server: SocketAddr, host: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("11.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket.send_to(&question(host, kind), server).expect("sent");
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("an answer");
    Message::from_vec(&buffer[..length]).expect("a message")
}

fn question(host: &str, kind: RecordType) -> Vec<u8> {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(host).expect("a name"), kind));
    query.to_vec().expect("bytes")
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    message.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

#[test]
fn a_name_server_answers_one_thing_and_then_another() {
    let [public, private, v6] = ["20.1.1.1", "10.0.0.1", "2600::7"].map(address);
    let many: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([20, 2, 2, n])).collect();
    let host = Host::public();
    let zone = Zone::default()
        .ttl(7)
        .addresses("rebind.test", &[public])
        .addresses("rebind.test", &[private])
        .addresses("mixed.test", &[public, v6, private])
        .alias("alias.test", "Mixed.test")
        .alias("circle.test", "circle.test")
        .alias("dangling.test", "nowhere.test")
        .data("empty.test", RecordType::A, Vec::new())
        .addresses("many.test", &many);
    let names = host.dns(zone);
    let server = SocketAddr::from((host.address(), 53));
    let a = |host: &str| ask(server, host, RecordType::A);

    let first = a("ReBind.test.");
    assert_eq!((addresses(&first), first.answers[0].ttl), (vec![public], 7));
    for _ in 0..2 {
        assert_eq!(addresses(&a("rebind.test.")), [private]);
    }
    assert_eq!(addresses(&a("mixed.test.")), [public, private]);
    assert_eq!(addresses(&ask(server, "mixed.test.", RecordType::AAAA)), [v6]);
    let alias = a("alias.test.");
    assert_eq!((alias.answers[0].record_type(), alias.answers.len()), (RecordType::CNAME, 3));
    assert_eq!(addresses(&alias), [public, private]);
    assert_eq!(a("circle.test.").answers.len(), 32);
    for (name, code) in [
        ("empty.test.", ResponseCode::NoError),
        ("nowhere.test.", ResponseCode::NXDomain),
        ("dangling.test.", ResponseCode::NXDomain),
    ] {
        let answer = a(name);
        assert_eq!((answer.metadata.response_code, addresses(&answer)), (code, vec![]), "{name}");
    }

    let cut = a("many.test.");
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let mut stream = TcpStream::connect(server).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let asked = question("many.test.", RecordType::A);
    stream
        .write_all(&[&(asked.len() as u16).to_be_bytes(), asked.as_slice()].concat())
        .expect("sent");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a length");
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).expect("an answer");
    assert_eq!(addresses(&Message::from_vec(&bytes).expect("a message")), many);

    let asked = names.asked();
    assert_eq!(asked[0], ("rebind.test.".to_owned(), RecordType::A));
    assert_eq!(asked.len(), 12);
}
