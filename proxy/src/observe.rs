//! What is told about a request: one record is filled on its way and handed over at its end, to the
//! counts, the access log and the spans.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use control::config::Observe;
use http::StatusCode;
use tokio::time::Instant;

use crate::{
    access_log::AccessLog,
    client::{Body, Peer},
    flow::Passed,
    metrics::{Metrics, Open},
    request::Request,
    respond::Timing,
    route::Target,
    spans::Spans,
    trace::{Share, Trace},
};

/// Where records go.
pub(crate) struct Observer {
    pub(crate) metrics: Arc<Metrics>,
    access_log: Option<Arc<AccessLog>>,
    spans: Option<Spans>,
    /// Traces that begin here and are marked as sampled.
    sampled: Share,
    server_timing: bool,
}

/// One request, as far as it has come.
pub(crate) struct Record<'a> {
    pub(crate) began: Instant,
    pub(crate) trace: Trace,
    /// None when it reached no function.
    pub(crate) target: Option<Arc<Target>>,
    pub(crate) timing: Timing,
    /// Another process answers, and tells all this.
    pub(crate) passed_on: bool,
    /// Whether the client is told the timing.
    pub(crate) shows_timing: bool,
    /// The status, and `ok`, `function` for a function's own 5xx, a denial's code, or what kept
    /// the answer from its client.
    pub(crate) outcome: (u16, &'static str),
    /// Of the body.
    pub(crate) request_bytes: u64,
    sends: Sends,
    _open: Open<'a>,
}

/// The size of an answer's body.
enum Sends {
    Known(u64),
    Flow(Arc<Passed>),
}

/// What a client's own going away is called; the number is the one that nginx made known.
const GONE: (u16, &str) = (499, "client_gone");

impl Observer {
    pub(crate) fn new(
        settings: &Observe,
        metrics: Arc<Metrics>,
        access_log: Option<Arc<AccessLog>>,
        spans: Option<Spans>,
    ) -> Self {
        let sampled = Share::new(settings.trace_sample);
        Self { metrics, access_log, spans, sampled, server_timing: settings.server_timing }
    }

    /// One that only counts.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn bare() -> Self {
        let sampled = Share::new(0.0);
        Self {
            metrics: Arc::default(),
            access_log: None,
            spans: None,
            sampled,
            server_timing: true,
        }
    }

    /// A request has come.
    pub(crate) fn begin(&self, request: &Request) -> Record<'_> {
        Record {
            began: Instant::now(),
            trace: Trace::of(&request.fields, self.sampled),
            target: None,
            timing: Timing::default(),
            passed_on: false,
            shows_timing: self.server_timing,
            outcome: GONE,
            request_bytes: 0,
            sends: Sends::Known(0),
            _open: self.metrics.begin(),
        }
    }

    /// It has ended, one way or the other.
    pub(crate) fn end(&self, record: Record<'_>, request: &Request, peer: &Peer, id: &str) {
        if record.passed_on {
            return;
        }
        self.metrics.end(&record);
        if let Some(log) = &self.access_log
            && log.takes(&record)
        {
            log.write(&record, request, peer, id);
        }
        if let Some(spans) = &self.spans
            && record.trace.sampled()
        {
            spans.add(&record, request, peer, id);
        }
    }
}

impl Record<'_> {
    /// A function's answer is about to be sent.
    pub(crate) fn answers(&mut self, status: StatusCode, body: &Body) {
        let cause = if status.is_server_error() { "function" } else { "ok" };
        self.outcome = (status.as_u16(), cause);
        self.sends = match body {
            Body::Whole(body) => Sends::Known(body.len() as u64),
            Body::Absent(_) => Sends::Known(0),
            Body::Flow(flow) => Sends::Flow(flow.passed()),
        };
    }

    /// A denial is about to be sent.
    pub(crate) fn denied(&mut self, status: u16, code: &'static str, body: &Body) {
        self.outcome = (status, code);
        if let Body::Whole(body) = body {
            self.sends = Sends::Known(body.len() as u64);
        }
    }

    /// What became of the sending.
    pub(crate) fn sent(&mut self, outcome: &io::Result<()>) {
        let cut = matches!(&self.sends, Sends::Flow(passed) if passed.cut.load(Relaxed));
        if cut {
            self.outcome.1 = "cut";
        } else if outcome.is_err() {
            if let Sends::Known(bytes) = &mut self.sends {
                *bytes = 0; // how much of it arrived is not known
            }
            if matches!(self.outcome.1, "ok" | "function") {
                self.outcome.1 = "undelivered";
            }
        }
    }

    /// Bytes of the answer's body, as far as they were sent.
    pub(crate) fn response_bytes(&self) -> u64 {
        match &self.sends {
            Sends::Known(bytes) => *bytes,
            Sends::Flow(passed) => passed.bytes.load(Relaxed),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
