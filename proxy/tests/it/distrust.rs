//! The edge does not trust the runner: user code shares the process with it and can write any bytes
//! on the call-home connection at any time. Whatever it writes, the client gets an honest error or
//! an honest answer, the next client a good one, and the container is gone.

use serde_json::json;

use crate::{
    docker,
    grid::{Grid, Service, wait_until},
    http::Answer,
};

/// Part of all hostile bytes that could reach a client.
const MARK: &str = "h0st1le";

/// Finds the runner's connection and writes what the request's body holds in hex; the path says
/// what happens then.
const NODE: &str = r#"
const fs = require("fs"), net = require("net"), os = require("os");
const link = () => process._getActiveHandles().find((h) => h instanceof net.Socket && h._handle && h._handle.fd > 2);
const put = (bytes) => {
  const fd = link()._handle.fd;
  for (let at = 0; at < bytes.length;) try { at += fs.writeSync(fd, bytes, at); } catch (e) { if (e.code !== "EAGAIN") return; }
};
const never = () => new Promise(() => {});
const when = (file, what) => { const timer = setInterval(() => { if (fs.existsSync(file)) { clearInterval(timer); what(); } }, 10); };
exports.handler = async (event) => {
  const bytes = Buffer.from(event.rawBody || "", "hex");
  switch (event.path) {
    case "/write": put(bytes); return never();
    case "/endless": put(bytes); for (const more = Buffer.alloc(65536, "y"); link();) put(more);
    case "/drip": put(bytes); setInterval(() => put(Buffer.from("y")), 5); return never();
    case "/exit": put(bytes); process.exit(0);
    case "/half": put(bytes); link().end(); return never();
    case "/return": put(bytes); return "late";
    case "/later": when("/tmp/go", () => { put(bytes); fs.writeSync(1, "written\n"); }); return "before";
    case "/dial": return new Promise((done) => net.connect("/run/grid/edge.sock")
      .on("connect", () => done("connected")).on("error", (e) => done(e.code)));
    case "/replace": link().destroy(); for (let i = 0; i < 100; i++) net.connect("/run/grid/edge.sock")
      .on("error", () => {}).on("connect", function () { this.write(bytes); }); return never();
    case "/lie": when("/tmp/go", () => { link().write = () => { put(bytes); return true; }; fs.writeSync(1, "written\n"); }); return "before";
  }
  return {good: os.hostname()};
};"#;

const PYTHON: &str = r#"
import os, socket, stat, sys, threading, time
def link():
    for fd in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found = socket.socket(fileno=os.dup(fd))
                if found.family == socket.AF_UNIX and str(found.getpeername()).endswith("/edge.sock"): return found
        except OSError: pass
def put(data):
    found = link()
    found.setblocking(True)
    try: found.sendall(data)
    except OSError: pass
def never(): time.sleep(3600)
def later(what):
    while not os.path.exists("/tmp/go"): time.sleep(0.01)
    what()
    os.write(1, b"written\n")
def when_told(what): threading.Thread(target=later, args=(what,), daemon=True).start()
def handler(event, context):
    data, path = bytes.fromhex(event["rawBody"] or ""), event["path"]
    if path == "/write": put(data); never()
    if path == "/endless":
        put(data)
        while True: put(b"y" * 65536)
    if path == "/drip":
        put(data)
        while True: put(b"y"); time.sleep(0.005)
    if path == "/exit": put(data); os._exit(0)
    if path == "/half": put(data); link().shutdown(socket.SHUT_WR); never()
    if path == "/return": put(data); return "late"
    if path == "/later": when_told(lambda: put(data)); return "before"
    if path == "/dial":
        try: socket.socket(socket.AF_UNIX).connect("/run/grid/edge.sock"); return "connected"
        except ConnectionRefusedError: return "ECONNREFUSED"
    if path == "/replace":
        link().shutdown(socket.SHUT_RDWR)
        for _ in range(100):
            try:
                other = socket.socket(socket.AF_UNIX)
                other.connect("/run/grid/edge.sock")
                other.sendall(data)
            except OSError: pass
        never()
    if path == "/lie":
        connection = sys.modules["grid_http"].Connection
        when_told(lambda: setattr(connection, "write_answer", lambda *_: put(data)))
        return "before"
    return {"good": socket.gethostname()}
"#;

const RUNTIMES: [(&str, &str, &str); 2] =
    [("distrust-n", "node18", NODE), ("distrust-p", "python3.9", PYTHON)];

