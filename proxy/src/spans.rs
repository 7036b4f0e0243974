//! One span for each sampled request, sent to a collector as OTLP in JSON over HTTP.
//!
//! This is our own and not the `opentelemetry` family: that would bring some thirty crates (an HTTP
//! client of its own, protobuf, a context that allocates for each request) for a form that is one
//! struct here. What is in the queue is bounded, and what does not fit is dropped and counted: a
//! collector that is away costs spans, never requests.

mod export;
mod otlp;

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use tokio::{
    runtime,
    sync::{mpsc, watch},
};

use self::export::Exporter;
use crate::{
    client::Peer, metrics::Metrics, observe::Record, request::Request, respond::Timing,
    route::Target, trace::Trace,
};

/// Spans that wait to be sent.
const WAITING: usize = 4096;
/// Bytes of a text that a client chose; what is longer is cut.
const LONGEST: usize = 1024;

/// The edge's side.
pub(crate) struct Spans {
    sender: mpsc::Sender<Span>,
    metrics: Arc<Metrics>,
}

/// A request that has ended.
struct Span {
    trace: Trace,
    ended: SystemTime,
    total: Duration,
    /// From the beginning to the exchange with a replica; none when there was none.
    before_exec: Option<Duration>,
    timing: Timing,
    method: http::Method,
    host: String,
    /// Without the query; empty when what came was no request.
    path: String,
    scheme: &'static str,
    version: &'static str,
    client: String,
    outcome: (u16, &'static str),
    target: Option<Arc<Target>>,
    request_id: String,
    request_bytes: u64,
    response_bytes: u64,
}

/// The thread that sends. It is of its own, so that it can still send when the runtimes of edge and
/// control have ended.
pub(crate) struct Sending {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Sending {
    /// Sends what is left, for a moment at most, and ends.
    pub(crate) fn finish(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the thread that sends spans has panicked");
        }
    }
}

impl Spans {
    /// Starts to send to a collector.
    pub(crate) fn start(endpoint: &str, metrics: &Arc<Metrics>) -> Result<(Self, Sending), String> {
        let (spans, exporter) = Self::new(endpoint, metrics)?;
        let (stop, stopped) = watch::channel(false);
        let failed = |error: io::Error| format!("the sending of spans cannot be started: {error}");
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let thread = std::thread::Builder::new().name("spans".to_owned());
        let thread = thread.spawn(move || runtime.block_on(exporter.run(stopped)));
        Ok((spans, Sending { stop, thread: thread.map_err(failed)? }))
    }

    fn new(endpoint: &str, metrics: &Arc<Metrics>) -> Result<(Self, Exporter), String> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let exporter = Exporter::new(endpoint, receiver, metrics.clone())?;
        Ok((Self { sender, metrics: metrics.clone() }, exporter))
    }

    /// Hands a request over.
    pub(crate) fn add(&self, record: &Record<'_>, request: &Request, peer: &Peer, id: &str) {
        let Ok(place) = self.sender.try_reserve() else {
            self.metrics.spans_dropped.fetch_add(1, Relaxed);
            return;
        };
        let began = record.began;
        place.send(Span {
            trace: record.trace,
            ended: SystemTime::now(),
            total: began.elapsed(),
            before_exec: record.timing.exec_from.map(|exec| exec.duration_since(began)),
            timing: record.timing,
            method: request.method.clone(),
            host: cut(&request.host),
            path: cut(request.path()),
            scheme: peer.scheme,
            version: match request.version {
                crate::request::Version::Http10 => "1.0",
                crate::request::Version::Http11 => "1.1",
                crate::request::Version::Http2 => "2",
            },
            client: peer.source.clone(),
            outcome: record.outcome,
            target: record.target.clone(),
            request_id: id.to_owned(),
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes(),
        });
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST)].to_owned()
}

#[cfg(test)]
mod tests;
