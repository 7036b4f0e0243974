//! Servers that are away, clients that want too much, and the end.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::{io::AsyncReadExt, time::Instant};

use super::{server::Say, *};

fn one(ask: &server::Ask) -> Say {
    Say::Records(format!("{} 0 A 1.1.1.1", ask.name))
}

#[tokio::test(start_paused = true)]
async fn a_client_never_waits_for_long() {
    for servers in 1..=4 {
        let mut silent = Vec::new();
        for _ in 0..servers {
            silent.push(Server::start(|_| Say::Nothing).await);
        }
        let bench = Bench::start(&silent.iter().collect::<Vec<_>>()).await;
        // Time stands still but for the resolver's own timers.
        let start = Instant::now();
        assert_eq!(show(&bench.ask("www.example.", RecordType::A).await), "ServFail");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let asked = || silent.iter().filter(|server| !server.asked().is_empty()).count();
        while asked() < servers.min(3) {
            tokio::task::yield_now().await;
        }
        assert!(asked() <= 3);
    }
}

#[tokio::test]
async fn the_next_server_is_asked_and_remembered() {
    type Script = fn(&server::Ask) -> Say;
    let scripts: [Script; 4] = [
        |_| Say::Nothing,
        |_| Say::Code(ResponseCode::ServFail, String::new()),
        |_| Say::Code(ResponseCode::Refused, String::new()),
        |_| Say::Packets(vec![vec![0; 40]]),
    ];
    for script in scripts {
        let (bad, good) = (Server::start(script).await, Server::start(one).await);
        let bench = Bench::start(&[&bad, &good]).await;
        for _ in 0..2 {
            let answer = bench.ask("www.example.", RecordType::A).await;
            assert_eq!(show(&answer), "NoError; www.example. A 1.1.1.1");
        }
        let asked = bad.asked();
        assert!((1..=2).contains(&asked.len()), "a retransmission at most: {asked:?}");
        assert_eq!(good.asked().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_too_often_is_not_heard() {
    let server = Server::start(one).await;
    let bench = Bench::start(&[&server]).await;
    let client = Client::new(bench.address, 7).await;
    for _ in 0..200 {
        client.ask(&question(CANARY, RecordType::A)).await;
    }
    // All of these are too many, whichever order they are taken in.
    for _ in 0..50 {
        client.send(&server::encode(&question(CANARY, RecordType::A))).await;
    }
    let other = Client::new(bench.address, 8).await;
    other.ask(&question(CANARY, RecordType::A)).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    // The next packet is the answer to this one: the fifty got none.
    for _ in 0..100 {
        client.ask(&question(CANARY, RecordType::A)).await;
    }
    // Over TCP it is the same client.
    let mut stream = client.connect().await;
    let request = server::encode(&question(CANARY, RecordType::A));
    listen::write(&mut stream, &request).await.expect("written");
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_waits_for_much_does_not_stop_the_others() {
    let server = Server::start(|ask| match ask.name {
        name if name.starts_with("slow") => Say::Nothing,
        _ => Say::Records(format!("{} 0 A 1.1.1.1", ask.name)),
    })
    .await;
    let bench = Bench::start(&[&server]).await;
    let greedy = Client::new(bench.address, 7).await;
    for n in 0..100 {
        let name = format!("slow{n}.example.");
        greedy.send(&server::encode(&question(&name, RecordType::A))).await;
    }
    let other = Client::new(bench.address, 8).await;
    let answer = other.ask(&question("www.example.", RecordType::A)).await;
    assert_eq!(show(&answer), "NoError; www.example. A 1.1.1.1");
    // Each name counts once, however often it was sent again.
    let mut slow = server.asked();
    slow.retain(|line| line.starts_with("slow"));
    slow.sort();
    slow.dedup();
    assert!((1..=64).contains(&slow.len()), "{}", slow.len());
}

#[tokio::test]
async fn a_connection_carries_many_questions() {
    let server = Server::start(one).await;
    let bench = Bench::start(&[&server]).await;
    let mut stream = TcpStream::connect(bench.address).await.expect("connected");
    for n in 0..20 {
        let answer = tell(&mut stream, &question(&format!("n{n}.example."), RecordType::A)).await;
        assert_eq!(show(&answer), format!("NoError; n{n}.example. A 1.1.1.1"));
    }
    // A question that is too long ends it.
    listen::write(&mut stream, &[0; 2000]).await.expect("written");
    closed(&mut stream).await;
}

/// The resolver closes this connection without another byte.
async fn closed(stream: &mut TcpStream) {
    let mut byte = [0];
    assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn connections_are_counted() {
    let server = Server::start(one).await;
    let bench = Bench::start(&[&server]).await;
    let request = question(CANARY, RecordType::A);
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(bench.address).await.expect("connected");
        tell(&mut stream, &request).await;
        open.push(stream);
    }
    closed(&mut TcpStream::connect(bench.address).await.expect("connected")).await;
    let mut first = open.remove(0);
    tell(&mut first, &request).await;
    // The too long question makes the resolver close it, which is seen here.
    listen::write(&mut first, &[0; 2000]).await.expect("written");
    closed(&mut first).await;
    let mut next = TcpStream::connect(bench.address).await.expect("connected");
    tell(&mut next, &request).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let server = Server::start(one).await;
    let bench = Bench::start(&[&server]).await;
    let mut stream = TcpStream::connect(bench.address).await.expect("connected");
    closed(&mut stream).await;
}

#[tokio::test]
async fn everything_ends_with_serve() {
    let server = Server::start(|_| Say::Nothing).await;
    let bench = Bench::start(&[&server]).await;
    let address = bench.address;
    let mut stream = TcpStream::connect(address).await.expect("connected");
    tell(&mut stream, &question(CANARY, RecordType::A)).await;
    let client = Client::new(address, 1).await;
    client.send(&server::encode(&question("www.example.", RecordType::A))).await;
    drop(bench);
    closed(&mut stream).await;
    // The task with the question to the silent server held the UDP socket too.
    while UdpSocket::bind(address).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nobody_has_to_take_the_refusals() {
    let server = Server::start(|ask| Say::Records(format!("{} 0 A 10.0.0.1", ask.name))).await;
    let mut bench = Bench::start(&[&server]).await;
    for _ in 0..10 {
        assert_eq!(show(&bench.ask("www.example.", RecordType::A).await), "NXDomain");
    }
    bench.refusals.close();
    assert_eq!(show(&bench.ask("www.example.", RecordType::A).await), "NXDomain");
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_named() {
    let server = Server::start(one).await;
    let bind = |upstream: SocketAddr, address: SocketAddr| async move {
        let settings = Settings { upstreams: vec![upstream], policy: EgressPolicy::fixed() };
        let resolver = Resolver::new(settings, mpsc::channel(1).0).expect("a resolver");
        Arc::new(resolver).bind(address).await.expect_err("no socket").to_string()
    };
    let upstream = "127.0.0.1:9".parse().expect("an address");
    let error = bind(upstream, server.address).await;
    assert!(error.contains(&server.address.to_string()) && error.contains("stop the"), "{error}");
    let error = bind(upstream, "192.0.2.1:0".parse().expect("an address")).await;
    assert!(error.contains("192.0.2.1:0") && error.contains("address of this host"), "{error}");
    let error = bind(server.address, server.address).await;
    assert!(error.contains("ask itself"), "{error}");
    let settings = Settings { upstreams: Vec::new(), policy: EgressPolicy::fixed() };
    Resolver::new(settings, mpsc::channel(1).0).expect_err("no servers");
}

/// In an upgrade the next process answers at the same address before this one ends.
#[tokio::test]
async fn two_of_one_user_share_an_address() {
    let server = Server::start(one).await;
    let first = Bench::start(&[&server]).await;
    let address = first.address;
    let settings = Settings { upstreams: vec![server.address], policy: EgressPolicy::fixed() };
    let resolver = Resolver::new(settings, mpsc::channel(1).0).expect("a resolver");
    let listening = Arc::new(resolver).bind(address).await.expect("beside the first");
    let second = tokio::spawn(listening.serve());
    // Which of the two is asked is decided by the client's port.
    for _ in 0..8 {
        let answer = first.ask("www.example.", RecordType::A).await;
        assert_eq!(show(&answer), "NoError; www.example. A 1.1.1.1");
    }
    second.abort();
}
