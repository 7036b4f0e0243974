//! Settings of what is told about requests: the access log, traces, timing.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{ConfigError, absolute, rules};

/// What is told about requests.
#[derive(Debug, Clone, Args)]
pub struct Observe {
    /// Access log, a line for each public request: off, text or json.
    #[arg(id = "GRID_ACCESS_LOG", long = "access-log", value_name = "FORMAT")]
    #[arg(default_value = "off", value_parser = rules::access_log)]
    pub access_log: AccessLog,

    /// File of the access log, which may be renamed or removed while Grid runs; by default
    /// standard error.
    #[arg(id = "GRID_ACCESS_LOG_FILE", long = "access-log-file", value_name = "FILE")]
    pub access_log_file: Option<PathBuf>,

    /// Share of the requests that have a line in the access log (0.0 to 1.0); those that are
    /// answered with 500 and above always have one.
    #[arg(id = "GRID_ACCESS_LOG_SAMPLE", long = "access-log-sample", value_name = "SHARE")]
    #[arg(default_value = "1.0", value_parser = rules::share)]
    pub access_log_sample: f64,

    /// Server-Timing header with the time in the queue, for the wake-up and in the function: on or
    /// off.
    #[arg(id = "GRID_SERVER_TIMING", long = "server-timing", value_name = "SWITCH")]
    #[arg(default_value = "on", value_parser = rules::switch, action = clap::ArgAction::Set)]
    pub server_timing: bool,

    /// Share of the traces begun by Grid that are marked as sampled (0.0 to 1.0); a trace that a
    /// client began keeps its mark.
    #[arg(id = "GRID_TRACE_SAMPLE", long = "trace-sample", value_name = "SHARE")]
    #[arg(default_value = "1.0", value_parser = rules::share)]
    pub trace_sample: f64,

    /// Collector that is sent a span for each sampled request, as OTLP over HTTP; by default none.
    #[arg(id = "GRID_OTLP_ENDPOINT", long = "otlp-endpoint", value_name = "URL")]
    #[arg(value_parser = rules::otlp_endpoint)]
    pub otlp_endpoint: Option<String>,
}

/// How the lines of the access log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// There are none.
    Off,
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Observe {
    /// Makes paths absolute.
    pub(super) fn complete(&mut self, cwd: &Path) {
        self.access_log_file = self.access_log_file.take().map(|file| absolute(cwd, &file));
    }

    /// Rules that take more than one setting, or the file system.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Some(file) = &self.access_log_file else { return Ok(()) };
        let shown = file.display();
        let refuse = |why: &str| {
            Err(ConfigError::new(format!("GRID_ACCESS_LOG_FILE is \"{shown}\": {why}")))
        };
        if self.access_log == AccessLog::Off {
            return refuse("there is no access log: set GRID_ACCESS_LOG to text or json as well");
        }
        if file.is_dir() {
            return refuse("is a directory");
        }
        if !file.parent().is_some_and(Path::is_dir) {
            return refuse("its directory does not exist");
        }
        Ok(())
    }
}
