//! `grid token`, beside a Grid that runs and without one; users over the real admin API.

use std::{net::SocketAddr, path::Path, process::Output};

use serde_json::Value;

use crate::{
    grid::{Grid, TOKEN},
    http::Connection,
    process::{command_of, short_dir},
};

/// `grid token …` with the settings of these tests.
fn token(data_dir: &Path, settings: &[(&str, &str)], args: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_grid"));
    command_of(program, "token", data_dir, settings).args(args).output().expect("runs")
}

/// What it printed, when it did what it was asked.
#[track_caller]
fn printed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Why it did nothing, in one line.
#[track_caller]
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
    assert!(said.starts_with("grid: ") && said.lines().count() == 1, "{said}");
    said
}

fn get(admin: SocketAddr, token: &str, path: &str) -> (u16, Value) {
    let token = format!("Token {token}");
    let headers = [("host", "localhost"), ("authorization", token.as_str())];
    let answer = Connection::open(admin).request("GET", path, &headers, b"");
    (answer.status, answer.json())
}

#[test]
fn tokens_are_made_beside_a_grid_that_runs() {
    let grid = Grid::start();
    // As it would be told when the API listens everywhere.
    let everywhere = format!("0.0.0.0:{}", grid.admin.port());
    let settings = [("GRID_ADMIN_ADDR", everywhere.as_str())];
    let run = |args: &[&str]| token(grid.data_dir(), &settings, args);
    let made = run(&["create", "--user", "alice", "--name", "laptop", "--expires-in-days", "7"]);
    let secret = printed(&made);
    let secret = secret.strip_suffix('\n').expect("a line");
    assert!(secret.len() == 40 && secret.bytes().all(|b| b.is_ascii_hexdigit()), "{secret}");
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(said.contains(" of alice, an ordinary user.") && !said.contains(secret), "{said}");
    let services = "/api/v1/services/";
    assert_eq!(get(grid.admin, secret, services).0, 200);
    assert_eq!(get(grid.admin, secret, &format!("{services}?owner=*")).0, 403);

    let boss = printed(&run(&["create", "--user", "a+b@example.com", "--admin"]));
    assert_eq!(get(grid.admin, boss.trim(), &format!("{services}?owner=*")).0, 200);

    let table = printed(&run(&["list"]));
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("ID ") && lines[1].contains(" a+b@example.com "), "{table}");
    assert!(lines[2].contains(" laptop ") && !table.contains(secret), "{table}");
    assert_eq!(printed(&run(&["list", "--user", "a+b@example.com"])).lines().count(), 2);
    let listed = printed(&run(&["list", "--user", "alice", "--json"]));
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let id = listed[0]["id"].as_str().expect("an id");
    assert_eq!((&listed[0]["name"], listed.as_array().map(Vec::len)), (&"laptop".into(), Some(1)));

    assert_eq!(printed(&run(&["revoke", id])), "");
    assert_eq!(get(grid.admin, secret, services).0, 401);
    assert!(complaint(&run(&["revoke", id])).contains(&format!("There is no token {id}.")));
    let twice = run(&["create", "--user", "alice", "--name", &"x".repeat(101)]);
    assert!(complaint(&twice).contains("name: Ensure this field has no more than 100 characters."));

    // Another token, another address, and one where nobody listens while the store is in use.
    let mut wrong = settings.to_vec();
    wrong.push(("SMSLY_TOKEN", "not-the-token-of-that-grid"));
    let said = complaint(&token(grid.data_dir(), &wrong, &["list"]));
    assert!(said.contains("Invalid token.") && said.contains("SMSLY_TOKEN"), "{said}");
    wrong[1].1 = "";
    let said = complaint(&token(grid.data_dir(), &wrong, &["list"]));
    assert!(said.contains("there is no token for it"), "{said}");
    let said = complaint(&token(grid.data_dir(), &[("GRID_ADMIN_ADDR", "127.0.0.1:1")], &["list"]));
    assert!(said.contains("127.0.0.1:1") && said.contains("is used by another Grid"), "{said}");
    assert!(said.contains("--admin-addr"), "{said}");
}

#[test]
fn tokens_are_made_without_a_grid() {
    let dir = short_dir();
    let data = dir.path().join("d");
    let text = data.to_str().expect("UTF-8");
    let settings = [("GRID_ADMIN_ADDR", "127.0.0.1:1"), ("GRID_DATA_DIR", text)];
    let run = |args: &[&str]| token(dir.path(), &settings, args);
    for args in [&["list"][..], &["revoke", "01a2160e-46de-71f5-b8b8-901552a5e51c"]] {
        let said = complaint(&run(args));
        assert!(said.contains(text) && said.contains("127.0.0.1:1"), "{said}");
        assert!(!data.exists(), "nothing was made");
    }
    // Before the first start.
    let early = printed(&run(&["create", "--user", "alice"]));
    let mut grid = Grid::with(&[("GRID_DATA_DIR", text)]);
    assert_eq!(get(grid.admin, early.trim(), "/api/v1/services/").0, 200);

    // And while it is stopped.
    grid.stop();
    let late = printed(&run(&["create", "--user", "alice", "--name", "late"]));
    let listed = printed(&run(&["list", "--json"]));
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(
        (&listed[0]["name"], &listed[1]["name"]),
        (&"late".into(), &"grid token create".into())
    );
    assert!(listed[1]["last_used_at"].is_string(), "{listed}");
    printed(&run(&["revoke", listed[1]["id"].as_str().expect("an id")]));
    grid.restart();
    let services = "/api/v1/services/";
    assert_eq!(get(grid.admin, late.trim(), services).0, 200);
    assert_eq!(get(grid.admin, early.trim(), services).0, 401);
    let (_, log) = get(grid.admin, TOKEN, "/api/v1/audit_log/?owner=*&user=admin");
    let entries = log["results"].as_array().expect("a list");
    let actions: Vec<_> = entries.iter().map(|entry| entry["action"].as_str()).collect();
    let expected = ["token.revoke", "token.create", "token.create"].map(Some);
    assert_eq!(actions, expected);
    assert_eq!(entries[0]["address"], Value::Null);
}

#[test]
fn a_client_behind_a_proxy_is_known_to_the_audit_log() {
    let grid = Grid::with(&[("GRID_TRUSTED_PROXIES", "127.0.0.0/8")]);
    let token = format!("Token {TOKEN}");
    let headers = [
        ("host", "localhost"),
        ("authorization", token.as_str()),
        ("content-type", "application/json"),
        ("x-forwarded-for", "192.0.2.1, 203.0.113.7"),
    ];
    let answer = Connection::open(grid.admin).request(
        "POST",
        "/api/v1/tokens/",
        &headers,
        b"{\"name\": \"a\"}",
    );
    assert_eq!(answer.status, 201, "{}", answer.text());
    let (_, log) = get(grid.admin, TOKEN, "/api/v1/audit_log/");
    assert_eq!(log["results"][0]["address"], "203.0.113.7");
}
