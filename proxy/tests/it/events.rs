//! What a handler gets of a request, and what becomes of its result, through the public port.

use serde_json::{Value, json};

use crate::grid::Grid;

const ECHO_NODE: &str = "exports.handler = async (event, context) => \
    ({event, id: context.awsRequestId, name: context.functionName, left: context.getRemainingTimeInMillis()})";
const ECHO_PYTHON: &str = "def handler(event, context):\n    return {'event': event, \
    'id': context.aws_request_id, 'name': context.function_name, 'left': context.get_remaining_time_in_millis()}\n";

#[test]
fn the_event_tells_all_of_the_request() {
    let grid = Grid::start();
    for (name, runtime, code) in [("en", "node18", ECHO_NODE), ("ep", "python3.9", ECHO_PYTHON)] {
        grid.create(name, runtime, code, json!({}));
        let base = format!("/fn/{name}");
        let headers = [
            ("X-Custom", "one"),
            ("x-custom", "two"),
            ("content-type", "application/json"),
            ("x-request-id", "req-1"),
            ("x-grid-source-ip", "6.6.6.6"),
            ("x-grid-forged", "yes"),
            ("user-agent", "tests/1"),
        ];
        let target = format!("{base}/orders/7%2F8?a=1&a=2&b=x+y%21&flag");
        let answer = grid.call(name, "PUT", &target, &headers, r#"{"n": [1, null]}"#);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let (event, answer) = (answer.json()["event"].clone(), answer.json());
        assert_eq!(event["httpMethod"], "PUT");
        assert_eq!(event["path"], "/orders/7%2F8");
        assert_eq!(event["queryStringParameters"], json!({"a": "2", "b": "x y!", "flag": ""}));
        assert_eq!(event["multiValueQueryStringParameters"]["a"], json!(["1", "2"]));
        assert_eq!(event["headers"]["x-custom"], "one, two");
        assert_eq!(event["multiValueHeaders"]["x-custom"], json!(["one", "two"]));
        let names = event["headers"].as_object().expect("an object").keys();
        let foreign: Vec<_> = names
            .filter(|n| *n == "host" || *n == "content-length" || n.starts_with("x-grid"))
            .collect();
        assert!(foreign.is_empty(), "{foreign:?}");
        assert_eq!(event["body"], json!({"n": [1, null]}));
        assert_eq!(event["rawBody"], r#"{"n": [1, null]}"#);
        assert_eq!(event["isBase64Encoded"], false);
        let context = &event["requestContext"];
        assert_eq!(context["requestId"], "req-1");
        assert_eq!(context["identity"]["sourceIp"], "127.0.0.1");
        assert_eq!(context["identity"]["userAgent"], "tests/1");
        assert_eq!(context["domainName"], format!("{name}.localhost"));
        assert_eq!(answer["id"], "req-1");
        assert_eq!(answer["name"], name);
        assert!(answer["left"].as_f64().is_some_and(|left| 0.0 < left && left <= 30_000.0));

        let bodies: [(&[u8], Value, bool); 5] = [
            (b"", Value::Null, false),
            (b"not { json", json!("not { json"), false),
            (b"\"text\"", json!("text"), false),
            ("h\u{e9}".as_bytes(), json!("h\u{e9}"), false),
            (b"\xff\x00\xfe", json!("/wD+"), true),
        ];
        for (sent, seen, base64) in bodies {
            let event = grid.call(name, "POST", &base, &[], sent).json()["event"].clone();
            assert_eq!(event["path"], "/");
            assert_eq!(event["queryStringParameters"], Value::Null);
            assert_eq!((&event["body"], &event["isBase64Encoded"]), (&seen, &json!(base64)));
        }
    }
}

const LAMBDA_NODE: &str = r#"exports.handler = async (event) => {
  if (event.rawPath === "/plain") return {hello: event.requestContext.http.method};
  return {statusCode: 201, cookies: ["a=1; Path=/", "b=2"], headers: {"X-Up": "yes", "Content-Type": "text/x-test"},
          body: Buffer.from(JSON.stringify(event)).toString("base64"), isBase64Encoded: true};
};"#;
const LAMBDA_PYTHON: &str = r#"
import base64, json
def lambda_handler(event, context):
    if event["rawPath"] == "/plain":
        return {"hello": event["requestContext"]["http"]["method"]}
    return {"statusCode": 201, "cookies": ["a=1; Path=/", "b=2"],
            "headers": {"X-Up": "yes", "Content-Type": "text/x-test"},
            "body": base64.b64encode(json.dumps(event).encode()).decode(), "isBase64Encoded": True}
"#;

#[test]
fn handlers_written_for_function_urls_run_unmodified() {
    let grid = Grid::start();
    for (name, runtime, code, handler) in [
        ("ln", "node18", LAMBDA_NODE, "index.handler"),
        ("lp", "python3.9", LAMBDA_PYTHON, "lambda_function.lambda_handler"),
    ] {
        let extra = json!({"event_format": "lambda-v2", "function_handler": handler});
        grid.create(name, runtime, code, extra);
        let headers = [("cookie", "s=1; t=2"), ("content-type", "application/json")];
        let target = format!("/fn/{name}/a/b?x=1&x=2&y=");
        let answer = grid.call(name, "POST", &target, &headers, r#"{"k":1}"#);
        assert_eq!(answer.status, 201);
        assert_eq!(answer.all("set-cookie"), ["a=1; Path=/", "b=2"]);
        assert_eq!(answer.header("x-up"), Some("yes"));
        assert_eq!(answer.header("content-type"), Some("text/x-test"));
        let event = answer.json();
        assert_eq!(event["version"], "2.0");
        assert_eq!(event["rawPath"], "/a/b");
        assert_eq!(event["rawQueryString"], "x=1&x=2&y=");
        assert_eq!(event["queryStringParameters"], json!({"x": "1,2", "y": ""}));
        assert_eq!(event["cookies"], json!(["s=1", "t=2"]));
        assert_eq!(event["headers"]["host"], format!("{name}.localhost"));
        assert_eq!(event["requestContext"]["http"]["path"], "/a/b");
        assert_eq!(event["requestContext"]["http"]["sourceIp"], "127.0.0.1");
        assert_eq!(
            (&event["body"], &event["isBase64Encoded"]),
            (&json!(r#"{"k":1}"#), &json!(false))
        );

        let answer = grid.get(name, "/plain");
        assert_eq!((answer.status, answer.json()), (200, json!({"hello": "GET"})));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

#[test]
fn every_kind_of_handler_is_called() {
    let grid = Grid::start();
    let kinds = [
        (
            "esm",
            "node18",
            "handler",
            "import os from 'node:os'; export const handler = async () => typeof os.arch()",
        ),
        (
            "callback",
            "node18",
            "handler",
            "exports.handler = (e, c, done) => { setTimeout(() => done(null, 'string'), 1) }",
        ),
        ("whole", "node18", "handler", "module.exports = () => 'string'"),
        ("named", "node18", "main", "exports.main = () => 'string'"),
        (
            "async-def",
            "python3.9",
            "handler",
            "async def handler(event, context):\n    return 'string'\n",
        ),
        (
            "object",
            "python3.9",
            "main.handler",
            "class H:\n    def __call__(self, e, c):\n        return 'string'\nhandler = H()\n",
        ),
    ];
    for (name, runtime, handler, code) in kinds {
        grid.create(name, runtime, code, json!({"function_handler": handler}));
        let answer = grid.get(name, "");
        assert_eq!((answer.status, answer.json()), (200, json!("string")), "{name}");
    }
}
