//! The door with real sockets, whose peers are where the tests say, on paused time.

use tokio::{io::AsyncWriteExt, net::UnixStream};

use super::*;
use crate::client::Peer;

const PROXY: &str = "10.0.0.1";
const OTHER: &str = "198.51.100.1";

fn door(proxy_protocol: bool, most: usize, most_of_client: usize) -> Door {
    Door {
        proxies: Arc::new(Proxies::new(&["10.0.0.0/8".parse().expect("a network")])),
        proxy_protocol,
        connections: Connections::new(most, most_of_client),
        told: Told::new(),
    }
}

/// A connection from an address, and its other end.
fn connection(from: &str) -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let mut stream = L4Stream::from(ours);
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    let address = SocketAddr::new(from.parse().expect("an address"), 1);
    digest.peer_addr.set(Some(PeerAddr::Inet(address))).expect("new");
    stream.set_socket_digest(digest);
    (Box::new(stream), theirs)
}

/// What becomes of a connection that begins with these bytes: its peer and what is left to read.
async fn admitted(door: &Door, from: &str, bytes: &[u8]) -> Option<(Peer, Vec<u8>)> {
    let (stream, mut client) = connection(from);
    client.write_all(bytes).await.expect("sent");
    let mut stream = door.admit(stream).await?;
    let peer = Peer::of(&stream, &door.proxies);
    drop(client);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("reads");
    Some((peer, rest))
}

#[tokio::test(start_paused = true)]
async fn behind_a_proxy_the_peer_is_whom_it_names() {
    let door = door(true, 10, 10);
    let request = "GET / HTTP/1.1\r\n\r\n";
    for (header, source, is_proxy) in [
        ("PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n", "203.0.113.7", false),
        ("PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "2001:db8::7", false),
        ("PROXY TCP4 10.0.0.2 10.0.0.1 1 2\r\n", "10.0.0.2", true),
        ("PROXY UNKNOWN\r\n", PROXY, true),
    ] {
        let bytes = format!("{header}{request}");
        let (peer, rest) = admitted(&door, PROXY, bytes.as_bytes()).await.expect("admitted");
        assert_eq!((peer.source.as_str(), peer.is_proxy), (source, is_proxy), "{header}");
        assert_eq!(rest, request.as_bytes());
    }
    assert!(admitted(&door, PROXY, request.as_bytes()).await.is_none(), "without a header");
    let forged = format!("PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n{request}");
    assert!(admitted(&door, OTHER, forged.as_bytes()).await.is_none(), "not a proxy");
    assert!(admitted(&door, OTHER, request.as_bytes()).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_a_header_is_nothing_special() {
    let bytes = b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n";
    for (from, is_proxy) in [(PROXY, true), (OTHER, false)] {
        let (peer, rest) = admitted(&door(false, 10, 10), from, bytes).await.expect("admitted");
        assert_eq!((peer.source.as_str(), peer.is_proxy), (from, is_proxy));
        assert_eq!(rest, bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_waited_for_in_vain() {
    let door = door(true, 1, 1);
    for (from, bytes, within) in [
        (PROXY, &b""[..], limits::PROXY_HEADER),
        (PROXY, b"PROXY TCP4 ", limits::PROXY_HEADER),
        (OTHER, b"", limits::LINGER),
    ] {
        let (stream, mut client) = connection(from);
        client.write_all(bytes).await.expect("sent");
        let began = tokio::time::Instant::now();
        assert!(door.admit(stream).await.is_none());
        assert_eq!(began.elapsed().as_millis(), within.as_millis(), "paused time: exact");
        assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    }
    assert_eq!(door.connections.enter().map(drop), Ok(()), "none of them is counted any more");
}

#[tokio::test(start_paused = true)]
async fn connections_are_counted_until_they_end() {
    let door = door(false, 8, 2);
    let admit = async |from: &str| {
        let (stream, client) = connection(from);
        door.admit(stream).await.map(|stream| (stream, client))
    };
    let mut open = vec![admit(OTHER).await, admit(OTHER).await];
    assert!(open.iter().all(Option::is_some));
    assert!(admit(OTHER).await.is_none(), "a third one of the same client");
    open.pop();
    open.push(admit(OTHER).await);
    assert!(open[1].is_some());
    for _ in 0..6 {
        open.push(admit(PROXY).await);
    }
    assert!(open.iter().all(Option::is_some), "a proxy may have more");
    assert!(admit("203.0.113.7").await.is_none(), "there are eight");
    open.clear();
    assert!(admit("203.0.113.7").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn clients_behind_a_proxy_are_counted_each() {
    let door = door(true, 100, 2);
    let mut open = Vec::new();
    for (client, expected) in [("1.1.1.1", 2), ("1.1.1.2", 2)] {
        for _ in 0..5 {
            let (stream, mut proxy) = connection(PROXY);
            let header = format!("PROXY TCP4 {client} 10.0.0.1 1 2\r\n");
            proxy.write_all(header.as_bytes()).await.expect("sent");
            open.extend(door.admit(stream).await.map(|stream| (client, stream)));
        }
        assert_eq!(open.iter().filter(|(who, _)| *who == client).count(), expected);
    }
}
