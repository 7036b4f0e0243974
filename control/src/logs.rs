//! What functions wrote: lines of containers that run, from the engine, and of removed ones, from
//! files under the data directory.

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    error::Result,
    name::{ReplicaId, ServiceId},
};

/// Which lines are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// So many of the newest lines.
    pub tail: usize,
    /// Only lines of this request.
    pub request_id: Option<String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// When the engine received it.
    pub at: Timestamp,
    /// Who wrote it.
    pub stream: LogStream,
    /// In which container.
    pub replica: ReplicaId,
    /// During which request; none for output between requests.
    pub request_id: Option<String>,
    /// The line, without its end.
    pub line: String,
}

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// The function, on standard output.
    Stdout,
    /// The function, on standard error.
    Stderr,
    /// Grid, about the container.
    Platform,
}

/// Reads the lines of every service.
#[derive(Debug, Default)]
pub struct Logs {}

impl Logs {
    /// Lines of one service, newest last.
    ///
    /// # Errors
    /// `File` when the kept lines cannot be read. An engine that is away only leaves out its part.
    pub async fn read(&self, _service: ServiceId, _query: &LogQuery) -> Result<Vec<LogEntry>> {
        Ok(Vec::new())
    }
}
