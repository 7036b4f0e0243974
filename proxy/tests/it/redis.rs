//! A real Redis for one Grid, on a Unix socket in its data directory. It outlives restarts of Grid.

use std::{
    fs::File,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use crate::grid::wait_until;

/// In the data directory.
pub(crate) const SOCKET: &str = "redis.sock";

/// Ended when it is dropped.
pub(crate) struct Redis(Child);

impl Redis {
    pub(crate) fn start(data_dir: &Path) -> Self {
        let socket = data_dir.join(SOCKET);
        let log = File::create(data_dir.join("redis.log")).expect("a log");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "yes", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(data_dir)
            .stdout(log)
            .spawn()
            .expect("redis-server is installed: scripts/setup test");
        let redis = Self(process);
        wait_until("redis-server", || UnixStream::connect(&socket).is_ok());
        redis
    }
}

/// The file in which it keeps what it is told.
pub(crate) fn log_in(data_dir: &Path) -> PathBuf {
    data_dir.join("appendonlydir/appendonly.aof.1.incr.aof")
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
