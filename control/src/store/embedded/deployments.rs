//! The verbs about deployments, each inside a transaction that the caller owns.

use jiff::Timestamp;
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::{
    Done, Effect,
    schema::{DEPLOYMENT_CODE, DEPLOYMENT_LOGS, DEPLOYMENTS, Fault},
    services,
};
use crate::{
    environment::EnvVar,
    error::Error,
    limits::{DEPLOYMENT_LOG_LINES, DEPLOYMENTS_KEPT, MESSAGE_CHARS},
    name::{DeploymentId, ServiceId},
    service::{Deployment, LogLine, Phase, PhaseEntry},
    store::Page,
};

type Key = [u8; 32];

/// Adds a deployment that is not there yet.
pub(super) fn add(transaction: &WriteTransaction, deployment: &Deployment) -> Result<(), Fault> {
    let key = key(deployment.service, deployment.id);
    let mut codes = transaction.open_table(DEPLOYMENT_CODE)?;
    codes.insert(&key, deployment.function.code.as_str())?;
    append_log(transaction, &key, deployment.log.clone())?;
    put(transaction, deployment)
}

pub(super) fn get(
    transaction: &ReadTransaction,
    service: ServiceId,
    id: DeploymentId,
) -> Result<Option<Deployment>, Fault> {
    let key = key(service, id);
    let records = transaction.open_table(DEPLOYMENTS)?;
    let Some(record) = records.get(&key)? else {
        return Ok(None);
    };
    let mut deployment: Deployment = serde_json::from_slice(record.value())?;
    deployment.function.code = code(&transaction.open_table(DEPLOYMENT_CODE)?, &key)?;
    deployment.log = log(&transaction.open_table(DEPLOYMENT_LOGS)?, &key)?;
    Ok(Some(deployment))
}

/// The deployment before another one, without log.
pub(super) fn before(
    transaction: &ReadTransaction,
    service: ServiceId,
    id: DeploymentId,
) -> Result<Option<Deployment>, Fault> {
    let [first, _] = keys(service);
    let records = transaction.open_table(DEPLOYMENTS)?;
    let mut earlier = records.range::<&Key>(&first..&key(service, id))?;
    let Some(entry) = earlier.next_back() else { return Ok(None) };
    let (key, record) = entry?;
    let mut deployment: Deployment = serde_json::from_slice(record.value())?;
    deployment.function.code = code(&transaction.open_table(DEPLOYMENT_CODE)?, key.value())?;
    Ok(Some(deployment))
}

/// The phase of a deployment; that of one that waits when it is not there.
pub(super) fn phase(
    transaction: &WriteTransaction,
    service: ServiceId,
    id: DeploymentId,
) -> Result<Phase, Fault> {
    Ok(find(transaction, service, id)?.map_or(Phase::Queued, |deployment| deployment.phase))
}

/// What a deployment's code finds in its environment.
pub(super) fn environment(
    transaction: &ReadTransaction,
    service: ServiceId,
    id: DeploymentId,
) -> Result<Vec<EnvVar>, Fault> {
    let records = transaction.open_table(DEPLOYMENTS)?;
    let Some(record) = records.get(&key(service, id))? else { return Ok(Vec::new()) };
    let deployment: Deployment = serde_json::from_slice(record.value())?;
    Ok(deployment.function.env_vars)
}

/// Writes every deployment of a service again of which `change` says that it changed its environment
/// variables.
pub(super) fn set_environments(
    transaction: &WriteTransaction,
    service: ServiceId,
    change: &mut dyn FnMut(&mut Vec<EnvVar>) -> bool,
) -> Result<(), Fault> {
    for mut deployment in all(transaction, service)? {
        if change(&mut deployment.function.env_vars) {
            put(transaction, &deployment)?;
        }
    }
    Ok(())
}

pub(super) fn page(
    transaction: &ReadTransaction,
    service: ServiceId,
    offset: usize,
    limit: usize,
) -> Result<Page<Deployment>, Fault> {
    let records = transaction.open_table(DEPLOYMENTS)?;
    let logs = transaction.open_table(DEPLOYMENT_LOGS)?;
    let mut page = Page { count: 0, items: Vec::new() };
    let [first, last] = keys(service);
    for (at, entry) in records.range::<&Key>(&first..=&last)?.rev().enumerate() {
        let (key, record) = entry?;
        page.count += 1;
        if at >= offset && page.items.len() < limit {
            let mut deployment: Deployment = serde_json::from_slice(record.value())?;
            deployment.log = log(&logs, key.value())?;
            page.items.push(deployment);
        }
    }
    Ok(page)
}

