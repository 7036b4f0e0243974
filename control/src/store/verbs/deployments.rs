//! The verbs about deployments, each inside a transaction that the caller owns.

use jiff::Timestamp;

use super::services;
use crate::{
    environment::EnvVar,
    error::Error,
    limits::{DEPLOYMENT_LOG_LINES, DEPLOYMENTS_KEPT, MESSAGE_CHARS},
    name::{DeploymentId, ServiceId},
    service::{Deployment, LogLine, Phase, PhaseEntry},
    store::{
        Page,
        tables::{
            Done, Effect, Fault, Range, Reads, Table, Tables, get_json, get_text, put_json,
            range_json,
        },
    },
};

type Key = [u8; 32];

/// Adds a deployment that is not there yet.
pub(super) async fn add(tables: &mut impl Tables, deployment: &Deployment) -> Result<(), Fault> {
    let key = key(deployment.service, deployment.id);
    let code = deployment.function.code.clone().into_bytes();
    tables.put(Table::DeploymentCode, &key, code).await?;
    append_log(tables, &key, deployment.log.clone()).await?;
    put(tables, deployment).await
}

/// A deployment with its code and its log.
pub(super) async fn get(
    tables: &mut impl Reads,
    service: ServiceId,
    id: DeploymentId,
) -> Result<Option<Deployment>, Fault> {
    let Some(mut deployment) = find(tables, service, id).await? else {
        return Ok(None);
    };
    fill(tables, &mut deployment).await?;
    Ok(Some(deployment))
}

/// The deployment before another one, without log.
pub(super) async fn before(
    tables: &mut impl Reads,
    service: ServiceId,
    id: DeploymentId,
) -> Result<Option<Deployment>, Fault> {
    let mut earlier = of_service(service).backwards().page(0, 2);
    earlier.keys.1 = key(service, id).to_vec();
    let mut found: Vec<Deployment> = range_json(tables, earlier).await?;
    found.retain(|deployment| deployment.id != id);
    let Some(mut deployment) = found.into_iter().next() else { return Ok(None) };
    let key = key(service, deployment.id);
    deployment.function.code = get_text(tables, Table::DeploymentCode, &key).await?;
    Ok(Some(deployment))
}

/// The phase of a deployment; that of one that waits when it is not there.
pub(super) async fn phase(
    tables: &mut impl Reads,
    service: ServiceId,
    id: DeploymentId,
) -> Result<Phase, Fault> {
    let deployment = find(tables, service, id).await?;
    Ok(deployment.map_or(Phase::Queued, |deployment| deployment.phase))
}

/// What a deployment's code finds in its environment.
pub(super) async fn environment(
    tables: &mut impl Reads,
    service: ServiceId,
    id: DeploymentId,
) -> Result<Vec<EnvVar>, Fault> {
    let deployment = find(tables, service, id).await?;
    Ok(deployment.map(|deployment| deployment.function.env_vars).unwrap_or_default())
}

/// Writes every deployment of a service again of which `change` says that it changed its environment
/// variables.
pub(super) async fn set_environments(
    tables: &mut impl Tables,
    service: ServiceId,
    change: &mut (dyn FnMut(&mut Vec<EnvVar>) -> bool + Send),
) -> Result<(), Fault> {
    for mut deployment in all(tables, service).await? {
        if change(&mut deployment.function.env_vars) {
            put(tables, &deployment).await?;
        }
    }
    Ok(())
}

/// A page of a service's deployments, newest first, without code.
pub(super) async fn page(
    tables: &mut impl Reads,
    service: ServiceId,
    offset: usize,
    limit: usize,
) -> Result<Page<Deployment>, Fault> {
    let count = tables.count(of_service(service)).await?;
    let newest = of_service(service).backwards().page(offset, limit);
    let mut items: Vec<Deployment> = range_json(tables, newest).await?;
    for deployment in &mut items {
        deployment.log = log(tables, &key(service, deployment.id)).await?;
    }
    Ok(Page { count, items })
}

pub(super) async fn claim(
    tables: &mut impl Tables,
    service: ServiceId,
    now: Timestamp,
) -> Done<Option<Deployment>> {
    let Some(kept) = services::find(tables, service).await? else {
        return Ok((None, Effect::Nothing));
    };
    let mut waiting = all(tables, service).await?;
    waiting.retain(|deployment| !deployment.phase.is_settled());
    // The latest one is last, unless the clock was set back between it and another.
    let latest = |deployment: &Deployment| deployment.id == kept.latest_deployment;
    let claimed = waiting.iter().position(latest).or(waiting.len().checked_sub(1));
    let Some(claimed) = claimed else {
        return Ok((None, Effect::Nothing));
    };
    let mut claimed = waiting.remove(claimed);
    let effect = match waiting.is_empty() {
        true => Effect::Nothing,
        false => Effect::Changed(service),
    };
    supersede(tables, waiting, now).await?;
    fill(tables, &mut claimed).await?;
    Ok((Some(claimed), effect))
}

/// How far a deployment has come, and what there is to say about it.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    pub(super) at: Timestamp,
    pub(super) lines: Vec<LogLine>,
    pub(super) error: Option<String>,
}

