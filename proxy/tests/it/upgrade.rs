//! One process replaces another: no request fails, and no container has to start anew. And the end of
//! a process that nobody replaces.

use std::{
    fs,
    net::Shutdown,
    os::unix::net::UnixDatagram,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use serde_json::json;

use crate::{
    docker,
    grid::{Grid, PATIENCE, Service, wait_for, wait_until},
    http::{Answer, Connection},
    process::{command_of, copy_in, short_dir},
};

/// Counts its runs, so that one that is lost or done twice shows.
const NODE: &str = "const boot = require('os').hostname(); let runs = 0; \
    exports.handler = async (event) => { \
        if (event.path === '/slow') { console.log('begins'); await new Promise((d) => setTimeout(d, 4000)); } \
        else await new Promise((d) => setTimeout(d, 3)); \
        if (event.path === '/big') return 'x'.repeat(5000000); \
        return {boot, run: ++runs, body: event.body, ip: event.requestContext.identity.sourceIp}; };";
/// The binary as it was built: the "new version".
const PROGRAM: &str = env!("CARGO_BIN_EXE_grid");

fn one(grid: &Grid, name: &str) -> Service {
    grid.create(name, "node18", NODE, json!({"min_replicas": 1, "max_replicas": 1}))
}

/// A client that keeps its connection until it is told that it ends, or makes a new one each time.
struct Client<'a> {
    grid: &'a Grid,
    host: String,
    keeps: bool,
    connection: Option<Connection>,
}

impl<'a> Client<'a> {
    fn new(grid: &'a Grid, name: &str, keeps: bool) -> Self {
        Self { grid, host: format!("{name}.localhost"), keeps, connection: None }
    }

    fn call(&mut self, method: &str, target: &str, body: &[u8]) -> Answer {
        let mut connection = self.connection.take().unwrap_or_else(|| self.grid.connect());
        let answer = connection.request(method, target, &[("host", &self.host)], body);
        if self.keeps && answer.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        answer
    }
}

