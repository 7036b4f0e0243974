//! What functions can connect to, end to end: containers that Grid started, and the tests' internet.
//! The functions here go round the guard in their own process on purpose: the kernel is to hold.

mod away;
mod closed;
mod counts;
mod dns;
mod lifecycle;
mod matrix;
mod none;
mod probe;
mod siblings;

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::{
    docker,
    grid::{Grid, Service},
    http::Answer,
};

/// Does what it is told: `run`s code in a child process with an input and gives its JSON, `spawn`s
/// code that goes on, or gets a `url` in its own process, under the guard.
const NODE: &str = r#"
const { execFileSync, spawn } = require('child_process');
exports.handler = async ({ body }) => {
  if (body.url) return { text: await (await fetch(body.url)).text() };
  const input = JSON.stringify(body.input ?? null);
  if (body.run) {
    const said = execFileSync(process.execPath, ['-e', body.run], { input, encoding: 'utf8' });
    return JSON.parse(said);
  }
  const child = spawn(process.execPath, ['-e', body.spawn], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
  child.stdin.end(input);
  child.unref();
  return 'started';
};"#;

const PYTHON: &str = r#"
import json, subprocess, sys, urllib.request

def handler(event, context):
    body = event["body"]
    if "url" in body:
        with urllib.request.urlopen(body["url"]) as answer:
            return {"text": answer.read().decode()}
    given = json.dumps(body.get("input")).encode()
    if "run" in body:
        said = subprocess.run([sys.executable, "-c", body["run"]], input=given, stdout=subprocess.PIPE, check=True)
        return json.loads(said.stdout)
    null = subprocess.DEVNULL
    child = subprocess.Popen([sys.executable, "-c", body["spawn"]], stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True)
    child.stdin.write(given)
    child.stdin.close()
    return "started"
"#;

/// A deployed function that does as it is told.
struct Function {
    service: Service,
    python: bool,
}

impl Function {
    fn node(grid: &Grid, name: &str) -> Self {
        Self::deploy(grid, name, false)
    }

    fn python(grid: &Grid, name: &str) -> Self {
        Self::deploy(grid, name, true)
    }

    fn deploy(grid: &Grid, name: &str, python: bool) -> Self {
        let (runtime, code) = if python { ("python3.9", PYTHON) } else { ("node18", NODE) };
        let one = json!({"min_replicas": 1, "max_replicas": 1});
        Self { service: grid.create(name, runtime, code, one), python }
    }

    fn ask(&self, grid: &Grid, what: &Value) -> Answer {
        let target = format!("/fn/{}", self.service.name);
        grid.call(&self.service.name, "POST", &target, &[], what.to_string())
    }

    /// Runs code of the function's runtime in a child process to its end.
    fn run(&self, grid: &Grid, code: &str, input: &Value) -> Value {
        let answer = self.ask(grid, &json!({"run": code, "input": input}));
        assert_eq!(answer.status, 200, "{}: {:?}", answer.text(), grid.logs(&self.service, ""));
        answer.json()
    }

    /// Starts code that goes on when the request is over.
    fn spawn(&self, grid: &Grid, code: &str, input: &Value) {
        let answer = self.ask(grid, &json!({"spawn": code, "input": input}));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn fetch(&self, grid: &Grid, url: &str) -> Answer {
        self.ask(grid, &json!({"url": url}))
    }

    /// How connections come out that a child process tries, in their order.
    fn attempts(&self, grid: &Grid, attempts: &[probe::Attempt]) -> Vec<String> {
        let code = if self.python { probe::PYTHON } else { probe::NODE };
        let outcomes = self.run(grid, code, &json!(attempts));
        let outcomes: Vec<String> = serde_json::from_value(outcomes).expect("outcomes");
        assert_eq!(outcomes.len(), attempts.len());
        outcomes
    }

    fn container(&self) -> String {
        docker::containers(&self.service.id, false).pop().expect("a container")
    }

    /// The container's own address and the host's in the functions' network.
    fn addresses(&self) -> (Ipv4Addr, Ipv4Addr) {
        let seen = docker::inspect(&self.container());
        let networks = seen["NetworkSettings"]["Networks"].as_object().expect("networks");
        let network = networks.values().next().expect("a network");
        let address = |name: &str| network[name].as_str().and_then(|text| text.parse().ok());
        (address("IPAddress").expect("an address"), address("Gateway").expect("a gateway"))
    }

    /// A file in the container; empty when there is none.
    fn file(&self, path: &str) -> String {
        docker::try_docker(&["exec", &self.container(), "cat", path]).unwrap_or_default()
    }

    fn denied(&self, grid: &Grid) -> Value {
        grid.api("GET", &self.service.path(""), None).json()["egress_denied"].clone()
    }
}
