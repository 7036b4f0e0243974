//! [`crate::store::tables`] over redb. Its calls block, so each is done when it returns.

use std::future::{Future, ready};

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::store::tables::{Entry, Fault, Range, Reads, Table, Tables};

type Bytes = &'static [u8];

/// A table as redb knows it.
pub(super) type Definition = TableDefinition<'static, Bytes, Bytes>;

pub(super) fn definition(table: Table) -> Definition {
    TableDefinition::new(table.name())
}

/// A transaction of redb's.
pub(in crate::store) struct Transaction<T>(pub(super) T);

pub(in crate::store) type Read = Transaction<ReadTransaction>;
pub(in crate::store) type Write = Transaction<WriteTransaction>;

/// What redb's transactions have in common, and have no trait for.
pub(in crate::store) trait Open: Send {
    fn open(&self, table: Table) -> Result<impl ReadableTable<Bytes, Bytes>, Fault>;
}

impl Open for ReadTransaction {
    fn open(&self, table: Table) -> Result<impl ReadableTable<Bytes, Bytes>, Fault> {
        Ok(self.open_table(definition(table))?)
    }
}

impl Open for WriteTransaction {
    fn open(&self, table: Table) -> Result<impl ReadableTable<Bytes, Bytes>, Fault> {
        Ok(self.open_table(definition(table))?)
    }
}

impl<T: Open> Reads for Transaction<T> {
    fn get(
        &mut self,
        table: Table,
        key: &[u8],
    ) -> impl Future<Output = Result<Option<Vec<u8>>, Fault>> + Send {
        ready(self.0.open(table).and_then(|table| get(&table, key)))
    }

    fn range(&mut self, range: Range) -> impl Future<Output = Result<Vec<Entry>, Fault>> + Send {
        ready(self.0.open(range.table).and_then(|table| entries(&table, &range)))
    }

    fn count(&mut self, range: Range) -> impl Future<Output = Result<u64, Fault>> + Send {
        ready(self.0.open(range.table).and_then(|table| count(&table, &range)))
    }
}

impl Tables for Write {
    fn put(
        &mut self,
        table: Table,
        key: &[u8],
        value: Vec<u8>,
    ) -> impl Future<Output = Result<(), Fault>> + Send {
        ready(self.insert(table, key, &value))
    }

    fn remove(
        &mut self,
        table: Table,
        key: &[u8],
    ) -> impl Future<Output = Result<(), Fault>> + Send {
        ready(self.delete(table, key))
    }
}

impl Write {
    pub(super) fn insert(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.0.open_table(definition(table))?.insert(key, value)?;
        Ok(())
    }

    fn delete(&self, table: Table, key: &[u8]) -> Result<(), Fault> {
        self.0.open_table(definition(table))?.remove(key)?;
        Ok(())
    }
}

fn get(table: &impl ReadableTable<Bytes, Bytes>, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    Ok(table.get(key)?.map(|value| value.value().to_vec()))
}

fn entries(table: &impl ReadableTable<Bytes, Bytes>, range: &Range) -> Result<Vec<Entry>, Fault> {
    let (first, last) = (range.keys.0.as_slice(), range.keys.1.as_slice());
    let found = table.range::<&[u8]>(first..=last)?;
    let copy = |entry: Result<(redb::AccessGuard<Bytes>, redb::AccessGuard<Bytes>), _>| {
        let (key, value) = entry?;
        Ok((key.value().to_vec(), value.value().to_vec()))
    };
    match range.backwards {
        false => found.skip(range.offset).take(range.limit).map(copy).collect(),
        true => found.rev().skip(range.offset).take(range.limit).map(copy).collect(),
    }
}

fn count(table: &impl ReadableTable<Bytes, Bytes>, range: &Range) -> Result<u64, Fault> {
    if range.is_all() {
        return Ok(table.len()?);
    }
    let (first, last) = (range.keys.0.as_slice(), range.keys.1.as_slice());
    let mut count = 0;
    for entry in table.range::<&[u8]>(first..=last)? {
        entry?;
        count += 1;
    }
    Ok(count)
}
