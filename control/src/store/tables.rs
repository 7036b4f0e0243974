//! What every store is made of underneath: tables of bytes, read and changed in transactions. The
//! verbs are written once, over these; a store only says how a transaction runs.

use std::{future::Future, sync::Arc};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::Mutex;

use super::{Listing, Page, ServiceQuery, contents::Sink};
use crate::{
    error::{Error, Result},
    name::{InstanceId, ServiceId},
};

/// The version of all tables. A change that an older Grid would misread counts it up.
pub(crate) const SCHEMA: u32 = 3;

/// A table. Code and logs have tables of their own, so that a scan over records reads neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")] // as `name` has it
pub(super) enum Table {
    /// [`PLACES`] → the place in the order of creation that the next service gets; [`UNFINISHED`].
    Counters,
    /// Service id → JSON without code.
    Services,
    /// Service id → code.
    ServiceCode,
    /// Service id → JSON of its [`Listing`], which every process copies.
    Listings,
    /// `owner NUL service name` → service id.
    Names,
    /// `domain NUL function name` → service id.
    Routes,
    /// Service id and deployment id → JSON without code and log.
    Deployments,
    /// Service id and deployment id → code.
    DeploymentCode,
    /// Service id and deployment id → JSON of the log's lines.
    DeploymentLogs,
    /// `owner NUL key` → JSON of what an attempt to create a service made.
    Attempts,
    /// Counts up with each attempt → its key in `Attempts`.
    AttemptOrder,
    /// Token id → JSON, with the token's digest.
    Tokens,
    /// Token's SHA-256 → token id.
    TokenDigests,
    /// Entry's id → JSON.
    Audit,
    /// Whom or what an entry concerns, and the entry's id → nothing.
    AuditOf,
}

impl Table {
    /// All of them.
    pub(super) const ALL: [Self; 15] = [
        Self::Counters,
        Self::Services,
        Self::ServiceCode,
        Self::Listings,
        Self::Names,
        Self::Routes,
        Self::Deployments,
        Self::DeploymentCode,
        Self::DeploymentLogs,
        Self::Attempts,
        Self::AttemptOrder,
        Self::Tokens,
        Self::TokenDigests,
        Self::Audit,
        Self::AuditOf,
    ];

    /// As it is called in the store.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counters => "counters",
            Self::Services => "services",
            Self::ServiceCode => "service_code",
            Self::Listings => "listings",
            Self::Names => "names",
            Self::Routes => "routes",
            Self::Deployments => "deployments",
            Self::DeploymentCode => "deployment_code",
            Self::DeploymentLogs => "deployment_logs",
            Self::Attempts => "attempts",
            Self::AttemptOrder => "attempt_order",
            Self::Tokens => "tokens",
            Self::TokenDigests => "token_digests",
            Self::Audit => "audit",
            Self::AuditOf => "audit_of",
        }
    }

    /// Whether ranges of it are read. The others are read by key only.
    pub(super) fn is_ordered(self) -> bool {
        matches!(
            self,
            Self::Deployments | Self::AttemptOrder | Self::Tokens | Self::Audit | Self::AuditOf
        )
    }
}

/// The key in [`Table::Counters`].
pub(super) const PLACES: &[u8] = b"places";

/// The key in [`Table::Counters`] that is there while a store is being filled from elsewhere: what is
/// in it is not yet anything to work with.
pub(super) const UNFINISHED: &[u8] = b"unfinished";

/// A key with its value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// A part of an ordered table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) table: Table,
    /// The first and the last key that are in it.
    pub(super) keys: (Vec<u8>, Vec<u8>),
    /// Greatest key first.
    pub(super) backwards: bool,
    /// Entries that are passed over, and how many are read at most after them.
    pub(super) offset: usize,
    pub(super) limit: usize,
}

impl Range {
    /// Everything whose key begins so.
    pub(super) fn of_group(table: Table, group: &[u8]) -> Self {
        let mut last = group.to_vec();
        // No key is longer than its group by so much.
        last.extend([0xff; 64]);
        Self { table, keys: (group.to_vec(), last), backwards: false, offset: 0, limit: usize::MAX }
    }

    /// Everything.
    pub(super) fn all(table: Table) -> Self {
        Self::of_group(table, &[])
    }

    /// Whether its keys leave nothing out.
    pub(super) fn is_all(&self) -> bool {
        self.keys == Self::all(self.table).keys
    }

    pub(super) fn backwards(self) -> Self {
        Self { backwards: true, ..self }
    }

    pub(super) fn page(self, offset: usize, limit: usize) -> Self {
        Self { offset, limit, ..self }
    }
}

/// Reading inside a transaction: all reads see one state.
pub(super) trait Reads: Send {
    /// The value under a key.
    fn get(
        &mut self,
        table: Table,
        key: &[u8],
    ) -> impl Future<Output = Result<Option<Vec<u8>>, Fault>> + Send;

    /// The entries of a range.
    fn range(&mut self, range: Range) -> impl Future<Output = Result<Vec<Entry>, Fault>> + Send;

    /// How many entries a range has, whatever its offset and limit.
    fn count(&mut self, range: Range) -> impl Future<Output = Result<u64, Fault>> + Send;
}

