//! What goes wrong in a function is in the report: what it is, and where.

use std::thread;

use serde_json::{Value, json};

use super::{invoke, invoke_code, wait_until_gone};
use crate::grid::{Grid, Service};

/// Code, the kind of failure, and what its message and its stack contain.
type Case = (&'static str, &'static str, &'static str, Option<&'static str>);

const NODE: [Case; 10] = [
    (
        "exports.handler = () => {\n  throw new TypeError('boom');\n}",
        "handler_error",
        "TypeError: boom",
        Some("/run/grid/function/index.js:2:"),
    ),
    ("exports.handler = async () => { throw 'text'; }", "handler_error", "text", None),
    ("exports.handler = () => {", "load_failed", "SyntaxError", Some("SyntaxError")),
    (
        "const a = 1;\nmissing();",
        "load_failed",
        "missing is not defined (index.js:2)",
        Some("index.js:2"),
    ),
    ("exports.main = () => 1;", "no_handler", "main", None),
    ("exports.handler = () => ({statusCode: 99})", "invalid_result", "statusCode", None),
    ("exports.handler = () => { process.exit(3); }", "exited", "exited with status 3", None),
    ("process.exit(4);", "exited", "exited with status 4", None),
    (
        "exports.handler = () => fetch('http://169.254.169.254/latest/');",
        "ssrf_blocked",
        "SSRF guard blocked outbound request to 169.254.169.254",
        Some("SSRF guard"),
    ),
    (
        "exports.handler = () => { const kept = []; for (;;) kept.push(new Array(1000).fill({})); }",
        "out_of_memory",
        "memory_mb",
        None,
    ),
];

const PYTHON: [Case; 8] = [
    (
        "def handler(event, context):\n    raise TypeError('boom')\n",
        "handler_error",
        "TypeError: boom",
        Some("function.py\", line 2, in handler"),
    ),
    ("import nothing_there\n", "load_failed", "nothing_there", Some("line 1")),
    ("def handler(\n", "load_failed", "SyntaxError", Some("SyntaxError")),
    ("def main(event, context):\n    return 1\n", "no_handler", "main", None),
    ("def handler(event, context):\n    return {1}\n", "invalid_result", "JSON", None),
    (
        "import sys\ndef handler(event, context):\n    sys.exit(3)\n",
        "exited",
        "exited with status 3",
        None,
    ),
    (
        "import urllib.request as r\ndef handler(event, context):\n    r.urlopen('http://10.0.0.1/')\n",
        "ssrf_blocked",
        "10.0.0.1",
        Some("line 3"),
    ),
    (
        "def handler(event, context):\n    kept = [bytearray(8 << 20) for _ in range(100)]\n",
        "out_of_memory",
        "memory_mb",
        None,
    ),
];

