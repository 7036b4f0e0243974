//! The thread that writes the access log: many lines at once, to standard error or to a file, which
//! it opens again when somebody has renamed or removed it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, SyncSender},
    },
    time::{Duration, Instant},
};

use super::Piece;
use crate::metrics::Metrics;

/// What is gathered before it is written.
const GATHERED: usize = 64 * 1024;
/// How often the file's name is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often a failure is logged.
const COMPLAIN: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    to: Target,
    metrics: Arc<Metrics>,
    batch: Vec<u8>,
    lines: u64,
    complained: Option<Instant>,
}

enum Target {
    StandardError,
    File { path: PathBuf, file: File, looked: Instant },
}

impl Writer {
    /// Opens the file, or standard error when none is named.
    pub(super) fn open(file: Option<&Path>, metrics: Arc<Metrics>) -> Result<Self, String> {
        let to = match file {
            None => Target::StandardError,
            Some(path) => {
                let file = append(path).map_err(|error| {
                    format!(
                        "GRID_ACCESS_LOG_FILE: cannot open {} for writing: {error}",
                        path.display()
                    )
                })?;
                Target::File { path: path.to_owned(), file, looked: Instant::now() }
            }
        };
        Ok(Self { to, metrics, batch: Vec::new(), lines: 0, complained: None })
    }

    /// Writes until all senders are gone.
    pub(super) fn run(mut self, inbox: &Receiver<Piece>) {
        while let Ok(piece) = inbox.recv() {
            let mut waits = self.take(piece);
            while waits.is_none() && self.batch.len() < GATHERED {
                let Ok(piece) = inbox.try_recv() else { break };
                waits = self.take(piece);
            }
            self.write();
            if let Some(waits) = waits {
                let _ = waits.send(()); // who waited may have given up
            }
        }
    }

    /// Adds a line to the batch, or gives back who waits for the batch.
    fn take(&mut self, piece: Piece) -> Option<SyncSender<()>> {
        match piece {
            Piece::Line(line) => {
                self.batch.extend_from_slice(&line);
                self.lines += 1;
                None
            }
            Piece::Flush(waits) => Some(waits),
        }
    }

    fn write(&mut self) {
        let written = self.to.write(&self.batch);
        self.batch.clear();
        let lines = std::mem::take(&mut self.lines);
        let Err(error) = written else { return };
        self.metrics.access_log_dropped.fetch_add(lines, Relaxed);
        if self.complained.is_none_or(|at| at.elapsed() > COMPLAIN) {
            self.complained = Some(Instant::now());
            tracing::error!(%error, lines, "the access log cannot be written; these lines are lost");
        }
    }
}

impl Target {
    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Target::StandardError => io::stderr().write_all(batch),
            Target::File { path, file, looked } => {
                if looked.elapsed() >= LOOK {
                    *looked = Instant::now();
                    if !is_at(file, path) {
                        *file = append(path)?;
                    }
                }
                file.write_all(batch)
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    // Whose requests they were is not for everybody on the machine.
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Whether the name still leads to the file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}
