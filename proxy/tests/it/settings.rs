//! Settings that are wrong stop the start with one line that names them, before anything is opened.

use std::{net::TcpListener, os::unix::fs::PermissionsExt};

use crate::{
    grid::{Grid, TOKEN},
    process::{run_to_end, short_dir},
};

#[track_caller]
fn refuses(settings: &[(&str, &str)], named: &str) {
    let dir = short_dir();
    let (status, said) = run_to_end(dir.path(), settings);
    assert!(!status.success(), "{settings:?} was accepted");
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("grid: ")).collect();
    assert_eq!(lines.len(), 1, "{settings:?}: {said}");
    assert!(lines[0].contains(named), "{settings:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_wrong_setting_stops_the_start() {
    for (name, value) in [
        ("FUNCTION_TIMEOUT_SECONDS", "0"),
        ("FUNCTION_TIMEOUT_SECONDS", "301"),
        ("FUNCTION_TIMEOUT_SECONDS", "soon"),
        ("MAX_FUNCTION_BODY_BYTES", "-1"),
        ("MAX_FUNCTION_CODE_BYTES", "0"),
        ("GRID_HTTP_ADDR", "nowhere"),
        ("GRID_ADMIN_ADDR", "localhost"),
        ("GRID_HTTPS_ADDR", "443"),
        ("GRID_CERTS_DIR", "/nonexistent"),
        ("GRID_ACME_DIRECTORY", "letsencrypt"),
        ("GRID_IDLE_SECONDS", "0"),
        ("GRID_ROLE", "edge"),
        ("GRID_LOG", "loud"),
        ("DOCKER_HOST", "docker"),
        ("SMSLY_TOKEN", "short"),
        ("GRID_SHARE_DIR", "/nonexistent"),
        ("GRID_CONFIG", "/nonexistent.toml"),
        ("GRID_QUEUE_LENGHT", "5"),
        ("SMSLY_TOKNE", "a-token-for-the-end-to-end-tests"),
    ] {
        refuses(&[(name, value)], name);
    }
    refuses(
        &[(
            "GRID_DATA_DIR",
            "/tmp/a-directory-whose-path-is-too-long-for-the-sockets/that-have-to-be-in-it-so-that-it-is-refused",
        )],
        "GRID_DATA_DIR",
    );
    refuses(
        &[("GRID_HTTP_ADDR", "127.0.0.1:9999"), ("GRID_ADMIN_ADDR", "127.0.0.1:9999")],
        "GRID_HTTP_ADDR",
    );
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for name in ["GRID_HTTP_ADDR", "GRID_ADMIN_ADDR", "GRID_HTTPS_ADDR"] {
        refuses(&[(name, &address)], name);
        refuses(&[(name, &address)], &address);
    }
}

#[test]
fn a_data_directory_serves_one_grid_at_a_time() {
    let grid = Grid::start();
    let (status, said) = run_to_end(grid.data_dir(), &[]);
    assert!(!status.success());
    let told = said
        .lines()
        .any(|line| line.starts_with("grid: ") && line.contains("is used by another Grid"));
    assert!(told, "{said}");
}

#[test]
fn the_token_is_made_once_and_kept_private() {
    let dir = short_dir();
    let data = dir.path().join("d");
    let data = data.to_str().expect("UTF-8");
    // Set to nothing is not set.
    let mut grid = Grid::with(&[("GRID_DATA_DIR", data), ("SMSLY_TOKEN", "")]);
    let path = format!("{data}/token");
    let mode = std::fs::metadata(&path).expect("a token").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = std::fs::read_to_string(&path).expect("a token");
    let listed = |grid: &Grid, token: &str| {
        let token = format!("Token {token}");
        let headers = [("host", "localhost"), ("authorization", token.as_str())];
        crate::http::Connection::open(grid.admin)
            .request("GET", "/api/v1/services/", &headers, b"")
            .status
    };
    assert_eq!(listed(&grid, token.trim()), 200);
    assert_eq!(listed(&grid, TOKEN), 401);
    grid.stop();
    grid.restart();
    assert_eq!(std::fs::read_to_string(&path).expect("a token"), token);
    assert_eq!(listed(&grid, token.trim()), 200);
}
