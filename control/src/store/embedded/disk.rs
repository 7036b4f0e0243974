//! The file below redb: open and locked for as long as the store has it, whichever databases come
//! and go on it, so that no other process gets it in between. It knows what has failed.
//!
//! redb gives a database up after the first failed write, and says of every later call only that an
//! earlier one failed. What failed is noted here, where it is still known.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    ops::Bound,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use redb::{BackendError, Database, DatabaseError, StorageBackend, backends::FileBackend};

use super::scratch::Scratch;
use crate::error::{Error, Result};

/// So many bytes must fit beside the file before it is written again after a failure: some of the
/// largest changes, so that not every one of the next ones fails again.
const ROOM: usize = 4 << 20;
/// Bytes of the file that redb keeps in memory: all of it while services are few, and the inner pages
/// of its tables when they are many. What is asked for often is copied elsewhere, and the system has
/// the file in memory, too. The allocator holds half as much again for pages that come and go.
const CACHE: usize = 8 << 20;
/// Bytes that are read or written at a time.
const BLOCK: usize = 64 << 10;

/// An open and locked file.
#[derive(Debug)]
pub(super) struct Disk {
    backend: FileBackend,
    /// Where it really is, for whoever has to make room there.
    path: PathBuf,
    troubles: Mutex<Troubles>,
}

#[derive(Debug, Default)]
struct Troubles {
    /// The first failure that nobody has dealt with.
    failure: Option<String>,
    /// A sync failed: the kernel may take for written what never was.
    unsynced: bool,
}

/// What one database has of it.
#[derive(Debug)]
struct Handle(Arc<Disk>);

type BoundOf = Bound<u64>;

impl Disk {
    /// Opens the file, and makes it when it is missing. It is locked by the first database.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>> {
        // Made here rather than by redb: the functions' code is nobody else's business.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(Error::file("open", path))?;
        let path = fs::canonicalize(path).map_err(Error::file("open", path))?;
        let backend = FileBackend::new(file)
            .map_err(|error| Error::Store { operation: "open", reason: error.to_string() })?;
        Ok(Arc::new(Self { backend, path, troubles: Mutex::default() }))
    }

    /// A database on the file. There is at most one at a time.
    pub(super) fn database(self: &Arc<Self>) -> Result<Database, DatabaseError> {
        if self.troubles.lock().unsynced {
            self.note("write", self.rewrite())?;
            self.troubles.lock().unsynced = false;
        }
        Database::builder().set_cache_size(CACHE).create_with_backend(Handle(Arc::clone(self)))
    }

    /// A database that leaves the file as it is, and forgets what is written to it.
    pub(super) fn scratch(self: &Arc<Self>) -> Result<Database, DatabaseError> {
        let scratch = Scratch::new(Arc::clone(self))?;
        Database::builder().set_cache_size(CACHE).create_with_backend(scratch)
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.note("look at", self.backend.len())
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.note("read", self.backend.read(offset, out))
    }

    /// Whether something failed that nobody has dealt with.
    pub(super) fn has_failed(&self) -> bool {
        self.troubles.lock().failure.is_some()
    }

    /// What failed, for whoever deals with it now.
    pub(super) fn take_failure(&self) -> Option<String> {
        self.troubles.lock().failure.take()
    }

    /// Whether the disk takes some more: tried beside the file, which a failure would do no good.
    pub(super) fn try_room(&self) -> Result<(), String> {
        let path = self.path.with_extension("room");
        let attempt = || {
            let _ = fs::remove_file(&path); // of one that was killed between the next two lines
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            fs::remove_file(&path)?; // it goes with its last handle, whatever happens
            for _ in 0..ROOM / BLOCK {
                file.write_all(&[0; BLOCK])?;
            }
            file.sync_all()
        };
        attempt().map_err(|error| self.tell("write beside it", &error))
    }

    /// Writes what the file holds once more. After a failed sync the kernel keeps what it could not
    /// write as if it had been written: it can be read, but no later sync would bring it to the disk.
    fn rewrite(&self) -> io::Result<()> {
        let (length, mut block) = (self.backend.len()?, vec![0; BLOCK]);
        for at in (0..length).step_by(BLOCK) {
            let rest = usize::try_from(length - at).unwrap_or(BLOCK).min(BLOCK);
            self.backend.read(at, &mut block[..rest])?;
            self.backend.write(at, &block[..rest])?;
        }
        self.backend.sync_data()
    }

    /// Notes a failure on its way to redb.
    fn note<T>(&self, operation: &str, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let mut troubles = self.troubles.lock();
            troubles.failure.get_or_insert_with(|| self.tell(operation, error));
            troubles.unsynced |= operation == SYNC;
        }
        result
    }

    /// What is wrong, for the operator.
    fn tell(&self, operation: &str, error: &io::Error) -> String {
        let path = self.path.display();
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => format!(
                "the disk that holds {path} is full ({error}): nothing can be changed until there \
                 is room, and then it goes on by itself"
            ),
            _ => format!(
                "{path}: {operation}: {error}: nothing can be changed until that succeeds, which \
                 is tried again and again"
            ),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Unlocked by name: a child process may have the file for the moment until it is another
        // program.
        if let Err(error) = self.backend.close() {
            tracing::error!(path = %self.path.display(), %error, "the file was not unlocked");
        }
    }
}

const SYNC: &str = "sync";

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.note("grow", self.0.backend.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.note(SYNC, self.0.backend.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.note("write", self.0.backend.write(offset, data))
    }

    // Locks are the file's: the next database on it takes them again, and they end with the file.

    fn close(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock_range(&self, start: BoundOf, end: BoundOf) -> Result<bool, BackendError> {
        self.0.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: BoundOf, end: BoundOf) -> Result<bool, BackendError> {
        self.0.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: BoundOf, end: BoundOf) -> Result<(), BackendError> {
        self.0.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: BoundOf, end: BoundOf) -> Result<(), BackendError> {
        self.0.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: BoundOf, end: BoundOf) -> Result<(), BackendError> {
        self.0.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: BoundOf, end: BoundOf) -> Result<bool, BackendError> {
        self.0.backend.query_lock_range(start, end)
    }
}
