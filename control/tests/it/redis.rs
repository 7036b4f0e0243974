//! A real Redis of a test's own, on a Unix socket, without persistence unless it is asked for.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
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
    arguments: Vec<&'static str>,
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

    fn with(arguments: &[&'static str]) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let process = spawn(dir.path(), arguments);
        Self { dir, arguments: arguments.to_vec(), process }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("ends");
        self.process.wait().expect("has ended");
    }

    /// Starts it again with what it kept.
    pub(crate) fn start_again(&mut self) {
        let _ = std::fs::remove_file(self.socket());
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
    let url: RedisUrl = format!("unix://{}", socket.display()).parse().expect("a URL");
    Redis::open(&RedisSettings { url, prefix: "grid".to_owned() }, data_dir, part).await
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(dir: &Path, arguments: &[&str]) -> Child {
    let socket = dir.join("redis.sock");
    let process = Command::new("redis-server")
        .args(["--port", "0", "--unixsocket"])
        .arg(&socket)
        .arg("--dir")
        .arg(dir)
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed: scripts/setup test");
    let until = Instant::now() + START;
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < until, "redis-server did not start");
        thread::sleep(Duration::from_millis(5));
    }
    process
}
