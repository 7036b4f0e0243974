//! Environment variables: they reach the function, and stand nowhere else.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use memchr::memmem;
use serde_json::{Value, json};

use crate::{
    docker::{self, docker},
    grid::{Grid, Service, wait_until},
    process::command_of,
};

const SECRET: &str = "planted-s3cret-0123456789";
const PLAIN: &str = "planted-plain-0123456789";
const NODE: &str = "const early = process.env.COLOUR; const boot = require('os').hostname(); \
    exports.handler = async () => ({early, boot, colour: process.env.COLOUR, \
        length: (process.env.API_KEY || '').length, right: process.env.API_KEY === 'SECRET'});";
const PYTHON: &str = "import os\nearly = os.environ.get('COLOUR')\ndef handler(event, context):\n    \
    key = os.environ.get('API_KEY', '')\n    \
    return {'early': early, 'boot': os.uname().nodename, 'colour': os.environ.get('COLOUR'), \
    'length': len(key), 'right': key == 'SECRET'}\n";

/// A function that knows whether it has the right secret without its code saying which.
fn code(runtime: &str) -> String {
    let comparison = if runtime == "node18" { NODE } else { PYTHON };
    // What is compared with is put together where it runs: the code itself is kept as it is.
    let (first, last) = SECRET.split_at(10);
    comparison.replace("'SECRET'", &format!("'{first}' + '{last}'"))
}

fn vars(colour: &str, secret: &str) -> Value {
    json!([
        {"key": "COLOUR", "value": colour},
        {"key": "API_KEY", "value": secret, "is_secret": true},
    ])
}

fn create(grid: &Grid, name: &str, runtime: &str) -> Service {
    let env = json!({"env_vars": vars(PLAIN, SECRET), "max_replicas": 1});
    grid.create(name, runtime, &code(runtime), env)
}

/// What the function finds.
fn found(grid: &Grid, name: &str) -> Value {
    let answer = grid.get(name, "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn has_all(answer: &Value) -> bool {
    answer["early"] == PLAIN && answer["colour"] == PLAIN && answer["right"] == true
}

/// Whether these bytes hold one of the planted values.
fn plants(bytes: &[u8]) -> Vec<&'static str> {
    let mut plants = vec![SECRET, PLAIN];
    plants.retain(|plant| memmem::find(bytes, plant.as_bytes()).is_some());
    plants
}