/// Calls a function from five clients while `during` runs; the number of answers, each of which has
/// come from the one container.
fn under_load(grid: &Grid, name: &str, during: impl FnOnce(&AtomicU64)) -> u64 {
    let (done, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let first = grid.get(name, "").json();
    let target = format!("/fn/{name}");
    thread::scope(|scope| {
        for client in 0..5 {
            let (first, done, answers, target) = (&first, &done, &answers, &target);
            scope.spawn(move || {
                let mut caller = Client::new(grid, name, client < 3);
                while !done.load(Ordering::SeqCst) {
                    let answer = match client % 2 {
                        0 => caller.call("GET", target, b""),
                        _ => caller.call("POST", target, br#""hello""#),
                    };
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    answer.assert_traceable();
                    assert_eq!(answer.all("x-request-id").len(), 1, "{answer:?}");
                    assert_eq!(answer.all("date").len(), 1, "{answer:?}");
                    let json = answer.json();
                    assert_eq!(json["boot"], first["boot"], "the same container");
                    assert_eq!(json["ip"], "127.0.0.1");
                    assert_eq!(json["body"].is_null(), client % 2 == 0, "{json}");
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // A test that fails in here must not wait for clients that go on for ever.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| during(&answers)));
        done.store(true, Ordering::SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    let answers = answers.into_inner();
    let last = grid.get(name, "").json();
    let runs = last["run"].as_u64().zip(first["run"].as_u64()).map(|(last, first)| last - first);
    assert_eq!(runs, Some(answers + 1), "each request ran once");
    answers
}

fn more_answers(answers: &AtomicU64) {
    let before = answers.load(Ordering::SeqCst);
    wait_until("load", || answers.load(Ordering::SeqCst) > before + 50);
}

fn upgraded(grid: &Grid) -> u32 {
    let before = grid.serving().expect("a process");
    grid.replace(&fs::read(PROGRAM).expect("the program"));
    let (done, said) = grid.upgrade();
    assert!(done, "{said}");
    let after = grid.serving().expect("a process");
    assert_ne!(after, before, "{said}");
    assert!(said.contains(&format!("Process {after} serves now; process {before} ends")), "{said}");
    after
}

/// Has a function begin its slow run; the connection on which the answer comes.
fn slow(grid: &Grid, service: &Service) -> Connection {
    let mut connection = grid.connect();
    let name = &service.name;
    connection.send(format!("GET /fn/{name}/slow HTTP/1.1\r\nhost: {name}.localhost\r\n\r\n"));
    let container = docker::containers(&service.id, false).remove(0);
    wait_until("the slow run", || docker::docker(&["logs", &container]).contains("begins"));
    connection
}

#[test]
fn two_upgrades_under_load_fail_no_request() {
    let mut grid = Grid::replaceable(&[]);
    let [load, works, big, asleep] =
        ["load", "works", "big", "asleep"].map(|name| one(&grid, name));
    grid.patch(&asleep, &json!({"min_replicas": 0}));
    let kept = |service: &Service| docker::containers(&service.id, true);
    let containers = [&load, &works, &big].map(kept);

    let mut running = slow(&grid, &works);
    let mut waiting = grid.connect();
    waiting.send("GET /fn/works HTTP/1.1\r\nhost: works.localhost\r\n\r\n");
    // Its answer is larger than what lies in sockets, and is read when the next process serves.
    let mut reading = grid.connect();
    reading.send("GET /fn/big/big HTTP/1.1\r\nhost: big.localhost\r\n\r\n");
    assert_eq!(reading.line(), "HTTP/1.1 200 OK");
    // This one is asked through the old process when the new one serves.
    let mut late = Client::new(&grid, "big", true);
    assert_eq!(late.call("GET", "/fn/big", b"").status, 200);

    under_load(&grid, "load", |answers| {
        more_answers(answers);
        upgraded(&grid);
        more_answers(answers);
        let answer = late.call("GET", "/fn/big/big", b"");
        assert_eq!((answer.status, answer.body.len()), (200, 5_000_002));
        assert_eq!(answer.header("connection"), Some("close"));
        upgraded(&grid);
        more_answers(answers);
    });
    let answer = running.answer();
    assert_eq!((answer.status, &answer.json()["run"]), (200, &json!(1)));
    let answer = waiting.answer();
    assert_eq!((answer.status, &answer.json()["run"]), (200, &json!(2)));
    assert_eq!(reading.rest_of_answer().body.len(), 5_000_002);
    drop((running, waiting, reading, late));

    grid.first_ends();
    assert_eq!([&load, &works, &big].map(kept), containers, "none was started or ended");
    assert_eq!(grid.get("works", "").json()["run"], 3);
    assert_eq!(grid.get("asleep", "").status, 200);
    let record = grid.api("GET", &load.path(""), None).json();
    assert_eq!(record["replicas"].as_array().map(Vec::len), Some(1), "{record}");
    // The control plane works: it ends, starts and deploys.
    let deployment = grid.patch(&load, &json!({"function_code": "exports.handler = () => 'new'"}));
    assert_eq!(deployment["phase"], "live", "{deployment}");
    assert_eq!(grid.get("load", "").json(), "new");
    let log = grid.log();
    assert!(!log.contains(" ERROR "), "{log}");
}

#[test]
fn what_still_runs_for_the_old_process_is_left_alone() {
    let grid = Grid::replaceable(&[("FUNCTION_TIMEOUT_SECONDS", "6")]);
    let [changed, deleted, late] = ["changed", "deleted", "late"].map(|name| one(&grid, name));
    let endless = "exports.handler = async (event) => event.path === '/slow' ? new Promise(() => console.log('begins')) : 1";
    assert_eq!(grid.patch(&late, &json!({"function_code": endless}))["phase"], "live");
    let mut running = [&changed, &deleted, &late].map(|service| slow(&grid, service));
    let old = docker::containers(&late.id, false);
    upgraded(&grid);
    let new = json!({"function_code": "exports.handler = () => 'new'"});
    assert_eq!(grid.patch(&changed, &new)["phase"], "live");
    assert_eq!(grid.get("changed", "").json(), "new");
    assert_eq!(grid.api("DELETE", &deleted.path(""), None).status, 204);
    let mut answers = running.iter_mut().map(Connection::answer);
    for name in ["changed", "deleted"] {
        let answer = answers.next().expect("an answer");
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    }
    let answer = answers.next().expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (504, "timeout"));
    wait_until("word of it", || grid.log().contains("the process that was replaced gave it up"));
    // That one's container is not used again, though it was another process that gave it up.
    wait_until("another container", || {
        let now = docker::containers(&late.id, true);
        now.len() == 1 && now != old
    });
    assert_eq!(grid.get("late", "").status, 200);
    wait_until("the old containers' end", || {
        docker::containers(&deleted.id, true).is_empty()
            && docker::containers(&changed.id, true).len() == 1
    });
}

#[test]
fn a_new_program_that_does_not_start_changes_nothing() {
    let grid = Grid::replaceable(&[]);
    one(&grid, "stays");
    let (pid, before) = (grid.serving(), grid.get("stays", "").json());
    under_load(&grid, "stays", |answers| {
        grid.replace(b"#!/bin/sh\necho it is broken >&2\nexit 7\n");
        let (done, said) = grid.upgrade();
        assert!(!done && said.contains("nothing was replaced"), "{said}");
        assert!(said.contains("exit status: 7 before it took over"), "{said}");
        assert!(grid.log().contains("it is broken"));

        fs::remove_file(copy_in(grid.data_dir())).expect("removed");
        let (done, said) = grid.upgrade();
        assert!(!done && said.contains("/grid: No such file"), "{said}");

        // A setting that is wrong by now is named.
        grid.replace(&fs::read(PROGRAM).expect("the program"));
        let settings = grid.data_dir().join(".env");
        fs::write(&settings, "GRID_IDLE_SECONDS=0\n").expect("written");
        let (done, said) = grid.upgrade();
        assert!(!done && said.contains("GRID_IDLE_SECONDS is \"0\" (from .env)"), "{said}");
        fs::remove_file(settings).expect("removed");
        more_answers(answers);
    });
    assert_eq!(grid.serving(), pid);
    assert_eq!(grid.get("stays", "").json()["boot"], before["boot"]);
    assert_eq!(grid.patch(&one(&grid, "works"), &json!({"max_replicas": 2})), json!(null));
    upgraded(&grid);
}

#[test]
fn a_new_program_that_dies_with_the_store_is_followed_by_the_old_one() {
    let mut grid = Grid::replaceable(&[]);
    let service = one(&grid, "back");
    let (pid, containers) = (grid.serving(), docker::containers(&service.id, true));
    under_load(&grid, "back", |answers| {
        // What a new version says, up to the moment in which it has the store: 3 and 4 are listeners.
        let give = json!({"give": {"data_dir": grid.data_dir()}});
        grid.replace(format!("#!/bin/sh\necho '{give}' >&5\nread answer <&5\nexit 3\n").as_bytes());
        let (done, said) = grid.upgrade();
        assert!(!done && said.contains("exit status: 3 after it had the store"), "{said}");
        wait_until("the old program", || grid.serving() != pid);
        more_answers(answers);
    });
    grid.first_ends();
    assert_eq!(docker::containers(&service.id, true), containers);
    assert_eq!(grid.api("GET", &service.path(""), None).status, 200);
    // The program at its place is the broken one still, and then a good one.
    let pid = grid.serving();
    assert!(!grid.upgrade().0);
    wait_until("the old program", || grid.serving() != pid);
    upgraded(&grid);
    assert_eq!(grid.get("back", "").status, 200);
}

#[test]
fn an_upgrade_of_nothing_says_so() {
    let dir = short_dir();
    let upgrade = || {
        let mut command = command_of(PROGRAM.as_ref(), "upgrade", dir.path(), &[]);
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    assert!(upgrade().contains("no Grid serves with the data directory"), "{}", upgrade());
    // What a crash leaves: the number may be anybody's by now.
    fs::write(dir.path().join("grid.pid"), std::process::id().to_string()).expect("written");
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("grid.sock")).expect("bound"));
    assert!(upgrade().contains("no Grid serves with the data directory"), "{}", upgrade());
}

#[test]
fn a_stop_under_load_answers_what_was_accepted() {
    let mut grid = Grid::start();
    let service = one(&grid, "ends");
    let busy = one(&grid, "busy");
    let mut running = slow(&grid, &busy);
    let mut waiting = grid.connect();
    waiting.send("GET /fn/busy HTTP/1.1\r\nhost: busy.localhost\r\n\r\n");
    let answers = AtomicU64::new(0);
    let pid = grid.pid().to_string();
    let (address, first) = (grid.public, grid.get("ends", "").json()["run"].as_u64());
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(address);
                    loop {
                        let answer = connection.request(
                            "GET",
                            "/fn/ends",
                            &[("host", "ends.localhost")],
                            b"",
                        );
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        answers.fetch_add(1, Ordering::SeqCst);
                        if answer.header("connection") == Some("close") {
                            return assert!(connection.is_closed());
                        }
                    }
                })
            })
            .collect();
        more_answers(&answers);
        let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill").success());
        for client in clients {
            client.join().expect("answered to its end");
        }
    });
    wait_until("a free address", || std::net::TcpListener::bind(address).is_ok());
    assert_eq!(running.answer().status, 200, "it ran");
    assert_eq!(waiting.answer().status, 200, "it waited");
    running.shutdown(Shutdown::Both);
    waiting.shutdown(Shutdown::Both);
    grid.first_ends();
    grid.restart();
    let runs =
        grid.get("ends", "").json()["run"].as_u64().zip(first).map(|(last, first)| last - first);
    assert_eq!(runs, Some(answers.into_inner() + 1), "each request ran once");
    assert_eq!(docker::containers(&service.id, true).len(), 1);
}

#[test]
fn systemd_is_told() {
    let dir = short_dir();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    let told = || {
        let mut text = [0; 1024];
        let length = socket.recv(&mut text).expect("told");
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    let grid = Grid::replaceable(&[("NOTIFY_SOCKET", path.to_str().expect("a path"))]);
    assert_eq!(told(), "READY=1");
    let new = upgraded(&grid);
    assert_eq!(told(), format!("MAINPID={new}\nREADY=1"));
    let sent = std::process::Command::new("kill").args(["-TERM", &new.to_string()]).status();
    assert!(sent.expect("kill").success());
    assert_eq!(told(), "STOPPING=1");
    wait_for("its end", || grid.serving().is_none().then_some(()));
}
