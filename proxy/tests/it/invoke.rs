//! `POST …/invoke/`: a function is run in a container of its own, everything about it is told, and
//! nothing of it stays.

mod ends;
mod failures;

use serde_json::{Value, json};

use crate::{
    docker,
    grid::{Grid, Service, wait_until},
};

const NODE: &str = "exports.handler = async (event, context) => { \
    console.log('hello', event.path); \
    const body = {event, id: context.awsRequestId, dir: __dirname}; \
    return {statusCode: 201, headers: {'x-a': '1'}, body}; }";
const PYTHON: &str = "import os\ndef handler(event, context):\n    print('hello', event['path'])\n    \
    return {'statusCode': 201, 'headers': {'x-a': '1'}, 'body': {'event': event, \
    'id': context.aws_request_id, 'dir': os.path.dirname(__file__)}}\n";

/// A report, which only a success has.
fn invoke(grid: &Grid, service: &Service, body: &Value) -> Value {
    let answer = grid.api("POST", &service.path("invoke/"), Some(body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The report on code that is not deployed.
fn invoke_code(grid: &Grid, service: &Service, code: &str) -> Value {
    invoke(grid, service, &json!({"event": {}, "function_code": code}))
}

/// Ids of the containers of a service's invocations, also of those that have ended.
fn sandboxes(service: &Service) -> Vec<String> {
    let filter = format!("label=grid.service={}", service.id);
    let filters = ["--filter", &filter, "--filter", "label=grid.invocation=true"];
    let listed = docker::docker(&[&["ps", "-aq", "--no-trunc"][..], &filters].concat());
    listed.lines().map(str::to_owned).collect()
}

/// Waits until nothing is left of a service's invocations: neither containers nor directories.
fn wait_until_gone(grid: &Grid, service: &Service) {
    wait_until("the end of all sandboxes", || sandboxes(service).is_empty());
    wait_until("the end of their directories", || {
        let containers = docker::docker(&["ps", "-a", "--format", "{{.Names}}"]);
        let mut dirs = std::fs::read_dir(grid.data_dir().join("run")).expect("a directory");
        dirs.all(|dir| {
            let replica = dir.expect("an entry").file_name().into_string().expect("a name");
            containers.lines().any(|name| name.ends_with(&replica))
        })
    });
}

#[test]
fn a_function_is_run_once_and_everything_is_told() {
    let grid = Grid::start();
    for (name, runtime, code) in [("once-n", "node18", NODE), ("once-p", "python3.9", PYTHON)] {
        let service = grid.create(name, runtime, code, json!({"min_replicas": 1}));
        let event = json!({"path": "/x", "httpMethod": "PUT", "body": {"a": 1}, "more": [null]});
        let report = invoke(&grid, &service, &json!({ "event": event }));
        assert_eq!(
            (&report["statusCode"], &report["error"]),
            (&json!(201), &json!(null)),
            "{report}"
        );
        assert_eq!(report["headers"], json!({"content-type": "application/json", "x-a": "1"}));
        assert_eq!(report["multiValueHeaders"]["x-a"], json!(["1"]));
        assert_eq!(report["isBase64Encoded"], false);
        assert_eq!(
            (&report["logs"], &report["logs_truncated"]),
            (&json!("hello /x\n"), &json!(false))
        );
        for time in ["init_ms", "duration_ms"] {
            assert!(report[time].as_f64().is_some_and(|ms| ms > 0.0), "{report}");
        }
        assert!(
            report["max_memory_mb"].as_u64().is_some_and(|mb| (5..=128).contains(&mb)),
            "{report}"
        );
        let body: Value =
            serde_json::from_str(report["body"].as_str().expect("a text")).expect("JSON");
        assert_eq!(body["id"], report["request_id"]);
        assert_eq!(body["dir"], "/run/grid/function");
        for (key, value) in event.as_object().expect("an object") {
            assert_eq!(&body["event"][key], value);
        }
        assert_eq!(body["event"]["queryStringParameters"], json!(null), "what it lacks");
        assert_eq!(body["event"]["requestContext"]["functionName"], name);

        wait_until_gone(&grid, &service);
        assert_eq!(docker::containers(&service.id, true).len(), 1, "the replica is left alone");
        let images = docker::images(&service.id).len();
        assert_eq!(images, 1, "no image is built");
        assert!(grid.logs(&service, "").iter().all(|line| line["line"] != "hello /x"));
    }
}

#[test]
fn a_draft_is_tried_beside_what_is_deployed() {
    let grid = Grid::start();
    let settings = json!({"egress": "none", "event_format": "lambda-v2", "memory_mb": 64});
    let service = grid.create("draft", "node18", "exports.handler = () => 'live'", settings);
    let report = invoke(&grid, &service, &json!({}));
    assert_eq!(report["body"], "\"live\"", "{report}");
    let draft = "exports.other = (event, context) => [event.version, event.rawPath, context.memoryLimitInMB]";
    let draft = json!({"function_code": draft, "function_handler": "index.other"});
    assert_eq!(invoke(&grid, &service, &draft)["body"], r#"["2.0","/","64"]"#);
    let python = "def handler(event, context):\n    yield 'py'\n    yield event['rawPath']\n";
    let draft = json!({"event": {"rawPath": "/p"}, "function_code": python, "function_runtime": "python3.9"});
    let report = invoke(&grid, &service, &draft);
    assert_eq!(report["body"], "py/p", "{report}");
    let esm = "import os from 'os'; export const handler = async (event) => os.platform() + event;";
    let draft = json!({"event": "?", "function_code": esm});
    assert_eq!(invoke(&grid, &service, &draft)["body"], "\"linux?\"");
    assert_eq!(grid.get("draft", "").json(), "live");
    let deployments = grid.api("GET", &service.path("deployments/"), None).json();
    assert_eq!(deployments["count"], 1, "{deployments}");
    let answer = grid.api("POST", &service.path("invoke/"), Some(&json!({"function_code": ""})));
    assert_eq!(answer.status, 400, "{}", answer.text());
    wait_until_gone(&grid, &service);
}

#[test]
fn a_sandbox_is_as_shut_in_as_a_replica() {
    let grid = Grid::start();
    let code = "exports.handler = () => new Promise((done) => setTimeout(done, 1500))";
    let secret = json!([{"key": "API_KEY", "value": "s3cret-value", "is_secret": true}]);
    let settings = json!({"min_replicas": 1, "env_vars": secret});
    let service = grid.create("alike", "node18", code, settings);
    let replica = docker::containers(&service.id, false).pop().expect("a container");
    let mut sandbox = None;
    std::thread::scope(|scope| {
        scope.spawn(|| invoke(&grid, &service, &json!({})));
        wait_until("a sandbox", || {
            sandbox = sandboxes(&service).pop().and_then(|id| {
                let found = docker::try_docker(&["inspect", &id]).ok()?;
                let found: Value = serde_json::from_str(&found).ok()?;
                (found[0]["State"]["Running"] == true).then(|| found[0].clone())
            });
            sandbox.is_some()
        });
        let record = grid.api("GET", &service.path(""), None).json();
        assert_eq!(record["replicas"].as_array().map(Vec::len), Some(1), "{record}");
    });
    let (sandbox, replica) = (sandbox.expect("a sandbox"), docker::inspect(&replica));
    for part in ["HostConfig", "AppArmorProfile"] {
        let mut parts = [&sandbox, &replica].map(|container| container[part].clone());
        for config in &mut parts {
            if let Some(binds) = config.get_mut("Binds") {
                assert!(binds[0].as_str().is_some_and(|bind| bind.ends_with(":/run/grid:ro")));
                *binds = json!(null);
            }
        }
        assert_eq!(parts[0], parts[1], "{part}");
    }
    assert_eq!(sandbox["Config"]["User"], "1000:1000");
    assert!(!sandbox.to_string().contains("s3cret"), "the engine knows no secrets");
    for label in ["grid.managed", "grid.instance", "grid.service", "grid.deployment"] {
        assert_eq!(sandbox["Config"]["Labels"][label], replica["Config"]["Labels"][label]);
    }
}