pub(super) fn claim(
    transaction: &WriteTransaction,
    service: ServiceId,
    now: Timestamp,
) -> Done<Option<Deployment>> {
    let Some((latest, _)) = services::deployments_of(transaction, service)? else {
        return Ok((None, Effect::Nothing));
    };
    let mut waiting = all(transaction, service)?;
    waiting.retain(|deployment| !deployment.phase.is_settled());
    // The latest one is last, unless the clock was set back between it and another.
    let claimed = waiting.iter().position(|deployment| deployment.id == latest);
    let Some(claimed) = claimed.or(waiting.len().checked_sub(1)) else {
        return Ok((None, Effect::Nothing));
    };
    let mut claimed = waiting.remove(claimed);
    let effect = match waiting.is_empty() {
        true => Effect::Nothing,
        false => Effect::Changed(service),
    };
    supersede(transaction, waiting, now)?;
    let key = key(service, claimed.id);
    claimed.function.code = code(&transaction.open_table(DEPLOYMENT_CODE)?, &key)?;
    claimed.log = log(&transaction.open_table(DEPLOYMENT_LOGS)?, &key)?;
    Ok((Some(claimed), effect))
}

pub(super) fn record(
    transaction: &WriteTransaction,
    service: ServiceId,
    id: DeploymentId,
    phase: Phase,
    at: Timestamp,
    lines: Vec<LogLine>,
    error: Option<String>,
) -> Done<()> {
    let Some(mut deployment) = find(transaction, service, id)? else {
        return Ok(((), Effect::Nothing));
    };
    let moved = may_move(deployment.phase, phase);
    if !moved && lines.is_empty() {
        return Ok(((), Effect::Nothing));
    }
    append_log(transaction, &key(service, id), lines)?;
    if moved {
        enter(&mut deployment, phase, at);
        if phase == Phase::Failed {
            deployment.error = error.map(|text| cut(&text));
        }
        put(transaction, &deployment)?;
    }
    // Somebody whose code never works has a history, too, that must not grow for ever.
    if moved
        && phase.is_settled()
        && let Some((_, live)) = services::deployments_of(transaction, service)?
    {
        prune(transaction, service, live)?;
    }
    let effect = if moved { Effect::Moved(service, id, phase) } else { Effect::Changed(service) };
    Ok(((), effect))
}

/// Notes in which deployment's image a deployment runs.
pub(super) fn set_image(
    transaction: &WriteTransaction,
    service: ServiceId,
    id: DeploymentId,
    image_of: Option<DeploymentId>,
) -> Done<()> {
    let known = find(transaction, service, id)?;
    let Some(mut deployment) = known.filter(|known| known.image_of != image_of) else {
        return Ok(((), Effect::Nothing));
    };
    deployment.image_of = image_of;
    put(transaction, &deployment)?;
    Ok(((), Effect::Changed(service)))
}

/// Moves a deployment to `live`; the one that was live and older ones that wait are superseded.
pub(super) fn go_live(
    transaction: &WriteTransaction,
    service: ServiceId,
    id: DeploymentId,
    before: Option<DeploymentId>,
    at: Timestamp,
) -> Result<(), Fault> {
    let mut deployment = find(transaction, service, id)?.ok_or_else(|| {
        Fault::Refused(Error::NotFound { what: "deployment", id: id.to_string() })
    })?;
    if deployment.phase.is_settled() {
        let phase = deployment.phase.as_str();
        return Err(Fault::Refused(Error::Conflict {
            field: None,
            message: format!("Deployment {id} is {phase} and cannot become live any more."),
        }));
    }
    enter(&mut deployment, Phase::Live, at);
    put(transaction, &deployment)?;
    let mut replaced = all(transaction, service)?;
    replaced
        .retain(|other| Some(other.id) == before || (other.id < id && !other.phase.is_settled()));
    supersede(transaction, replaced, at)
}

/// Forgets settled deployments beyond [`DEPLOYMENTS_KEPT`], oldest first, but neither the live one
/// nor the one that was live before it.
pub(super) fn prune(
    transaction: &WriteTransaction,
    service: ServiceId,
    live: Option<DeploymentId>,
) -> Result<(), Fault> {
    let mut settled = all(transaction, service)?;
    settled.retain(|deployment| deployment.phase.is_settled());
    let served = |deployment: &&Deployment| Some(deployment.id) != live && deployment.was_live();
    let previous = settled.iter().rev().find(served).map(|deployment| deployment.id);
    let surplus = settled.len().saturating_sub(DEPLOYMENTS_KEPT);
    for old in &settled[..surplus] {
        if Some(old.id) != live && Some(old.id) != previous {
            remove(transaction, &key(service, old.id))?;
        }
    }
    Ok(())
}

/// Forgets every deployment of a service.
pub(super) fn remove_all(transaction: &WriteTransaction, service: ServiceId) -> Result<(), Fault> {
    for deployment in all(transaction, service)? {
        remove(transaction, &key(service, deployment.id))?;
    }
    Ok(())
}

