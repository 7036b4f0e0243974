//! A real Redis for one Grid, on a Unix socket in its data directory. It outlives restarts of Grid.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use crate::grid::wait_until;

/// In the data directory.
pub(crate) const SOCKET: &str = "redis.sock";

/// Ended when it is dropped.
pub(crate) struct Redis {
    data_dir: PathBuf,
    process: Child,
}

impl Redis {
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), process: spawn(data_dir) }
    }

    /// SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("waited for");
    }

    /// Starts it again, with what it kept.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(&self.data_dir);
    }

    /// Sends a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill");
        assert!(sent.success());
    }

    /// Sends a command without arguments, such as `FLUSHALL`; its answer's first line.
    pub(crate) fn command(&self, name: &str) -> String {
        let mut stream = UnixStream::connect(self.data_dir.join(SOCKET)).expect("connects");
        stream.write_all(format!("{name}\r\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("an answer");
        answer.trim_end().to_owned()
    }
}

fn spawn(data_dir: &Path) -> Child {
    let socket = data_dir.join(SOCKET);
    let _ = std::fs::remove_file(&socket); // of one that was killed
    let log = File::create(data_dir.join("redis.log")).expect("a log");
    let process = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "yes", "--unixsocket"])
        .arg(&socket)
        .arg("--dir")
        .arg(data_dir)
        .stdout(log)
        .spawn()
        .expect("redis-server is installed: scripts/setup test");
    wait_until("redis-server", || UnixStream::connect(&socket).is_ok());
    process
}

/// The file in which it keeps what it is told.
pub(crate) fn log_in(data_dir: &Path) -> PathBuf {
    data_dir.join("appendonlydir/appendonly.aof.1.incr.aof")
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
