//! Writes what was counted, with the encoders of `prometheus_client`.
//!
//! Times are histograms over all services, and sums by service: a histogram by service would be
//! sixty series for each, millions on a host with many functions. The access log and spans have the
//! times of single requests.

use std::{
    collections::HashMap,
    fmt::{Error, Result},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use control::name::ServiceId;
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder,
        NoLabelSet,
    },
    metrics::MetricType,
};

use super::{GONE, Metrics, Speaks, catalog::Entry, count::Times, process, service::Counts};
use crate::pool::Census;

/// One service as it is shown.
struct Shown {
    id: String,
    function: String,
    entry: Option<Entry>,
    census: Census,
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder) -> Result {
        let mut out = Out(encoder);
        let entries = self.catalog.entries();
        let names: HashMap<ServiceId, &str> = entries
            .iter()
            .filter_map(|(id, entry)| Some((*id, entry.function.as_ref()?.as_str())))
            .collect();
        self.encode_services(&mut out, &entries)?;
        self.encode_edge(&mut out)?;
        encode_replicas(&mut out, &entries)?;
        out.gauges(
            "grid_services",
            "Functions that have an address",
            [(NONE, names.len() as u64)],
        )?;
        self.encode_control(&mut out, &names)?;
        for gauge in self.gauges.lock().iter() {
            let values = (gauge.values)();
            let values = values.iter().map(|(value, number)| ([(gauge.label, value)], *number));
            out.gauges(gauge.name, gauge.help, values)?;
        }
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        out.gauges("grid_build_info", "The version that runs", [(version, 1_u64)])?;
        process::encode(&mut out)
    }
}

impl Metrics {
    fn encode_services(&self, out: &mut Out<'_>, entries: &[(ServiceId, Entry)]) -> Result {
        let shown = entries.iter().filter_map(|(id, entry)| {
            let function = entry.function.as_ref()?.to_string();
            let census = entry.pool.census();
            Some(Shown { id: id.to_string(), function, entry: Some(entry.clone()), census })
        });
        let nobody = Shown {
            id: String::new(),
            function: String::new(),
            entry: None,
            census: Census::default(),
        };
        let shown: Vec<Shown> = shown.chain([nobody]).collect();
        let counted: Vec<(&Shown, &Counts)> = shown
            .iter()
            .filter_map(|one| {
                let stats = one.entry.as_ref().map_or(&self.unrouted, |entry| &entry.pool.stats);
                Some((one, stats.read()?))
            })
            .collect();

        let mut family =
            out.family("grid_requests", "Requests that have ended", MetricType::Counter)?;
        for (one, counts) in &counted {
            for ((code, cause), count) in counts.outcomes.read() {
                let code = code.to_string();
                let [service, function] = one.labels();
                let labels = [service, function, ("code", code.as_str()), ("cause", cause)];
                counter(&mut family, &labels, &count)?;
            }
        }
        let sums = |of: fn(&Counts) -> &AtomicU64| {
            counted.iter().map(move |(one, counts)| (one.labels(), of(counts).load(Relaxed)))
        };
        out.counters(
            "grid_request_bytes",
            "Bytes of the bodies of requests",
            sums(|counts| &counts.request_bytes),
        )?;
        out.counters(
            "grid_response_bytes",
            "Bytes of the bodies of answers, as far as they were sent",
            sums(|counts| &counts.response_bytes),
        )?;
        let mut family = out.family(
            "grid_service_seconds",
            "Where requests spent their time: waiting for a free replica, waiting for one to start, in the function",
            MetricType::Counter,
        )?;
        for (one, counts) in &counted {
            for (part, time) in
                [("queue", &counts.queue), ("wake", &counts.wake), ("exec", &counts.exec)]
            {
                let [service, function] = one.labels();
                counter(&mut family, &[service, function, ("part", part)], &time.get())?;
            }
        }
        let routed = || counted.iter().map(|(one, _)| *one).filter(|one| one.entry.is_some());
        out.gauges(
            "grid_service_running",
            "Requests that run in a replica now",
            routed().map(|one| (one.labels(), one.census.busy)),
        )?;
        out.gauges(
            "grid_service_waiting",
            "Requests that wait for a replica now",
            routed().map(|one| (one.labels(), one.census.waiting)),
        )
    }

