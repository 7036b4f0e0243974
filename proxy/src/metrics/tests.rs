//! Tests of what a scrape shows.

use std::{sync::Arc, time::Duration};

use control::{
    name::{DeploymentId, FunctionName, PublicDomain, ReplicaId, ServiceId},
    service::{Replica, Route, ServiceView},
};
use http::StatusCode;
use prometheus_client::{
    encoding::{prometheus_text, text},
    registry::Registry,
};
use tokio::sync::mpsc;

use super::*;
use crate::{
    client::Body,
    observe::tests::{observer, peer, request},
    pool::Pool,
    route::{Routes, Target},
};

/// What a scrape in Prometheus' own format gives.
pub(crate) fn shown(metrics: &Arc<Metrics>) -> String {
    let mut out = String::new();
    prometheus_text::encode(&mut out, &registry(metrics)).expect("written");
    out
}

fn registry(metrics: &Arc<Metrics>) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics.clone()));
    registry
}

fn view(service: ServiceId, routed: bool, replicas: usize) -> ServiceView {
    let domain = PublicDomain::parse("hello.example").expect("valid");
    let function = FunctionName::parse("hello").expect("valid");
    let route = Route::new(service, domain, function);
    let replica = || Replica::new(ReplicaId::random(), service, DeploymentId::new());
    ServiceView {
        route: routed.then_some(route),
        replicas: (0..replicas).map(|_| replica()).collect(),
        demand: 0,
        obstacle: None,
        latest_phase: None,
    }
}

/// A service in the catalog, and the way to it.
fn service(metrics: &Metrics, id: ServiceId) -> (Arc<Pool>, Arc<Target>) {
    let pool = Pool::new(id, 1, mpsc::unbounded_channel().0);
    let view = view(id, true, 2);
    let routes = Routes::default();
    routes.set(id, view.route.as_ref(), &pool);
    metrics.catalog.set(id, &view, &pool);
    (pool, routes.find("hello.example", "/fn/hello").expect("a target"))
}

#[test]
fn a_request_is_shown_with_its_service_and_goes_with_it() {
    let metrics = Arc::new(Metrics::default());
    let id = ServiceId::new();
    let (pool, target) = service(&metrics, id);
    let labels = format!("service=\"{id}\",function=\"hello\"");
    assert!(!shown(&metrics).contains(&labels), "nothing before the first request");

    let observer = observer(&metrics);
    let request = request("/fn/hello");
    for exec in [3, 40] {
        let mut record = observer.begin(&request);
        record.target = Some(target.clone());
        record.request_bytes = 7;
        record.timing.wake = Duration::from_millis(20);
        record.timing.exec = Duration::from_millis(exec);
        record.answers(StatusCode::OK, &Body::Whole(b"hi".as_slice().into()));
        observer.end(record, &request, &peer(), "id");
    }
    let mut record = observer.begin(&request);
    record.denied(404, "not_found", &Body::Absent(None));
    observer.end(record, &request, &peer(), "id");

    let text = shown(&metrics);
    for line in [
        format!("grid_requests_total{{{labels},code=\"200\",cause=\"ok\"}} 2"),
        "grid_requests_total{service=\"\",function=\"\",code=\"404\",cause=\"not_found\"} 1".into(),
        format!("grid_request_bytes_total{{{labels}}} 14"),
        format!("grid_response_bytes_total{{{labels}}} 4"),
        format!("grid_service_seconds_total{{{labels},part=\"exec\"}} 0.043"),
        format!("grid_service_waiting{{{labels}}} 0"),
        "grid_wake_seconds_count 2".into(),
        "grid_queue_seconds_count 0".into(),
        "grid_exec_seconds_bucket{le=\"0.005\"} 1".into(),
        "grid_exec_seconds_bucket{le=\"0.05\"} 2".into(),
        "grid_exec_seconds_bucket{le=\"+Inf\"} 2".into(),
        "grid_exec_seconds_sum 0.043".into(),
        "grid_replicas{state=\"starting\"} 2".into(),
        "grid_services 1".into(),
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
    }

    // Its replicas outlive a deleted service for a moment.
    metrics.catalog.set(id, &view(id, false, 1), &pool);
    let text = shown(&metrics);
    assert!(!text.contains(&labels), "{text}");
    assert!(text.contains("grid_replicas{state=\"starting\"} 1\n"), "{text}");
    metrics.catalog.set(id, &view(id, false, 0), &pool);
    assert!(shown(&metrics).contains("grid_replicas{state=\"starting\"} 0\n"));
}

#[test]
fn others_may_add_what_they_know() {
    let metrics = Arc::new(Metrics::default());
    metrics.gauge("grid_certificate_expiry_seconds", "Until when", "name", || {
        vec![("*.example".to_owned(), 1.5)]
    });
    assert!(
        shown(&metrics).contains("\ngrid_certificate_expiry_seconds{name=\"*.example\"} 1.5\n")
    );
}

#[test]
fn what_is_counted_elsewhere_is_shown() {
    let metrics = Arc::new(Metrics::default());
    let open = metrics.connection(Speaks::Http2);
    metrics.gone(GoneCause::TimedOut);
    let text = shown(&metrics);
    for line in [
        "grid_connections_open{protocol=\"http1\"} 0",
        "grid_connections_open{protocol=\"http2\"} 1",
        "grid_replicas_gone_total{cause=\"timed_out\"} 1",
        "grid_replicas_gone_total{cause=\"drained\"} 0",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
    }
    drop(open);
    let text = shown(&metrics);
    assert!(text.contains("grid_connections_open{protocol=\"http2\"} 0\n"), "{text}");
    assert!(text.contains("grid_connections_total{protocol=\"http2\"} 1\n"), "{text}");
}

#[test]
fn every_family_is_described_once_in_both_formats() {
    let metrics = Arc::new(Metrics::default());
    let mut open = String::new();
    text::encode(&mut open, &registry(&metrics)).expect("written");
    assert!(open.ends_with("# EOF\n"), "{open}");
    for text in [open, shown(&metrics)] {
        let mut names: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{text}");
        let described = |line: &str| {
            names.iter().any(|name| {
                let name = name.split(' ').nth(2).expect("a name");
                line.starts_with(name.strip_suffix("_total").unwrap_or(name))
            })
        };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(described(line), "{line}");
        }
    }
}

#[test]
fn nothing_lasting_is_paid_for_a_service_without_requests() {
    assert!(size_of::<Stats>() <= 16);
}
