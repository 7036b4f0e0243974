//! All that a store keeps, entry by entry: what a backup has in it, and how a store is filled with it.
//!
//! A store that is being filled is marked until everything is in it. Whoever finds the mark takes what
//! is there for nothing, so that an interrupted filling can be repeated, with the same or with something
//! else.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use tokio::{sync::mpsc, task::JoinHandle};

use super::tables::{Backend, Effect, Fault, Reads, Survival, Table, Tables, UNFINISHED};
use crate::{
    error::{Error, Result},
    limits,
    name::InstanceId,
};

/// Entries and bytes of one portion; one entry that is larger makes a portion of its own.
const PORTION: (usize, usize) = (500, 256 * 1024);
/// Portions that wait for whoever reads them.
const WAITING: usize = 4;

/// One entry, as every store keeps it: `{"table": "names", "key": "…", "value": "…"}` with key and value
/// in base64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    table: Table,
    #[serde(serialize_with = "in_base64", deserialize_with = "of_base64")]
    key: Vec<u8>,
    #[serde(serialize_with = "in_base64", deserialize_with = "of_base64")]
    value: Vec<u8>,
}

/// Everything that is kept.
#[async_trait]
pub trait Contents: Send + Sync + 'static {
    /// Whose containers are ours.
    fn instance(&self) -> &InstanceId;

    /// Begins to read all entries, as they are at one moment. A store in a Redis takes no changes until
    /// they have been read.
    ///
    /// # Errors
    /// `Busy` when somebody does already.
    async fn export(&self) -> Result<Export>;
}

/// All entries of a store, as far as they have not been read yet.
#[derive(Debug)]
pub struct Export {
    portions: mpsc::Receiver<Vec<Record>>,
    /// None when it was told how it ended.
    task: Option<JoinHandle<Result<()>>>,
}

impl Export {
    /// The next few entries; none when there were all. Whoever does not ask for
    /// [`limits::EXPORT_PATIENCE`] gets no more.
    ///
    /// # Errors
    /// The store's; what was read is worth nothing then.
    pub async fn next(&mut self) -> Option<Result<Vec<Record>>> {
        if let Some(portion) = self.portions.recv().await {
            return Some(Ok(portion));
        }
        match self.task.take()?.await {
            Ok(outcome) => outcome.err().map(Err),
            Err(stopped) => {
                Some(Err(Error::Store { operation: "export", reason: stopped.to_string() }))
            }
        }
    }
}

/// Where a store puts the entries of an export.
#[derive(Debug)]
pub(super) struct Sink {
    portions: mpsc::Sender<Vec<Record>>,
    portion: Vec<Record>,
    bytes: usize,
}

impl Sink {
    pub(super) async fn put(
        &mut self,
        table: Table,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> Result<(), Fault> {
        self.bytes += key.len() + value.len();
        self.portion.push(Record { table, key, value });
        if self.portion.len() >= PORTION.0 || self.bytes >= PORTION.1 {
            self.flush().await?;
        }
        Ok(())
    }

    /// Sends what there is.
    pub(super) async fn flush(&mut self) -> Result<(), Fault> {
        self.bytes = 0;
        let portion = std::mem::take(&mut self.portion);
        let sent = self.portions.send_timeout(portion, limits::EXPORT_PATIENCE).await;
        sent.map_err(|_| Fault::Broken("whoever reads it is gone, or too slow".to_owned()))
    }
}

#[async_trait]
impl<B: Backend> Contents for B {
    fn instance(&self) -> &InstanceId {
        Backend::instance(self)
    }