    fn encode_edge(&self, out: &mut Out<'_>) -> Result {
        let of = |count: &AtomicU64| [(NONE, count.load(Relaxed))];
        out.gauges(
            "grid_requests_in_flight",
            "Requests whose head has come and whose answer has not been sent",
            of(&self.in_flight),
        )?;
        for (name, help, times) in [
            ("grid_queue_seconds", "Waiting for a replica that others used", &self.queue),
            ("grid_wake_seconds", "Waiting for a replica to start", &self.wake),
            ("grid_exec_seconds", "In the function, until its answer's head came", &self.exec),
        ] {
            out.times(name, help, times)?;
        }
        let connections = Speaks::ALL.iter().zip(&self.connections);
        let connections = connections.map(|(speaks, c)| ([("protocol", speaks.as_str())], c));
        out.gauges(
            "grid_connections_open",
            "Connections of clients",
            connections.clone().map(|(labels, c)| (labels, c.open.load(Relaxed))),
        )?;
        out.counters(
            "grid_connections",
            "Connections of clients that have come",
            connections.map(|(labels, c)| (labels, c.all.load(Relaxed))),
        )?;
        out.counters(
            "grid_replicas_gone",
            "Replicas that the edge has given up, by cause",
            GONE.iter()
                .zip(&self.gone)
                .map(|((_, cause), count)| ([("cause", *cause)], count.load(Relaxed))),
        )?;
        out.counters(
            "grid_access_log_dropped",
            "Lines of the access log that could not be written in time",
            of(&self.access_log_dropped),
        )?;
        out.counters(
            "grid_spans",
            "Spans that the collector has taken, and those that were dropped",
            [("exported", &self.spans_exported), ("dropped", &self.spans_dropped)]
                .map(|(outcome, count)| ([("outcome", outcome)], count.load(Relaxed))),
        )
    }

    fn encode_control(&self, out: &mut Out<'_>, names: &HashMap<ServiceId, &str>) -> Result {
        if let Some(health) = &self.health {
            let ready = health.state().values().all(Option::is_none);
            out.gauges("grid_ready", "Whether /readyz says ok", [(NONE, u64::from(ready))])?;
        }
        let Some(context) = &self.context else { return Ok(()) };
        let deployments = &context.deployments;
        out.gauges(
            "grid_deployments_running",
            "Deployments that run, by phase",
            deployments.running().map(|(phase, count)| ([("phase", phase.as_str())], count)),
        )?;
        out.counters(
            "grid_deployments",
            "Deployments that have ended, by outcome",
            deployments.ended_so_far().map(|(how, count)| ([("outcome", how.as_str())], count)),
        )?;
        let denied = context.denied.totals();
        let denied: Vec<_> = denied
            .into_iter()
            .filter_map(|(id, count)| Some((id.to_string(), *names.get(&id)?, count)))
            .collect();
        out.counters(
            "grid_egress_denied",
            "Attempts of functions to reach an address that they may not reach",
            denied.iter().map(|(id, function, count)| {
                ([("service", id.as_str()), ("function", *function)], *count)
            }),
        )
    }
}

fn encode_replicas(out: &mut Out<'_>, entries: &[(ServiceId, Entry)]) -> Result {
    let mut states = [("starting", 0), ("idle", 0), ("busy", 0), ("draining", 0), ("stopping", 0)];
    for (_, entry) in entries {
        let census = entry.pool.census();
        let counts = [entry.starting, census.idle, census.busy, census.draining, entry.stopping];
        for ((_, sum), count) in states.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    let states = states.map(|(state, count)| ([("state", state)], count));
    out.gauges("grid_replicas", "Replicas by state", states)
}

impl Shown {
    fn labels(&self) -> [(&str, &str); 2] {
        [("service", &self.id), ("function", &self.function)]
    }
}

/// No labels.
pub(super) const NONE: [(&str, &str); 0] = [];

/// A scrape in progress.
pub(super) struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn family(
        &mut self,
        name: &'static str,
        help: &str,
        kind: MetricType,
    ) -> std::result::Result<MetricEncoder<'_>, Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// Counters, whose names get `_total` behind them.
    pub(super) fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &'static str,
        help: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> Result {
        let mut family = self.family(name, help, MetricType::Counter)?;
        values.into_iter().try_for_each(|(labels, value)| counter(&mut family, &labels, &value))
    }

    pub(super) fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &'static str,
        help: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> Result {
        let mut family = self.family(name, help, MetricType::Gauge)?;
        values
            .into_iter()
            .try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
    }

    fn times(&mut self, name: &'static str, help: &str, times: &Times) -> Result {
        let mut family = self.family(name, help, MetricType::Histogram)?;
        let (sum, buckets) = times.read();
        let count = buckets.iter().map(|(_, count)| count).sum();
        family.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

fn counter<L: EncodeLabelSet, V: EncodeCounterValue>(
    family: &mut MetricEncoder<'_>,
    labels: &L,
    value: &V,
) -> Result {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, V, f64>(value, None)
}
