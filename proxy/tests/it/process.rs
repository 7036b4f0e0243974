//! The process of `grid serve`: its environment, its ready line, its end.

use std::{
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use crate::{
    grid::{PATIENCE, TOKEN, wait_for, wait_until},
    lab::assert_inside,
    redis::SOCKET,
};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

/// What a command printed, or what it complained of.
pub(crate) fn output_of(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// `grid serve` with nothing of the test's own environment that could change it.
#[track_caller]
pub(crate) fn command(data_dir: &Path, settings: &[(&str, &str)]) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_grid")), "serve", data_dir, settings)
}

/// As [`command`], of another program or to another end.
#[track_caller]
pub(crate) fn command_of(
    program: &Path,
    verb: &str,
    data_dir: &Path,
    settings: &[(&str, &str)],
) -> Command {
    assert_inside();
    let mut command = Command::new(program);
    command.arg(verb).env_clear().current_dir(data_dir);
    for name in ["PATH", "HOME", "DOCKER_HOST"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    if is_split(data_dir) {
        command.env("REDIS_URL", redis_url(data_dir));
    }
    command
        .env("GRID_DATA_DIR", data_dir)
        .env("GRID_SHARE_DIR", root())
        .env("GRID_HTTP_ADDR", "127.0.0.1:0")
        .env("GRID_ADMIN_ADDR", "127.0.0.1:0")
        .env("GRID_HTTPS_ADDR", "off")
        .env("GRID_LOG", "info,control=debug,grid=debug")
        .env("SMSLY_TOKEN", TOKEN)
        .envs(settings.iter().copied());
    command
}

/// A directory whose path is short enough for sockets in it.
pub(crate) fn short_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("g").tempdir_in("/tmp").expect("a directory")
}

/// Whether a Grid is two processes over a Redis, which was started in its data directory then.
pub(crate) fn is_split(data_dir: &Path) -> bool {
    data_dir.join(SOCKET).exists()
}

/// A Grid that was started: its processes, the one that answers the public last.
pub(crate) struct Started {
    pub(crate) processes: Vec<Child>,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Starts `grid serve` and waits for its ready line; `log` gets what it writes to standard error.
pub(crate) fn launch(
    data_dir: &Path,
    settings: &[(&str, &str)],
    log: &Arc<Mutex<String>>,
) -> Started {
    launch_program(Path::new(env!("CARGO_BIN_EXE_grid")), data_dir, settings, log)
}

fn launch_program(
    program: &Path,
    data_dir: &Path,
    settings: &[(&str, &str)],
    log: &Arc<Mutex<String>>,
) -> Started {
    if !is_split(data_dir) {
        let process = spawn(command_of(program, "serve", data_dir, settings), log);
        let (process, public, admin) = ready(process, log);
        return Started { processes: vec![process], public: public.expect("an address"), admin };
    }
    // Both say where functions are called.
    let http = free_address().to_string();
    let part = |role, more: &[(&'static str, &'static str)]| {
        let mut all = vec![("GRID_HTTP_ADDR", http.as_str())];
        all.extend_from_slice(settings);
        all.push(("GRID_ROLE", role));
        all.extend_from_slice(more);
        ready(spawn(command_of(program, "serve", data_dir, &all), log), log)
    };
    let (control, _, admin) = part("control", &[]);
    let (edge, public, _) = part("edge", &[("GRID_ADMIN_ADDR", "127.0.0.1:0")]);
    Started { processes: vec![control, edge], public: public.expect("an address"), admin }
}

/// Starts one part of a Grid again, at its public and its admin address.
pub(crate) fn launch_part(
    data_dir: &Path,
    role: &str,
    (public, admin): (SocketAddr, SocketAddr),
    settings: &[(&str, &str)],
    log: &Arc<Mutex<String>>,
) -> Child {
    let (public, admin) = (public.to_string(), admin.to_string());
    let admin = if role == "edge" { "127.0.0.1:0" } else { &admin };
    let mut all = settings.to_vec();
    all.extend([("GRID_HTTP_ADDR", public.as_str()), ("GRID_ADMIN_ADDR", admin)]);
    all.push(("GRID_ROLE", role));
    ready(spawn(command(data_dir, &all), log), log).0
}

/// Where a Grid's own Redis is, when it has one: see `redis`.
pub(crate) fn redis_url(data_dir: &Path) -> String {
    format!("unix://{}", data_dir.join(SOCKET).display())
}

fn free_address() -> SocketAddr {
    own_listener().local_addr().expect("an address")
}

/// At an address of the loopback that only this process uses, so that its port stays free when it is
/// closed: outgoing connections of others come from 127.0.0.1.
fn own_listener() -> TcpListener {
    // The kernel's process ids end at 2^22.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    TcpListener::bind((Ipv4Addr::new(127, high + 1, middle, low), 0)).expect("a port")
}

/// Where [`launch_copy`] puts the program.
pub(crate) fn copy_in(data_dir: &Path) -> PathBuf {
    data_dir.join("grid")
}

/// As [`launch`], from a copy of the program that a test may replace.
pub(crate) fn launch_copy(
    data_dir: &Path,
    settings: &[(&str, &str)],
    log: &Arc<Mutex<String>>,
) -> Started {
    let copy = copy_in(data_dir);
    std::fs::copy(env!("CARGO_BIN_EXE_grid"), &copy).expect("a copy");
    launch_program(&copy, data_dir, settings, log)
}

fn ready(mut process: Child, log: &Arc<Mutex<String>>) -> (Child, Option<SocketAddr>, SocketAddr) {
    let stdout = BufReader::new(process.stdout.take().expect("piped"));
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    match lines.recv_timeout(PATIENCE).ok().as_deref().and_then(addresses) {
        Some((public, admin)) => (process, public, admin),
        None => {
            drop(process.kill());
            let status = process.wait();
            panic!("grid did not get ready ({status:?}):\n{}", log.lock().expect("a lock"));
        }
    }
}

/// As [`launch`] for one that is not to get ready: waits only until it answers.
pub(crate) fn launch_unready(
    data_dir: &Path,
    settings: &[(&str, &str)],
    log: &Arc<Mutex<String>>,
) -> Started {
    // The ready line will not come, and with it the ports; so they are chosen here.
    let free = [(), (), ()].map(|()| own_listener());
    let [public, admin, other] = free.map(|socket| socket.local_addr().expect("an address"));
    let (http, api, other) = (public.to_string(), admin.to_string(), other.to_string());
    let start = |more: &[(&str, &str)]| {
        let mut all = settings.to_vec();
        all.extend([("GRID_HTTP_ADDR", http.as_str()), ("GRID_ADMIN_ADDR", api.as_str())]);
        all.extend_from_slice(more);
        spawn(command(data_dir, &all), log)
    };
    let processes = if is_split(data_dir) {
        let edge = [("GRID_ROLE", "edge"), ("GRID_ADMIN_ADDR", other.as_str())];
        vec![start(&[("GRID_ROLE", "control")]), start(&edge)]
    } else {
        vec![start(&[])]
    };
    wait_until("an answer", || {
        TcpStream::connect(admin).is_ok()
            && (!is_split(data_dir) || TcpStream::connect(&other).is_ok())
    });
    Started { processes, public, admin }
}

fn spawn(mut command: Command, log: &Arc<Mutex<String>>) -> Child {
    let mut process =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("grid starts");
    let stderr = BufReader::new(process.stderr.take().expect("piped"));
    let kept = Arc::clone(log);
    thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            kept.lock().expect("a lock").push_str(&format!("{line}\n"));
        }
    });
    process
}

/// `grid ready public=http://127.0.0.1:1 admin=http://127.0.0.1:2`, and nothing else; one that only
/// controls is nowhere public.
fn addresses(line: &str) -> Option<(Option<SocketAddr>, SocketAddr)> {
    let (public, admin) = line.strip_prefix("grid ready")?.split_once(" admin=http://")?;
    let public = match public {
        "" => None,
        public => Some(public.strip_prefix(" public=http://")?.parse().ok()?),
    };
    Some((public, admin.parse().ok()?))
}

/// Runs `grid serve` that is expected to end by itself: its status and what it said.
pub(crate) fn run_to_end(data_dir: &Path, settings: &[(&str, &str)]) -> (ExitStatus, String) {
    let mut process = command(data_dir, settings)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("grid starts");
    let mut stderr = process.stderr.take().expect("piped");
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let status = wait_for("the end of grid", || process.try_wait().expect("waited for"));
    (status, reader.join().expect("read").expect("text"))
}