/// Phases move forward only, but a deployment that was interrupted starts over from `building`.
/// `live` is for [`go_live`] alone: only there does the service follow.
fn may_move(from: Phase, to: Phase) -> bool {
    let again = to == Phase::Building && from > Phase::Building;
    !from.is_settled() && to != Phase::Live && (to > from || again)
}

fn enter(deployment: &mut Deployment, phase: Phase, at: Timestamp) {
    deployment.phase = phase;
    deployment.phases.push(PhaseEntry { phase, at });
}

fn supersede(
    transaction: &WriteTransaction,
    deployments: Vec<Deployment>,
    at: Timestamp,
) -> Result<(), Fault> {
    for mut deployment in deployments {
        enter(&mut deployment, Phase::Superseded, at);
        put(transaction, &deployment)?;
    }
    Ok(())
}

/// Every deployment of a service, oldest first, without code and log.
fn all(transaction: &WriteTransaction, service: ServiceId) -> Result<Vec<Deployment>, Fault> {
    let records = transaction.open_table(DEPLOYMENTS)?;
    let [first, last] = keys(service);
    let mut deployments = Vec::new();
    for entry in records.range::<&Key>(&first..=&last)? {
        let (_, record) = entry?;
        deployments.push(serde_json::from_slice(record.value())?);
    }
    Ok(deployments)
}

/// One deployment, without code and log.
fn find(
    transaction: &WriteTransaction,
    service: ServiceId,
    id: DeploymentId,
) -> Result<Option<Deployment>, Fault> {
    let records = transaction.open_table(DEPLOYMENTS)?;
    let Some(record) = records.get(&key(service, id))? else {
        return Ok(None);
    };
    Ok(Some(serde_json::from_slice(record.value())?))
}

/// Writes the record; code and log are kept beside it.
fn put(transaction: &WriteTransaction, deployment: &Deployment) -> Result<(), Fault> {
    let mut deployment = deployment.clone();
    deployment.function.code.clear();
    deployment.log.clear();
    let json = serde_json::to_vec(&deployment)?;
    let mut records = transaction.open_table(DEPLOYMENTS)?;
    records.insert(&key(deployment.service, deployment.id), json.as_slice())?;
    Ok(())
}

fn remove(transaction: &WriteTransaction, key: &Key) -> Result<(), Fault> {
    transaction.open_table(DEPLOYMENTS)?.remove(key)?;
    transaction.open_table(DEPLOYMENT_CODE)?.remove(key)?;
    transaction.open_table(DEPLOYMENT_LOGS)?.remove(key)?;
    Ok(())
}

fn append_log(transaction: &WriteTransaction, key: &Key, lines: Vec<LogLine>) -> Result<(), Fault> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut logs = transaction.open_table(DEPLOYMENT_LOGS)?;
    let mut log = log(&logs, key)?;
    log.extend(lines.into_iter().map(|line| LogLine { at: line.at, line: cut(&line.line) }));
    log.drain(..log.len().saturating_sub(DEPLOYMENT_LOG_LINES));
    logs.insert(key, serde_json::to_vec(&log)?.as_slice())?;
    Ok(())
}

fn log(
    logs: &impl ReadableTable<&'static Key, &'static [u8]>,
    key: &Key,
) -> Result<Vec<LogLine>, Fault> {
    Ok(match logs.get(key)? {
        Some(json) => serde_json::from_slice(json.value())?,
        None => Vec::new(),
    })
}

fn code(
    codes: &impl ReadableTable<&'static Key, &'static str>,
    key: &Key,
) -> Result<String, Fault> {
    Ok(codes.get(key)?.map(|code| code.value().to_owned()).unwrap_or_default())
}

fn cut(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS).collect()
}

fn key(service: ServiceId, id: DeploymentId) -> Key {
    join(service, id.as_bytes())
}

/// The first and the last key that a deployment of a service can have.
fn keys(service: ServiceId) -> [Key; 2] {
    [join(service, &[0; 16]), join(service, &[0xff; 16])]
}

fn join(service: ServiceId, rest: &[u8; 16]) -> Key {
    let mut key = [0; 32];
    key[..16].copy_from_slice(service.as_bytes());
    key[16..].copy_from_slice(rest);
    key
}

#[cfg(test)]
mod tests {
    use Phase::{Building, Deploying, Failed, HealthChecking, Live, Queued, Superseded};

    use super::*;

    #[test]
    fn phases_move_forward_and_start_over_from_building_only() {
        let phases = [Queued, Building, Deploying, HealthChecking, Live, Failed, Superseded];
        for from in phases {
            for to in phases {
                let expected = match (from, to) {
                    (Live | Failed | Superseded, _) | (_, Live) => false,
                    (Deploying | HealthChecking, Building) => true,
                    _ => to > from,
                };
                assert_eq!(may_move(from, to), expected, "{from:?} to {to:?}");
            }
        }
    }
}
