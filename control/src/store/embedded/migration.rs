//! Brings a file of an earlier schema to this one. It is part of the transaction that opens the file:
//! a crash leaves the old one.

use redb::{Key, ReadableTable, TableDefinition, Value, WriteTransaction};

use super::tables::{Transaction, Write};
use crate::{
    account::AccessToken,
    audit::AuditEntry,
    name::UserName,
    service::{Deployment, Phase, Service},
    store::{
        Listing,
        tables::{Fault, PLACES, Table, number},
        verbs::audit,
    },
};

/// How the tables of schemas 1 and 2 were keyed.
const SERVICES: TableDefinition<&[u8; 16], (u64, &[u8])> = TableDefinition::new("services");
const SERVICE_CODE: TableDefinition<&[u8; 16], &str> = TableDefinition::new("service_code");
const SERVICE_ORDER: TableDefinition<u64, &[u8; 16]> = TableDefinition::new("service_order");
const NAMES: TableDefinition<&str, &[u8; 16]> = TableDefinition::new("names");
const ROUTES: TableDefinition<&str, &[u8; 16]> = TableDefinition::new("routes");
const DEPLOYMENTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("deployments");
const DEPLOYMENT_CODE: TableDefinition<&[u8; 32], &str> = TableDefinition::new("deployment_code");
const DEPLOYMENT_LOGS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("deployment_logs");
const ATTEMPTS: TableDefinition<&str, &[u8]> = TableDefinition::new("attempts");
const ATTEMPT_ORDER: TableDefinition<u64, &str> = TableDefinition::new("attempt_order");
const TOKENS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("tokens");
const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");
const AUDIT_OF: TableDefinition<(&str, u64), ()> = TableDefinition::new("audit_of");

/// From the schema that a file has to this one.
pub(super) fn run(transaction: WriteTransaction, from: u32) -> Result<WriteTransaction, Fault> {
    let new: Write = Transaction(transaction);
    if from < 3 {
        to_bytes(&new, from)?;
    }
    Ok(new.0)
}

/// Schema 3 has tables of bytes that are named and keyed as in every other store.
fn to_bytes(new: &Write, from: u32) -> Result<(), Fault> {
    let mut places = 0;
    let mut services: Vec<(u64, Service)> = Vec::new();
    each(new, SERVICES, |_, (place, json)| {
        places = places.max(place + 1);
        services.push((place, serde_json::from_slice(json)?));
        Ok(())
    })?;
    each(new, SERVICE_ORDER, |_, _| Ok(()))?;
    each(new, SERVICE_CODE, |id, code| new.insert(Table::ServiceCode, id, code.as_bytes()))?;
    each(new, NAMES, |name, id| {
        // Names became their owners' with schema 2; what there was before is the operator's.
        let owned =
            if from < 2 { format!("{}\0{name}", UserName::operator()) } else { name.into() };
        new.insert(Table::Names, owned.as_bytes(), id)
    })?;
    each(new, ROUTES, |route, id| new.insert(Table::Routes, route.as_bytes(), id))?;
    let mut phases = std::collections::HashMap::new();
    each(new, DEPLOYMENTS, |key, json| {
        let deployment: Deployment = serde_json::from_slice(json)?;
        phases.insert(deployment.id, deployment.phase);
        new.insert(Table::Deployments, key, json)
    })?;
    each(new, DEPLOYMENT_CODE, |key, code| {
        new.insert(Table::DeploymentCode, key, code.as_bytes())
    })?;
    each(new, DEPLOYMENT_LOGS, |key, json| new.insert(Table::DeploymentLogs, key, json))?;
    each(new, ATTEMPTS, |name, json| new.insert(Table::Attempts, name.as_bytes(), json))?;
    each(new, ATTEMPT_ORDER, |place, name| {
        new.insert(Table::AttemptOrder, &number(place), name.as_bytes())
    })?;
    each(new, TOKENS, |id, json| {
        let token: AccessToken = serde_json::from_slice(json)?;
        new.insert(Table::TokenDigests, &token.digest, id)?;
        new.insert(Table::Tokens, id, json)
    })?;
    each(new, AUDIT_OF, |_, ()| Ok(()))?;
    each(new, AUDIT, |id, json| {
        let entry: AuditEntry = serde_json::from_slice(json)?;
        for key in audit::keys(&entry) {
            new.insert(Table::AuditOf, &audit::member(&key, id), &[])?;
        }
        new.insert(Table::Audit, &number(id), json)
    })?;
    for (place, service) in services {
        let phase = phases.get(&service.latest_deployment).copied().unwrap_or(Phase::Queued);
        let id = *service.id.as_bytes();
        new.insert(Table::Services, &id, &serde_json::to_vec(&service)?)?;
        let listing = Listing::of(&service, place, phase);
        new.insert(Table::Listings, &id, &serde_json::to_vec(&listing)?)?;
    }
    new.insert(Table::Counters, PLACES, &number(places))
}

