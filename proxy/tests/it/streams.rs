//! Answers that flow: to the client as the function makes them, and to nobody longer than they may.

use serde_json::json;

use crate::{
    docker,
    grid::{Grid, Service, wait_until},
    http::Connection,
};

const NODE: &str = r#"
async function* ticks() { yield 'data: 1\n\n'; await gate(); yield 'data: 2\n\n'; }
async function* breaks() { yield 'good so far'; throw new Error('secret-detail'); }
async function* hangs() { yield 'good so far'; await new Promise(() => {}); }
async function* floods() { const mega = 'x'.repeat(1 << 20); for (let n = 0; n < 7; n++) yield mega; }
const boot = Math.random();
exports.handler = async (event) => {
  const make = {'/ticks': ticks, '/breaks': breaks, '/hangs': hangs, '/floods': floods}[event.path];
  if (!make) return {statusCode: 200, body: String(boot)};
  return {statusCode: 200, headers: {'content-type': 'text/event-stream'}, body: make()};
};"#;

const PYTHON: &str = r#"
import os, random, time
def ticks():
    yield "data: 1\n\n"
    print("at the gate", flush=True)
    while not os.path.exists("/tmp/gate"): time.sleep(0.01)
    yield "data: 2\n\n"
def breaks():
    yield "good so far"
    raise ValueError("secret-detail")
def hangs():
    yield "good so far"
    while True: time.sleep(1)
def floods():
    for n in range(7): yield "x" * (1 << 20)
boot = random.random()
def handler(event, context):
    make = {"/ticks": ticks, "/breaks": breaks, "/hangs": hangs, "/floods": floods}.get(event["path"])
    if make is None: return {"statusCode": 200, "body": str(boot)}
    return {"statusCode": 200, "headers": {"content-type": "text/event-stream"}, "body": make()}
"#;

fn both() -> [(&'static str, String); 2] {
    [("node18", format!("{}\n{NODE}", docker::GATE)), ("python3.9", PYTHON.to_owned())]
}

fn deploy(grid: &Grid, runtime: &str, code: &str) -> Service {
    let name = &runtime[..4];
    grid.create(name, runtime, code, json!({"max_replicas": 1}))
}

fn ask(grid: &Grid, service: &Service, path: &str, version: &str) -> Connection {
    let mut connection = grid.connect();
    let name = &service.name;
    connection
        .send(format!("GET /fn/{name}{path} HTTP/{version}\r\nhost: {name}.localhost\r\n\r\n"));
    connection
}

/// Reads a head; gives its lines.
fn head(connection: &mut Connection) -> Vec<String> {
    std::iter::from_fn(|| Some(connection.line()).filter(|line| !line.is_empty())).collect()
}

/// Reads one chunk.
fn chunk(connection: &mut Connection) -> String {
    let size = usize::from_str_radix(&connection.line(), 16).expect("a size");
    let mut text = String::new();
    while text.len() < size {
        text.push_str(&connection.line());
        text.push('\n');
    }
    connection.line(); // the chunk's own line end
    text
}

#[test]
fn events_arrive_as_they_are_made() {
    let grid = Grid::start();
    for (runtime, code) in both() {
        let service = deploy(&grid, runtime, &code);
        let mut connection = ask(&grid, &service, "/ticks", "1.1");
        let head = head(&mut connection);
        assert!(head[0].starts_with("HTTP/1.1 200"), "{head:?}");
        assert!(head.contains(&"content-type: text/event-stream".to_owned()), "{head:?}");
        assert!(head.contains(&"transfer-encoding: chunked".to_owned()), "{head:?}");
        // The function does not go on before the first event has arrived here.
        assert_eq!(chunk(&mut connection), "data: 1\n\n");
        docker::open_gate(&docker::at_gate(&service.id));
        assert_eq!(chunk(&mut connection), "data: 2\n\n");
        assert_eq!((connection.line().as_str(), connection.line().as_str()), ("0", ""));
        let next = format!("/fn/{}", service.name);
        let host = format!("{}.localhost", service.name);
        assert_eq!(connection.request("GET", &next, &[("host", &host)], b"").status, 200);
        // An old client knows the end by the end of the connection.
        let mut old = ask(&grid, &service, "/ticks", "1.0");
        assert_eq!(old.answer().text(), "data: 1\n\ndata: 2\n\n");
        let to_head = connection.request("HEAD", &format!("{next}/ticks"), &[("host", &host)], b"");
        assert_eq!((to_head.status, to_head.body.len()), (200, 0));
        assert_eq!(docker::containers(&service.id, true).len(), 1, "the same container all along");
    }
}

#[test]
fn what_breaks_off_never_looks_complete() {
    let grid = Grid::with(&[("FUNCTION_TIMEOUT_SECONDS", "3")]);
    for (runtime, code) in both() {
        let service = deploy(&grid, runtime, &code);
        let boot = || grid.get(&service.name, "").text();
        for path in ["/breaks", "/hangs", "/floods"] {
            let before = boot();
            let cut = ask(&grid, &service, path, "1.1").try_answer(false);
            assert!(cut.is_err(), "{runtime}{path}: {cut:?}");
            assert_ne!(boot(), before, "{runtime}{path}: whose state is unknown is not used again");
        }
        wait_until("the reason in the log", || {
            let lines = grid.logs(&service, "");
            let has = |text: &str| {
                lines.iter().any(|line| line["line"].as_str().is_some_and(|l| l.contains(text)))
            };
            has("secret-detail") && has("cut off")
        });
    }
}

#[test]
fn a_client_that_hangs_up_in_the_middle_ends_nobody_elses_run() {
    let grid = Grid::start();
    for (runtime, code) in both() {
        let service = deploy(&grid, runtime, &code);
        let mut connection = ask(&grid, &service, "/ticks", "1.1");
        head(&mut connection);
        assert_eq!(chunk(&mut connection), "data: 1\n\n");
        drop(connection);
        let container = docker::at_gate(&service.id);
        docker::open_gate(&container);
        assert_eq!(grid.get(&service.name, "").status, 200);
        assert_eq!(docker::containers(&service.id, true), [container], "the run came to its end");
    }
}
