//! [`crate::store::tables`] over Redis: one hash per table, and for an ordered one a sorted set of its
//! keys beside it.
//!
//! A transaction is optimistic. Each read tells at which version of the whole it was made; one that
//! sees another version than the first did voids the transaction, and so does a commit when the
//! version has moved on. So every transaction is as if it were alone, and needs no lock in Redis.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use ::redis::{Script, pipe};

use super::server::{FENCED, Server, at_once};
use crate::store::tables::{Effect, Entry, Fault, Range, Reads, Table, Tables};

static RANGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("range.lua")));
static COMMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("commit.lua")));

/// Entries that one call of [`RANGE`] reads at most, so that no call holds Redis up.
const BATCH: usize = 500;
/// How long it is remembered that a commit was done, in seconds: longer than it is ever repeated.
const REMEMBERED: u64 = 300;

/// Whose state it is, and at which version.
pub(super) type Stamp = (Option<String>, Option<u64>);

/// A transaction that reads.
pub(in crate::store) struct Read {
    server: Arc<Server>,
    /// What every read has to see; none before the first.
    version: Option<u64>,
    /// A read saw another version.
    moved: bool,
}

impl Read {
    pub(super) fn begin(server: &Arc<Server>) -> Self {
        Self { server: Arc::clone(server), version: None, moved: false }
    }

    /// Whether it has to be done again from its start, whatever it came to.
    pub(super) fn is_void(&self) -> bool {
        self.moved
    }

    fn check(&mut self, stamp: &Stamp) -> Result<(), Fault> {
        let version = self.server.version(stamp)?;
        if *self.version.get_or_insert(version) == version {
            return Ok(());
        }
        self.moved = true;
        Err(Fault::Broken("the store changed while it was read".to_owned()))
    }

    async fn batch(&mut self, range: &Range) -> Result<Vec<Entry>, Fault> {
        let keys = &self.server.keys;
        let mut script = RANGE.prepare_invoke();
        script.key(&keys.meta).key(keys.table(range.table)).key(keys.order(range.table));
        script.arg(lex(&range.keys.0)).arg(lex(&range.keys.1));
        script.arg(u8::from(range.backwards)).arg(range.offset).arg(range.limit.min(BATCH));
        let answer: (Stamp, Vec<Vec<u8>>, Vec<Vec<u8>>) = self.server.script(&script).await?;
        self.check(&answer.0)?;
        Ok(answer.1.into_iter().zip(answer.2).collect())
    }
}

impl Reads for Read {
    async fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let keys = &self.server.keys;
        let mut commands = pipe();
        commands.cmd("HMGET").arg(&keys.meta).arg(&STAMP);
        commands.cmd("HGET").arg(keys.table(table)).arg(key);
        let (stamp, value): (Stamp, Option<Vec<u8>>) =
            self.server.script(&at_once(&commands)).await?;
        self.check(&stamp)?;
        Ok(value)
    }

    async fn range(&mut self, range: Range) -> Result<Vec<Entry>, Fault> {
        let mut entries = Vec::new();
        if i64::try_from(range.offset).is_err() {
            return Ok(entries); // more than Redis counts
        }
        loop {
            let (offset, limit) = (range.offset + entries.len(), range.limit - entries.len());
            let batch = self.batch(&range.clone().page(offset, limit)).await?;
            let last = batch.len() < limit.min(BATCH);
            entries.extend(batch);
            if last || entries.len() == range.limit {
                return Ok(entries);
            }
        }
    }

    async fn count(&mut self, range: Range) -> Result<u64, Fault> {
        let keys = &self.server.keys;
        let (first, last) = (lex(&range.keys.0), lex(&range.keys.1));
        let mut commands = pipe();
        commands.cmd("HMGET").arg(&keys.meta).arg(&STAMP);
        commands.cmd("ZLEXCOUNT").arg(keys.order(range.table)).arg(first).arg(last);
        let (stamp, count): (Stamp, u64) = self.server.script(&at_once(&commands)).await?;
        self.check(&stamp)?;
        Ok(count)
    }
}

