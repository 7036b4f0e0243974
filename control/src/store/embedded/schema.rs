//! How `grid.redb` is opened, and the one way from redb's errors to ours.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    Database, DatabaseError, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};

use super::{disk::Disk, migration, tables::definition};
use crate::{
    error::{Error, Result},
    name::InstanceId,
    store::{
        Listing,
        tables::{Fault, SCHEMA, Table, UNFINISHED},
    },
};

/// What is known of the file itself.
pub(super) const META: TableDefinition<&str, &str> = TableDefinition::new("meta");

const OPEN: &str = "open";

/// A file that is ready for use.
pub(super) struct Opened {
    pub(super) disk: Arc<Disk>,
    pub(super) database: Database,
    pub(super) instance: InstanceId,
    pub(super) listings: Vec<Listing>,
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
    redb::SetDurabilityError
);

/// Where the file is.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join("grid.redb")
}

/// Opens the file, makes what is missing in it and reads what memory copies. With an id that the file
/// is to have, it gets that one when there is nothing else in it.
pub(super) fn open(dir: &Path, adopt: Option<&InstanceId>) -> Result<Opened> {
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
    prepare(Arc::clone(&disk), database, dir, adopt).map_err(|fault| {
        let fault = match (fault, disk.take_failure()) {
            (Fault::Broken(_), Some(failure)) => Fault::Broken(failure),
            (fault, _) => fault,
        };
        fault.during(OPEN)
    })
}

fn prepare(
    disk: Arc<Disk>,
    database: Database,
    dir: &Path,
    adopt: Option<&InstanceId>,
) -> Result<Opened, Fault> {
    let mut transaction = database.begin_write()?;
    let schema = transaction.open_table(META)?.get("schema")?.map(|text| text.value().to_owned());
    if let Some(text) = schema {
        transaction = migration::run(transaction, check_schema(&text, dir)?)?;
    }
    // A read transaction cannot open a table that was never made.
    for table in Table::ALL {
        transaction.open_table(definition(table))?;
    }
    let instance = {
        let mut meta = transaction.open_table(META)?;
        meta.insert("schema", SCHEMA.to_string().as_str())?;
        let known = meta.get("instance")?.map(|text| InstanceId::parse(text.value()));
        let known = known.transpose();
        let known = known.map_err(|error| Fault::Broken(format!("instance id: {error}")))?;
        let other = known.is_some() && adopt.is_some() && known.as_ref() != adopt;
        if other && !is_to_be_filled(&transaction)? {
            return Err(Fault::Broken(format!(
                "the data directory {} has services, tokens or an audit log of its own: use another \
                 GRID_DATA_DIR",
                dir.display()
            )));
        }
        let instance = adopt.cloned().or(known).unwrap_or_else(InstanceId::random);
        meta.insert("instance", instance.as_str())?;
        instance
    };
    let listings = listings(&transaction)?;
    transaction.commit()?;
    Ok(Opened { disk, database, instance, listings })
}

/// What memory copies of every service.
pub(super) fn listings(transaction: &WriteTransaction) -> Result<Vec<Listing>, Fault> {
    let mut listings = Vec::new();
    for entry in transaction.open_table(definition(Table::Listings))?.iter()? {
        listings.push(serde_json::from_slice(entry?.1.value())?);
    }
    Ok(listings)
}

/// Whether there is nothing in it, or nothing that was finished.
fn is_to_be_filled(transaction: &WriteTransaction) -> Result<bool, Fault> {
    if transaction.open_table(definition(Table::Counters))?.get(UNFINISHED)?.is_some() {
        return Ok(true);
    }
    for table in Table::ALL {
        if !transaction.open_table(definition(table))?.is_empty()? {
            return Ok(false);
        }
    }
    Ok(true)
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

    fn reason(error: Error) -> String {
        match error {
            Error::Store { reason, .. } => reason,
            other => panic!("not a store error: {other}"),
        }
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = open(dir.path(), None).expect("opens");
        let second = open(dir.path(), None).err().expect("refused");
        assert!(reason(second).contains("is used by another Grid"));
        drop(first);
        assert!(open(dir.path(), None).is_ok());
    }

    #[test]
    fn the_instance_id_stays() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = open(dir.path(), None).expect("opens").instance;
        assert_eq!(open(dir.path(), None).expect("opens").instance, first);
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let opened = open(dir.path(), None).expect("opens");
        let transaction = opened.database.begin_write().expect("begins");
        transaction.open_table(META).expect("opens").insert("schema", "4").expect("inserts");
        transaction.commit().expect("commits");
        drop(opened);
        let error = open(dir.path(), None).err().expect("refused");
        assert!(reason(error).contains("was written by a newer Grid (schema 4"));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("grid.redb"), b"not a database").expect("writes");
        let error = open(dir.path(), None).err().expect("refused");
        assert!(reason(error).contains("grid.redb"));
    }

    #[test]
    fn only_the_owner_reads_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("temporary directory");
        let _opened = open(dir.path(), None).expect("opens");
        let file = fs::metadata(dir.path().join("grid.redb")).expect("is there");
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
}
