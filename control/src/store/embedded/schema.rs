//! The tables of `grid.redb`, how the file is opened, and the one way from redb's errors to ours.
//!
//! Code and logs have tables of their own, so that a scan over records reads neither.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, DatabaseError, ReadableTable, TableDefinition, WriteTransaction};

use super::{accounts, disk::Disk, services};
use crate::{
    account::AccessToken,
    error::{Error, Result},
    name::{InstanceId, UserName},
    store::Listing,
};

/// Service id → (its place in `SERVICE_ORDER`, JSON without code).
pub(super) const SERVICES: TableDefinition<&[u8; 16], (u64, &[u8])> =
    TableDefinition::new("services");
/// Service id → code.
pub(super) const SERVICE_CODE: TableDefinition<&[u8; 16], &str> =
    TableDefinition::new("service_code");
/// Counts up with each creation → service id.
pub(super) const SERVICE_ORDER: TableDefinition<u64, &[u8; 16]> =
    TableDefinition::new("service_order");
/// `owner NUL service name` → service id.
pub(super) const NAMES: TableDefinition<&str, &[u8; 16]> = TableDefinition::new("names");
/// `domain NUL function name` → service id.
pub(super) const ROUTES: TableDefinition<&str, &[u8; 16]> = TableDefinition::new("routes");
/// Service id and deployment id → JSON without code and log.
pub(super) const DEPLOYMENTS: TableDefinition<&[u8; 32], &[u8]> =
    TableDefinition::new("deployments");
/// Service id and deployment id → code.
pub(super) const DEPLOYMENT_CODE: TableDefinition<&[u8; 32], &str> =
    TableDefinition::new("deployment_code");
/// Service id and deployment id → JSON of the log's lines.
pub(super) const DEPLOYMENT_LOGS: TableDefinition<&[u8; 32], &[u8]> =
    TableDefinition::new("deployment_logs");
/// `owner NUL key` → JSON of what an attempt to create a service made.
pub(super) const ATTEMPTS: TableDefinition<&str, &[u8]> = TableDefinition::new("attempts");
/// Counts up with each attempt → its key in `ATTEMPTS`.
pub(super) const ATTEMPT_ORDER: TableDefinition<u64, &str> = TableDefinition::new("attempt_order");
/// Token id → JSON, with the token's digest.
pub(super) const TOKENS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("tokens");
/// Entry's id → JSON.
pub(super) const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");
/// (whom or what an entry concerns, see `accounts`, entry's id), to find those of a user or service.
pub(super) const AUDIT_OF: TableDefinition<(&str, u64), ()> = TableDefinition::new("audit_of");
/// What is known of the file itself.
const META: TableDefinition<&str, &str> = TableDefinition::new("meta");

/// The version of all of the above. A change that an older Grid would misread counts it up.
const SCHEMA: u32 = 2;
const OPEN: &str = "open";

/// A file that is ready for use.
pub(super) struct Opened {
    pub(super) disk: Arc<Disk>,
    pub(super) database: Database,
    pub(super) instance: InstanceId,
    pub(super) listings: Vec<Listing>,
    pub(super) tokens: Vec<AccessToken>,
}

/// Why a transaction did not come to its end.
pub(super) enum Fault {
    /// The verb has an answer for the caller.
    Refused(Error),
    /// redb, or what it holds, failed.
    Broken(String),
}

impl Fault {
    pub(super) fn during(self, operation: &'static str) -> Error {
        match self {
            Fault::Refused(error) => error,
            Fault::Broken(reason) => Error::Store { operation, reason },
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Refused(error)
    }
}

macro_rules! broken {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Fault::Broken(error.to_string())
            }
        }
    )*};
}
broken!(
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError,
    serde_json::Error
);

/// Where the file is.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join("grid.redb")
}

/// Opens the file, makes what is missing in it and reads what memory copies.
pub(super) fn open(dir: &Path) -> Result<Opened> {
    fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    let path = file(dir);
    let disk = Disk::open(&path)?;
    let sync_dir = fs::File::open(dir).and_then(|dir| dir.sync_all());
    sync_dir.map_err(Error::file("sync", dir))?;

    let database = disk.database().map_err(|error| Error::Store {
        operation: OPEN,
        reason: match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                format!(
                    "the data directory {} is used by another Grid; stop that one, or set GRID_DATA_DIR to another directory",
                    dir.display()
                )
            }
            other => disk.take_failure().unwrap_or_else(|| format!("{}: {other}", path.display())),
        },
    })?;
    prepare(Arc::clone(&disk), database, dir).map_err(|fault| {
        let fault = match (fault, disk.take_failure()) {
            (Fault::Broken(_), Some(failure)) => Fault::Broken(failure),
            (fault, _) => fault,
        };
        fault.during(OPEN)
    })
}

