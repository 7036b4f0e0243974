//! A file as it is, with everything that is written to it kept in memory: for readers of one that
//! cannot be written, because redb writes when it opens a file that was not closed in order.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    ops::{Bound, Range},
    sync::Arc,
};

use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};

use super::disk::Disk;

/// Bytes that are kept together.
const BLOCK: u64 = 4096;

/// The file, and what was written since. It is as small as what redb's recovery writes.
#[derive(Debug)]
pub(super) struct Scratch {
    disk: Arc<Disk>,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    length: u64,
    blocks: HashMap<u64, Vec<u8>>,
}

impl Scratch {
    pub(super) fn new(disk: Arc<Disk>) -> io::Result<Self> {
        let written = Written { length: disk.len()?, blocks: HashMap::new() };
        Ok(Self { disk, written: Mutex::new(written) })
    }

    /// One block of the file below; zeros behind its end.
    fn block(&self, number: u64) -> io::Result<Vec<u8>> {
        let (at, mut block) = (number * BLOCK, vec![0; BLOCK as usize]);
        let there = self.disk.len()?.saturating_sub(at).min(BLOCK);
        self.disk.read(at, &mut block[..there as usize])?;
        Ok(block)
    }
}

/// The parts of `length` bytes at `offset`: each with its block's number, where it begins in there,
/// and where among the bytes.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let begin = (at % BLOCK) as usize;
        let size = (length - done).min(BLOCK as usize - begin);
        let part = (at / BLOCK, begin, done..done + size);
        done += size;
        (size > 0).then_some(part)
    })
}

impl StorageBackend for Scratch {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock();
        if offset + out.len() as u64 > written.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, begin, part) in parts(offset, out.len()) {
            let end = begin + part.len();
            match written.blocks.get(&number) {
                Some(block) => out[part].copy_from_slice(&block[begin..end]),
                None => out[part].copy_from_slice(&self.block(number)?[begin..end]),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().length = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        for (number, begin, part) in parts(offset, data.len()) {
            let end = begin + part.len();
            let block = match written.blocks.entry(number) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(self.block(number)?),
            };
            block[begin..end].copy_from_slice(&data[part]);
        }
        Ok(())
    }

    // The file below is locked as long as it is open, which nothing here changes.

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use redb::{ReadableDatabase, ReadableTable, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("table");

    #[test]
    fn what_is_written_is_read_again_and_the_file_stays_as_it_is() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("file");
        let disk = Disk::open(&path).expect("opens");
        let insert = |database: &redb::Database, keys: Range<u64>| {
            let transaction = database.begin_write().expect("begins");
            let mut table = transaction.open_table(TABLE).expect("opens");
            for key in keys {
                table.insert(key, vec![7; 9000].as_slice()).expect("inserts");
            }
            drop(table);
            transaction.commit().expect("commits");
        };
        let keys = |database: &redb::Database| {
            let transaction = database.begin_read().expect("begins");
            let table = transaction.open_table(TABLE).expect("opens");
            let entries = table.iter().expect("reads").map(|entry| entry.expect("one"));
            entries.map(|(key, value)| (key.value(), value.value().len())).collect::<Vec<_>>()
        };
        let expected = |end| (0..end).map(|key| (key, 9000)).collect::<Vec<_>>();

        let killed = disk.database().expect("opens");
        insert(&killed, 0..50);
        let unclean = fs::read(&path).expect("reads"); // as a kill leaves it: to be recovered
        drop(killed);
        fs::write(&path, &unclean).expect("writes");
        let scratch = disk.scratch().expect("opens");
        assert_eq!(keys(&scratch), expected(50));
        insert(&scratch, 50..600); // the file would have to grow
        assert_eq!(keys(&scratch), expected(600));
        drop(scratch);
        assert!(fs::read(&path).expect("reads") == unclean, "the file was written");
        assert_eq!(keys(&disk.database().expect("opens")), expected(50));
    }
}
