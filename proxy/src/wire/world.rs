//! One function behind a gateway, its replicas' ends and its clients' ends.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use control::{
    name::{DeploymentId, FunctionName, PublicDomain, ReplicaId, ServiceId},
    service::{GoneCause, Route, Seen, ServiceView},
};
use parking_lot::Mutex;
use pingora_core::protocols::{Stream, l4};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    client::Peer,
    gateway::{Bounds, Gateway},
    http1, http2,
    link::Link,
    pool::{Note, Pool},
    route::Routes,
};

/// Where the function is.
pub(super) const HOST: &str = "f.example";
/// The largest body that is taken.
pub(super) const BODY: usize = 500;
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(15);
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
pub(super) const QUEUE_WITHIN: Duration = Duration::from_secs(20);
/// Requests that may wait.
pub(super) const QUEUE: usize = 2;
/// The largest answer of the function.
pub(super) const ANSWER: usize = 1024 * 1024;

/// The whole edge with one function.
pub(super) struct World {
    pub(super) gateway: Arc<Gateway>,
    pool: Arc<Pool>,
    notes: mpsc::UnboundedReceiver<Note>,
    deployment: DeploymentId,
}

/// A replica's end of its connection.
pub(super) struct Replica {
    pub(super) stream: UnixStream,
    buffer: Vec<u8>,
}

/// A request as it reached a replica.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

/// A client's end of a connection, and the edge's task that serves it.
pub(super) struct Wire {
    pub(super) stream: UnixStream,
    pub(super) served: JoinHandle<()>,
}

/// Waits until nothing happens any more but by the passing of time.
pub(super) async fn quiet() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

impl World {
    pub(super) fn new() -> Self {
        let service = ServiceId::new();
        let deployment = DeploymentId::new();
        let (sender, notes) = mpsc::unbounded_channel();
        let pool = Pool::new(service, QUEUE, sender);
        let domain = PublicDomain::parse(HOST).expect("valid");
        let function = FunctionName::parse("f").expect("valid");
        let route =
            Route { live_deployment: Some(deployment), ..Route::new(service, domain, function) };
        let routes = Arc::new(Routes::default());
        routes.set(service, Some(&route), &pool);
        let view = ServiceView {
            route: Some(route),
            replicas: Vec::new(),
            demand: 0,
            obstacle: None,
            latest_phase: None,
        };
        pool.apply(&view);
        let bounds = Bounds {
            body_bytes: BODY,
            body_within: BODY_WITHIN,
            response_bytes: ANSWER,
            function_timeout: DEADLINE,
            queue_within: QUEUE_WITHIN,
        };
        let gateway = Arc::new(Gateway::bare(routes, bounds));
        Self { gateway, pool, notes, deployment }
    }

    /// A replica that calls home.
    pub(super) fn replica(&self) -> Replica {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        self.pool.join(
            ReplicaId::random(),
            self.deployment,
            Link::new(ours).expect("a link"),
            None,
        );
        Replica { stream: theirs, buffer: Vec::new() }
    }

    /// A connection that speaks HTTP/1.1.
    pub(super) fn client(&self) -> Wire {
        let gateway = self.gateway.clone();
        self.connect(move |stream| async move { http1::serve(stream, &gateway, &peer()).await })
    }

    /// A connection that speaks HTTP/2.
    pub(super) fn client_h2(&self) -> Wire {
        let gateway = self.gateway.clone();
        self.connect(move |stream| async move { http2::serve(stream, &gateway, peer()).await })
    }

    fn connect<F: Future<Output = ()> + Send + 'static>(
        &self,
        serve: impl FnOnce(Stream) -> F,
    ) -> Wire {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let ours: Stream = Box::new(l4::stream::Stream::from(ours));
        Wire { stream: theirs, served: tokio::spawn(serve(ours)) }
    }

    /// Another edge serves behind a hatch from now on.
    pub(super) fn pass_on_to(&self, hatch: &Path) {
        self.gateway.traffic.pass_on_to(hatch.to_owned());
        self.pool.release();
    }

    /// The replicas that have been given up since the last look, and why.
    pub(super) fn given_up(&mut self) -> Vec<GoneCause> {
        let mut causes = Vec::new();
        while let Ok(note) = self.notes.try_recv() {
            if let Note::Seen { seen: Seen::Gone { cause }, .. } = note {
                causes.push(cause);
            }
        }
        causes
    }
}

fn peer() -> Peer {
    Peer { source: "192.0.2.1".to_owned(), scheme: "http", ..Peer::default() }
}

impl Replica {
    /// The next request; none when the edge has hung up.
    pub(super) async fn asked(&mut self) -> Option<Asked> {
        loop {
            if let Some((asked, end)) = Asked::read(&self.buffer) {
                self.buffer.drain(..end);
                return Some(asked);
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Sends a part of an answer.
    pub(super) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the edge reads");
    }

    /// Sends a whole answer.
    pub(super) async fn answer(&mut self, body: &str) {
        let length = body.len();
        self.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")).await;
    }

    /// Answers everything with its target from now on. What was asked is kept.
    pub(super) fn serve(mut self) -> Arc<Mutex<Vec<Asked>>> {
        let all = Arc::new(Mutex::new(Vec::new()));
        let seen = all.clone();
        tokio::spawn(async move {
            while let Some(asked) = self.asked().await {
                let target = asked.target().to_owned();
                let bodiless = asked.head.starts_with("HEAD ");
                seen.lock().push(asked);
                let length = target.len();
                let body = if bodiless { "" } else { &target };
                self.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"))
                    .await;
            }
        });
        all
    }
}

impl Asked {
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head.split("content-length: ").nth(1)?.split('\r').next()?;
        let whole = end + length.parse::<usize>().ok()?;
        let body = bytes.get(end..whole)?.to_vec();
        Some((Self { head, body }, whole))
    }

    pub(super) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The values of a field.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.head.split("\r\n").skip(1);
        lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.head.split(' ').next().unwrap_or_default();
        write!(out, "{method} {}", self.target())?;
        match self.body.is_empty() {
            true => Ok(()),
            false => write!(out, " {}", self.body.escape_ascii()),
        }
    }
}
