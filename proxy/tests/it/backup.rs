//! `grid backup`, `grid restore` and `grid store migrate`, with functions that run.

use std::{
    path::Path,
    process::Output,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::{Value, json};

use crate::{
    docker,
    grid::{Grid, Service},
    http::Connection,
    process::{command_of, is_split, redis_url, short_dir},
    redis::Redis,
};

const SERVICES: &str = "/api/v1/services/";

fn run(verb: &str, data_dir: &Path, settings: &[(&str, &str)], args: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_grid"));
    command_of(program, verb, data_dir, settings).args(args).output().expect("runs")
}

/// What a command printed that did what it was asked.
#[track_caller]
fn printed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Why a command did nothing.
#[track_caller]
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.starts_with("grid: "), "{said}");
    said
}

/// The lists of what was done, which take nothing from where they are asked.
fn history(grid: &Grid, service: &Service) -> [Value; 3] {
    let list = |path: &str| grid.api("GET", path, None).json()["results"].clone();
    [
        list(&service.path("deployments/")),
        list(&service.path("env_vars/")),
        list("/api/v1/audit_log/?owner=*&page_size=100"),
    ]
}

#[test]
fn a_backup_of_a_grid_that_runs_is_restored_elsewhere() {
    let code =
        |version: u8| format!("exports.handler = async () => process.env.WORD + ' {version}';");
    let mut grid = Grid::start();
    if is_split(grid.data_dir()) {
        return; // it is about data directories
    }
    let secret = json!({"env_vars": [{"key": "WORD", "value": "s3cret", "is_secret": true}]});
    let service = grid.create("kept", "node18", &code(1), secret);
    grid.patch(&service, &json!({"function_code": code(2)}));
    let admin = grid.admin.to_string();
    let settings = [("GRID_ADMIN_ADDR", admin.as_str())];
    let token = printed(&run("token", grid.data_dir(), &settings, &["create", "--user", "alice"]));
    assert_eq!(grid.get("kept", "").json(), "s3cret 2");
    let before = history(&grid, &service);

    let place = short_dir();
    let file = place.path().join("grid.backup");
    let file = file.to_str().expect("UTF-8");
    let done = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while asked == 0 || !done.load(Ordering::SeqCst) {
                assert_eq!(grid.get("kept", "").json(), "s3cret 2");
                asked += 1;
            }
            asked
        });
        let output = run("backup", grid.data_dir(), &settings, &[file]);
        done.store(true, Ordering::SeqCst);
        assert!(printed(&output).contains(" entries are in "));
        asking.join().expect("asks")
    });
    assert!(asked > 0);
    let text = std::fs::read_to_string(file).expect("reads");
    assert!(text.contains("fernet_keys") && !text.contains("s3cret"));
    // Not for whoever is no admin.
    let authorization = format!("Token {}", token.trim());
    let headers = [("host", "localhost"), ("authorization", authorization.as_str())];
    let answer = Connection::open(grid.admin).request("GET", "/api/v1/backup/", &headers, b"");
    assert_eq!(answer.status, 403);
    let said = complaint(&run("restore", grid.data_dir(), &settings, &[file]));
    assert!(said.contains("is used by another Grid"), "{said}");

    // Another machine has neither containers nor images.
    grid.stop();
    docker::remove_all(&service.id);
    let data = place.path().join("d");
    let settings = [("GRID_DATA_DIR", data.to_str().expect("UTF-8"))];
    assert!(printed(&run("restore", place.path(), &settings, &[file])).contains("are restored"));
    let restored = Grid::with(&settings);
    assert_eq!(history(&restored, &service), before);
    assert_eq!(restored.get("kept", "").json(), "s3cret 2");
    let answer = Connection::open(restored.admin).request("GET", SERVICES, &headers, b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let rolled_back = json!({"deployment": before[0][1]["id"]});
    let answer = restored.api("POST", &service.path("rollback/"), Some(&rolled_back));
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(restored.settled(&service.id, &id)["phase"], "live");
    assert_eq!(restored.get("kept", "").json(), "s3cret 1");
}

#[test]
fn running_functions_stay_when_the_store_moves() {
    const COUNT: &str = "const boot = require('os').hostname(); let n = 0; \
        exports.handler = async () => [boot, ++n];";
    let mut grid = Grid::start();
    if is_split(grid.data_dir()) {
        return; // there is a Redis from the start
    }
    let service = grid.create("moved", "node18", COUNT, json!({"max_replicas": 1}));
    let boot = grid.get("moved", "").json()[0].clone();
    let containers = docker::containers(&service.id, true);
    let place = short_dir();
    let _redis = Redis::start(place.path());
    let url = redis_url(place.path());
    let with_redis = [("REDIS_URL", url.as_str())];
    let migrate = |grid: &Grid, to: &str| {
        run("store", grid.data_dir(), &with_redis, &["migrate", "--to", to])
    };
    let said = complaint(&migrate(&grid, "redis"));
    assert!(said.contains("is used by another Grid"), "{said}");

    grid.stop();
    assert!(printed(&migrate(&grid, "redis")).contains("grid.redb.migrated"));
    grid.restart_with(&with_redis);
    assert_eq!(grid.get("moved", "").json(), json!([boot, 2]));
    assert_eq!(docker::containers(&service.id, true), containers);
    let log = grid.log();
    assert!(!log.contains("are not used"), "nothing is left that is not used: {log}");
    let said = complaint(&migrate(&grid, "embedded"));
    assert!(said.contains("is used by another Grid"), "{said}");

    grid.stop();
    assert!(printed(&migrate(&grid, "embedded")).contains("Remove REDIS_URL"));
    grid.restart_with(&[]);
    assert_eq!(grid.get("moved", "").json(), json!([boot, 3]));
    assert_eq!(docker::containers(&service.id, true), containers);
}
