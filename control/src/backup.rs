//! Backups: everything that a store keeps in one file, restored elsewhere; and the same way from one kind
//! of store to the other.
//!
//! The file is JSON, line by line (docs/backup.md): a header, files of the data directory without which
//! the entries are worth little, the entries, and a trailer with their number and a digest, so that one
//! that was cut off or damaged is known before anything is done with it.

mod lines;
mod making;
mod migrate;
mod restore;

use std::{
    io::{self, BufRead, Read},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use jiff::Timestamp;

use self::lines::{Header, Writing};
pub use self::{
    making::Making,
    migrate::{Kind, Migrated, migrate},
    restore::{Restored, restore},
};
use crate::{
    error::{Error, Result},
    secret::Keyring,
    store::{Export, SCHEMA, Store},
};

/// Bytes of one line: more than the largest entry takes.
const LINE_BYTES: u64 = 256 * 1024 * 1024;

/// A backup of a store as it is at this moment, without files: what the admin API answers. A backup is
/// whole when its stream ends without an error.
///
/// # Errors
/// As [`crate::store::Contents::export`] and [`Export::next`], for what is known before the first byte.
pub async fn read(
    store: Arc<dyn Store>,
    keyring: &Keyring,
) -> Result<impl Stream<Item = Result<Bytes>> + Send + 'static + use<>> {
    let mut export = store.export().await?;
    let mut writing = Writing::default();
    let mut text = writing.header(&Header {
        grid_backup: lines::VERSION,
        schema: SCHEMA,
        instance: store.instance().clone(),
        made_at: Timestamp::now(),
        keys: Some(digest_of(keyring)),
    })?;
    let first = export.next().await.transpose()?;
    for record in first.into_iter().flatten() {
        text.extend(writing.entry(&record)?);
    }
    let rest = stream::unfold(Some((export, writing)), |state| async {
        let (mut export, mut writing) = state?;
        Some(match more(&mut export, &mut writing).await {
            Ok(Some(text)) => (Ok(text), Some((export, writing))),
            Ok(None) => (writing.trailer().map(Bytes::from), None),
            Err(error) => (Err(error), None),
        })
    });
    Ok(stream::StreamExt::chain(stream::iter([Ok(Bytes::from(text))]), rest))
}

async fn more(export: &mut Export, writing: &mut Writing) -> Result<Option<Bytes>> {
    let Some(records) = export.next().await.transpose()? else { return Ok(None) };
    let mut text = Vec::new();
    for record in &records {
        text.extend(writing.entry(record)?);
    }
    Ok(Some(text.into()))
}

/// By which a backup is known to belong to keys, and which tells nothing about them.
fn digest_of(keyring: &Keyring) -> String {
    lines::hex(&keyring.digest("grid backup"))
}

/// The next line, without its end; none when there is no more.
fn next_line(file: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    file.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(invalid("it is cut off, or no backup of Grid's")),
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

fn failed(operation: &'static str, path: &Path, reason: impl Into<String>) -> Error {
    Error::file(operation, path)(invalid(reason))
}
