//! What `fuzz/` calls: everything of ours that reads foreign bytes, and what must hold whatever they are.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use control::{
    limits,
    name::{DeploymentId, FunctionName, PublicDomain, ReplicaId, ServiceId},
    service::{Route, ServiceView},
};
use http::Method;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::UnixStream,
    sync::mpsc,
    time::Instant,
};

use crate::{
    address, admit,
    bound::Alarm,
    chunked::Chunked,
    client::Peer,
    exchange::{self, Begun},
    fields::{self, Fields},
    flow, gateway,
    head::{self, Scan},
    http1,
    link::Link,
    pool::Pool,
    route::Routes,
};

/// Several times the deadline that the bytes below are under.
const LONG: Duration = Duration::from_secs(600);

fn on_paused_time<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().expect("a runtime").block_on(future)
}

/// The first byte says where the rest is cut.
fn cut(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((at, rest)) = data.split_first() else { return (data, data) };
    rest.split_at(usize::from(*at) * rest.len() / 256)
}

/// A client's bytes: however they arrive, the same is answered, and what reaches the function is what a
/// runner may be sent.
pub fn connection(data: &[u8]) {
    let (first, second) = cut(data);
    let whole = on_paused_time(converse(&[&[first, second].concat()]));
    let halves = on_paused_time(converse(&[first, second]));
    assert_eq!(whole, halves);
}

