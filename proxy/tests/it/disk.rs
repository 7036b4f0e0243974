//! A full disk: changes are refused with a reason, requests to functions go on, and so do changes
//! when there is room again.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::Path,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use crate::{
    grid::{Grid, wait_until},
    http::{Answer, Connection},
    process::short_dir,
};

/// A small file system of its own. It is seen in the lab only, and not by the engine.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = short_dir();
        let (kind, size) = (Some("tmpfs"), Some("size=16m,mode=700"));
        mount(kind, dir.path(), kind, MsFlags::empty(), size).expect("mounted");
        Self(dir)
    }

    /// Moves a file to it, with a link in its place.
    fn take(&self, file: &Path) {
        let moved = self.0.path().join(file.file_name().expect("a file"));
        fs::copy(file, &moved).expect("copied");
        fs::remove_file(file).expect("removed");
        symlink(moved, file).expect("linked");
    }

    fn fill(&self) {
        let mut file = File::create(self.0.path().join("filler")).expect("made");
        for size in [1 << 20, 4096] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.0.path().join("filler")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has a file on it keeps that, but nobody else finds it.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

fn ask(grid: &Grid, path: &str) -> Answer {
    Connection::open(grid.admin).request("GET", path, &[("host", "localhost")], b"")
}

/// What /metrics says of the store, and of everything.
fn up(grid: &Grid) -> [f64; 2] {
    let text = ask(grid, "/metrics").text();
    ["grid_dependency_up{dependency=\"store\"} ", "grid_ready "].map(|series| {
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.parse().ok());
        value.unwrap_or_else(|| panic!("no {series}in {text}"))
    })
}

#[test]
fn changes_wait_for_room_on_a_full_disk() {
    let disk = SmallDisk::new();
    let mut grid = Grid::start();
    let code = |answer: &str, more: usize| {
        format!("exports.handler = async () => '{answer}' //{}", "x".repeat(more))
    };
    let service = grid.create("full", "node18", &code("v1", 0), json!({}));
    grid.kill9();
    disk.take(&grid.data_dir().join("grid.redb"));
    grid.restart();
    assert_eq!(grid.get("full", "").json(), "v1");
    assert_eq!(up(&grid), [1.0, 1.0]);
    let process = grid.serving();
    assert!(process.is_some());

    disk.fill();
    let change = json!({"function_code": code("lost", 200_000)});
    let refused = grid.api("PATCH", &service.path(""), Some(&change));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.json()["detail"].is_string());
    assert!(refused.header("retry-after").is_some());
    wait_until("/readyz tells", || ask(&grid, "/readyz").status == 503);
    let told = ask(&grid, "/readyz").json()["checks"]["store"].to_string();
    let place = disk.0.path().join("grid.redb").display().to_string();
    assert!(told.contains("is full") && told.contains(&place), "{told}");
    assert_eq!(up(&grid), [0.0, 0.0]);
    assert!(grid.log().contains("is full"));
    for _ in 0..5 {
        assert_eq!(grid.get("full", "").json(), "v1");
        let small = json!({"max_replicas": 3});
        assert_eq!(grid.api("PATCH", &service.path(""), Some(&small)).status, 503);
        let record = grid.api("GET", &service.path(""), None).json();
        assert_eq!(record["function_code"], code("v1", 0), "what was refused is not there");
        assert_eq!(grid.api("GET", "/api/v1/services/", None).json()["count"], 1);
    }

    disk.make_room();
    wait_until("/readyz is well", || ask(&grid, "/readyz").status == 200);
    assert_eq!(up(&grid), [1.0, 1.0]);
    assert_eq!(
        grid.patch(&service, &json!({"function_code": code("v2", 200_000)}))["phase"],
        "live"
    );
    assert_eq!(grid.get("full", "").json(), "v2");
    assert_eq!(grid.serving(), process, "it was not started again for that");
    grid.kill9();
    grid.restart();
    assert_eq!(grid.get("full", "").json(), "v2");
}