/// Takes a table of the old schema away, entry by entry.
fn each<K: Key + 'static, V: Value + 'static>(
    file: &Write,
    old: TableDefinition<K, V>,
    mut take: impl FnMut(K::SelfType<'_>, V::SelfType<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    // Its name may be that of a new table.
    let away: TableDefinition<K, V> = TableDefinition::new("migrating");
    match file.0.rename_table(old, away) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        renamed => renamed?,
    }
    for entry in file.0.open_table(away)?.iter()? {
        let (key, value) = entry?;
        take(key.value(), value.value())?;
    }
    file.0.delete_table(away)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::Timestamp;
    use redb::Database;
    use serde_json::Map;

    use super::*;
    use crate::{
        audit::AuditQuery,
        name::{IdempotencyKey, ServiceId, TokenId},
        service::{LogLine, example},
        store::{
            Attempt, Creation, Durable, ServiceQuery, Volatile, embedded::Embedded,
            embedded::schema,
        },
    };

    /// Writes a file of an earlier schema.
    fn write(dir: &Path, schema: &str, fill: impl Fn(&WriteTransaction)) {
        let database = Database::create(schema::file(dir)).expect("a new file");
        let transaction = database.begin_write().expect("begins");
        transaction.open_table(schema::META).expect("opens").insert("schema", schema).expect("set");
        fill(&transaction);
        transaction.commit().expect("commits");
    }

    fn put<K: Key + 'static, V: Value + 'static>(
        transaction: &WriteTransaction,
        table: TableDefinition<K, V>,
        key: K::SelfType<'_>,
        value: V::SelfType<'_>,
    ) {
        transaction.open_table(table).expect("opens").insert(key, value).expect("inserts");
    }

    fn json(record: &impl serde::Serialize) -> Vec<u8> {
        serde_json::to_vec(record).expect("a record")
    }

    #[tokio::test]
    async fn everything_of_the_second_schema_is_there_afterwards() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let (mut service, mut first) = example::service("a", example::function("x", vec![]), now);
        let attempt =
            Attempt { key: IdempotencyKey::parse("once").expect("valid"), fingerprint: [7; 32] };
        let token = AccessToken {
            id: TokenId::new(),
            user: UserName::operator(),
            is_admin: true,
            name: "ci".to_owned(),
            digest: [9; 32],
            created_at: now,
            expires_at: None,
            last_used_at: None,
        };
        let entry = AuditEntry {
            id: 41,
            at: now,
            user: UserName::operator(),
            token: None,
            address: None,
            action: "service.create".to_owned(),
            owner: UserName::operator(),
            service: Some(service.id),
            status: 201,
            detail: Map::new(),
        };
        first.phase = Phase::Live;
        service.live_deployment = Some(first.id);
        let log = vec![LogLine { at: now, line: "built".to_owned() }];
        write(dir.path(), "2", |transaction| {
            let id = service.id.as_bytes();
            let key = [service.id.as_bytes().as_slice(), first.id.as_bytes()].concat();
            let key: &[u8; 32] = key.as_slice().try_into().expect("32 bytes");
            let (mut bare, mut bare_first) = (service.clone(), first.clone());
            bare.function.code.clear();
            bare_first.function.code.clear();
            put(transaction, SERVICES, id, (3, json(&bare).as_slice()));
            put(transaction, SERVICE_CODE, id, "x");
            put(transaction, SERVICE_ORDER, 3, id);
            put(transaction, NAMES, "admin\0a", id);
            put(transaction, ROUTES, "a.localhost\0a", id);
            put(transaction, DEPLOYMENTS, key, json(&bare_first).as_slice());
            put(transaction, DEPLOYMENT_CODE, key, "x");
            put(transaction, DEPLOYMENT_LOGS, key, json(&log).as_slice());
            let made = serde_json::json!({
                "fingerprint": attempt.fingerprint, "service": service.id, "at": now,
            });
            put(transaction, ATTEMPTS, "admin\0once", json(&made).as_slice());
            put(transaction, ATTEMPT_ORDER, 0, "admin\0once");
            put(transaction, TOKENS, token.id.as_bytes(), json(&token).as_slice());
            put(transaction, AUDIT, entry.id, json(&entry).as_slice());
            put(transaction, AUDIT_OF, ("admin", entry.id), ());
        });
        for _ in 0..2 {
            let store = Embedded::open(dir.path()).expect("migrates, once");
            assert_eq!(store.service(service.id).await.expect("reads"), Some(service.clone()));
            let kept = store.deployment(service.id, first.id).await.expect("reads");
            assert_eq!(kept, Some(Deployment { log: log.clone(), ..first.clone() }));
            let view = store.view(service.id).await.expect("reads");
            assert_eq!(view.latest_phase, Some(Phase::Live));
            assert_eq!(store.token(&token.digest).await.expect("reads"), Some(token.clone()));
            let about = AuditQuery { service: Some(service.id), ..AuditQuery::default() };
            let entries = store.audit(&about, 0, 9).await.expect("reads").items;
            assert_eq!(entries.as_slice(), std::slice::from_ref(&entry));
            let again = Attempt { ..attempt.clone() };
            let (other, its_first) = example::service("a", first.function.clone(), now);
            let made = store.create_service(&other, &its_first, Some(&again)).await;
            assert_eq!(made.expect("repeats"), Creation::Repeated(service.id));
            assert!(store.create_service(&other, &its_first, None).await.is_err(), "a taken name");
        }
        let store = Embedded::open(dir.path()).expect("opens");
        let (later, its_first) = example::service("b", first.function.clone(), now);
        store.create_service(&later, &its_first, None).await.expect("creates");
        let listed = store.services(&ServiceQuery::all(), 0, 9).await.expect("lists").items;
        assert_eq!(listed, [service, later], "in the order of creation");
    }

    #[test]
    fn names_of_the_first_schema_become_the_operators() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let id = ServiceId::new();
        write(dir.path(), "1", |transaction| put(transaction, NAMES, "hello", id.as_bytes()));
        for _ in 0..2 {
            let opened = schema::open(dir.path(), None).expect("migrates, once");
            let transaction = opened.database.begin_write().expect("begins");
            let names = super::super::tables::definition(Table::Names);
            let names = transaction.open_table(names).expect("opens");
            let keys: Vec<_> = names.iter().expect("reads").map(|e| e.expect("one").0).collect();
            assert_eq!(keys.len(), 1);
            assert_eq!(keys[0].value(), b"admin\0hello");
        }
    }
}