/// The statuses that a client sees, and the requests that reached the function.
async fn converse(parts: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
    let (routes, pool) = function();
    let (ours, mut runner) = UnixStream::pair().expect("a socket pair");
    pool.1.join(ReplicaId::random(), pool.0, Link::new(ours).expect("a link"), None);
    let reached = Arc::new(Mutex::new(Vec::new()));
    let seen = reached.clone();
    tokio::spawn(async move {
        let mut asked = BytesMut::new();
        while runner.read_buf(&mut asked).await.is_ok_and(|read| read > 0) {
            while let Some(length) = check_request(&asked) {
                seen.lock().extend_from_slice(&without_ids(&asked.split_to(length)));
                let _ = runner.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    });
    let bounds = gateway::Bounds {
        body_bytes: 1000,
        body_within: Duration::from_secs(15),
        response_bytes: 1000,
        function_timeout: Duration::from_secs(30),
        queue_within: Duration::from_secs(30),
    };
    let gateway = gateway::Gateway::bare(routes, bounds);
    let peer = Peer { scheme: "http", ..Peer::default() };
    let (stream, mut client) = duplex(1024 * 1024);
    tokio::spawn(async move { http1::serve(Box::new(stream), &gateway, &peer).await });
    for part in parts {
        let _ = client.write_all(part).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let _ = client.shutdown().await;
    let mut answers = Vec::new();
    let _ = tokio::time::timeout(LONG, client.read_to_end(&mut answers)).await;
    let answers = String::from_utf8(answers).expect("our own words");
    let statuses = answers.split("HTTP/1.1 ").skip(1).map(|answer| answer.split(' ').next());
    // Of several faults the first that is seen is told.
    let told = |status: &str| match status {
        "400" | "408" | "414" | "417" | "431" | "501" | "505" => "refused".to_owned(),
        other => other.to_owned(),
    };
    let number = |status: &&str| status.parse::<u16>().is_ok();
    let statuses = statuses.flatten().filter(number).map(told).collect();
    let reached = reached.lock().clone();
    (statuses, reached)
}

fn function() -> (Arc<Routes>, (DeploymentId, Arc<Pool>)) {
    let (service, deployment) = (ServiceId::new(), DeploymentId::new());
    let domain = PublicDomain::parse("f.example").expect("valid");
    let function = FunctionName::parse("f").expect("valid");
    let route =
        Route { live_deployment: Some(deployment), ..Route::new(service, domain, function) };
    let pool = Pool::new(service, 10, mpsc::unbounded_channel().0);
    let routes = Arc::new(Routes::default());
    routes.set(service, Some(&route), &pool);
    pool.apply(&ServiceView {
        route: Some(route),
        replicas: Vec::new(),
        demand: 0,
        obstacle: None,
        latest_phase: None,
    });
    (routes, (deployment, pool))
}

/// The length of the first request of what a runner got, when it is complete. It has to be one that
/// every reader understands alike.
fn check_request(bytes: &[u8]) -> Option<usize> {
    let end = Scan::default().look(bytes).expect("lines that end in CR LF")?;
    let mut lines = head::lines(&bytes[..end]);
    let first = std::str::from_utf8(lines.next().expect("a first line")).expect("ASCII");
    let parts: Vec<_> = first.split(' ').collect();
    assert!(parts.len() == 3 && parts[2] == "HTTP/1.1");
    assert!(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].contains(&parts[0]));
    assert!(parts[1].starts_with("/fn/f") && http1::is_target(parts[1]));
    assert!(!address::has_dot_segment(parts[1].split('?').next().expect("a path")));
    let mut all = Fields::default();
    assert_eq!(head::fields(lines, &mut all, limits::REQUEST_HEADERS + 10), Ok(true));
    for once in ["host", "content-length", "x-grid-request-id", "x-grid-source-ip"] {
        assert_eq!(all.all(once).count(), 1, "{once}");
    }
    for never in ["transfer-encoding", "connection", "upgrade", "te", "expect", "trailer"] {
        assert_eq!(all.all(never).count(), 0, "{never}");
    }
    let length = all.get("content-length").and_then(fields::length).expect("a length");
    let whole = end + usize::try_from(length).expect("small");
    (bytes.len() >= whole).then_some(whole)
}

/// Ids are made up, so they differ.
fn without_ids(request: &[u8]) -> Vec<u8> {
    let lines = request.split_inclusive(|byte| *byte == b'\n');
    let made_up =
        |line: &[u8]| line.starts_with(b"x-grid-request-id:") || line.starts_with(b"traceparent:");
    lines.filter(|line| !made_up(line)).collect::<Vec<_>>().concat()
}

/// A container's bytes: whatever they are, the answer is one that may be shown, or none.
pub fn answer(data: &[u8]) {
    let (first, second) = cut(data);
    on_paused_time(async {
        let (ours, mut runner) = UnixStream::pair().expect("a socket pair");
        let (first, second) = (first.to_vec(), second.to_vec());
        tokio::spawn(async move {
            let _ = runner.read(&mut [0; 10]).await;
            for part in [first, second] {
                let _ = runner.write_all(&part).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let mut link = Link::new(ours).expect("a link");
        link.wire = b"x".to_vec();
        let deadline = Instant::now() + LONG;
        let Ok(answer) =
            exchange::run(link, &Method::GET, b"", 1000, deadline, &mut Alarm::default()).await
        else {
            return;
        };
        assert!((200..=599).contains(&answer.status.as_u16()));
        for (name, value) in answer.fields.iter() {
            assert!(fields::is_token(name) && fields::is_value(value));
        }
        match answer.body {
            Begun::Whole { body, .. } => drop(exchange::Said::read(&body)),
            Begun::CalledBack { .. } | Begun::Absent { .. } => {}
            Begun::Rest(rest) => {
                let (source, mut flow) = flow::flow(rest.length(), &flow::Stock::new(1 << 30));
                let _ = rest.pump(source).await;
                let mut bytes = 0;
                while let flow::Next::Data(piece) = flow.next().await {
                    bytes += piece.len();
                }
                assert!(bytes <= 1000);
            }
        }
    });
}

/// A body in chunks: however it is cut it is the same, and what is strict enough for a runner is good
/// for a client.
pub fn chunks(data: &[u8]) {
    let (first, second) = cut(data);
    let read = |mut chunked: Chunked, parts: &[&[u8]]| {
        let (mut input, mut body) = (BytesMut::new(), BytesMut::new());
        let mut ended = false;
        for part in parts {
            input.extend_from_slice(part);
            ended = ended || chunked.decode(&mut input, &mut body).map_err(drop)?;
        }
        Ok::<_, ()>((ended, body, ended.then_some(input)))
    };
    let whole = [first, second].concat();
    let client = read(Chunked::of_client(), &[&whole]);
    assert_eq!(client, read(Chunked::of_client(), &[first, second]));
    let runner = read(Chunked::of_runner(), &[&whole]);
    if runner.is_ok() {
        assert_eq!(runner, client);
    }
}

/// Field lines: what is read is written alike.
pub fn header_fields(data: &[u8]) {
    let mut fields = Fields::default();
    for line in data.split(|byte| *byte == b'\n') {
        let _ = fields.push_line(line);
    }
    let named = crate::hop::Named::of(&fields);
    for (name, _) in fields.iter() {
        let _ = (named.names(name), crate::hop::passes(name));
    }
    let mut wire = Vec::new();
    fields.write(&mut wire);
    assert_eq!(wire.len(), fields.size());
    let mut again = Fields::default();
    for line in wire.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        again.push_line(line.strip_suffix(b"\r").expect("CR LF")).expect("good before");
    }
    assert!(fields.iter().eq(again.iter()));
}

/// Host and path: what is found is found by its one spelling.
pub fn routes(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (host, path) = text.split_once('\n').unwrap_or((&text, ""));
    let (routes, _) = function();
    let _ = address::has_dot_segment(path);
    if routes.find(host, path).is_some() {
        let name = address::host_name(host).expect("a host");
        assert!(name.trim_end_matches('.').eq_ignore_ascii_case("f.example"));
        assert!(path == "/fn/f" || path.starts_with("/fn/f/"));
    }
    let request = crate::request::Request {
        target: format!("/{path}"),
        host: host.to_owned(),
        ..Default::default()
    };
    let _ = admit::head(&request);
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    type Target = fn(&[u8]);

    #[test]
    fn what_must_hold_holds_for_the_seeds() {
        let targets: [(&str, Target); 5] = [
            ("connection", connection),
            ("answer", answer),
            ("chunks", chunks),
            ("header_fields", header_fields),
            ("routes", super::routes),
        ];
        for (name, target) in targets {
            let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(name);
            let mut number = 0;
            for seed in fs::read_dir(seeds).expect("a directory") {
                target(&fs::read(seed.expect("an entry").path()).expect("a file"));
                number += 1;
            }
            assert!(number > 0, "{name}");
        }
    }
}
