//! One process replaces another and no request fails.
//!
//! The store has one owner, and a replica's connection belongs to the process that accepted it; so
//! this is a relay, in which the old process serves the public until the new one can:
//!
//! ```text
//!   old                                new
//!   SIGUSR2: starts it, with the ──→   reads settings, loads runtimes
//!   listeners and a channel
//!   ends its control plane,      ←──   give
//!   closes the store
//!   take                         ──→   opens the store, finds the replicas, accepts
//!   accepts no more, gives up    ←──   serving
//!   each replica when it is free ──→   its runner dials the new one
//!   passes on what still comes   ──→   answers it at its hatch
//!   ends when nothing runs
//! ```
//!
//! One that fails before `take` changes nothing. After that the old one starts its own program again,
//! in the same way, so that a program that once ran is what runs.

pub(crate) mod hatch;
mod message;
pub(crate) mod predecessor;
pub(crate) mod successor;

use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use control::config::{Config, Role};
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{getsockopt, sockopt::PeerCredentials},
    },
    unistd::Pid,
};

/// How long a new process may take from its start to `give`, without the store.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long one that has the store may take until it serves.
const SERVING_WITHIN: Duration = Duration::from_secs(60);
/// How long `grid upgrade` waits, with a second try and all that ends before.
const UPGRADE_WITHIN: Duration = Duration::from_secs(200);
/// Pause between two looks at what became of it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The files of a data directory by which processes of one role find each other.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) data_dir: PathBuf,
    role: Role,
}

impl Place {
    /// Those of a role in a data directory.
    pub(crate) fn of(data_dir: &Path, role: Role) -> Self {
        Self { data_dir: data_dir.to_owned(), role }
    }

    /// `grid.<kind>`, or `grid-<role>.<kind>` for a part of it.
    fn file(&self, kind: &str) -> PathBuf {
        self.data_dir.join(match self.role {
            Role::All => format!("grid.{kind}"),
            role => format!("grid-{}.{kind}", role.as_str()),
        })
    }

    /// The process that serves, as its number.
    fn pid(&self) -> PathBuf {
        self.file("pid")
    }

    /// Where it answers what its predecessor passes on.
    pub(crate) fn hatch(&self) -> PathBuf {
        self.file("sock")
    }

    /// Why the last upgrade failed.
    fn failure(&self) -> PathBuf {
        self.file("failed")
    }

    /// Says which process serves.
    pub(crate) fn claim(&self) -> io::Result<()> {
        self.put(&self.pid(), &std::process::id().to_string())
    }

    /// Removes what says that this process serves, unless another one does by now.
    pub(crate) fn leave(&self) {
        if self.named() == Some(std::process::id()) {
            for path in [self.pid(), self.hatch()] {
                let _ = std::fs::remove_file(path); // the next start replaces it
            }
        }
    }

    /// Leaves a note for whoever asked for an upgrade.
    fn note_failure(&self, reason: &str) {
        if let Err(error) = self.put(&self.failure(), reason) {
            tracing::warn!(%error, "why the upgrade failed was not noted");
        }
    }

    /// Never seen half written.
    fn put(&self, path: &Path, line: &str) -> io::Result<()> {
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, format!("{line}\n"))?;
        std::fs::rename(fresh, path)
    }

    fn named(&self) -> Option<u32> {
        std::fs::read_to_string(self.pid()).ok()?.trim().parse().ok()
    }

    /// The process that serves, if one does: the one that is named and that listens at the hatch. A
    /// number alone may be somebody else's by now.
    fn serving(&self) -> Option<Pid> {
        let stream = UnixStream::connect(self.hatch()).ok()?;
        let listens = getsockopt(&stream, PeerCredentials).ok()?.pid();
        let named = i32::try_from(self.named()?).ok()?;
        (listens == named).then_some(Pid::from_raw(listens))
    }
}

/// `grid upgrade`: has the running Grid replaced, and says what happened.
pub(crate) fn ask(config: &Config) -> Result<String, Box<dyn std::error::Error>> {
    let place = Place::of(&config.data_dir, config.role);
    let data_dir = config.data_dir.display();
    let old = place.serving().ok_or_else(|| {
        let role = match config.role {
            Role::All => String::new(),
            role => format!(" and the role {}", role.as_str()),
        };
        format!("no Grid serves with the data directory {data_dir}{role}: start one with grid serve, or name its directory with --data-dir and its role with --role")
    })?;
    let failure = place.failure();
    match std::fs::remove_file(&failure) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(format!(
                "remove {}: {e}; run this as the user that runs Grid",
                failure.display()
            )
            .into());
        }
        _ => {}
    }
    kill(old, Signal::SIGUSR2).map_err(|e| {
        format!("process {old} cannot be told to upgrade: {e}; run this as the user that runs it")
    })?;
    let until = Instant::now() + UPGRADE_WITHIN;
    while Instant::now() < until {
        if let Ok(reason) = std::fs::read_to_string(&failure) {
            return Err(format!("nothing was replaced: {}", reason.trim()).into());
        }
        match place.serving() {
            Some(new) if new != old => {
                return Ok(format!(
                    "Process {new} serves now; process {old} ends when its last requests have."
                ));
            }
            _ => thread::sleep(LOOK_EVERY),
        }
    }
    let seconds = UPGRADE_WITHIN.as_secs();
    Err(format!(
        "process {old} was not replaced within {seconds} s; its log says what it waits for"
    )
    .into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn who_serves_is_named_and_listens() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Place::of(dir.path(), Role::All);
        assert_eq!(place.serving(), None);
        place.claim().expect("writes");
        assert_eq!(place.serving(), None, "a number alone is nobody");
        let hatch = UnixListener::bind(place.hatch()).expect("binds");
        assert_eq!(place.serving(), Some(Pid::this()));
        place.put(&place.pid(), "1").expect("writes");
        assert_eq!(place.serving(), None, "another one listens");
        place.leave();
        assert!(place.hatch().exists(), "it is another's");
        place.claim().expect("writes");
        drop(hatch);
        place.leave();
        assert!(!place.hatch().exists() && !place.pid().exists());
    }
}