/// Changing inside a transaction, which sees its own changes, and commits all of them or none.
pub(super) trait Tables: Reads {
    /// Writes an entry, new or in the place of another.
    fn put(
        &mut self,
        table: Table,
        key: &[u8],
        value: Vec<u8>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Removes an entry, if it is there.
    fn remove(
        &mut self,
        table: Table,
        key: &[u8],
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// How a store runs transactions, and the copy of listings that it keeps.
pub(super) trait Backend: Clone + Send + Sync + 'static {
    type Read: Reads;
    type Write: Tables;

    /// Whose containers are ours.
    fn instance(&self) -> &InstanceId;

    /// Held by the one export that there may be at a time.
    fn exporting(&self) -> Arc<Mutex<()>>;

    /// Sends all entries as they are at one moment.
    fn export(&self, into: Sink) -> impl Future<Output = Result<()>> + Send;

    /// How many entries there are in all tables.
    fn entries(&self) -> impl Future<Output = Result<u64>> + Send;

    /// Runs a verb that reads. It may run more than once: when what it read changed meanwhile.
    fn read<T, V>(
        &self,
        operation: &'static str,
        verb: V,
    ) -> impl Future<Output = Result<T>> + Send
    where
        T: Send + 'static,
        V: for<'t> Fn(&'t mut Self::Read) -> BoxFuture<'t, Result<T, Fault>>
            + Send
            + Sync
            + 'static;

    /// Runs a verb, commits what it did, and tells copies and watchers. The verb may run more than
    /// once, but what it does is committed once. It runs to its end even if the caller goes away.
    fn write<T, V>(
        &self,
        operation: &'static str,
        survival: Survival,
        verb: V,
    ) -> impl Future<Output = Result<T>> + Send
    where
        T: Send + 'static,
        V: for<'t> Fn(&'t mut Self::Write) -> BoxFuture<'t, Done<T>> + Send + Sync + 'static;

    /// The ids of one page of the services that a query takes.
    fn select(
        &self,
        query: &ServiceQuery,
        offset: usize,
        limit: usize,
    ) -> impl Future<Output = Result<Page<ServiceId>>> + Send;
}

/// What a verb's acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Survival {
    /// It survives a crash.
    Crash,
    /// A crash may lose it, until the next verb that survives one is acknowledged.
    Process,
}

/// What a verb returns, and what it did.
pub(super) type Done<T> = Result<(T, Effect), Fault>;

/// What a durable verb did, for copies and watchers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing: there is nothing to commit and nobody to tell.
    Nothing,
    /// Something that is no service's.
    Kept,
    /// Something that no listing shows.
    Changed(ServiceId),
    /// The service now looks like this to the edge and in lists.
    Listed(Box<Listing>),
    /// The service is gone.
    Deleted(ServiceId),
}

impl Effect {
    pub(super) fn listed(listing: Listing) -> Self {
        Self::Listed(Box::new(listing))
    }

    /// Whom it is about.
    pub(super) fn service(&self) -> Option<ServiceId> {
        match self {
            Self::Nothing | Self::Kept => None,
            Self::Changed(service) | Self::Deleted(service) => Some(*service),
            Self::Listed(listing) => Some(listing.route.service),
        }
    }
}

/// Why a transaction did not come to its end.
#[derive(Debug)]
pub(super) enum Fault {
    /// The verb has an answer for the caller.
    Refused(Error),
    /// The store, or what it holds, failed.
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

impl Fault {
    /// What is wrong, for the operator.
    pub(super) fn into_reason(self) -> String {
        match self {
            Fault::Refused(error) => error.to_string(),
            Fault::Broken(reason) => reason,
        }
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Fault::Broken(error.to_string())
    }
}

/// The record under a key.
pub(super) async fn get_json<T: DeserializeOwned>(
    tables: &mut impl Reads,
    table: Table,
    key: &[u8],
) -> Result<Option<T>, Fault> {
    let json = tables.get(table, key).await?;
    Ok(json.map(|json| serde_json::from_slice(&json)).transpose()?)
}

/// The records of a range.
pub(super) async fn range_json<T: DeserializeOwned>(
    tables: &mut impl Reads,
    range: Range,
) -> Result<Vec<T>, Fault> {
    let entries = tables.range(range).await?;
    entries.iter().map(|(_, json)| Ok(serde_json::from_slice(json)?)).collect()
}

/// Writes a record.
pub(super) async fn put_json<T: Serialize + Sync>(
    tables: &mut impl Tables,
    table: Table,
    key: &[u8],
    record: &T,
) -> Result<(), Fault> {
    let json = serde_json::to_vec(record)?;
    tables.put(table, key, json).await
}

/// The text under a key; empty when there is none.
pub(super) async fn get_text(
    tables: &mut impl Reads,
    table: Table,
    key: &[u8],
) -> Result<String, Fault> {
    let text = tables.get(table, key).await?.unwrap_or_default();
    String::from_utf8(text).map_err(|_| Fault::Broken(format!("{}: not UTF-8", table.name())))
}

/// A number as a key: in the order of numbers.
pub(super) fn number(value: u64) -> [u8; 8] {
    value.to_be_bytes()
}

/// The number that a key, or its end, is.
pub(super) fn number_of(key: &[u8]) -> Result<u64, Fault> {
    let number = key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    number.ok_or_else(|| Fault::Broken("a key is no number".to_owned()))
}
