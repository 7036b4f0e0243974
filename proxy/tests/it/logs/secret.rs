//! What a function writes of its secrets is masked: where it is read, followed and kept.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::follower::Follower;
use crate::{
    docker,
    grid::{Grid, Service, wait_until},
};

const SECRET: &str = "planted-s3cret-0123456789";
/// Of several lines.
const KEY: &str = "-----BEGIN PLANTED KEY-----\nMIIEplantedvQIBADANBg\n-----END PLANTED KEY-----";
/// No part of a secret that is as long as this may be seen.
const PARTS: [&str; 4] = ["planted-s3", "s3cret-01", "56789", "MIIEplanted"];

/// Written past the runner, which masks what goes through the language's own streams.
const NODE: &str = r#"const {writeSync} = require("fs");
const say = (text, to = 1) => {
  let rest = Buffer.from(text + "\n");
  while (rest.length) {
    try { rest = rest.subarray(writeSync(to, rest)); } catch (error) { if (error.code !== "EAGAIN") throw error; }
  }
};
say("loads with " + process.env.API_KEY);
exports.handler = async () => {
  console.log("told " + process.env.API_KEY);
  say("out " + process.env.API_KEY + process.env.API_KEY);
  say("err " + process.env.API_KEY, 2);
  say(JSON.stringify({key: process.env.PEM}));
  say(process.env.PEM);
  for (let n = 0; n < 25; n++) say("x".repeat(16384 - n) + process.env.API_KEY + " behind");
  say("the last");
  throw new Error("no way with " + process.env.API_KEY);
};"#;
const PYTHON: &str = r#"import json, os
def say(text, to=1): os.write(to, (text + "\n").encode())
say("loads with " + os.environ["API_KEY"])
def handler(event, context):
    print("told " + os.environ["API_KEY"])
    say("out " + os.environ["API_KEY"] + os.environ["API_KEY"])
    say("err " + os.environ["API_KEY"], 2)
    say(json.dumps({"key": os.environ["PEM"]}))
    say(os.environ["PEM"])
    for n in range(25): say("x" * (16384 - n) + os.environ["API_KEY"] + " behind")
    say("the last")
    raise ValueError("no way with " + os.environ["API_KEY"])
"#;

fn vars(secret: &str) -> Value {
    json!([
        {"key": "API_KEY", "value": secret, "is_secret": true},
        {"key": "PEM", "value": KEY, "is_secret": true},
    ])
}

/// The parts of secrets that stand in a text.
fn seen(text: &str) -> Vec<&'static str> {
    PARTS.into_iter().filter(|part| text.contains(part)).collect()
}

fn files_with_secrets(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let kind = fs::symlink_metadata(&path).expect("metadata");
        if kind.is_dir() {
            found.extend(files_with_secrets(&path));
        } else if kind.is_file() {
            let text = String::from_utf8_lossy(&fs::read(&path).expect("read")).into_owned();
            found.extend(Some(path.display().to_string()).filter(|_| !seen(&text).is_empty()));
        }
    }
    found
}

/// The whole log, with nothing of a secret in it.
fn clean(grid: &Grid, service: &Service) -> Vec<String> {
    let entries = grid.logs(service, "?tail=10000");
    let lines = entries.iter().map(|entry| entry["line"].as_str().expect("a text").to_owned());
    let lines: Vec<_> = lines.collect();
    for line in &lines {
        assert_eq!(seen(line), Vec::<&str>::new(), "{line}");
    }
    lines
}

#[test]
fn secrets_are_masked_wherever_lines_are_seen() {
    let grid = Grid::start();
    for (name, runtime, code) in [("mask-n", "node18", NODE), ("mask-p", "python3.9", PYTHON)] {
        let extra = json!({"env_vars": vars(SECRET), "max_replicas": 1});
        let service = grid.create(name, runtime, code, extra);
        let mut follower = Follower::new(&grid, &service, "");
        assert_eq!(grid.get(name, "").status, 502);
        wait_until("the last line", || {
            clean(&grid, &service).iter().any(|line| line == "the last")
        });
        let lines = clean(&grid, &service);
        let short: Vec<_> = lines.iter().filter(|line| line.len() < 1000).collect();
        for expected in [
            "loads with ********",
            "told ********",
            "out ****************",
            "err ********",
            "********",
        ] {
            assert!(short.iter().any(|line| *line == expected), "{expected}: {short:?}");
        }
        assert!(lines.iter().any(|line| line.contains("no way with ********")), "{short:?}");
        let json: Vec<_> = lines.iter().filter(|line| line.contains("key")).collect();
        assert_eq!(json.len(), 1, "{json:?}");
        assert_eq!(json[0].replace(' ', ""), r#"{"key":"********"}"#);
        assert_eq!(lines.iter().filter(|line| line.ends_with(" behind")).count(), 25);
        let followed = follower.until("the last");
        assert!(followed.iter().all(|line| seen(line).is_empty()), "{followed:?}");
        assert!(followed.iter().any(|line| line == "out ****************"));

        // Of versions with other secrets, and what Grid itself says about a container.
        let broken = if name.ends_with('n') {
            "throw new Error('broken by ' + process.env.API_KEY)"
        } else {
            "import os\nraise ValueError('broken by ' + os.environ['API_KEY'])"
        };
        let other = "another-planted-s3cret-5";
        let change = json!({"function_code": broken, "env_vars": vars(other)});
        let deployment = grid.patch(&service, &change);
        assert_eq!(deployment["phase"], "failed", "{deployment}");
        assert_eq!(seen(&deployment.to_string()), Vec::<&str>::new());
        wait_until("why", || clean(&grid, &service).iter().any(|line| line.contains("was killed")));
        docker::docker(&["kill", &docker::containers(&service.id, false)[0]]);
        wait_until("its end", || docker::containers(&service.id, true).is_empty());
        let kept = clean(&grid, &service);
        assert!(kept.iter().any(|line| line == "out ****************"), "{kept:?}");
        let told: Vec<_> = kept.iter().filter(|line| line.contains("broken by ********")).collect();
        assert!(told.len() >= 2, "by the function, and by Grid: {told:?}");
    }
    assert_eq!(files_with_secrets(grid.data_dir()), Vec::<String>::new());
    assert_eq!(seen(&grid.log()), Vec::<&str>::new());
}
