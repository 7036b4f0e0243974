//! The owner of the database: who works with it, and how it is opened anew after its file failed.
//!
//! ```text
//!            a transaction's I/O fails           opened again, for readers
//!   well ───────────────────────────→ failed ───────────────────────────→ ailing
//!    ↑                                                                      │ tried every second
//!    └──────────────── there is room again, and a trial commit succeeds ────┘
//! ```
//! While it ails, whoever wants to write is refused at once, with the reason. Readers then have a
//! database on the file itself; or, when not even its recovery can be written, on a scratch copy.

use std::{sync::Arc, time::Duration};

use parking_lot::{RwLock, RwLockWriteGuard};
use redb::{Database, DatabaseError, Durability};
use tokio::sync::watch;

use super::disk::Disk;
use crate::store::tables::Fault;

/// Pause between two attempts to write again.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// The file of one store.
pub(super) struct File {
    /// None when it was given up. Transactions hold it shared, so whoever has it alone knows that
    /// none is open.
    held: RwLock<Option<Held>>,
    /// Told when somebody wants it alone, for those who hold it for long.
    wanted: watch::Sender<()>,
    /// Why nothing can be written.
    problem: watch::Sender<Option<String>>,
}

struct Held {
    disk: Arc<Disk>,
    /// None while it cannot be opened, not even for reading.
    database: Option<Database>,
    /// What is written to the database does not reach the file.
    scratch: bool,
}

/// Makes the copy in memory equal to what a database holds.
pub(super) type Reload<'a> = &'a dyn Fn(&Database) -> Result<(), Fault>;

impl File {
    pub(super) fn new(disk: Arc<Disk>, database: Database) -> Self {
        let held = RwLock::new(Some(Held { disk, database: Some(database), scratch: false }));
        Self { held, wanted: watch::Sender::new(()), problem: watch::Sender::new(None) }
    }

    /// Why nothing can be written, as long as that is so.
    pub(super) fn problem(&self) -> watch::Receiver<Option<String>> {
        self.problem.subscribe()
    }

    /// Changes when somebody waits for those who work with the database.
    pub(super) fn wanted(&self) -> watch::Receiver<()> {
        self.wanted.subscribe()
    }

    /// Waits until nobody works with the database.
    fn alone(&self) -> RwLockWriteGuard<'_, Option<Held>> {
        self.wanted.send_replace(());
        self.held.write()
    }

    /// Lets somebody work with the database.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let held = self.held.read();
        match held.as_ref().ok_or_else(handed_over)?.database.as_ref() {
            Some(database) => work(database),
            None => Err(Fault::Broken(self.problem.borrow().clone().unwrap_or_default())),
        }
    }

    /// Gives the file up, when nobody is in a transaction any more.
    pub(super) fn close(&self) {
        drop(self.alone().take());
    }

    /// What whoever wants to write is told while it ails.
    pub(super) fn refusal(&self) -> Option<Fault> {
        // Not that it ails: whoever knows that it is closed asks somebody else.
        if self.held.read().is_none() {
            return Some(handed_over());
        }
        self.problem.borrow().clone().map(Fault::Broken)
    }

    /// Opens the database anew when its file has failed, after the transactions that run. Tells
    /// whether that is the beginning of a problem.
    pub(super) fn recover(&self, reload: Reload<'_>) -> bool {
        let failed = |held: &Held| held.disk.has_failed();
        if !self.held.read().as_ref().is_some_and(failed) {
            return false;
        }
        let mut held = self.alone();
        let Some(held) = held.as_mut() else { return false };
        let Some(failure) = held.disk.take_failure() else { return false };
        tracing::warn!(%failure, "the store's file is opened anew");
        let begins = self.problem.send_replace(Some(failure)).is_none();
        self.reopen(held, reload);
        begins
    }

    /// Tries whether it can be written again. True when there is nothing left to try.
    pub(super) fn mend(&self, reload: Reload<'_>) -> bool {
        let Some(disk) = self.held.read().as_ref().map(|held| Arc::clone(&held.disk)) else {
            return true;
        };
        if self.problem.borrow().is_none() {
            return true;
        }
        if let Err(reason) = disk.try_room() {
            self.set_problem(reason);
            return false;
        }
        let mut guard = self.alone();
        let Some(held) = guard.as_mut() else { return true };
        if (held.database.is_none() || held.scratch) && !self.reopen(held, reload) {
            return false;
        }
        let trial = held.database.as_ref().map_or(Ok(()), |database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            Ok::<_, Fault>(transaction.commit()?)
        });
        if let Err(fault) = trial {
            self.set_problem(held.disk.take_failure().unwrap_or_else(|| fault.into_reason()));
            self.reopen(held, reload);
            return false;
        }
        tracing::info!("the store can be written again");
        self.problem.send_replace(None);
        true
    }

    /// A new database in the place of the one that failed, whose file stays locked meanwhile; one for
    /// readers when the file cannot be written at all. True when it can be.
    fn reopen(&self, held: &mut Held, reload: Reload<'_>) -> bool {
        held.database = None;
        let ready = |opened: Result<Database, DatabaseError>| {
            let database = opened.map_err(|error| Fault::Broken(error.to_string()))?;
            reload(&database).map(|()| database)
        };
        held.scratch = false;
        if let Err(fault) = ready(held.disk.database()).map(|new| held.database = Some(new)) {
            let failure = held.disk.take_failure().unwrap_or_else(|| fault.into_reason());
            tracing::warn!(%failure, "the store's file can only be read");
            self.set_problem(failure);
            held.scratch = true;
            if let Err(fault) = ready(held.disk.scratch()).map(|new| held.database = Some(new)) {
                let failure = held.disk.take_failure().unwrap_or_else(|| fault.into_reason());
                tracing::error!(%failure, "the store's file cannot even be read");
            }
        }
        !held.scratch
    }

    fn set_problem(&self, reason: String) {
        let reason = Some(reason);
        self.problem.send_if_modified(|problem| {
            let news = *problem != reason;
            *problem = reason;
            news
        });
    }
}

fn handed_over() -> Fault {
    Fault::Broken(
        "this process has handed it over to the one that replaces it; ask again".to_owned(),
    )
}