    async fn export(&self) -> Result<Export> {
        let alone = self.exporting().try_lock_owned().map_err(|_| {
            Error::Busy("A backup is being read already. Try again when that is done.".to_owned())
        })?;
        let (sender, portions) = mpsc::channel(WAITING);
        let sink = Sink { portions: sender, portion: Vec::new(), bytes: 0 };
        let store = self.clone();
        let task = tokio::spawn(async move {
            let _alone = alone;
            Backend::export(&store, sink).await
        });
        Ok(Export { portions, task: Some(task) })
    }
}

/// Whether a store is being filled, or was and did not come to the end.
pub(super) async fn is_unfinished(store: &impl Backend) -> Result<bool> {
    let mark = store.read("look for a mark", |tables| {
        Box::pin(async move { tables.get(Table::Counters, UNFINISHED).await })
    });
    Ok(mark.await?.is_some())
}

/// Begins to fill a store.
///
/// # Errors
/// `Conflict` when there is something in it.
pub(super) async fn begin(store: &impl Backend) -> Result<()> {
    if is_unfinished(store).await? {
        return clear(store).await;
    }
    if store.entries().await? > 0 {
        return Err(Error::Conflict {
            field: None,
            message: "it has services, tokens or an audit log already".to_owned(),
        });
    }
    let marked = store.write("begin to fill", Survival::Crash, |tables| {
        Box::pin(async move {
            // Also what makes it fail when somebody else writes at the same time.
            tables.get(Table::Counters, UNFINISHED).await?;
            tables.put(Table::Counters, UNFINISHED, Vec::new()).await?;
            Ok(((), Effect::Kept))
        })
    });
    marked.await
}

/// Adds entries to a store that is being filled.
pub(super) async fn fill(store: &impl Backend, records: Vec<Record>) -> Result<()> {
    let records = Arc::new(records);
    let filled = store.write("fill", Survival::Crash, move |tables| {
        let records = Arc::clone(&records);
        Box::pin(async move {
            expect_mark(tables).await?;
            for Record { table, key, value } in records.iter() {
                tables.put(*table, key, value.clone()).await?;
            }
            Ok(((), Effect::Kept))
        })
    });
    filled.await
}

/// Ends to fill a store with so many entries.
///
/// # Errors
/// `Store` when it has not as many; it stays marked then.
pub(super) async fn end(store: &impl Backend, expected: u64) -> Result<()> {
    let entries = store.entries().await?.saturating_sub(1); // the mark
    if entries != expected {
        return Err(Error::Store {
            operation: "fill",
            reason: format!("{entries} of {expected} entries are there: try again"),
        });
    }
    let ended = store.write("end to fill", Survival::Crash, |tables| {
        Box::pin(async move {
            expect_mark(tables).await?;
            tables.remove(Table::Counters, UNFINISHED).await?;
            Ok(((), Effect::Kept))
        })
    });
    ended.await
}

async fn expect_mark(tables: &mut impl Reads) -> Result<(), Fault> {
    match tables.get(Table::Counters, UNFINISHED).await? {
        Some(_) => Ok(()),
        None => Err(Fault::Broken("somebody else has filled it".to_owned())),
    }
}

/// Removes what an interrupted filling left.
async fn clear(store: &impl Backend) -> Result<()> {
    let mut export = Contents::export(store).await?;
    let mut keys = Vec::new();
    while let Some(records) = export.next().await {
        let found = records?.into_iter().map(|record| (record.table, record.key));
        keys.extend(found.filter(|found| *found != (Table::Counters, UNFINISHED.to_vec())));
    }
    for keys in keys.chunks(PORTION.0) {
        let keys: Arc<[_]> = keys.into();
        let removed = store.write("clear", Survival::Crash, move |tables| {
            let keys = Arc::clone(&keys);
            Box::pin(async move {
                expect_mark(tables).await?;
                for (table, key) in keys.iter() {
                    tables.remove(*table, key).await?;
                }
                Ok(((), Effect::Kept))
            })
        });
        removed.await?;
    }
    Ok(())
}

fn in_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn of_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(|_| D::Error::custom("is not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_called_the_same_in_stores_and_in_backups() {
        for table in Table::ALL {
            let written = serde_json::to_string(&table).expect("writes");
            assert_eq!(written, format!("\"{}\"", table.name()));
        }
    }
}