/// What a client may be told.
type Codes = &'static [(u16, &'static str)];
const INVALID: Codes = &[(502, "invalid_response")];
const CRASHED: Codes = &[(502, "function_crashed")];
const TOO_LARGE: Codes = &[(502, "response_too_large")];
const TIMEOUT: Codes = &[(504, "timeout")];

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn head(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes()
}

/// `name path bytes codes` for all that ends with an error.
fn cases() -> Vec<(&'static str, &'static str, Vec<u8>, Codes)> {
    let many: String = (0..120).map(|n| format!("x-{n}: {MARK}\r\n")).collect();
    let long = MARK.repeat(10_000);
    let sized = |lines: &str| {
        let mut answer = head(&format!("{lines}content-length: {}\r\n", MARK.len()));
        answer.extend_from_slice(MARK.as_bytes());
        answer
    };
    let raw = |text: &str| text.replace("MARK", MARK).into_bytes();
    vec![
        ("garbage", "/write", raw("MARK MARK\r\n\r\n"), INVALID),
        ("binary", "/write", b"\x00\xff h0st1le \r\n\r\n".to_vec(), INVALID),
        ("HTTP/0.9", "/write", raw("<html>MARK</html>"), INVALID),
        ("HTTP/1.0", "/write", raw("HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\nMARK"), INVALID),
        ("HTTP/2", "/write", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), INVALID),
        ("status 099", "/write", raw("HTTP/1.1 099 MARK\r\nContent-Length: 0\r\n\r\n"), INVALID),
        ("status 600", "/write", raw("HTTP/1.1 600 MARK\r\nContent-Length: 0\r\n\r\n"), INVALID),
        ("interim flood", "/write", raw(&"HTTP/1.1 100 MARK\r\n\r\n".repeat(20_000)), INVALID),
        (
            "upgrade",
            "/write",
            raw("HTTP/1.1 101 MARK\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            INVALID,
        ),
        (
            "204 with a body",
            "/write",
            raw("HTTP/1.1 204 No\r\nContent-Length: 7\r\n\r\nMARK"),
            INVALID,
        ),
        ("many headers", "/write", sized(&many), INVALID),
        ("a long value", "/write", sized(&format!("x: {long}\r\n")), INVALID),
        ("a long name", "/write", sized(&format!("{long}: x\r\n")), INVALID),
        ("endless headers", "/endless", raw("HTTP/1.1 200 OK\r\nx: MARK"), INVALID),
        ("a folded header", "/write", sized("x: a\r\n set-cookie: h0st1le\r\n"), INVALID),
        ("a NUL in a header", "/write", sized("x: h0st1le\0\r\n"), INVALID),
        ("a bare CR", "/write", sized("x: a\rset-cookie: h0st1le\r\n"), INVALID),
        ("a bare LF", "/write", sized("x: a\nset-cookie: h0st1le\r\n"), INVALID),
        ("8 bits in a name", "/write", sized("x\u{e4}: h0st1le\r\n"), INVALID),
        ("chunks and a length", "/write", sized("transfer-encoding: chunked\r\n"), INVALID),
        (
            "coded chunks",
            "/write",
            raw(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n7\r\nMARK\r\n0\r\n\r\n",
            ),
            INVALID,
        ),
        ("no length", "/endless", raw("HTTP/1.1 200 OK\r\n\r\nMARK"), INVALID),
        ("two lengths", "/write", sized("content-length: 3\r\n"), INVALID),
        (
            "a negative length",
            "/write",
            raw("HTTP/1.1 200 OK\r\nContent-Length: -7\r\n\r\nMARK"),
            INVALID,
        ),
        (
            "a signed length",
            "/write",
            raw("HTTP/1.1 200 OK\r\nContent-Length: +7\r\n\r\nMARK"),
            INVALID,
        ),
        (
            "a hexadecimal length",
            "/write",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 0x7\r\n\r\nMARK"),
            INVALID,
        ),
        (
            "a large body",
            "/endless",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 6291457\r\n\r\nMARK"),
            TOO_LARGE,
        ),
        (
            "a short body",
            "/write",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\nMARK"),
            TIMEOUT,
        ),
        ("silence", "/write", vec![], TIMEOUT),
        ("dribbled headers", "/drip", raw("HTTP/1.1 200 OK\r\nx: MARK"), TIMEOUT),
        ("half closed", "/half", raw("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\nMARK"), CRASHED),
        ("closed in the head", "/exit", raw("HTTP/1.1 200 OK\r\nx: MARK"), CRASHED),
        (
            "closed in the body",
            "/exit",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\nMARK"),
            CRASHED,
        ),
        (
            "a runner of its own",
            "/replace",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nMARK"),
            CRASHED,
        ),
    ]
}