/// The files below a directory that hold one of the planted values.
fn files_with_plants(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let kind = fs::symlink_metadata(&path).expect("metadata");
        if kind.is_dir() {
            found.extend(files_with_plants(&path));
        } else if kind.is_file() && !plants(&fs::read(&path).expect("read")).is_empty() {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Ends a service's containers, so that the next request starts one.
fn end_containers(service: &Service) {
    for container in docker::containers(&service.id, false) {
        docker(&["kill", &container]);
    }
    wait_until("their removal", || docker::containers(&service.id, true).is_empty());
}

#[test]
fn variables_reach_the_function_and_stand_nowhere_else() {
    let grid = Grid::start();
    for (name, runtime) in [("env-n", "node18"), ("env-p", "python3.9")] {
        let service = create(&grid, name, runtime);
        let answer = found(&grid, name);
        assert!(has_all(&answer), "{answer}");

        // Another value is another version, but no other image.
        let images = docker::images(&service.id);
        let deployment = grid.patch(&service, &json!({"env_vars": vars("blue", "other")}));
        assert_eq!(deployment["phase"], "live", "{deployment}");
        assert!(deployment["log"].to_string().contains("uses the image of"), "{deployment}");
        wait_until("the new values", || {
            let answer = found(&grid, name);
            (&answer["colour"], &answer["length"]) == (&json!("blue"), &json!(5))
        });
        assert_eq!(docker::images(&service.id), images);
        grid.patch(&service, &json!({"env_vars": vars(PLAIN, SECRET)}));
        wait_until("the first values again", || has_all(&found(&grid, name)));

        wait_until("one container", || docker::containers(&service.id, true).len() == 1);
        let container = docker::containers(&service.id, false).pop().expect("a container");
        let image = images[0].clone();
        for looked_at in [
            docker(&["inspect", &container]),
            docker(&["inspect", &image]),
            docker(&["history", "--no-trunc", &image]),
            docker(&["logs", &container]),
            docker(&[
                "exec",
                &container,
                "sh",
                "-c",
                "env; cat /proc/[0-9]*/environ; ls -R /run/grid /tmp",
            ]),
            grid.log(),
            grid.logs(&service, "").iter().map(Value::to_string).collect(),
        ] {
            assert!(plants(looked_at.as_bytes()).is_empty(), "{looked_at}");
        }
        let saved = tempfile::tempdir().expect("a directory");
        let file = saved.path().join("image.tar");
        docker(&["save", "-o", &file.display().to_string(), &image]);
        docker(&["export", "-o", &format!("{}2", file.display()), &container]);
        assert!(files_with_plants(saved.path()).is_empty());
        let record = grid.api("GET", &service.path(""), None).json();
        assert_eq!(record["env_vars"][0]["value"], "********");
        assert!(!record.to_string().contains(SECRET));
    }
    assert_eq!(files_with_plants(grid.data_dir()), Vec::<String>::new());
    let kept = fs::read(grid.kept_in()).expect("read");
    assert!(memmem::find(&kept, b"API_KEY").is_some(), "the right file was searched");
}

#[test]
fn what_a_loader_says_of_a_secret_is_masked() {
    let grid = Grid::start();
    let code = "throw new Error('no luck with ' + process.env.API_KEY);";
    let env = json!({"env_vars": vars(PLAIN, SECRET)});
    let service = grid.try_create("env-bad", "node18", code, env);
    assert_eq!(service.deployment["phase"], "failed");
    let error = service.deployment["error"].as_str().expect("text");
    assert!(error.contains("no luck with ********"), "{error}");
    assert!(!service.deployment.to_string().contains(SECRET));
    let logs: String = grid.logs(&service, "").iter().map(Value::to_string).collect();
    assert!(!logs.contains(SECRET), "{logs}");
    assert!(!grid.log().contains(SECRET));
    // The next set of variables is another try with the same image.
    let code = "if (!process.env.GOOD) throw new Error('not yet'); exports.handler = () => 'good';";
    let service = grid.try_create("env-try", "node18", code, json!({}));
    assert_eq!(service.deployment["phase"], "failed");
    let good = json!({"env_vars": [{"key": "GOOD", "value": "1"}]});
    assert_eq!(grid.patch(&service, &good)["phase"], "live");
    assert_eq!(grid.get("env-try", "").json(), "good");
}

#[test]
fn replicas_keep_their_variables_over_restarts_and_upgrades() {
    let mut grid =
        Grid::replaceable(&[("GRID_HTTP_ADDR", "127.0.0.1:0"), ("GRID_IDLE_SECONDS", "300")]);
    let services = [("env-rn", "node18"), ("env-rp", "python3.9")]
        .map(|(name, runtime)| create(&grid, name, runtime));
    let boots = |grid: &Grid| {
        [0, 1].map(|at: usize| {
            let answer = found(grid, &services[at].name);
            assert!(has_all(&answer), "{answer}");
            answer["boot"].clone()
        })
    };
    let before = boots(&grid);
    let first = grid.serving();
    let (upgraded, said) = grid.upgrade();
    assert!(upgraded, "{said}");
    assert_ne!(grid.serving(), first);
    assert_eq!(boots(&grid), before, "the same containers go on");
    for service in &services {
        end_containers(service);
    }
    assert_ne!(boots(&grid), before, "new ones have them as well");
    grid.first_ends();
    drop(grid);

    let mut grid = Grid::start();
    let services = [("env-sn", "node18"), ("env-sp", "python3.9")]
        .map(|(name, runtime)| create(&grid, name, runtime));
    let boots = |grid: &Grid| {
        [0, 1].map(|at: usize| {
            let answer = found(grid, &services[at].name);
            assert!(has_all(&answer), "{answer}");
            answer["boot"].clone()
        })
    };
    let before = boots(&grid);
    grid.kill9();
    grid.restart();
    assert_eq!(boots(&grid), before, "the same containers go on");
}

#[test]
fn keys_are_rotated_while_functions_run_and_start() {
    let grid = Grid::start();
    let service = create(&grid, "env-rot", "node18");
    let keys = || fs::read_to_string(grid.data_dir().join("fernet_keys")).expect("keys");
    let before = keys();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut calls = 0;
            while !done.load(Ordering::SeqCst) {
                let answer = found(&grid, "env-rot");
                assert!(has_all(&answer), "{answer}");
                calls += 1;
                if calls % 10 == 0 {
                    end_containers(&service);
                }
            }
            calls
        });
        let rotate = || {
            let answer = grid.api("POST", "/api/v1/keys/rotate/", Some(&json!({})));
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(
                (&answer.json()["state"], &answer.json()["lost"]),
                (&json!("done"), &json!(0))
            );
            keys()
        };
        let mut seen = vec![before.clone()];
        for _ in 0..20 {
            seen.push(rotate());
            if caller.is_finished() {
                break;
            }
        }
        done.store(true, Ordering::SeqCst);
        assert!(caller.join().expect("every call was right") > 0);
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count, "each time another key");
    });
    assert_eq!(keys().lines().count(), 1);
    end_containers(&service);
    assert!(has_all(&found(&grid, "env-rot")));
}

