//! The access log: a line for each public request, or for a share of them. The edge's threads format
//! a line and hand it over; a thread of its own writes, and when that does not keep up, lines are
//! dropped and counted rather than requests delayed.

mod line;
mod writer;

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use control::config::{self, Observe};
use jiff::Timestamp;

use self::{line::Line, writer::Writer};
use crate::{client::Peer, metrics::Metrics, observe::Record, request::Request, trace::Share};

/// Lines that may wait to be written; each has at most a few kilobytes.
const WAITING: usize = 4096;
/// How long the end of the process waits for the last lines.
const LAST: Duration = Duration::from_secs(2);

/// The edge's side of the log.
pub(crate) struct AccessLog {
    json: bool,
    share: Share,
    lines: SyncSender<Piece>,
    metrics: Arc<Metrics>,
}

/// What the writing thread is given.
enum Piece {
    Line(Vec<u8>),
    /// Everything before this has to be written now.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Opens the log, when there is to be one, and starts its thread, which ends with it.
    pub(crate) fn open(
        settings: &Observe,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Arc<Self>>, String> {
        let json = match settings.access_log {
            config::AccessLog::Off => return Ok(None),
            config::AccessLog::Text => false,
            config::AccessLog::Json => true,
        };
        let writer = Writer::open(settings.access_log_file.as_deref(), metrics.clone())?;
        let (lines, inbox) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        let started = thread.spawn(move || writer.run(&inbox));
        started.map_err(|e| format!("the access log's thread cannot be started: {e}"))?;
        let share = Share::new(settings.access_log_sample);
        Ok(Some(Arc::new(Self { json, share, lines, metrics: metrics.clone() })))
    }

    /// Whether a request has a line.
    pub(crate) fn takes(&self, record: &Record<'_>) -> bool {
        record.outcome.0 >= 500 || self.share.takes(record.trace.span)
    }

    /// Hands a line over.
    pub(crate) fn write(&self, record: &Record<'_>, request: &Request, peer: &Peer, id: &str) {
        let line = Line::of(record, request, peer, id, Timestamp::now());
        let mut text = Vec::with_capacity(512);
        let written: io::Result<()> = match self.json {
            true => serde_json::to_writer(&mut text, &line).map_err(Into::into),
            false => write!(text, "{line}"),
        };
        text.push(b'\n');
        let sent = written.is_ok() && self.lines.try_send(Piece::Line(text)).is_ok();
        if !sent {
            self.metrics.access_log_dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits, but not for ever, until what was handed over is written.
    pub(crate) fn flush(&self) {
        let (done, written) = sync_channel(1);
        let mut piece = Piece::Flush(done);
        let until = std::time::Instant::now() + LAST;
        while std::time::Instant::now() < until {
            match self.lines.try_send(piece) {
                Ok(()) => {
                    let _ = written.recv_timeout(LAST); // it ends either way
                    return;
                }
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => piece = back,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use http::StatusCode;

    use super::*;
    use crate::{
        client::Body,
        observe::tests::{observer, peer, request, settings},
    };

    /// Writes the line of a request that ended so.
    fn write(log: &AccessLog, status: u16) {
        let observer = observer(&log.metrics);
        let request = request("/fn/hello");
        let mut record = observer.begin(&request);
        record.answers(StatusCode::from_u16(status).expect("valid"), &Body::Absent(None));
        if log.takes(&record) {
            log.write(&record, &request, &peer(), "an-id");
        }
    }

    fn open(file: &std::path::Path, share: f64) -> Arc<AccessLog> {
        let settings = Observe {
            access_log: config::AccessLog::Text,
            access_log_file: Some(file.to_owned()),
            access_log_sample: share,
            ..settings()
        };
        AccessLog::open(&settings, &Arc::default()).expect("opened").expect("there is one")
    }

    #[test]
    fn nobody_waits_for_a_log_that_is_not_written() {
        let (lines, _inbox) = sync_channel(1);
        let log = AccessLog { json: true, share: Share::new(1.0), lines, metrics: Arc::default() };
        for _ in 0..3 {
            write(&log, 200);
        }
        assert_eq!(log.metrics.access_log_dropped.load(Relaxed), 2);
    }

    #[test]
    fn what_was_handed_over_is_there_after_a_flush() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("access.log");
        let log = open(&file, 0.0);
        for status in [200, 499, 500, 404, 504] {
            write(&log, status);
        }
        log.flush();
        let text = fs::read_to_string(&file).expect("is there");
        let statuses: Vec<_> = text.lines().filter_map(|line| line.split(' ').nth(6)).collect();
        assert_eq!(statuses, ["500", "504"]);
        assert_eq!(log.metrics.access_log_dropped.load(Relaxed), 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_stops_the_start() {
        let settings = Observe {
            access_log: config::AccessLog::Json,
            access_log_file: Some("/dev/null/access.log".into()),
            ..settings()
        };
        let Err(line) = AccessLog::open(&settings, &Arc::default()) else { panic!("opened") };
        assert!(
            line.starts_with("GRID_ACCESS_LOG_FILE: cannot open /dev/null/access.log"),
            "{line}"
        );
    }
}