pub(super) async fn record(
    tables: &mut impl Tables,
    service: ServiceId,
    id: DeploymentId,
    progress: Progress,
) -> Done<()> {
    let Some(mut deployment) = find(tables, service, id).await? else {
        return Ok(((), Effect::Nothing));
    };
    let Progress { phase, at, lines, error } = progress;
    let moved = may_move(deployment.phase, phase);
    if !moved && lines.is_empty() {
        return Ok(((), Effect::Nothing));
    }
    append_log(tables, &key(service, id), lines).await?;
    if !moved {
        return Ok(((), Effect::Changed(service)));
    }
    enter(&mut deployment, phase, at);
    if phase == Phase::Failed {
        deployment.error = error.map(|text| cut(&text));
    }
    put(tables, &deployment).await?;
    // Somebody whose code never works has a history, too, that must not grow for ever.
    if phase.is_settled()
        && let Some(kept) = services::find(tables, service).await?
    {
        prune(tables, service, kept.live_deployment).await?;
    }
    Ok(((), services::list_phase(tables, service, id, phase).await?))
}

/// Notes in which deployment's image a deployment runs.
pub(super) async fn set_image(
    tables: &mut impl Tables,
    service: ServiceId,
    id: DeploymentId,
    image_of: Option<DeploymentId>,
) -> Done<()> {
    let known = find(tables, service, id).await?;
    let Some(mut deployment) = known.filter(|known| known.image_of != image_of) else {
        return Ok(((), Effect::Nothing));
    };
    deployment.image_of = image_of;
    put(tables, &deployment).await?;
    Ok(((), Effect::Changed(service)))
}

/// Moves a deployment to `live`; the one that was live and older ones that wait are superseded.
pub(super) async fn go_live(
    tables: &mut impl Tables,
    service: ServiceId,
    id: DeploymentId,
    before: Option<DeploymentId>,
    at: Timestamp,
) -> Result<(), Fault> {
    let mut deployment = find(tables, service, id).await?.ok_or_else(|| {
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
    put(tables, &deployment).await?;
    let mut replaced = all(tables, service).await?;
    replaced
        .retain(|other| Some(other.id) == before || (other.id < id && !other.phase.is_settled()));
    supersede(tables, replaced, at).await
}

/// Forgets settled deployments beyond [`DEPLOYMENTS_KEPT`], oldest first, but neither the live one
/// nor the one that was live before it.
pub(super) async fn prune(
    tables: &mut impl Tables,
    service: ServiceId,
    live: Option<DeploymentId>,
) -> Result<(), Fault> {
    let mut settled = all(tables, service).await?;
    settled.retain(|deployment| deployment.phase.is_settled());
    let served = |deployment: &&Deployment| Some(deployment.id) != live && deployment.was_live();
    let previous = settled.iter().rev().find(served).map(|deployment| deployment.id);
    let surplus = settled.len().saturating_sub(DEPLOYMENTS_KEPT);
    for old in &settled[..surplus] {
        if Some(old.id) != live && Some(old.id) != previous {
            remove(tables, &key(service, old.id)).await?;
        }
    }
    Ok(())
}

/// Forgets every deployment of a service.
pub(super) async fn remove_all(tables: &mut impl Tables, service: ServiceId) -> Result<(), Fault> {
    for deployment in all(tables, service).await? {
        remove(tables, &key(service, deployment.id)).await?;
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

async fn supersede(
    tables: &mut impl Tables,
    deployments: Vec<Deployment>,
    at: Timestamp,
) -> Result<(), Fault> {
    for mut deployment in deployments {
        enter(&mut deployment, Phase::Superseded, at);
        put(tables, &deployment).await?;
    }
    Ok(())
}

/// Every deployment of a service, oldest first, without code and log.
async fn all(tables: &mut impl Reads, service: ServiceId) -> Result<Vec<Deployment>, Fault> {
    range_json(tables, of_service(service)).await
}

/// One deployment, without code and log.
async fn find(
    tables: &mut impl Reads,
    service: ServiceId,
    id: DeploymentId,
) -> Result<Option<Deployment>, Fault> {
    get_json(tables, Table::Deployments, &key(service, id)).await
}

/// Adds code and log, which are kept beside the record.
async fn fill(tables: &mut impl Reads, deployment: &mut Deployment) -> Result<(), Fault> {
    let key = key(deployment.service, deployment.id);
    deployment.function.code = get_text(tables, Table::DeploymentCode, &key).await?;
    deployment.log = log(tables, &key).await?;
    Ok(())
}

/// Writes the record; code and log are kept beside it.
async fn put(tables: &mut impl Tables, deployment: &Deployment) -> Result<(), Fault> {
    let mut deployment = deployment.clone();
    deployment.function.code.clear();
    deployment.log.clear();
    let key = key(deployment.service, deployment.id);
    put_json(tables, Table::Deployments, &key, &deployment).await
}

async fn remove(tables: &mut impl Tables, key: &Key) -> Result<(), Fault> {
    for table in [Table::Deployments, Table::DeploymentCode, Table::DeploymentLogs] {
        tables.remove(table, key).await?;
    }
    Ok(())
}

async fn append_log(tables: &mut impl Tables, key: &Key, lines: Vec<LogLine>) -> Result<(), Fault> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut log = log(tables, key).await?;
    log.extend(lines.into_iter().map(|line| LogLine { at: line.at, line: cut(&line.line) }));
    log.drain(..log.len().saturating_sub(DEPLOYMENT_LOG_LINES));
    put_json(tables, Table::DeploymentLogs, key, &log).await
}

async fn log(tables: &mut impl Reads, key: &Key) -> Result<Vec<LogLine>, Fault> {
    Ok(get_json(tables, Table::DeploymentLogs, key).await?.unwrap_or_default())
}

fn cut(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS).collect()
}

/// All deployments of a service, oldest first.
fn of_service(service: ServiceId) -> Range {
    Range::of_group(Table::Deployments, service.as_bytes())
}

fn key(service: ServiceId, id: DeploymentId) -> Key {
    let mut key = [0; 32];
    key[..16].copy_from_slice(service.as_bytes());
    key[16..].copy_from_slice(id.as_bytes());
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