#[test]
fn the_command_rotates_with_a_grid_and_without_and_says_what_is_left_to_do() {
    let mut grid = Grid::start();
    let service = create(&grid, "env-cmd", "node18");
    let rotate = |grid: &Grid, settings: &[(&str, &str)]| {
        let address = grid.admin.to_string();
        let mut settings = settings.to_vec();
        settings.push(("GRID_ADMIN_ADDR", &address));
        let program = Path::new(env!("CARGO_BIN_EXE_grid"));
        let mut command = command_of(program, "keys", grid.data_dir(), &settings);
        let output = command.arg("rotate").output().expect("runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let keys = |grid: &Grid| {
        fs::read_to_string(grid.data_dir().join("fernet_keys")).expect("keys").trim().to_owned()
    };
    let first = keys(&grid);
    // The service has two values, and so has its deployment.
    let (well, said) = rotate(&grid, &[]);
    assert!(well && said.contains("4 values sealed anew, 1 older keys dropped"), "{said}");
    let second = keys(&grid);
    assert_ne!(second, first);
    grid.stop();
    let (well, said) = rotate(&grid, &[]);
    assert!(well && said.contains("4 values sealed anew"), "{said}");
    let third = keys(&grid);
    let (well, said) = rotate(&grid, &[("GRID_FERNET_KEYS", &third)]);
    assert!(!well && said.contains("has one key only"), "{said}");
    let both = format!("{first},{third}");
    let (well, said) = rotate(&grid, &[("GRID_FERNET_KEYS", &both)]);
    assert!(well && said.contains("The other 1 can be removed from it now"), "{said}");
    assert_eq!(keys(&grid), third, "the file is not touched then");
    // So the first key of the setting is the one that opens everything.
    fs::write(grid.data_dir().join("fernet_keys"), format!("{first}\n")).expect("written");
    grid.restart();
    end_containers(&service);
    assert!(has_all(&found(&grid, "env-cmd")));
}

#[test]
fn a_lost_key_is_a_fault_that_is_told_and_can_be_mended() {
    let mut grid = Grid::start();
    let service = create(&grid, "env-lost", "node18");
    assert!(has_all(&found(&grid, "env-lost")));
    grid.stop();
    fs::remove_file(grid.data_dir().join("fernet_keys")).expect("removed");
    for container in docker::containers(&service.id, true) {
        docker(&["rm", "-f", &container]);
    }
    grid.restart();
    assert_eq!(grid.get("env-lost", "").status, 503);
    let logs: String = grid.logs(&service, "").iter().map(Value::to_string).collect();
    assert!(logs.contains("environment variables cannot be read or decrypted"), "{logs}");
    assert!(grid.log().contains("GRID_FERNET_KEYS"), "the operator reads what to do");
    let record = grid.api("GET", &service.path(""), None).json();
    let shown = json!([
        {"key": "API_KEY", "value": "********", "is_secret": true},
        {"key": "COLOUR", "value": null, "is_secret": false},
    ]);
    assert_eq!(record["env_vars"], shown);
    let again = grid.api("POST", &service.path("deployments/"), None).json();
    let failed = grid.settled(&service.id, again["id"].as_str().expect("an id"));
    assert_eq!(failed["phase"], "failed");
    assert!(failed["error"].as_str().expect("text").contains("cannot be read or decrypted"));

    let mended = grid.patch(&service, &json!({"env_vars": vars(PLAIN, SECRET)}));
    assert_eq!(mended["phase"], "live", "{mended}");
    wait_until("the function", || grid.get("env-lost", "").status == 200);
    assert!(has_all(&found(&grid, "env-lost")));
}
