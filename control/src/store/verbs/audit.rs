//! The verbs about the audit log, each inside a transaction that the caller owns.

use crate::{
    audit::{AuditEntry, AuditQuery},
    name::ServiceId,
    store::{
        Page,
        tables::{
            Done, Effect, Fault, Range, Reads, Table, Tables, get_json, number, number_of,
            put_json, range_json,
        },
    },
};

/// Entries that are looked through at one time.
const BATCH: usize = 256;

/// Adds an entry to the audit log, which keeps so many: the oldest go.
pub(super) async fn append(tables: &mut impl Tables, mut entry: AuditEntry, most: u64) -> Done<()> {
    let entries = Range::all(Table::Audit);
    let last = tables.range(entries.clone().backwards().page(0, 1)).await?;
    entry.id = last.first().map_or(Ok(1), |(key, _)| number_of(key).map(|last| last + 1))?;
    put_json(tables, Table::Audit, &number(entry.id), &entry).await?;
    for key in keys(&entry) {
        tables.put(Table::AuditOf, &member(&key, entry.id), Vec::new()).await?;
    }
    loop {
        let oldest: Vec<AuditEntry> = range_json(tables, entries.clone().page(0, 1)).await?;
        // Their ids have no gaps, since only the oldest ever go.
        let Some(old) = oldest.first().filter(|old| entry.id - old.id >= most) else { break };
        tables.remove(Table::Audit, &number(old.id)).await?;
        for key in keys(old) {
            tables.remove(Table::AuditOf, &member(&key, old.id)).await?;
        }
    }
    Ok(((), Effect::Kept))
}

/// The entries that a query takes, newest first. Only those of the page are read, unless the query
/// has a criterion beyond the one that is found by its key.
pub(super) async fn page(
    tables: &mut impl Reads,
    query: &AuditQuery,
    offset: usize,
    limit: usize,
) -> Result<Page<AuditEntry>, Fault> {
    let nothing = AuditQuery::default();
    let key = match query {
        AuditQuery { service: Some(service), .. } => Some(service_key(*service)),
        AuditQuery { user: Some(user), .. } | AuditQuery { of: Some(user), .. } => {
            Some(user.to_string())
        }
        _ => None,
    };
    let range = match &key {
        Some(key) => Range::of_group(Table::AuditOf, &group(key)),
        None => Range::all(Table::Audit),
    };
    let range = range.backwards();
    let exact = *query == AuditQuery { of: query.of.clone(), ..nothing.clone() }
        || *query == AuditQuery { service: query.service, ..nothing };
    if exact {
        let count = tables.count(range.clone()).await?;
        let found = tables.range(range.page(offset, limit)).await?;
        return Ok(Page { count, items: read(tables, found).await? });
    }
    let mut page = Page { count: 0, items: Vec::new() };
    for batch in 0.. {
        let found = tables.range(range.clone().page(batch * BATCH, BATCH)).await?;
        let last = found.len() < BATCH;
        for entry in read(tables, found).await?.into_iter().filter(|entry| query.takes(entry)) {
            if page.count >= offset as u64 && page.items.len() < limit {
                page.items.push(entry);
            }
            page.count += 1;
        }
        if last {
            break;
        }
    }
    Ok(page)
}

/// The entries that were found in the log itself, or by what they concern.
async fn read(
    tables: &mut impl Reads,
    found: Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<Vec<AuditEntry>, Fault> {
    let mut entries = Vec::with_capacity(found.len());
    for (key, json) in found {
        if !json.is_empty() {
            entries.push(serde_json::from_slice(&json)?);
            continue;
        }
        let id = number_of(&key)?;
        let entry = get_json(tables, Table::Audit, &number(id)).await?;
        entries.push(entry.ok_or_else(|| Fault::Broken(format!("no audit entry {id}")))?);
    }
    Ok(entries)
}

/// Under which keys of [`Table::AuditOf`] an entry is found.
pub(in crate::store) fn keys(entry: &AuditEntry) -> impl Iterator<Item = String> {
    entry.concerns().map(ToString::to_string).chain(entry.service.map(service_key))
}

/// No user's name holds a colon, so this is none.
fn service_key(id: ServiceId) -> String {
    format!("service:{id}")
}

/// No key holds a NUL, so no group begins like another.
fn group(key: &str) -> Vec<u8> {
    [key.as_bytes(), &[0]].concat()
}

/// An entry's key in the group of what it concerns.
pub(in crate::store) fn member(key: &str, id: u64) -> Vec<u8> {
    [group(key), number(id).to_vec()].concat()
}
