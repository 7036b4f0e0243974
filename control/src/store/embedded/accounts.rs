//! The verbs about tokens and the audit log, each inside a transaction that the caller owns.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::{
    Done, Effect,
    schema::{AUDIT, AUDIT_OF, Fault, TOKENS},
};
use crate::{
    account::AccessToken,
    audit::{AuditEntry, AuditQuery},
    error::Error,
    limits::TOKENS_PER_USER,
    name::{ServiceId, TokenId},
    store::Page,
};

/// Writes a token, new or changed.
pub(super) fn put_token(transaction: &WriteTransaction, token: &AccessToken) -> Result<(), Fault> {
    let json = serde_json::to_vec(token)?;
    transaction.open_table(TOKENS)?.insert(token.id.as_bytes(), json.as_slice())?;
    Ok(())
}

/// Which of the known tokens has to go, by id and digest, so that its user can have a new one.
pub(super) fn make_room<'a>(
    known: impl Iterator<Item = &'a AccessToken>,
    new: &AccessToken,
) -> Result<Option<(TokenId, [u8; 32])>, Fault> {
    let of_user: Vec<_> = known.filter(|known| known.user == new.user).collect();
    if of_user.len() < TOKENS_PER_USER {
        return Ok(None);
    }
    let expired = of_user.iter().filter(|known| known.has_expired(new.created_at));
    match expired.min_by_key(|known| known.expires_at) {
        Some(first) => Ok(Some((first.id, first.digest))),
        None => Err(Fault::Refused(Error::Conflict {
            field: Some("user"),
            message: format!(
                "This user has {TOKENS_PER_USER} tokens, which is the most; revoke one."
            ),
        })),
    }
}

/// Forgets a token.
pub(super) fn remove_token(transaction: &WriteTransaction, id: TokenId) -> Result<(), Fault> {
    transaction.open_table(TOKENS)?.remove(id.as_bytes())?;
    Ok(())
}

/// What memory copies: all tokens.
pub(super) fn tokens(transaction: &WriteTransaction) -> Result<Vec<AccessToken>, Fault> {
    let mut tokens = Vec::new();
    for entry in transaction.open_table(TOKENS)?.iter()? {
        tokens.push(serde_json::from_slice(entry?.1.value())?);
    }
    Ok(tokens)
}

/// Adds an entry to the audit log, which keeps so many: the oldest go.
pub(super) fn append(transaction: &WriteTransaction, mut entry: AuditEntry, most: u64) -> Done<()> {
    let mut entries = transaction.open_table(AUDIT)?;
    let mut of = transaction.open_table(AUDIT_OF)?;
    entry.id = entries.last()?.map_or(1, |(id, _)| id.value() + 1);
    entries.insert(entry.id, serde_json::to_vec(&entry)?.as_slice())?;
    for key in keys(&entry) {
        of.insert((key.as_str(), entry.id), ())?;
    }
    while entries.len()? > most {
        let Some(oldest) = entries.pop_first()? else { break };
        let old: AuditEntry = serde_json::from_slice(oldest.1.value())?;
        for key in keys(&old) {
            of.remove((key.as_str(), old.id))?;
        }
    }
    Ok(((), Effect::Kept))
}

