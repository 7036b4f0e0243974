//! What functions wrote: lines of containers that run, from the engine, and of removed ones, from
//! files under the data directory. Two files per service, the older one replaced when the newer is
//! full, so that a function that floods its log costs a known amount of disk.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{fs, io::AsyncWriteExt};
use utoipa::ToSchema;

use crate::{
    engine::{Engine, OutputLine},
    error::{Error, Result},
    limits,
    name::{InstanceId, ReplicaId, ServiceId},
};

/// Lines that are kept of one container when it is removed.
const KEPT_LINES: usize = 2000;
/// Lines that one container is asked for at most.
const MOST_LINES: usize = 100_000;
/// The runner's marks around a request's output (runners/PROTOCOL.md).
const START_MARK: &str = "\u{1e}GRID START ";
const END_MARK: &str = "\u{1e}GRID END ";

/// Which lines are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// So many of the newest lines.
    pub tail: usize,
    /// Only lines of this request.
    pub request_id: Option<String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// The function, on standard output.
    Stdout,
    /// The function, on standard error.
    Stderr,
    /// Grid, about the container.
    Platform,
}

/// Reads and keeps the lines of every service.
pub struct Logs {
    engine: Arc<dyn Engine>,
    instance: InstanceId,
    dir: PathBuf,
}

impl Logs {
    /// Lines of removed containers are kept under `dir`.
    pub fn new(engine: Arc<dyn Engine>, instance: InstanceId, dir: PathBuf) -> Self {
        Self { engine, instance, dir }
    }

    /// Lines of one service, newest last.
    ///
    /// # Errors
    /// `File` when the kept lines cannot be read. An engine that is away only leaves out its part.
    pub async fn read(&self, service: ServiceId, query: &LogQuery) -> Result<Vec<LogEntry>> {
        let mut entries = self.kept(service).await?;
        match self.running(service, query).await {
            Ok(lines) => entries.extend(lines),
            Err(error) => {
                tracing::warn!(%service, %error, "log lines of running containers left out")
            }
        }
        if let Some(wanted) = &query.request_id {
            entries.retain(|entry| entry.request_id.as_ref() == Some(wanted));
        }
        entries.sort_by_key(|entry| entry.at);
        Ok(entries.split_off(entries.len().saturating_sub(query.tail)))
    }

    /// Keeps what a container wrote, before it is removed, and why it is, when that is news.
    ///
    /// # Errors
    /// Those of the engine and of the files.
    pub async fn keep(
        &self,
        service: ServiceId,
        replica: &ReplicaId,
        why: Option<String>,
    ) -> Result<()> {
        let output = self.engine.output(&self.instance, replica, KEPT_LINES).await?;
        let mut entries = attribute(replica, output);
        entries.extend(why.map(|line| platform_line(replica, line)));
        if entries.is_empty() { Ok(()) } else { self.append(service, &entries).await }
    }

    /// Keeps a line of Grid's own about a container.
    ///
    /// # Errors
    /// `File`.
    pub async fn note(&self, service: ServiceId, replica: &ReplicaId, line: String) -> Result<()> {
        self.append(service, &[platform_line(replica, line)]).await
    }

    /// Removes everything that was kept of a service.
    ///
    /// # Errors
    /// `File`.
    pub async fn forget(&self, service: ServiceId) -> Result<()> {
        for path in self.files(service) {
            match fs::remove_file(&path).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", &path)(e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn running(&self, service: ServiceId, query: &LogQuery) -> Result<Vec<LogEntry>> {
        // With a filter the lines may be anywhere; without one, marks and the lines of other
        // containers take part of the tail.
        let tail = if query.request_id.is_some() {
            MOST_LINES
        } else {
            (query.tail * 3 + 100).min(MOST_LINES)
        };
        let mut entries = Vec::new();
        for container in self.engine.containers(&self.instance, Some(service)).await? {
            let output = self.engine.output(&self.instance, &container.replica, tail).await?;
            entries.extend(attribute(&container.replica, output));
        }
        Ok(entries)
    }

    async fn kept(&self, service: ServiceId) -> Result<Vec<LogEntry>> {
        let mut entries = Vec::new();
        for path in self.files(service) {
            match fs::read_to_string(&path).await {
                // A line that a crash cut short is left out.
                Ok(text) => {
                    entries.extend(text.lines().filter_map(|l| serde_json::from_str(l).ok()))
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::file("read", &path)(e)),
            }
        }
        Ok(entries)
    }

    async fn append(&self, service: ServiceId, entries: &[LogEntry]) -> Result<()> {
        fs::create_dir_all(&self.dir).await.map_err(Error::file("create", &self.dir))?;
        let [older, newer] = self.files(service);
        if size(&newer).await > limits::KEPT_LOG_BYTES {
            fs::rename(&newer, &older).await.map_err(Error::file("rename", &newer))?;
        }
        let mut text = String::new();
        for entry in entries {
            text.extend(serde_json::to_string(entry));
            text.push('\n');
        }
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&newer)
            .await
            .map_err(Error::file("open", &newer))?;
        file.write_all(text.as_bytes()).await.map_err(Error::file("write", &newer))?;
        file.flush().await.map_err(Error::file("write", &newer))
    }