fn post(grid: &Grid, service: &Service, path: &str, bytes: &[u8]) -> Answer {
    let name = service.name.as_str();
    grid.call(name, "POST", &format!("/fn/{name}{path}"), &[], hex(bytes))
}

/// A good answer; gives the container that it came from, as its host name.
fn good(grid: &Grid, service: &Service, after: &str) -> String {
    let answer = grid.get(&service.name, "");
    assert_eq!(answer.status, 200, "{} after {after}: {}", service.name, answer.text());
    answer.json()["good"].as_str().expect("a host name").to_owned()
}

fn is_gone(service: &Service, host: &str) {
    wait_until("the end of the container", || {
        !docker::containers(&service.id, true).iter().any(|id| id.starts_with(host))
    });
}

/// Lets `/later` and `/lie` do what they have prepared.
fn go(host: &str) {
    docker::docker(&["exec", host, "touch", "/tmp/go"]);
    wait_until("the function", || docker::docker(&["logs", host]).contains("written"));
}

fn no_mark(answer: &Answer, name: &str) {
    let seen = format!("{answer:?} {}", answer.text());
    assert!(!seen.contains(MARK), "{name}: {seen}");
}

fn deploy(grid: &Grid, runtime: usize) -> Service {
    let (name, runtime, code) = RUNTIMES[runtime];
    grid.create(name, runtime, code, json!({"max_replicas": 1}))
}

/// Every bad answer is an honest error, and costs its container.
fn refuses(runtime: usize) {
    let grid = Grid::with(&[("FUNCTION_TIMEOUT_SECONDS", "3")]);
    let service = deploy(&grid, runtime);
    let mut host = good(&grid, &service, "the start");
    for (name, path, bytes, codes) in cases() {
        let answer = post(&grid, &service, path, &bytes);
        no_mark(&answer, name);
        let told = (answer.status, answer.code());
        assert!(codes.iter().any(|code| (code.0, code.1) == (told.0, &told.1)), "{name}: {told:?}");
        let next = good(&grid, &service, name);
        assert_ne!(next, host, "{name}: the container serves on");
        is_gone(&service, &host);
        host = next;
    }
}

#[test]
fn bad_answers_of_a_node_container_are_refused() {
    refuses(0);
}

#[test]
fn bad_answers_of_a_python_container_are_refused() {
    refuses(1);
}

#[test]
fn what_a_function_adds_to_an_answer_is_never_the_next_one() {
    let grid = Grid::with(&[("FUNCTION_TIMEOUT_SECONDS", "10")]);
    for runtime in 0..RUNTIMES.len() {
        let service = deploy(&grid, runtime);
        let forged = format!("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{MARK}");
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole";

        let host = good(&grid, &service, "the start");
        let twice = format!("{whole}{forged}");
        assert_eq!(post(&grid, &service, "/write", twice.as_bytes()).text(), "whole");
        assert_ne!(good(&grid, &service, "two answers"), host);
        is_gone(&service, &host);

        // Bytes that come while nobody asks.
        for early in [forged.as_str(), "\r\n", &forged.repeat(1000)] {
            let host = good(&grid, &service, "early bytes");
            assert_eq!(post(&grid, &service, "/later", early.as_bytes()).json(), "before");
            go(&host);
            let next = grid.get(&service.name, "");
            no_mark(&next, "early bytes");
            assert!(
                next.status == 200 || next.code() == "invalid_response",
                "{} {}",
                next.status,
                next.text()
            );
            assert_ne!(good(&grid, &service, "early bytes"), host);
            is_gone(&service, &host);
        }
    }
}

#[test]
fn one_connection_is_the_lease() {
    let grid = Grid::start();
    for runtime in 0..RUNTIMES.len() {
        let service = deploy(&grid, runtime);
        let host = good(&grid, &service, "the start");
        for _ in 0..3 {
            assert_eq!(grid.get(&service.name, "/dial").json(), "ECONNREFUSED");
        }
        assert_eq!(good(&grid, &service, "a second call"), host, "which did no harm");
    }
}

