//! Tests of a record's outcome, and what others need to make one.

use std::net::Ipv4Addr;

use bytes::Bytes;
use control::config::AccessLog as Format;

use super::*;
use crate::flow;

pub(crate) fn settings() -> Observe {
    Observe {
        access_log: Format::Off,
        access_log_file: None,
        access_log_sample: 1.0,
        server_timing: true,
        trace_sample: 1.0,
        otlp_endpoint: None,
    }
}

pub(crate) fn observer(metrics: &Arc<Metrics>) -> Observer {
    Observer::new(&settings(), metrics.clone(), None, None)
}

pub(crate) fn peer() -> Peer {
    Peer {
        address: Some(Ipv4Addr::new(192, 0, 2, 7).into()),
        source: "192.0.2.7".to_owned(),
        scheme: "http",
        ..Peer::default()
    }
}

pub(crate) fn request(target: &str) -> Request {
    let mut request = Request::default();
    request.target.push_str(target);
    request.host.push_str("hello.example");
    request
}

const BROKEN: io::ErrorKind = io::ErrorKind::BrokenPipe;

#[test]
fn who_says_nothing_more_has_gone() {
    let metrics = Arc::default();
    let observer = observer(&metrics);
    let record = observer.begin(&request("/"));
    assert_eq!((record.outcome, record.response_bytes()), ((499, "client_gone"), 0));
}

#[test]
fn an_answer_is_told_apart_by_whose_failure_it_was() {
    let metrics = Arc::default();
    let observer = observer(&metrics);
    let end = |status: u16, sent: io::Result<()>| {
        let mut record = observer.begin(&request("/"));
        let status = StatusCode::from_u16(status).expect("a status");
        record.answers(status, &Body::Whole(Bytes::from_static(b"hello")));
        record.sent(&sent);
        (record.outcome, record.response_bytes())
    };
    assert_eq!(end(404, Ok(())), ((404, "ok"), 5));
    assert_eq!(end(503, Ok(())), ((503, "function"), 5));
    assert_eq!(end(200, Err(BROKEN.into())), ((200, "undelivered"), 0));

    let mut record = observer.begin(&request("/"));
    record.denied(429, "queue_full", &Body::Absent(Some(9)));
    record.sent(&Err(BROKEN.into()));
    assert_eq!((record.outcome, record.response_bytes()), ((429, "queue_full"), 0));
}

#[tokio::test]
async fn a_flowing_answer_counts_what_came_and_whether_it_was_cut() {
    let metrics = Arc::default();
    let observer = observer(&metrics);
    for (ends, cause) in [(true, "ok"), (false, "cut")] {
        let (mut source, flow) = flow::flow(None, &flow::Stock::new(1 << 30));
        let body = Body::Flow(flow);
        let mut record = observer.begin(&request("/"));
        record.answers(StatusCode::OK, &body);
        source.send(Bytes::from_static(b"12345"));
        let Body::Flow(mut flow) = body else { panic!("a flow") };
        flow.next().await;
        if ends {
            source.end()
        } else {
            drop(source)
        }
        flow.next().await;
        record.sent(&if ends { Ok(()) } else { Err(BROKEN.into()) });
        assert_eq!((record.outcome, record.response_bytes()), ((200, cause), 5));
    }
}

#[test]
fn what_runs_is_in_flight_until_its_record_ends() {
    let metrics = Arc::default();
    let observer = observer(&metrics);
    let request = request("/");
    let (first, second) = (observer.begin(&request), observer.begin(&request));
    let shown = |count: u64| {
        let line = format!("\ngrid_requests_in_flight {count}\n");
        assert!(crate::metrics::tests::shown(&metrics).contains(&line), "{count}");
    };
    shown(2);
    observer.end(first, &request, &peer(), "id");
    shown(1);
    drop(second); // as in a panic
    shown(0);
}