    /// Older lines first.
    fn files(&self, service: ServiceId) -> [PathBuf; 2] {
        [self.dir.join(format!("{service}.1.jsonl")), self.dir.join(format!("{service}.jsonl"))]
    }
}

async fn size(path: &Path) -> u64 {
    fs::metadata(path).await.map_or(0, |metadata| metadata.len())
}

/// Gives each line the request between whose marks it stands. The two streams are read by the
/// engine independently, so each has marks of its own.
fn attribute(replica: &ReplicaId, output: Vec<OutputLine>) -> Vec<LogEntry> {
    let mut current: [Option<String>; 2] = [None, None];
    let mut entries = Vec::with_capacity(output.len());
    for OutputLine { at, stderr, mut line } in output {
        let request = &mut current[usize::from(stderr)];
        if let Some(id) = line.strip_prefix(START_MARK) {
            *request = is_request_id(id).then(|| id.to_owned());
        } else if line.strip_prefix(END_MARK).is_some() {
            *request = None;
        } else {
            truncate(&mut line, limits::MESSAGE_CHARS * 4);
            let stream = if stderr { LogStream::Stderr } else { LogStream::Stdout };
            let request_id = request.clone();
            entries.push(LogEntry { at, stream, replica: replica.clone(), request_id, line });
        }
    }
    entries
}

/// Whether a line is one of the runner's marks, and not a function's output.
pub(crate) fn is_mark(line: &str) -> bool {
    line.starts_with(START_MARK) || line.starts_with(END_MARK)
}

fn platform_line(replica: &ReplicaId, line: String) -> LogEntry {
    LogEntry {
        at: Timestamp::now(),
        stream: LogStream::Platform,
        replica: replica.clone(),
        request_id: None,
        line,
    }
}

/// Whether the edge gives such ids. A function may write marks of its own, and what they say stands
/// with every line that follows: a long id would be kept thousands of times.
fn is_request_id(id: &str) -> bool {
    (1..=limits::REQUEST_ID_CHARS).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

/// Cuts text to so many bytes at most, never inside a character.
pub(crate) fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_the_edge_would_not_make_marks_nothing() {
        for id in ["", "a b", "\u{1b}[2J", "\u{e4}", &"i".repeat(limits::REQUEST_ID_CHARS + 1)] {
            let lines = [&format!("{START_MARK}{id}"), "line"].map(|line| OutputLine {
                at: Timestamp::UNIX_EPOCH,
                stderr: false,
                line: line.to_owned(),
            });
            let entries = attribute(&ReplicaId::random(), lines.into());
            assert_eq!((entries.len(), &entries[0].request_id), (1, &None), "{id:?}");
        }
    }

    #[test]
    fn lines_belong_to_the_request_whose_marks_surround_them_in_their_stream() {
        let replica = ReplicaId::random();
        let line = |stderr, line: &str| OutputLine {
            at: Timestamp::UNIX_EPOCH,
            stderr,
            line: line.to_owned(),
        };
        let entries = attribute(
            &replica,
            vec![
                line(false, "loading"),
                line(false, "\u{1e}GRID START r1"),
                line(false, "a"),
                line(true, "late warning"),
                line(true, "\u{1e}GRID START r1"),
                line(true, "b"),
                line(false, "\u{1e}GRID END r1"),
                line(true, "c"),
                line(false, "between"),
            ],
        );
        let seen: Vec<_> =
            entries.iter().map(|e| (e.request_id.as_deref(), e.line.as_str())).collect();
        assert_eq!(
            seen,
            [
                (None, "loading"),
                (Some("r1"), "a"),
                (None, "late warning"),
                (Some("r1"), "b"),
                (Some("r1"), "c"),
                (None, "between"),
            ]
        );
    }
}
