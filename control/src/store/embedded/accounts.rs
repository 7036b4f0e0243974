//! The verbs about tokens and the audit log, each inside a transaction that the caller owns.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::{
    Done, Effect,
    schema::{AUDIT, AUDIT_OF, Fault, TOKENS},
};
use crate::{
    account::AccessToken,
    audit::{AuditEntry, AuditQuery},
    limits::AUDIT_KEPT,
    name::TokenId,
    store::Page,
};

/// Writes a token, new or changed.
pub(super) fn put_token(transaction: &WriteTransaction, token: &AccessToken) -> Result<(), Fault> {
    let json = serde_json::to_vec(token)?;
    transaction.open_table(TOKENS)?.insert(token.id.as_bytes(), json.as_slice())?;
    Ok(())
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

/// Adds an entry to the audit log, and drops what is too old.
pub(super) fn append(transaction: &WriteTransaction, mut entry: AuditEntry) -> Done<()> {
    let mut entries = transaction.open_table(AUDIT)?;
    let mut of_users = transaction.open_table(AUDIT_OF)?;
    entry.id = entries.last()?.map_or(1, |(id, _)| id.value() + 1);
    entries.insert(entry.id, serde_json::to_vec(&entry)?.as_slice())?;
    of_users.insert((entry.user.as_str(), entry.id), ())?;
    while entries.len()? > AUDIT_KEPT {
        let Some(oldest) = entries.pop_first()? else { break };
        let old: AuditEntry = serde_json::from_slice(oldest.1.value())?;
        of_users.remove((old.user.as_str(), old.id))?;
    }
    Ok(((), Effect::Kept))
}

/// The entries that a query takes, newest first. One for a user looks at that user's only.
pub(super) fn audit(
    transaction: &ReadTransaction,
    query: &AuditQuery,
    offset: usize,
    limit: usize,
) -> Result<Page<AuditEntry>, Fault> {
    let entries = transaction.open_table(AUDIT)?;
    let mut page = Page { count: 0, items: Vec::new() };
    let everything = *query == AuditQuery { user: query.user.clone(), ..AuditQuery::default() };
    let mut look = |id: u64| -> Result<(), Fault> {
        let wanted = |count: u64| usize::try_from(count).is_ok_and(|count| count >= offset);
        if everything && (!wanted(page.count) || page.items.len() >= limit) {
            page.count += 1; // all of them are taken, whatever they say
            return Ok(());
        }
        let Some(json) = entries.get(id)? else { return Ok(()) };
        let entry: AuditEntry = serde_json::from_slice(json.value())?;
        if query.takes(&entry) {
            if wanted(page.count) && page.items.len() < limit {
                page.items.push(entry);
            }
            page.count += 1;
        }
        Ok(())
    };
    match &query.user {
        Some(user) => {
            let of_users = transaction.open_table(AUDIT_OF)?;
            let user = user.as_str();
            for entry in of_users.range((user, 0)..=(user, u64::MAX))?.rev() {
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
