//! `GET /metrics`: what was asked is what is counted, and a service's series end with it.

use serde_json::{Value, json};

use crate::{
    grid::{Grid, wait_until},
    http::{Answer, Connection},
    process::root,
};

const CODE: &str = "exports.handler = async (event) => { \
    if (event.path === '/throw') throw new Error('on purpose'); \
    if (event.path === '/503') return {statusCode: 503, body: 'busy'}; \
    return {statusCode: event.path === '/404' ? 404 : 200, body: 'hello'}; }";

fn ask(grid: &Grid, method: &str, headers: &[(&str, &str)]) -> Answer {
    let all = [&[("host", "localhost")], headers].concat();
    Connection::open(grid.admin).request(method, "/metrics", &all, b"")
}

fn scrape(grid: &Grid) -> String {
    let answer = ask(grid, "GET", &[]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    answer.text()
}

/// The value of a series, written as in the text.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let found = found.unwrap_or_else(|| panic!("no {series} in {text}"));
    found.parse().expect("a number")
}

#[test]
fn requests_are_counted_by_service_status_and_cause() {
    let grid = Grid::start();
    let service = grid.create("counted", "node18", CODE, json!({}));
    for (rest, status) in
        [("", 200), ("?x=1", 200), ("/a", 200), ("/404", 404), ("/503", 503), ("/throw", 502)]
    {
        assert_eq!(grid.get("counted", rest).status, status, "{rest}");
    }
    let large = "x".repeat(2 << 20);
    assert_eq!(grid.call("counted", "POST", "/fn/counted", &[], large).status, 413);
    assert_eq!(grid.call("counted", "POST", "/fn/counted", &[], "12345").status, 200);
    assert_eq!(grid.get("nobody", "").status, 404);
    let mut connection = grid.connect();
    connection.send("NOT HTTP\r\n\r\n");
    assert_eq!(connection.answer().status, 400);

    // A request is counted when its answer has been sent, which is when its client has it.
    let whose = format!("service=\"{}\",function=\"counted\"", service.id);
    let of = |code: u16, cause: &str| {
        format!("grid_requests_total{{{whose},code=\"{code}\",cause=\"{cause}\"}}")
    };
    let nobody = |code: u16, cause: &str| {
        format!(
            "grid_requests_total{{service=\"\",function=\"\",code=\"{code}\",cause=\"{cause}\"}}"
        )
    };
    let last = nobody(400, "bad_request");
    wait_until("the last one", || scrape(&grid).contains(&last));
    let text = scrape(&grid);
    for (series, count) in [
        (of(200, "ok"), 4.0),
        (of(404, "ok"), 1.0),
        (of(503, "function"), 1.0),
        (of(502, "function_error"), 1.0),
        (of(413, "body_too_large"), 1.0),
        (nobody(404, "not_found"), 1.0),
        (last, 1.0),
        (format!("grid_request_bytes_total{{{whose}}}"), 5.0),
        ("grid_exec_seconds_count".into(), 7.0),
        ("grid_exec_seconds_bucket{le=\"+Inf\"}".into(), 7.0),
        ("grid_requests_in_flight".into(), 0.0),
        (format!("grid_service_running{{{whose}}}"), 0.0),
        (format!("grid_service_waiting{{{whose}}}"), 0.0),
        ("grid_replicas{state=\"idle\"}".into(), 1.0),
        ("grid_replicas{state=\"busy\"}".into(), 0.0),
        ("grid_deployments_total{outcome=\"live\"}".into(), 1.0),
        ("grid_deployments_running{phase=\"building\"}".into(), 0.0),
        ("grid_services".into(), 1.0),
        ("grid_ready".into(), 1.0),
        ("grid_dependency_up{dependency=\"engine\"}".into(), 1.0),
        ("grid_dependency_up{dependency=\"store\"}".into(), 1.0),
        (format!("grid_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
    ] {
        assert_eq!(value(&text, &series), count, "{series}");
    }
    assert!(value(&text, "grid_connections_total{protocol=\"http1\"}") >= 10.0);
    for positive in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(value(&text, positive) > 0.0, "{positive}");
    }

    let path = service.path("");
    assert_eq!(grid.api("DELETE", &path, None).status, 204);
    wait_until("the end of its series", || !scrape(&grid).contains(&service.id));
    let text = scrape(&grid);
    assert_eq!(value(&text, "grid_services"), 0.0);
    assert_eq!(value(&text, "grid_exec_seconds_count"), 7.0, "what has been stays");
    wait_until("the end of its replica", || {
        let text = scrape(&grid);
        value(&text, "grid_replicas_gone_total{cause=\"drained\"}") == 1.0
            && value(&text, "grid_replicas{state=\"idle\"}") == 0.0
    });
}

#[test]
fn who_waits_is_seen_and_who_goes_is_counted() {
    let grid = Grid::start();
    let code = "exports.handler = async (event) => { \
        if (event.path === '/slow') await new Promise((done) => setTimeout(done, 5000)); \
        return {body: 'x'.repeat(event.path === '/large' ? 200000 : 1), statusCode: 200}; }";
    let service = grid.create("queued", "node18", code, json!({"max_replicas": 1}));
    let whose = format!("service=\"{}\",function=\"queued\"", service.id);
    assert_eq!(grid.get("queued", "/large").body.len(), 200_000);
    let bytes = format!("grid_response_bytes_total{{{whose}}}");
    wait_until("all bytes", || scrape(&grid).contains(&format!("{bytes} 200000\n")));

    let slow = "GET /fn/queued/slow HTTP/1.1\r\nhost: queued.localhost\r\n\r\n";
    let (mut first, mut second) = (grid.connect(), grid.connect());
    first.send(slow);
    let now = |what: &str, count: u32| {
        let line = format!("grid_service_{what}{{{whose}}} {count}\n");
        wait_until(&line, || scrape(&grid).contains(&line));
    };
    now("running", 1);
    second.send(slow);
    now("waiting", 1);
    drop(second);
    now("waiting", 0);
    assert_eq!(first.answer().status, 200);
    let gone = format!("grid_requests_total{{{whose},code=\"499\",cause=\"client_gone\"}}");
    wait_until("the one that went", || scrape(&grid).contains(&format!("{gone} 1\n")));
    now("running", 0);
    let text = scrape(&grid);
    assert_eq!(value(&text, "grid_queue_seconds_count"), 1.0);
    assert_eq!(value(&text, "grid_requests_in_flight"), 0.0);
}

#[test]
fn whoever_asks_gets_the_format_that_it_reads() {
    let grid = Grid::start();
    let accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5";
    let answer = ask(&grid, "GET", &[("accept", accept)]);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)));
    assert!(answer.text().ends_with("# EOF\n"));
    assert!(!scrape(&grid).contains("# EOF"));
    assert_eq!(ask(&grid, "POST", &[]).status, 405);
    // Not among the functions.
    let answer = Connection::open(grid.public).request("GET", "/metrics", &[("host", "x")], b"");
    assert_eq!(answer.status, 404);
}