/// The entries that a query takes, newest first. Only those of the page are read, unless the query
/// has a criterion beyond the one that is found by its key.
pub(super) fn audit(
    transaction: &ReadTransaction,
    query: &AuditQuery,
    offset: usize,
    limit: usize,
) -> Result<Page<AuditEntry>, Fault> {
    let entries = transaction.open_table(AUDIT)?;
    let nothing = AuditQuery::default();
    if *query == nothing {
        // Their ids have no gaps, since only the oldest ever go.
        let newest = entries.last()?.map_or(0, |(id, _)| id.value());
        let first = newest.checked_sub(u64::try_from(offset).unwrap_or(u64::MAX));
        let mut items = Vec::new();
        for entry in entries.range(..=first.unwrap_or_default())?.rev().take(limit) {
            items.push(serde_json::from_slice(entry?.1.value())?);
        }
        return Ok(Page { count: entries.len()?, items });
    }
    let key = match query {
        AuditQuery { service: Some(service), .. } => Some(service_key(*service)),
        AuditQuery { user: Some(user), .. } | AuditQuery { of: Some(user), .. } => {
            Some(user.to_string())
        }
        _ => None,
    };
    let exact = *query == AuditQuery { of: query.of.clone(), ..nothing.clone() }
        || *query == AuditQuery { service: query.service, ..nothing };
    let mut page = Page { count: 0, items: Vec::new() };
    let mut look = |id: u64| -> Result<(), Fault> {
        let on_page = usize::try_from(page.count).is_ok_and(|count| count >= offset)
            && page.items.len() < limit;
        if on_page || !exact {
            let json = entries.get(id)?;
            let json = json.ok_or_else(|| Fault::Broken(format!("no audit entry {id}")))?;
            let entry: AuditEntry = serde_json::from_slice(json.value())?;
            if !query.takes(&entry) {
                return Ok(());
            }
            if on_page {
                page.items.push(entry);
            }
        }
        page.count += 1;
        Ok(())
    };
    match key.as_deref() {
        Some(key) => {
            let of = transaction.open_table(AUDIT_OF)?;
            for entry in of.range((key, 0)..=(key, u64::MAX))?.rev() {
                look(entry?.0.value().1)?;
            }
        }
        None => {
            for entry in entries.iter()?.rev() {
                look(entry?.0.value())?;
            }
        }
    }
    Ok(page)
}

/// Under which keys of `AUDIT_OF` an entry is found.
fn keys(entry: &AuditEntry) -> impl Iterator<Item = String> {
    entry.concerns().map(ToString::to_string).chain(entry.service.map(service_key))
}

/// No user's name holds a colon, so this is none.
fn service_key(id: ServiceId) -> String {
    format!("service:{id}")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use redb::ReadableDatabase;
    use serde_json::Map;

    use super::*;
    use crate::{name::UserName, store::embedded::schema};

    #[test]
    fn the_oldest_entries_go_with_all_that_leads_to_them() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let database = schema::open(dir.path()).expect("opens").database;
        let services = [ServiceId::new(), ServiceId::new()];
        let users = ["alice", "bob"].map(|name| UserName::parse(name).expect("valid"));
        let transaction = database.begin_write().expect("begins");
        for number in 1..=8 {
            let early = usize::from(number <= 4);
            let entry = AuditEntry {
                id: 0,
                at: Timestamp::UNIX_EPOCH,
                user: users[0].clone(),
                token: None,
                address: None,
                action: "service.update".to_owned(),
                owner: users[early].clone(),
                service: Some(services[early]),
                status: 200,
                detail: Map::new(),
            };
            assert!(append(&transaction, entry, 4).is_ok());
        }
        assert_eq!(transaction.open_table(AUDIT_OF).expect("opens").len().expect("reads"), 8);
        transaction.commit().expect("commits");
        let transaction = database.begin_read().expect("begins");
        let ask = |query: AuditQuery| {
            let page = audit(&transaction, &query, 0, 9).unwrap_or_else(|_| panic!("reads"));
            assert_eq!(page.count, page.items.len() as u64);
            page.items.iter().map(|entry| entry.id).collect::<Vec<_>>()
        };
        let all = AuditQuery::default();
        let of = |user: &UserName| AuditQuery { of: Some(user.clone()), ..all.clone() };
        let about = |service| AuditQuery { service: Some(service), ..all.clone() };
        assert_eq!(ask(all.clone()), [8, 7, 6, 5]);
        let from = |offset| audit(&transaction, &all, offset, 2).map(|page| page.items);
        for (offset, expected) in [(1, &[7, 6][..]), (3, &[5]), (4, &[]), (8, &[]), (9, &[])] {
            let items = from(offset).unwrap_or_else(|_| panic!("reads"));
            let ids: Vec<_> = items.iter().map(|entry| entry.id).collect();
            assert_eq!(ids, expected, "{offset}");
        }
        assert_eq!((ask(of(&users[0])), ask(of(&users[1]))), (vec![8, 7, 6, 5], vec![]));
        assert_eq!((ask(about(services[0])), ask(about(services[1]))), (vec![8, 7, 6, 5], vec![]));
    }
}
