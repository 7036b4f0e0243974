//! What is counted, and `GET /metrics` that shows it to Prometheus. Counting is cheap (`count`);
//! everything else is gathered when somebody asks (`collect`), from where it is known anyway.
//!
//! A request is counted where its [`Target`](crate::route::Target) leads, so nothing is looked up by
//! label. Series of a service exist from its first request on, and end with the service.

mod catalog;
mod collect;
mod count;
mod endpoint;
mod process;
mod service;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use control::{context::Context, health::Health, service::GoneCause};
use parking_lot::Mutex;

use self::count::Times;
pub(crate) use self::{catalog::Catalog, endpoint::router, service::Stats};
use crate::observe::Record;

/// Everything that is counted in this process.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Services that have a route, and their pools.
    pub(crate) catalog: Catalog,
    /// Requests that reached no service.
    unrouted: Stats,
    in_flight: AtomicU64,
    queue: Times,
    wake: Times,
    exec: Times,
    connections: [Connections; Speaks::ALL.len()],
    gone: [AtomicU64; GONE.len()],
    pub(crate) access_log_dropped: AtomicU64,
    pub(crate) spans_exported: AtomicU64,
    pub(crate) spans_dropped: AtomicU64,
    /// What others know; asked at each scrape.
    gauges: Mutex<Vec<Gauge>>,
    /// What this process stands on; none in tests.
    health: Option<Health>,
    /// What the control plane counts; none in a process that has none.
    context: Option<Arc<Context>>,
}

/// What a client's connection speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Speaks {
    Http1,
    Http2,
}

#[derive(Debug, Default)]
struct Connections {
    open: AtomicU64,
    all: AtomicU64,
}

/// A gauge whose values somebody else knows.
struct Gauge {
    name: &'static str,
    help: &'static str,
    /// The label that tells the values apart.
    label: &'static str,
    values: Box<dyn Fn() -> Vec<(String, f64)> + Send + Sync>,
}

const GONE: [(GoneCause, &str); 5] = [
    (GoneCause::Drained, "drained"),
    (GoneCause::TimedOut, "timed_out"),
    (GoneCause::Closed, "closed"),
    (GoneCause::Garbled, "garbled"),
    (GoneCause::Unresponsive, "unresponsive"),
];

/// Counts one that is there, until it is dropped.
pub(crate) struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Speaks {
    const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    fn as_str(self) -> &'static str {
        match self {
            Speaks::Http1 => "http1",
            Speaks::Http2 => "http2",
        }
    }
}

impl Metrics {
    /// Metrics of this process, with what it stands on and what its control plane, if it has one,
    /// knows.
    pub(crate) fn new(health: Health, context: Option<Arc<Context>>) -> Self {
        let metrics = Self { context, health: Some(health.clone()), ..Self::default() };
        metrics.gauge(
            "grid_dependency_up",
            "Whether something that Grid needs is there, as /readyz says",
            "dependency",
            move || {
                let state = health.state().into_iter();
                state.map(|(what, problem)| (what.as_str().to_owned(), up(&problem))).collect()
            },
        );
        metrics
    }

    /// Adds a gauge whose values somebody else knows: each with the value of `label` that tells it
    /// apart. The names are whole ones, such as `grid_certificate_expiry_timestamp_seconds`. What is
    /// asked must not wait for anything.
    pub(crate) fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl Fn() -> Vec<(String, f64)> + Send + Sync + 'static,
    ) {
        self.gauges.lock().push(Gauge { name, help, label, values: Box::new(values) });
    }

    /// A request has begun.
    pub(crate) fn begin(&self) -> Open<'_> {
        Open::new(&self.in_flight)
    }

    /// A request has ended.
    pub(crate) fn end(&self, record: &Record<'_>) {
        let stats = record.target.as_ref().map_or(&self.unrouted, |target| &target.pool.stats);
        stats.add(record);
        let timing = &record.timing;
        for (times, time) in
            [(&self.queue, timing.queue), (&self.wake, timing.wake), (&self.exec, timing.exec)]
        {
            // Who did not wait is not part of how long one waits.
            if !time.is_zero() {
                times.add(time);
            }
        }
    }

    /// A connection has come.
    pub(crate) fn connection(&self, speaks: Speaks) -> Open<'_> {
        let connections = &self.connections[speaks as usize];
        connections.all.fetch_add(1, Relaxed);
        Open::new(&connections.open)
    }

    /// The edge has given up a replica.
    pub(crate) fn gone(&self, cause: GoneCause) {
        let counts = GONE.iter().zip(&self.gone);
        for (_, count) in counts.filter(|((known, _), _)| *known == cause) {
            count.fetch_add(1, Relaxed);
        }
    }
}

fn up(problem: &Option<String>) -> f64 {
    f64::from(u8::from(problem.is_none()))
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