#[test]
fn the_dashboard_shows_what_there_is() {
    let grid = Grid::start();
    grid.create("shown", "node18", CODE, json!({}));
    assert_eq!(grid.get("shown", "").status, 200);
    let text = scrape(&grid);
    let path = root().join("config/grafana-dashboard.json");
    let dashboard = std::fs::read_to_string(&path).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let mut expressions = Vec::new();
    collect(&dashboard, &mut expressions);
    assert!(expressions.len() >= 10, "{expressions:?}");
    let docs = std::fs::read_to_string(root().join("docs/observability.md")).expect("docs");
    for expression in expressions {
        let names = names(&expression);
        assert!(!names.is_empty(), "{expression}");
        for name in names {
            // Some have no series before there is something to count.
            let starts = [format!("{name} "), format!("{name}{{"), format!("# TYPE {name} ")];
            let series = |line: &str| starts.iter().any(|start| line.starts_with(start));
            assert!(text.lines().any(series), "{name} of {expression} is not in {text}");
        }
    }
    // And what there is, is described.
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().expect("a name");
        assert!(docs.contains(&format!("`{name}")), "{name} is not in docs/observability.md");
    }
}

/// All queries of a dashboard.
fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if key == "expr" => found.push(text.to_owned()),
                    _ => collect(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

/// The names of metrics in a query.
fn names(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = |word: &&str| word.starts_with("grid_") || word.starts_with("process_");
    words.filter(ours).map(str::to_owned).collect()
}