#[test]
fn headers_that_are_not_for_the_public_are_dropped() {
    let grid = Grid::start();
    for runtime in 0..RUNTIMES.len() {
        let service = deploy(&grid, runtime);
        let answer = "HTTP/1.1 207 Odd\r\nX-Mine: yes\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\
            Keep-Alive: timeout=1\r\nUpgrade: h2c\r\nTE: trailers\r\nTrailer: x\r\n\
            Proxy-Authenticate: Basic\r\nProxy-Status: x\r\nProxy-Connection: close\r\n\
            Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-Request-Id: forged\r\n\
            X-Grid-Outcome: ok\r\nX-Grid-Request-Id: forged\r\nX-Grid-Anything: forged\r\n\
            Connection: close\r\nContent-Length: 2\r\n\r\nok";
        let answer = post(&grid, &service, "/write", answer.as_bytes());
        assert_eq!((answer.status, answer.text().as_str()), (207, "ok"));
        assert_eq!(answer.header("x-mine"), Some("yes"));
        assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
        assert_eq!(answer.all("x-request-id").len(), 1);
        for name in ["keep-alive", "upgrade", "te", "trailer", "proxy-authenticate", "proxy-status"]
        {
            assert_eq!(answer.header(name), None, "{name}");
        }
        let seen = format!("{answer:?}").to_lowercase();
        for gone in ["proxy-", "1970", "x-grid-", "forged"] {
            assert!(!seen.contains(gone), "{gone}: {seen}");
        }
        good(&grid, &service, "its own answer");
        // A failure may be forged as well: it is told in our words.
        let body = format!(r#"{{"error":"{MARK}","message":"{MARK}"}}"#);
        let length = body.len();
        let failed = format!(
            "HTTP/1.1 200 {MARK}\r\nx-grid-outcome: error\r\ncontent-type: {MARK}\r\n\
            content-length: {length}\r\n\r\n{body}"
        );
        let answer = post(&grid, &service, "/write", failed.as_bytes());
        no_mark(&answer, "a forged failure");
        assert_eq!((answer.status, answer.code().as_str()), (502, "function_error"));
    }
}

#[test]
fn a_replica_is_watched_while_it_rests() {
    let grid = Grid::with(&[("GRID_IDLE_SECONDS", "1")]);
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(70_000));
    let lies: [&[u8]; 3] = [b"garbage", endless.as_bytes(), b""];
    for (name, runtime, code) in RUNTIMES {
        let extra = json!({"min_replicas": 1, "max_replicas": 1});
        let service = grid.create(name, runtime, code, extra);
        for lie in lies {
            let host = good(&grid, &service, "the start");
            assert_eq!(post(&grid, &service, "/lie", lie).json(), "before");
            go(&host);
            is_gone(&service, &host);
            assert_ne!(good(&grid, &service, "a lie"), host);
        }
        // It may well answer by itself, but then the runner's own answer is one too many.
        let host = good(&grid, &service, "the lies");
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole";
        assert_eq!(post(&grid, &service, "/return", whole.as_bytes()).text(), "whole");
        is_gone(&service, &host);
        assert_ne!(good(&grid, &service, "an answer too many"), host);
    }
}

#[test]
fn a_module_that_answers_ready_itself_is_told_within_bounds() {
    let grid = Grid::start();
    let message = format!("{MARK} \\u001b[31m \\u0000 {}", "\u{e4}".repeat(6000));
    let refusal = format!(r#"{{"error":"load_failed","message":"{message}"}}"#);
    let answers = [
        (refusal.as_str(), MARK),
        ("not JSON", "does not load"),
        (r#"{"error":["load_failed"],"message":{"a":1}}"#, "does not load"),
    ];
    let answers = answers.map(|(body, told)| {
        let length = body.len();
        (format!("HTTP/1.1 503 No\r\ncontent-length: {length}\r\n\r\n{body}"), told)
    });
    let others = [
        (format!("HTTP/1.1 200 OK\r\nx: {}", MARK.repeat(10_000)), "not valid"),
        ("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned(), "not valid"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_owned(), "not valid"),
        (MARK.to_owned(), "not valid"),
    ];
    std::thread::scope(|scope| {
        for (name, runtime, code) in RUNTIMES {
            let (grid, all) = (&grid, answers.iter().chain(&others));
            scope.spawn(move || {
                let service = grid.create(name, runtime, code, json!({}));
                for (answer, told) in all {
                    let encoded = hex(answer);
                    let code = match runtime {
                        "node18" => format!("{code}\nput(Buffer.from('{encoded}', 'hex'));"),
                        _ => format!("{code}\nput(bytes.fromhex('{encoded}'))\n"),
                    };
                    let deployment = grid.patch(&service, &json!({"function_code": code}));
                    assert_eq!(deployment["phase"], "failed", "{deployment}");
                    let error = deployment["error"].as_str().expect("a text");
                    assert!(error.contains(told), "{error}");
                    assert!(error.chars().count() <= 4096, "{} characters", error.len());
                    assert!(!error.chars().any(|c| c.is_control() && c != '\n'), "{error:?}");
                }
            });
        }
    });
}
