//! The verbs about services, each inside a transaction that the caller owns.

use jiff::Timestamp;

use super::{attempts, deployments};
use crate::{
    environment::EnvVar,
    error::Error,
    name::{DeploymentId, ServiceId},
    service::{Deployment, Phase, Service},
    store::{
        Attempt, Creation, Listing,
        tables::{
            Done, Effect, Fault, PLACES, Reads, Table, Tables, get_json, get_text, number,
            number_of, put_json,
        },
    },
};

pub(super) async fn create(
    tables: &mut impl Tables,
    service: &Service,
    first: &Deployment,
    attempt: Option<&Attempt>,
) -> Done<Creation> {
    if let Some(attempt) = attempt
        && let Some(made) = attempts::remember(tables, service, attempt).await?
    {
        return Ok((Creation::Repeated(made), Effect::Nothing));
    }
    take_names(tables, service, None).await?;
    let places = tables.get(Table::Counters, PLACES).await?;
    let place = places.map_or(Ok(0), |places| number_of(&places))?;
    tables.put(Table::Counters, PLACES, number(place + 1).to_vec()).await?;
    put(tables, service).await?;
    deployments::add(tables, first).await?;
    let effect = list(tables, Listing::of(service, place, first.phase)).await?;
    Ok((Creation::New, effect))
}

pub(super) async fn update(
    tables: &mut impl Tables,
    mut service: Service,
    deployment: Option<&Deployment>,
) -> Done<Service> {
    let before = find(tables, service.id).await?.ok_or_else(|| gone(service.id))?;
    if before.version != service.version {
        return Err(moved_on());
    }
    service.version += 1;
    service.live_deployment = before.live_deployment;
    service.latest_deployment = deployment.map_or(before.latest_deployment, |new| new.id);
    take_names(tables, &service, Some(&before)).await?;
    put(tables, &service).await?;
    if let Some(deployment) = deployment {
        deployments::add(tables, deployment).await?;
    }
    let effect = list_again(tables, &service).await?;
    Ok((service, effect))
}

pub(super) async fn delete(
    tables: &mut impl Tables,
    id: ServiceId,
    version: Option<u64>,
) -> Done<bool> {
    let Some(service) = find(tables, id).await? else {
        return Ok((false, Effect::Nothing));
    };
    if version.is_some_and(|version| version != service.version) {
        return Err(moved_on());
    }
    for table in [Table::Services, Table::ServiceCode, Table::Listings] {
        tables.remove(table, id.as_bytes()).await?;
    }
    tables.remove(Table::Names, &owned_name(&service)).await?;
    tables.remove(Table::Routes, &address(&service)).await?;
    deployments::remove_all(tables, id).await?;
    Ok((true, Effect::Deleted(id)))
}

pub(super) async fn activate(
    tables: &mut impl Tables,
    id: ServiceId,
    deployment: DeploymentId,
    at: Timestamp,
) -> Done<Option<DeploymentId>> {
    let mut service = find(tables, id).await?.ok_or_else(|| gone(id))?;
    let before = service.live_deployment;
    if before == Some(deployment) {
        return Ok((before, Effect::Nothing));
    }
    deployments::go_live(tables, id, deployment, before, at).await?;
    service.live_deployment = Some(deployment);
    put_record(tables, &service).await?;
    deployments::prune(tables, id, service.live_deployment).await?;
    Ok((before, list_again(tables, &service).await?))
}

/// The service, with its code.
pub(super) async fn get(tables: &mut impl Reads, id: ServiceId) -> Result<Option<Service>, Fault> {
    let Some(mut service) = find(tables, id).await? else {
        return Ok(None);
    };
    service.function.code = get_text(tables, Table::ServiceCode, id.as_bytes()).await?;
    Ok(Some(service))
}

/// The services with these ids, without those that are gone meanwhile.
pub(super) async fn with_ids(
    tables: &mut impl Reads,
    ids: &[ServiceId],
) -> Result<Vec<Service>, Fault> {
    let mut services = Vec::with_capacity(ids.len());
    for id in ids {
        services.extend(get(tables, *id).await?);
    }
    Ok(services)
}

