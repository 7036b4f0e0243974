//! Who may commit: one process per data directory by a lock on a file of it, and one data directory
//! per Redis and prefix by a key that its holder keeps alive. Commits are checked against the key.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use ::redis::Script;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{
    Aborted,
    server::{FENCED, Server},
};
use crate::{
    error::{Error, Result},
    name::InstanceId,
    store::tables::Fault,
};

/// How long control is kept without a word, and how often the word is given.
const KEPT: Duration = Duration::from_secs(15);
const RENEWED_EVERY: Duration = Duration::from_secs(5);

/// KEYS: control, meta. ARGV: holder, milliseconds, instance.
static HOLD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HGET', KEYS[2], 'instance') ~= ARGV[3] then return 'emptied' end
         local holder = redis.call('GET', KEYS[1])
         if holder and holder ~= ARGV[1] then return 'fenced' end
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
         return 'held'",
    )
});

/// The lock on `<data_dir>/control`. Its text says who holds control, with which file that is: a copy of
/// the directory is another holder.
pub(super) struct Seat {
    file: File,
    pub(super) holder: String,
}

impl Seat {
    /// Takes it. Blocks, but not for the lock.
    ///
    /// # Errors
    /// `Store` when another process has it; `File`.
    pub(super) fn take(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join("control");
        let mut options = fs::OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(Error::file("open", &path))?;
        if file.try_lock().is_err() {
            return Err(Error::Store {
                operation: "take control",
                reason: format!(
                    "the data directory {} is used by another Grid; stop that one, or set \
                     GRID_DATA_DIR to another directory",
                    data_dir.display()
                ),
            });
        }
        let mut holder = String::new();
        file.read_to_string(&mut holder).map_err(Error::file("read", &path))?;
        if InstanceId::parse(holder.as_str()).is_err() {
            holder = InstanceId::random().to_string();
            let written = file.rewind().and_then(|()| file.set_len(0));
            let written = written.and_then(|()| file.write_all(holder.as_bytes()));
            written.and_then(|()| file.sync_all()).map_err(Error::file("write", &path))?;
        }
        let this = file.metadata().map_err(Error::file("read", &path))?;
        let holder = format!("{holder} {:x}:{:x}", this.dev(), this.ino());
        Ok(Self { file, holder })
    }
}

/// Control, until it is given up.
pub(super) struct Lease {
    /// The lock is the file's: it ends when this is dropped.
    held: Mutex<Option<(Seat, Aborted)>>,
}

impl Lease {
    /// Gets the key, for which it waits as long as one is kept that nobody renews, and keeps it alive.
    pub(super) async fn take(server: Arc<Server>, seat: Seat) -> Result<Self, Fault> {
        let until = Instant::now() + KEPT;
        while let Err(fault) = hold(&server).await {
            if Instant::now() >= until {
                return Err(fault);
            }
            sleep(RENEWED_EVERY / 10).await;
        }
        let keep = tokio::spawn(async move {
            loop {
                sleep(RENEWED_EVERY).await;
                if let Err(Fault::Broken(reason)) = hold(&server).await {
                    tracing::debug!(%reason, "control could not be confirmed");
                }
            }
        });
        Ok(Self { held: Mutex::new(Some((seat, Aborted(keep.abort_handle())))) })
    }

    pub(super) fn give_up(&self) {
        if let Some((seat, _)) = self.held.lock().take()
            && let Err(error) = seat.file.unlock()
        {
            tracing::error!(%error, "control was not given up in order");
        }
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.held.lock().is_none()
    }
}

async fn hold(server: &Server) -> Result<(), Fault> {
    let mut script = HOLD.prepare_invoke();
    script.key(&server.keys.control).key(&server.keys.meta);
    script.arg(&server.holder).arg(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX));
    script.arg(server.instance.as_str());
    match server.script::<String>(&script).await?.as_str() {
        "held" => Ok(()),
        "fenced" => Err(Fault::Broken(FENCED.to_owned())),
        _ => Err(server.emptied()),
    }
}
