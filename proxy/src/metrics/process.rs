//! What every Prometheus client says of its process, under the usual names.

use std::fmt;

use procfs::{
    ProcResult, WithCurrentSystemInfo,
    process::{LimitValue, Process},
};

use super::collect::{NONE, Out};

struct Usage {
    cpu_seconds: f64,
    start_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    open_fds: u64,
    max_fds: Option<u64>,
}

/// Writes them; nothing when the kernel does not tell.
pub(super) fn encode(out: &mut Out<'_>) -> fmt::Result {
    let usage = match Usage::read() {
        Ok(usage) => usage,
        Err(error) => {
            tracing::debug!(%error, "/proc/self cannot be read");
            return Ok(());
        }
    };
    let seconds = [(NONE, usage.cpu_seconds)];
    out.counters("process_cpu_seconds", "CPU time, user and system", seconds)?;
    let started = [(NONE, usage.start_seconds)];
    out.gauges("process_start_time_seconds", "When the process began, Unix time", started)?;
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory", Some(usage.resident_bytes)),
        ("process_virtual_memory_bytes", "Virtual memory", Some(usage.virtual_bytes)),
        ("process_threads", "Threads", Some(usage.threads)),
        ("process_open_fds", "Open file descriptors", Some(usage.open_fds)),
        ("process_max_fds", "File descriptors that may be open", usage.max_fds),
    ] {
        out.gauges(name, help, value.map(|value| (NONE, value)))?;
    }
    Ok(())
}

impl Usage {
    fn read() -> ProcResult<Self> {
        let own = Process::myself()?;
        let stat = own.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        let max_fds = match own.limits()?.max_open_files.soft_limit {
            LimitValue::Value(most) => Some(most),
            LimitValue::Unlimited => None,
        };
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            start_seconds: procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks,
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            threads: u64::try_from(stat.num_threads).unwrap_or(0),
            open_fds: own.fd_count()? as u64,
            max_fds,
        })
    }
}