/// Writes the record again when `change` says that it changed its environment variables.
pub(super) async fn set_environment(
    tables: &mut impl Tables,
    id: ServiceId,
    change: &mut (dyn FnMut(&mut Vec<EnvVar>) -> bool + Send),
) -> Result<(), Fault> {
    let Some(mut service) = find(tables, id).await? else { return Ok(()) };
    if change(&mut service.function.env_vars) {
        put_record(tables, &service).await?;
    }
    Ok(())
}

/// The service without code.
pub(super) async fn find(tables: &mut impl Reads, id: ServiceId) -> Result<Option<Service>, Fault> {
    get_json(tables, Table::Services, id.as_bytes()).await
}

/// Lists a service in the phase that its newest deployment has come to, if it is that one's.
pub(super) async fn list_phase(
    tables: &mut impl Tables,
    id: ServiceId,
    deployment: DeploymentId,
    phase: Phase,
) -> Result<Effect, Fault> {
    let listing: Option<Listing> = get_json(tables, Table::Listings, id.as_bytes()).await?;
    match listing {
        Some(listing) if listing.latest.0 == deployment => {
            list(tables, Listing { latest: (deployment, phase), ..listing }).await
        }
        _ => Ok(Effect::Changed(id)),
    }
}

/// Lists a service as it is now, in the place that it had.
async fn list_again(tables: &mut impl Tables, service: &Service) -> Result<Effect, Fault> {
    let id = service.id;
    let before: Option<Listing> = get_json(tables, Table::Listings, id.as_bytes()).await?;
    let before = before.ok_or_else(|| Fault::Broken(format!("service {id} has no listing")))?;
    let phase = deployments::phase(tables, id, service.latest_deployment).await?;
    list(tables, Listing::of(service, before.place, phase)).await
}

async fn list(tables: &mut impl Tables, listing: Listing) -> Result<Effect, Fault> {
    put_json(tables, Table::Listings, listing.route.service.as_bytes(), &listing).await?;
    Ok(Effect::listed(listing))
}

async fn put(tables: &mut impl Tables, service: &Service) -> Result<(), Fault> {
    let code = service.function.code.clone().into_bytes();
    tables.put(Table::ServiceCode, service.id.as_bytes(), code).await?;
    put_record(tables, service).await
}

/// Writes the record and leaves the code as it is kept.
async fn put_record(tables: &mut impl Tables, service: &Service) -> Result<(), Fault> {
    let mut service = service.clone();
    service.function.code.clear();
    put_json(tables, Table::Services, service.id.as_bytes(), &service).await
}

/// Takes name and address for a service, and frees those that it had before.
async fn take_names(
    tables: &mut impl Tables,
    service: &Service,
    before: Option<&Service>,
) -> Result<(), Fault> {
    if let Some(before) = before {
        tables.remove(Table::Names, &owned_name(before)).await?;
        tables.remove(Table::Routes, &address(before)).await?;
    }
    let (name, address) = (owned_name(service), address(service));
    if tables.get(Table::Names, &name).await?.is_some() {
        return Err(conflict("name", "A service with this name already exists."));
    }
    if tables.get(Table::Routes, &address).await?.is_some() {
        let message = "Another service has this public_domain and function_name.";
        return Err(conflict("function_name", message));
    }
    tables.put(Table::Names, &name, service.id.as_bytes().to_vec()).await?;
    tables.put(Table::Routes, &address, service.id.as_bytes().to_vec()).await
}

fn conflict(field: &'static str, message: &str) -> Fault {
    Fault::Refused(Error::Conflict { field: Some(field), message: message.to_owned() })
}

/// No user's name holds a NUL, so no two pairs share a key.
fn owned_name(service: &Service) -> Vec<u8> {
    format!("{}\0{}", service.owner, service.name).into_bytes()
}

/// No name holds a NUL, so no two pairs share a key.
fn address(service: &Service) -> Vec<u8> {
    format!("{}\0{}", service.public_domain, service.function_name).into_bytes()
}

fn moved_on() -> Fault {
    let message = "The service was changed in the meantime. Read it again and repeat the change.";
    Fault::Refused(Error::Conflict { field: None, message: message.to_owned() })
}

fn gone(id: ServiceId) -> Fault {
    Fault::Refused(Error::NotFound { what: "service", id: id.to_string() })
}
