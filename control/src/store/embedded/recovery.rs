//! What happens when the file fails: it is opened anew, memory is made equal to what it holds, and a
//! task tries until it can be written again.

use std::sync::{Arc, Weak};

use redb::Database;
use tokio::{runtime::Handle, task::spawn_blocking};

use super::{Shared, file::RETRY, schema};
use crate::store::tables::Fault;

impl Shared {
    /// Refuses while it is known that nothing can be written: a write that is tried would cost a
    /// database that is opened anew, and readers would wait for that.
    pub(super) fn check_writable(self: &Arc<Self>) -> Result<(), Fault> {
        let Some(refusal) = self.file.refusal() else { return Ok(()) };
        let mut keeper = self.keeper.lock();
        // Its runtime may have ended before the store.
        if keeper.as_ref().is_some_and(|keeper| keeper.is_finished()) {
            *keeper = Some(Handle::current().spawn(keep_trying(Arc::downgrade(self))));
        }
        Err(refusal)
    }

    /// Puts things right after a transaction whose file failed, and says what failed.
    pub(super) fn recover<T>(self: &Arc<Self>, outcome: Result<T, Fault>) -> Result<T, Fault> {
        if self.file.recover(&|database| self.reload(database)) {
            let keeper = Handle::current().spawn(keep_trying(Arc::downgrade(self)));
            *self.keeper.lock() = Some(keeper);
        }
        match outcome {
            // redb's own words may be no more than that there was an earlier error.
            Err(Fault::Broken(reason)) => Err(self.file.refusal().unwrap_or(Fault::Broken(reason))),
            outcome => outcome,
        }
    }

    /// Makes memory equal to what the database holds: it may lack what was not synced, and may have
    /// what failed while it was synced.
    fn reload(&self, database: &Database) -> Result<(), Fault> {
        let transaction = database.begin_write()?;
        let listings = schema::listings(&transaction)?;
        transaction.abort()?;
        let changed = self.memory.lock().relist(listings);
        for service in changed {
            self.hint(service);
        }
        Ok(())
    }
}

/// Ends when the file can be written again, is given up, or nobody has the store any more.
async fn keep_trying(shared: Weak<Shared>) {
    loop {
        let Some(known) = shared.upgrade() else { return };
        let turn = Arc::clone(&known.turn).lock_owned().await;
        let attempt = spawn_blocking(move || {
            let _turn = turn;
            known.file.mend(&|database| known.reload(database))
        });
        match attempt.await {
            Ok(true) => return,
            Ok(false) => {}
            Err(stopped) => tracing::error!(%stopped, "the store's file could not be looked after"),
        }
        tokio::time::sleep(RETRY).await;
    }
}