/// A transaction that changes: what it would write is kept here until its commit.
pub(in crate::store) struct Write {
    read: Read,
    /// None for what is removed.
    changes: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
}

/// What became of a commit.
pub(super) enum Committed {
    /// It is done, and this is the version now.
    At(u64),
    /// Somebody else's came first: the transaction has to be done again.
    Overtaken,
}

impl Write {
    pub(super) fn begin(server: &Arc<Server>) -> Self {
        Self { read: Read::begin(server), changes: BTreeMap::new() }
    }

    pub(super) fn is_void(&self) -> bool {
        self.read.is_void()
    }

    /// Applies all changes in one step, if nothing was changed since this began to read. `id` names
    /// the commit: one whose answer was lost can be repeated under it, and is done once.
    pub(super) async fn commit(&self, id: &str, effect: &Effect) -> Result<Committed, Fault> {
        let server = &self.read.server;
        let keys = &server.keys;
        let service = effect.service();
        let mut script = COMMIT.prepare_invoke();
        script.key(&keys.meta).key(keys.done(id)).key(&keys.changed).key(&keys.control);
        script.key(&keys.obstacles).key(keys.volatile(service)).key(keys.table(Table::Listings));
        script.arg(server.instance.as_str()).arg(self.read.version.unwrap_or_default());
        script.arg(REMEMBERED).arg(&server.holder).arg(&keys.channel);
        let id = service.map(|service| service.as_bytes().to_vec()).unwrap_or_default();
        script.arg(server.hint(service)).arg(id);
        for ((table, key), value) in &self.changes {
            let order = if table.is_ordered() { keys.order(*table) } else { String::new() };
            script.arg(keys.table(*table)).arg(order).arg(key);
            script.arg(u8::from(value.is_some())).arg(value.as_deref().unwrap_or_default());
        }
        let (outcome, version): (String, u64) = server.script(&script).await?;
        match outcome.as_str() {
            "done" => Ok(Committed::At(version)),
            "overtaken" => Ok(Committed::Overtaken),
            "fenced" => Err(Fault::Broken(FENCED.to_owned())),
            _ => Err(server.emptied()),
        }
    }
}

impl Reads for Write {
    async fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        match self.changes.get(&(table, key.to_vec())) {
            Some(changed) => Ok(changed.clone()),
            None => self.read.get(table, key).await,
        }
    }

    async fn range(&mut self, range: Range) -> Result<Vec<Entry>, Fault> {
        let (first, last) = range.keys.clone();
        let changed = self.changes.range((range.table, first)..=(range.table, last));
        let changed: Vec<_> =
            changed.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        if changed.is_empty() {
            return self.read.range(range).await;
        }
        // What is changed may stand in for as many of those that are kept.
        let most = range.offset.saturating_add(range.limit).saturating_add(changed.len());
        let kept = self.read.range(range.clone().page(0, most)).await?;
        let mut entries: BTreeMap<Vec<u8>, Vec<u8>> = kept.into_iter().collect();
        for (key, value) in changed {
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
        let entries = entries.into_iter();
        Ok(match range.backwards {
            false => entries.skip(range.offset).take(range.limit).collect(),
            true => entries.rev().skip(range.offset).take(range.limit).collect(),
        })
    }

    async fn count(&mut self, range: Range) -> Result<u64, Fault> {
        Ok(self.range(range.page(0, usize::MAX)).await?.len() as u64)
    }
}

impl Tables for Write {
    async fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) -> Result<(), Fault> {
        self.changes.insert((table, key.to_vec()), Some(value));
        Ok(())
    }

    async fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), Fault> {
        self.changes.insert((table, key.to_vec()), None);
        Ok(())
    }
}

/// The fields of the meta hash that make a [`Stamp`].
pub(super) const STAMP: [&str; 2] = ["instance", "version"];

/// A key as the commands for lexical ranges take it: itself included.
fn lex(key: &[u8]) -> Vec<u8> {
    [b"[", key].concat()
}
