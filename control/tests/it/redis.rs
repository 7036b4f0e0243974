//! A real Redis of a test's own, on a Unix socket, without persistence unless it is asked for.

pub(crate) mod chaos;

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use control::store::redis::{Part, Redis, RedisSettings, RedisUrl};
use tempfile::TempDir;

/// How long it may take to start.
const START: Duration = Duration::from_secs(20);

/// Ended when it is dropped.
pub(crate) struct Server {
    dir: TempDir,
    arguments: Vec<String>,
    process: Child,
}

impl Server {
    /// One that forgets everything when it ends.
    pub(crate) fn start() -> Self {
        Self::with(&["--save", "", "--appendonly", "no"])
    }

    /// One that has everything on the disk before it answers.
    pub(crate) fn durable() -> Self {
        Self::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
    }

    /// One with these settings.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let process = spawn(dir.path(), &arguments);
        Self { dir, arguments, process }
    }

    /// One that is reached by TCP as well, at a port of [`own_address`].
    pub(crate) fn at(port: u16, arguments: &[&str]) -> Self {
        let (address, port) = (own_address().to_string(), port.to_string());
        // What others see of a connection is not the address that it is bound to.
        let own = ["--bind", &address, "--port", &port, "--replica-announce-ip", &address];
        Self::with(&[&own, arguments].concat())
    }

    /// A Sentinel that knows the Redis at a port as `main`; both are at [`own_address`].
    pub(crate) fn sentinel(port: u16, redis: u16) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (path, at) = (dir.path().join("sentinel.conf"), dir.path().display());
        let address = own_address();
        let text = format!(
            "bind {address}\nport {port}\nunixsocket {at}/redis.sock\ndir {at}\n\
             sentinel monitor main {address} {redis} 1\n"
        );
        fs::write(&path, text).expect("writes");
        let process = launch(Command::new("redis-server").arg(path).arg("--sentinel"), dir.path());
        Self { dir, arguments: Vec::new(), process }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Copies the append-only files from one directory to another, in the place of those there.
    pub(crate) fn copy_log(from: &Path, to: &Path) {
        let (from, to) = (from.join("appendonlydir"), to.join("appendonlydir"));
        let _ = fs::remove_dir_all(&to);
        fs::create_dir(&to).expect("creates");
        for file in fs::read_dir(from).expect("reads") {
            let file = file.expect("reads");
            fs::copy(file.path(), to.join(file.file_name())).expect("copies");
        }
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("ends");
        self.process.wait().expect("has ended");
    }

    /// Lets it answer nothing until [`Server::resume`].
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(sent.expect("kill is installed").success());
    }

    /// What it says to a command of an operator.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let answer =
            Command::new("redis-cli").arg("-s").arg(self.socket()).args(arguments).output();
        let answer = answer.expect("redis-cli is installed");
        String::from_utf8_lossy(&answer.stdout).trim().to_owned()
    }

    /// Starts it again with what it kept.
    pub(crate) fn start_again(&mut self) {
        let _ = fs::remove_file(self.socket());
        self.process = spawn(self.dir.path(), &self.arguments);
    }

    /// A store in it, which has control.
    pub(crate) async fn store(&self, data_dir: &Path) -> Redis {
        open(&self.socket(), data_dir, Part::Control).await.expect("opens")
    }
}

/// Opens a store in the Redis behind a socket.
pub(crate) async fn open(
    socket: &Path,
    data_dir: &Path,
    part: Part,
) -> control::error::Result<Redis> {
    open_at(&format!("unix://{}", socket.display()), "grid", data_dir, part).await
}

/// Opens a store at a URL.
pub(crate) async fn open_at(
    url: &str,
    prefix: &str,
    data_dir: &Path,
    part: Part,
) -> control::error::Result<Redis> {
    let url: RedisUrl = url.parse().expect("a URL");
    Redis::open(&RedisSettings { url, prefix: prefix.to_owned() }, data_dir, part).await
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(dir: &Path, arguments: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--unixsocket"]).arg(dir.join("redis.sock")).arg("--dir").arg(dir);
    launch(command.args(arguments), dir)
}

fn launch(command: &mut Command, dir: &Path) -> Child {
    let log = dir.join("redis.log");
    let process = command.stdout(fs::File::create(&log).expect("creates")).spawn();
    let mut process = process.expect("redis-server is installed: scripts/setup test");
    let until = Instant::now() + START;
    while UnixStream::connect(dir.join("redis.sock")).is_err() {
        let has_ended = process.try_wait().expect("waits").is_some();
        assert!(
            !has_ended && Instant::now() < until,
            "redis-server did not start; it says: {}",
            fs::read_to_string(&log).unwrap_or_default()
        );
        thread::sleep(Duration::from_millis(5));
    }
    process
}

/// An address of the loopback that only this process uses. A port of 127.0.0.1 that is free now may be an
/// outgoing connection's of another test a moment later; those all come from there, so here every port stays free.
pub(crate) fn own_address() -> Ipv4Addr {
    // The kernel's process ids end at 2^22.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high + 1, middle, low)
}