fn assert_failed(report: &Value, case: &Case) {
    let (code, kind, message, stack) = *case;
    let shown = format!("{code}: {report}");
    let status = match kind {
        "ssrf_blocked" => 452,
        "timeout" => 504,
        _ => 502,
    };
    assert_eq!((&report["statusCode"], &report["body"]), (&json!(status), &json!(null)), "{shown}");
    assert_eq!(report["error"]["type"], kind, "{shown}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    assert!(text(&report["error"]["message"]).contains(message), "{shown}");
    let told = text(&report["error"]["stack"]);
    match stack {
        None => assert_eq!(report["error"]["stack"], json!(null), "{shown}"),
        Some(part) => {
            assert!(told.contains(part) && text(&report["logs"]).contains(part), "{shown}");
            let own = ["grid_invoke", "grid_loader", "invoke.cjs", "loader.cjs"];
            assert!(own.iter().all(|frame| !told.contains(frame)), "{shown}");
        }
    }
}

#[test]
fn each_failure_of_node_says_what_it_is_and_where() {
    let grid = Grid::start();
    let service = grid.create("fails-n", "node18", "exports.handler = () => 1", json!({}));
    for case in &NODE {
        assert_failed(&invoke_code(&grid, &service, case.0), case);
    }
    wait_until_gone(&grid, &service);
}

#[test]
fn each_failure_of_python_says_what_it_is_and_where() {
    let grid = Grid::start();
    let service = grid.create("fails-p", "node18", "exports.handler = () => 1", json!({}));
    for case in &PYTHON {
        assert_failed(&invoke_python(&grid, &service, case.0), case);
    }
    wait_until_gone(&grid, &service);
}

fn invoke_python(grid: &Grid, service: &Service, code: &str) -> Value {
    let draft = json!({"event": {}, "function_code": code, "function_runtime": "python3.9"});
    invoke(grid, service, &draft)
}

/// With a bound of 3 seconds and 100,000 bytes.
fn short() -> (Grid, Service) {
    let settings = [("FUNCTION_TIMEOUT_SECONDS", "3"), ("MAX_FUNCTION_RESPONSE_BYTES", "100000")];
    let grid = Grid::with(&settings);
    let service = grid.create("short", "node18", "exports.handler = () => 1", json!({}));
    (grid, service)
}

#[test]
fn what_does_not_end_is_ended() {
    let (grid, service) = short();
    let late = "Execution timed out after 3s";
    thread::scope(|scope| {
        scope.spawn(|| {
            let code = "console.log('begins'); exports.handler = () => { for (;;); }";
            let report = invoke_code(&grid, &service, code);
            assert_failed(&report, &("a loop", "timeout", late, None));
            assert_eq!(report["logs"], "begins\n");
            assert!(report["duration_ms"].as_f64().is_some_and(|ms| ms >= 3000.0), "{report}");
            let code = "exports.handler = () => new Promise(() => {});";
            let report = invoke_code(&grid, &service, code);
            assert_failed(&report, &("a promise", "timeout", late, None));
        });
        scope.spawn(|| {
            let bomb = "import os\ndef handler(event, context):\n    while True:\n        try:\n            \
                os.fork()\n        except OSError:\n            pass\n";
            let report = invoke_python(&grid, &service, bomb);
            let kind = report["error"]["type"].as_str().expect("a kind");
            assert!(["timeout", "out_of_memory", "exited"].contains(&kind), "{report}");
            let report = invoke_python(&grid, &service, "while True: pass\n");
            let late = "Loading the code timed out after 20s";
            assert_failed(&report, &("a loop while loading", "timeout", late, None));
        });
    });
    wait_until_gone(&grid, &service);
    assert_eq!(grid.get("short", "").json(), 1);
}

#[test]
fn what_comes_out_of_a_sandbox_is_within_its_bounds() {
    let (grid, service) = short();
    let report = invoke_code(&grid, &service, "exports.handler = () => 'x'.repeat(100000)");
    assert_failed(&report, &("an answer", "response_too_large", "100000", None));
    // Of all that is allowed, this takes most in JSON.
    let code = "exports.handler = () => ({statusCode: 200, body: '\\0\"'.repeat(50000)})";
    let report = invoke_code(&grid, &service, code);
    assert_eq!(report["body"].as_str().map(str::len), Some(100_000), "{}", report["error"]);
    let code = "exports.handler = () => ({statusCode: 200, body: Buffer.alloc(100000, 255)})";
    let report = invoke_code(&grid, &service, code);
    assert_eq!(report["isBase64Encoded"], true, "{}", report["error"]);

    // A function shares its runner's process, and so has its connection.
    let take = "const socket = process._getActiveHandles().find((handle) => handle._httpMessage \
        || (handle.remoteFamily === undefined && handle.parser));";
    for answer in [
        "socket.write('SSH-2.0-x\\r\\n\\r\\n')",
        "socket.write('HTTP/1.1 200 OK\\r\\n\\r\\n' + 'x'.repeat(3000000))",
        "socket.write('HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n[]')",
        "socket.write('HTTP/1.1 302 Found\\r\\nlocation: /\\r\\ncontent-length: 0\\r\\n\\r\\n')",
        "socket.destroy()",
    ] {
        let code = format!(
            "exports.handler = () => {{ {take} {answer}; return new Promise(() => {{}}); }}"
        );
        let report = invoke_code(&grid, &service, &code);
        let kind = report["error"]["type"].as_str().expect("a kind");
        assert!(["broken_answer", "response_too_large"].contains(&kind), "{answer}: {report}");
    }
    wait_until_gone(&grid, &service);
}

#[test]
fn of_endless_output_the_end_is_told() {
    let grid = Grid::start();
    let service = grid.create("noisy", "node18", "exports.handler = () => 1", json!({}));
    let code = "const lines = ('x'.repeat(999) + '\\n').repeat(1000); \
        exports.handler = async () => { \
            for (let at = 0; at < 100; at++) { \
                if (process.stdout.write(lines)) continue; \
                await new Promise((go) => process.stdout.once('drain', go)); \
            } \
            console.log('the end'); return 'done'; }";
    let report = invoke_code(&grid, &service, code);
    assert_eq!(report["body"], "\"done\"", "{}", report["error"]);
    assert_eq!(report["logs_truncated"], true);
    let logs = report["logs"].as_str().expect("a text");
    assert!((200_000..=262_144).contains(&logs.len()), "{}", logs.len());
    assert!(logs.ends_with("x\nthe end\n") && logs.starts_with('x'));
    wait_until_gone(&grid, &service);
}

#[test]
fn a_function_has_its_environment_and_nobody_reads_its_secrets() {
    let grid = Grid::start();
    let variables = json!([
        {"key": "COLOUR", "value": "blue-green", "is_secret": false},
        {"key": "API_KEY", "value": "s3cret \"value\"", "is_secret": true},
    ]);
    let settings = json!({ "env_vars": variables });
    let service = grid.create("quiet", "node18", "exports.handler = () => 1", settings);
    let node = "const { COLOUR, API_KEY } = process.env; console.log(COLOUR, API_KEY); \
        const { execFileSync } = require('child_process'); \
        execFileSync('/bin/sh', ['-c', 'echo child $API_KEY'], {stdio: 'inherit'}); \
        exports.handler = (event) => { \
            console.error(API_KEY); \
            if (event.throws) throw new Error(API_KEY); \
            return {statusCode: 200, headers: {'x-key': API_KEY, 'x-colour': COLOUR}, body: {API_KEY, COLOUR}}; }";
    let python = "import os, subprocess, sys\nkey, colour = os.environ['API_KEY'], os.environ['COLOUR']\n\
        print(colour, key, flush=True)\nsubprocess.run(['/bin/sh', '-c', 'echo child $API_KEY'])\n\
        def handler(event, context):\n    print(key, file=sys.stderr)\n    if event.get('throws'):\n        \
        raise Exception(key)\n    return {'statusCode': 200, 'headers': {'x-key': key, 'x-colour': colour}, \
        'body': {'API_KEY': key, 'COLOUR': colour}}\n";
    for (runtime, code) in [("node18", node), ("python3.9", python)] {
        let draft = |event: Value| json!({"event": event, "function_runtime": runtime, "function_code": code});
        let report = invoke(&grid, &service, &draft(json!({})));
        assert_eq!(report["body"], r#"{"API_KEY":"********","COLOUR":"blue-green"}"#, "{report}");
        assert_eq!(report["headers"]["x-key"], "********");
        assert_eq!(report["headers"]["x-colour"], "blue-green");
        let logs = report["logs"].as_str().expect("a text");
        for line in ["blue-green ********\n", "child ********\n", "\n********\n"] {
            assert!(logs.contains(line), "{logs}");
        }
        let failed = invoke(&grid, &service, &draft(json!({"throws": true})));
        let message = failed["error"]["message"].as_str().expect("a text");
        assert!(message.ends_with(": ********"), "{message}");
        assert!(failed["error"]["stack"].as_str().is_some_and(|stack| stack.contains("********")));
        for report in [report, failed] {
            assert!(!report.to_string().contains("s3cret"), "{report}");
        }
    }
    assert!(!grid.log().contains("s3cret"));
}