fn prepare(disk: Arc<Disk>, database: Database, dir: &Path) -> Result<Opened, Fault> {
    let transaction = database.begin_write()?;
    let instance = {
        let mut meta = transaction.open_table(META)?;
        let schema = meta.get("schema")?.map(|text| text.value().to_owned());
        match schema {
            None => {}
            Some(text) => migrate(&transaction, check_schema(&text, dir)?)?,
        }
        meta.insert("schema", SCHEMA.to_string().as_str())?;
        let known = meta.get("instance")?.map(|text| InstanceId::parse(text.value()));
        match known {
            Some(Ok(instance)) => instance,
            Some(Err(error)) => return Err(Fault::Broken(format!("instance id: {error}"))),
            None => {
                let instance = InstanceId::random();
                meta.insert("instance", instance.as_str())?;
                instance
            }
        }
    };
    // A read transaction cannot open a table that was never made.
    transaction.open_table(SERVICE_CODE)?;
    transaction.open_table(SERVICE_ORDER)?;
    transaction.open_table(NAMES)?;
    transaction.open_table(ROUTES)?;
    transaction.open_table(DEPLOYMENTS)?;
    transaction.open_table(DEPLOYMENT_CODE)?;
    transaction.open_table(DEPLOYMENT_LOGS)?;
    transaction.open_table(TOKENS)?;
    transaction.open_table(AUDIT)?;
    transaction.open_table(AUDIT_OF)?;
    let listings = services::listings(&transaction)?;
    let tokens = accounts::tokens(&transaction)?;
    transaction.commit()?;
    Ok(Opened { disk, database, instance, listings, tokens })
}

/// Brings a file of an earlier schema to this one. It is part of the transaction that opens the
/// file: a crash leaves the old one.
fn migrate(transaction: &WriteTransaction, from: u32) -> Result<(), Fault> {
    if from < 2 {
        // Names became their owners'; what there was is the operator's.
        let mut names = transaction.open_table(NAMES)?;
        let mut before = Vec::new();
        for entry in names.iter()? {
            let (name, id) = entry?;
            before.push((name.value().to_owned(), *id.value()));
        }
        for (name, id) in before {
            names.remove(name.as_str())?;
            names.insert(format!("{}\0{name}", UserName::operator()).as_str(), &id)?;
        }
    }
    Ok(())
}

fn check_schema(text: &str, dir: &Path) -> Result<u32, Fault> {
    let dir = dir.display();
    match text.parse::<u32>() {
        Ok(known) if (1..=SCHEMA).contains(&known) => Ok(known),
        Ok(newer) if newer > SCHEMA => Err(Fault::Broken(format!(
            "the data directory {dir} was written by a newer Grid (schema {newer}, this one knows \
             {SCHEMA}): start that Grid again, or use another GRID_DATA_DIR"
        ))),
        _ => Err(Fault::Broken(format!(
            "the data directory {dir} has the unknown schema \"{text}\""
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ServiceId;

    fn reason(error: Error) -> String {
        match error {
            Error::Store { reason, .. } => reason,
            other => panic!("not a store error: {other}"),
        }
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = open(dir.path()).expect("opens");
        let second = open(dir.path()).err().expect("refused");
        assert!(reason(second).contains("is used by another Grid"));
        drop(first);
        assert!(open(dir.path()).is_ok());
    }

    #[test]
    fn the_instance_id_stays() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = open(dir.path()).expect("opens").instance;
        assert_eq!(open(dir.path()).expect("opens").instance, first);
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let opened = open(dir.path()).expect("opens");
        let transaction = opened.database.begin_write().expect("begins");
        transaction.open_table(META).expect("opens").insert("schema", "3").expect("inserts");
        transaction.commit().expect("commits");
        drop(opened);
        let error = open(dir.path()).err().expect("refused");
        assert!(reason(error).contains("was written by a newer Grid (schema 3"));
    }

    #[test]
    fn names_of_the_first_schema_become_the_operators() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let opened = open(dir.path()).expect("opens");
        let id = ServiceId::new();
        let transaction = opened.database.begin_write().expect("begins");
        transaction.open_table(META).expect("opens").insert("schema", "1").expect("inserts");
        let mut names = transaction.open_table(NAMES).expect("opens");
        names.insert("hello", id.as_bytes()).expect("inserts");
        drop(names);
        transaction.commit().expect("commits");
        drop(opened);
        for _ in 0..2 {
            let opened = open(dir.path()).expect("migrates, once");
            let transaction = opened.database.begin_write().expect("begins");
            let names = transaction.open_table(NAMES).expect("opens");
            let keys: Vec<_> = names.iter().expect("reads").map(|e| e.expect("one").0).collect();
            assert_eq!(keys.len(), 1);
            assert_eq!(keys[0].value(), "admin\0hello");
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("grid.redb"), b"not a database").expect("writes");
        let error = open(dir.path()).err().expect("refused");
        assert!(reason(error).contains("grid.redb"));
    }

    #[test]
    fn only_the_owner_reads_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("temporary directory");
        let _opened = open(dir.path()).expect("opens");
        let file = fs::metadata(dir.path().join("grid.redb")).expect("is there");
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
}
