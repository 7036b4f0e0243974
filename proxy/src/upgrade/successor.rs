//! What a process does with the one that is to replace it: starts it, gives it the store, and goes on
//! when it fails.

use std::{
    ffi::OsString,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use control::store::Opened;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

use super::{
    Place, READY_WITHIN, SERVING_WITHIN,
    message::{self, FromNew, FromOld},
    predecessor::{CHANNEL, LISTENER, NAMES},
};
use crate::{
    sockets::Sockets,
    stages::{Loss, Stages},
};

/// The first descriptor that is handed on, as systemd has it.
const FIRST: i32 = 3;
/// The program that this process runs, also when its file is gone.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// How long a process that closed its channel may take to end.
const END_WITHIN: Duration = Duration::from_secs(2);

/// How this process is replaced.
pub(crate) struct Handover {
    /// Where its program was at its start. By now another one may lie there.
    program: PathBuf,
    pub(crate) place: Place,
    sockets: Arc<Sockets>,
    stages: Arc<Stages>,
    store: Opened,
    /// The store is given up.
    given: AtomicBool,
    losses: tokio::sync::Mutex<Option<mpsc::UnboundedReceiver<Loss>>>,
}

/// What became of it.
pub(crate) enum Outcome {
    /// The new process serves.
    Replaced(Heir),
    /// This one goes on.
    Unchanged,
    /// Neither can go on.
    Lost,
}

/// The process that serves now.
pub(crate) struct Heir {
    to: OwnedWriteHalf,
    losses: Option<mpsc::UnboundedReceiver<Loss>>,
}

/// A process that is to take over.
struct Candidate {
    child: Stoppable,
    from: Lines<BufReader<OwnedReadHalf>>,
    to: OwnedWriteHalf,
}

/// Ended when this is dropped, unless it was let go.
struct Stoppable(Option<Child>);

impl Handover {
    pub(crate) fn new(
        place: Place,
        sockets: Arc<Sockets>,
        stages: Arc<Stages>,
        store: Opened,
    ) -> Self {
        Self {
            program: program(std::env::current_exe().unwrap_or_else(|_| OWN_PROGRAM.into())),
            place,
            sockets,
            stages,
            store,
            given: AtomicBool::new(false),
            losses: tokio::sync::Mutex::default(),
        }
    }

    /// Has this process replaced. Dropping it in the middle ends the new one.
    pub(crate) async fn run(&self) -> Outcome {
        tracing::info!(program = %self.program.display(), "upgrading");
        let reason = match self.hand_to(&self.program).await {
            Ok(heir) => return Outcome::Replaced(heir),
            Err(reason) => reason,
        };
        if !self.given.load(Ordering::SeqCst) {
            self.place.note_failure(&reason);
            tracing::error!("the upgrade failed, and nothing has changed: {reason}");
            return Outcome::Unchanged;
        }
        let reason = format!("{reason}; the program that ran before is started again");
        self.place.note_failure(&reason);
        tracing::error!("the upgrade failed: {reason}");
        match self.hand_to(Path::new(OWN_PROGRAM)).await {
            Ok(heir) => Outcome::Replaced(heir),
            Err(reason) => {
                tracing::error!("that failed as well: {reason}; Grid ends");
                Outcome::Lost
            }
        }
    }

    async fn hand_to(&self, program: &Path) -> Result<Heir, String> {
        if std::process::id() == 1 {
            return Err("Grid is process 1 of its container, whose end is the container's: start a container of the new version instead".to_owned());
        }
        let mut candidate = Candidate::start(program, &self.sockets)?;
        match candidate.hear(READY_WITHIN, "before it took over").await? {
            FromNew::Give { data_dir } if data_dir == self.place.data_dir => {}
            FromNew::Give { data_dir } => {
                return Err(format!(
                    "GRID_DATA_DIR of the new process is {}: an upgrade cannot change it",
                    data_dir.display()
                ));
            }
            other => return Err(format!("the new process said {other:?} instead of asking")),
        }
        self.give_up_store().await;
        candidate.say(&FromOld::Take).await?;
        match candidate.hear(SERVING_WITHIN, "after it had the store").await? {
            FromNew::Serving => {}
            other => return Err(format!("the new process said {other:?} instead of serving")),
        }
        let losses = self.losses.lock().await.take();
        Ok(candidate.succeed(losses))
    }

    /// Ends everything that writes to the store, and closes it. What the edge knows stays.
    async fn give_up_store(&self) {
        if self.given.swap(true, Ordering::SeqCst) {
            return;
        }
        self.stages.control_ends.take();
        self.stages.control_ended.taken().await;
        *self.losses.lock().await = Some(self.stages.inherit());
        self.store.close().await;
    }
}

impl Candidate {
    /// Starts a program as this process was started, with its listeners and a channel.
    fn start(program: &Path, sockets: &Sockets) -> Result<Self, String> {
        let problem = |e: &dyn std::fmt::Display| format!("start {}: {e}", program.display());
        let (own, other) = UnixStream::pair().map_err(|e| problem(&e))?;
        let other = other.into_std().and_then(|other| {
            other.set_nonblocking(false)?;
            Ok(OwnedFd::from(other))
        });
        let mut passed = sockets.share().map_err(|e| problem(&e))?;
        let names = [LISTENER].repeat(passed.len()).into_iter().chain([CHANNEL]);
        let names = names.collect::<Vec<_>>().join(":");
        passed.push(other.map_err(|e| problem(&e))?);
        let count = passed.len();
        let mappings = (FIRST..).zip(passed);
        let mappings = mappings.map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });

        let mut arguments = std::env::args_os();
        let mut command = std::process::Command::new(program);
        command
            .arg0(arguments.next().unwrap_or_else(|| OsString::from("grid")))
            .args(arguments)
            .env("LISTEN_FDS", count.to_string())
            .env(NAMES, names)
            .env_remove("LISTEN_PID") // it would have to be the number of who is to be made
            .fd_mappings(mappings.collect())
            .map_err(|e| problem(&e))?;
        let child = Command::from(command).spawn().map_err(|e| problem(&e))?;
        let (from, to) = own.into_split();
        let child = Stoppable(Some(child));
        Ok(Self { child, from: BufReader::new(from).lines(), to })
    }

    /// The next that it says; an error when it ends instead, or takes too long.
    async fn hear(&mut self, within: Duration, when: &str) -> Result<FromNew, String> {
        loop {
            let line = match timeout(within, self.from.next_line()).await {
                Ok(line) => line.unwrap_or_default(),
                Err(_) => {
                    let seconds = within.as_secs();
                    return Err(format!("the new process took more than {seconds} s {when}"));
                }
            };
            match line.as_deref().map(message::read) {
                Some(None | Some(FromNew::Unknown)) => {}
                Some(Some(FromNew::Failed { reason })) => {
                    return Err(format!("the new process says: {reason}"));
                }
                Some(Some(said)) => return Ok(said),
                None => {
                    let status =
                        self.end().await.map_or("ended".to_owned(), |s| format!("ended with {s}"));
                    return Err(format!(
                        "the new process {status} {when}; its last words are in Grid's log"
                    ));
                }
            }
        }
    }

    async fn say(&mut self, message: &FromOld) -> Result<(), String> {
        let said = self.to.write_all(message::line(message).as_bytes()).await;
        said.map_err(|e| format!("the new process does not listen: {e}"))
    }

    async fn end(&mut self) -> Option<ExitStatus> {
        let child = self.child.0.as_mut()?;
        timeout(END_WITHIN, child.wait()).await.ok()?.ok()
    }

    fn succeed(mut self, losses: Option<mpsc::UnboundedReceiver<Loss>>) -> Heir {
        self.child.0 = None; // it stays when this process ends
        Heir { to: self.to, losses }
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.start_kill(); // it may have ended
        }
    }
}

impl Heir {
    /// Tells it which replicas this process gives up, as long as there may be some.
    pub(crate) async fn tell(mut self) {
        while let Some(loss) = next(&mut self.losses).await {
            let line = message::line(&FromOld::from(loss));
            if let Err(error) = self.to.write_all(line.as_bytes()).await {
                tracing::warn!(%error, "the process that serves now has ended");
                return std::future::pending().await;
            }
        }
        std::future::pending().await
    }
}

async fn next(losses: &mut Option<mpsc::UnboundedReceiver<Loss>>) -> Option<Loss> {
    losses.as_mut()?.recv().await
}

/// Where a program lies, or lay: Linux marks a file that was removed or replaced.
fn program(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(path) => path.into(),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_where_it_was() {
        for (seen, path) in
            [("/usr/bin/grid", "/usr/bin/grid"), ("/usr/bin/grid (deleted)", "/usr/bin/grid")]
        {
            assert_eq!(program(seen.into()), Path::new(path));
        }
    }
}
