//! Sends spans in batches. A collector that is away is asked again with growing pauses; a batch that
//! it does not take in the end is dropped and counted.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Span, otlp};
use crate::metrics::Metrics;

/// Spans of one export.
const BATCH: usize = 512;
/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// One export, from the connection to the answer.
const EXPORT: Duration = Duration::from_secs(10);
/// The last one, when the process ends.
const LAST: Duration = Duration::from_millis(500);
/// First and longest pause after an export that failed.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often a batch is tried.
const TRIES: u32 = 5;
/// Where a collector takes traces, when the setting names no path.
const PATH: &str = "/v1/traces";

/// The sending side.
pub(super) struct Exporter {
    /// `host:port` to connect to, and as `Host` has it.
    authority: String,
    host: String,
    port: u16,
    path: String,
    spans: mpsc::Receiver<Span>,
    metrics: Arc<Metrics>,
    failing: bool,
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer within {} s", EXPORT.as_secs())]
    TimedOut,
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
}

impl Failure {
    /// Whether the same batch may be taken later, by the protocol's own list.
    fn passes(&self) -> bool {
        match self {
            Failure::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Failure::Request(_) => false,
            _ => true,
        }
    }
}

impl Exporter {
    pub(super) fn new(
        endpoint: &str,
        spans: mpsc::Receiver<Span>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let uri: Uri = endpoint.parse().map_err(|error| format!("GRID_OTLP_ENDPOINT: {error}"))?;
        let authority = uri.authority().ok_or("GRID_OTLP_ENDPOINT: names no host")?;
        let path = match uri.path() {
            "" | "/" => PATH.to_owned(),
            path => path.to_owned(),
        };
        Ok(Self {
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            path,
            spans,
            metrics,
            failing: false,
        })
    }

    /// Sends what comes until `stop` turns true, and then what is left.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut batch = Vec::with_capacity(BATCH);
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                () = self.next(&mut batch) => {}
                () = &mut stopped => break,
            }
            tokio::select! {
                () = self.deliver(&mut batch) => {}
                () = &mut stopped => break,
            }
        }
        // One more try for what is here, and no second one.
        self.spans.close();
        while batch.len() < 4 * BATCH
            && let Ok(span) = self.spans.try_recv()
        {
            batch.push(span);
        }
        let mut lost = batch.len();
        if !batch.is_empty() && timeout(LAST, self.export(&batch)).await.is_ok_and(|r| r.is_ok()) {
            self.metrics.spans_exported.fetch_add(lost as u64, Relaxed);
            lost = 0;
        }
        lost += self.spans.len();
        if lost > 0 {
            tracing::warn!(lost, "spans were not sent before the end");
        }
    }

    /// Fills the batch, for a moment or until it is full. Nothing is lost when this is dropped.
    async fn next(&mut self, batch: &mut Vec<Span>) {
        let wanted = BATCH - batch.len().min(BATCH - 1);
        if self.spans.recv_many(batch, wanted).await == 0 {
            return std::future::pending().await; // the edge has ended; `stop` comes
        }
        let gather = async {
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                if self.spans.recv_many(batch, room).await == 0 {
                    break;
                }
            }
        };
        let _ = timeout(GATHER, gather).await;
    }

    /// Sends a batch, or gives it up.
    async fn deliver(&mut self, batch: &mut Vec<Span>) {
        let mut pause = PAUSES.0;
        for attempt in 1..=TRIES {
            let failure = match self.export(batch).await {
                Ok(()) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(collector = %self.authority, "spans are taken again");
                    }
                    self.metrics.spans_exported.fetch_add(batch.len() as u64, Relaxed);
                    return batch.clear();
                }
                Err(failure) => failure,
            };
            if !std::mem::replace(&mut self.failing, true) {
                tracing::warn!(
                    collector = %self.authority,
                    "spans cannot be sent (GRID_OTLP_ENDPOINT): {failure}; it is tried again, and what does not fit into the queue is dropped"
                );
            }
            if !failure.passes() || attempt == TRIES {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        self.metrics.spans_dropped.fetch_add(batch.len() as u64, Relaxed);
        batch.clear();
    }

    async fn export(&self, batch: &[Span]) -> Result<(), Failure> {
        let body = otlp::request(batch);
        let status = timeout(EXPORT, self.post(body.into())).await;
        match status.map_err(|_| Failure::TimedOut)?? {
            status if status.is_success() => Ok(()),
            status => Err(Failure::Status(status)),
        }
    }

    async fn post(&self, body: Bytes) -> Result<StatusCode, Failure> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = TokioIo::new(stream.map_err(Failure::Connect)?);
        let (mut sender, connection) = http1::handshake(stream).await?;
        let mut tasks = JoinSet::new(); // the connection ends with this call
        tasks.spawn(connection);
        let request = Request::post(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("grid/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))?;
        Ok(sender.send_request(request).await?.status())
    }
}
