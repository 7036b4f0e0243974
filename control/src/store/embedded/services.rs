//! The verbs about services, each inside a transaction that the caller owns.

use jiff::Timestamp;
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::{
    Done, Effect, attempts, deployments,
    schema::{Fault, NAMES, ROUTES, SERVICE_CODE, SERVICE_ORDER, SERVICES},
};
use crate::{
    environment::EnvVar,
    error::Error,
    name::{DeploymentId, ServiceId},
    service::{Deployment, Service},
    store::{Attempt, Creation, Listing},
};

pub(super) fn create(
    transaction: &WriteTransaction,
    service: &Service,
    first: &Deployment,
    attempt: Option<&Attempt>,
) -> Done<Creation> {
    if let Some(attempt) = attempt
        && let Some(made) = attempts::remember(transaction, service, attempt)?
    {
        return Ok((Creation::Repeated(made), Effect::Nothing));
    }
    take_names(transaction, service, None)?;
    let place = {
        let mut order = transaction.open_table(SERVICE_ORDER)?;
        let place = order.last()?.map_or(0, |(place, _)| place.value() + 1);
        order.insert(place, service.id.as_bytes())?;
        place
    };
    put(transaction, place, service)?;
    deployments::add(transaction, first)?;
    Ok((Creation::New, Effect::listed(Listing::of(service, place, first.phase))))
}

pub(super) fn update(
    transaction: &WriteTransaction,
    mut service: Service,
    deployment: Option<&Deployment>,
) -> Done<Service> {
    let (place, before) = kept(transaction, service.id)?.ok_or_else(|| gone(service.id))?;
    if before.version != service.version {
        return Err(Fault::Refused(Error::Conflict {
            field: None,
            message:
                "The service was changed in the meantime. Read it again and repeat the change."
                    .to_owned(),
        }));
    }
    service.version += 1;
    service.live_deployment = before.live_deployment;
    service.latest_deployment = deployment.map_or(before.latest_deployment, |new| new.id);
    take_names(transaction, &service, Some(&before))?;
    put(transaction, place, &service)?;
    if let Some(deployment) = deployment {
        deployments::add(transaction, deployment)?;
    }
    let phase = deployments::phase(transaction, service.id, service.latest_deployment)?;
    let listing = Listing::of(&service, place, phase);
    Ok((service, Effect::listed(listing)))
}

pub(super) fn delete(transaction: &WriteTransaction, id: ServiceId) -> Done<bool> {
    let Some((place, service)) = kept(transaction, id)? else {
        return Ok((false, Effect::Nothing));
    };
    transaction.open_table(SERVICES)?.remove(id.as_bytes())?;
    transaction.open_table(SERVICE_CODE)?.remove(id.as_bytes())?;
    transaction.open_table(SERVICE_ORDER)?.remove(place)?;
    transaction.open_table(NAMES)?.remove(owned_name(&service).as_str())?;
    transaction.open_table(ROUTES)?.remove(address(&service).as_str())?;
    deployments::remove_all(transaction, id)?;
    Ok((true, Effect::Deleted(id)))
}

pub(super) fn activate(
    transaction: &WriteTransaction,
    id: ServiceId,
    deployment: DeploymentId,
    at: Timestamp,
) -> Done<Option<DeploymentId>> {
    let (place, mut service) = kept(transaction, id)?.ok_or_else(|| gone(id))?;
    let before = service.live_deployment;
    if before == Some(deployment) {
        return Ok((before, Effect::Nothing));
    }
    deployments::go_live(transaction, id, deployment, before, at)?;
    service.live_deployment = Some(deployment);
    put_record(transaction, place, &service)?;
    deployments::prune(transaction, id, service.live_deployment)?;
    let phase = deployments::phase(transaction, id, service.latest_deployment)?;
    Ok((before, Effect::listed(Listing::of(&service, place, phase))))
}

pub(super) fn get(transaction: &ReadTransaction, id: ServiceId) -> Result<Option<Service>, Fault> {
    let records = transaction.open_table(SERVICES)?;
    let codes = transaction.open_table(SERVICE_CODE)?;
    with_code(&records, &codes, id.as_bytes())
}

/// The services with these ids, without those that are gone meanwhile.
pub(super) fn with_ids(
    transaction: &ReadTransaction,
    ids: &[ServiceId],
) -> Result<Vec<Service>, Fault> {
    let records = transaction.open_table(SERVICES)?;
    let codes = transaction.open_table(SERVICE_CODE)?;
    let mut services = Vec::with_capacity(ids.len());
    for id in ids {
        services.extend(with_code(&records, &codes, id.as_bytes())?);
    }
    Ok(services)
}

/// What memory copies of every service.
pub(super) fn listings(transaction: &WriteTransaction) -> Result<Vec<Listing>, Fault> {
    let records = transaction.open_table(SERVICES)?;
    let mut listings = Vec::new();
    for entry in records.iter()? {
        let (_, record) = entry?;
        let (place, json) = record.value();
        let service: Service = serde_json::from_slice(json)?;
        let phase = deployments::phase(transaction, service.id, service.latest_deployment)?;
        listings.push(Listing::of(&service, place, phase));
    }
    Ok(listings)
}

/// Writes the record again when `change` says that it changed its environment variables.
pub(super) fn set_environment(
    transaction: &WriteTransaction,
    id: ServiceId,
    change: &mut dyn FnMut(&mut Vec<EnvVar>) -> bool,
) -> Result<(), Fault> {
    let Some((place, mut service)) = kept(transaction, id)? else { return Ok(()) };
    if change(&mut service.function.env_vars) {
        put_record(transaction, place, &service)?;
    }
    Ok(())
}

/// The service without code, and its place in the order of creation.
fn kept(transaction: &WriteTransaction, id: ServiceId) -> Result<Option<(u64, Service)>, Fault> {
    let records = transaction.open_table(SERVICES)?;
    let Some(record) = records.get(id.as_bytes())? else {
        return Ok(None);
    };
    let (place, json) = record.value();
    Ok(Some((place, serde_json::from_slice(json)?)))
}

/// The newest deployment and the live one, when the service is kept.
pub(super) fn deployments_of(
    transaction: &WriteTransaction,
    id: ServiceId,
) -> Result<Option<(DeploymentId, Option<DeploymentId>)>, Fault> {
    let kept = kept(transaction, id)?;
    Ok(kept.map(|(_, service)| (service.latest_deployment, service.live_deployment)))
}

fn with_code(
    records: &impl ReadableTable<&'static [u8; 16], (u64, &'static [u8])>,
    codes: &impl ReadableTable<&'static [u8; 16], &'static str>,
    id: &[u8; 16],
) -> Result<Option<Service>, Fault> {
    let Some(record) = records.get(id)? else {
        return Ok(None);
    };
    let mut service: Service = serde_json::from_slice(record.value().1)?;
    if let Some(code) = codes.get(id)? {
        service.function.code = code.value().to_owned();
    }
    Ok(Some(service))
}

fn put(transaction: &WriteTransaction, place: u64, service: &Service) -> Result<(), Fault> {
    let mut codes = transaction.open_table(SERVICE_CODE)?;
    codes.insert(service.id.as_bytes(), service.function.code.as_str())?;
    put_record(transaction, place, service)
}

/// Writes the record and leaves the code as it is kept.
fn put_record(transaction: &WriteTransaction, place: u64, service: &Service) -> Result<(), Fault> {
    let mut service = service.clone();
    service.function.code.clear();
    let json = serde_json::to_vec(&service)?;
    let mut records = transaction.open_table(SERVICES)?;
    records.insert(service.id.as_bytes(), (place, json.as_slice()))?;
    Ok(())
}

/// Takes name and address for a service, and frees those that it had before.
fn take_names(
    transaction: &WriteTransaction,
    service: &Service,
    before: Option<&Service>,
) -> Result<(), Fault> {
    let mut names = transaction.open_table(NAMES)?;
    let mut routes = transaction.open_table(ROUTES)?;
    if let Some(before) = before {
        names.remove(owned_name(before).as_str())?;
        routes.remove(address(before).as_str())?;
    }
    let conflict = |field, message: &str| {
        Fault::Refused(Error::Conflict { field: Some(field), message: message.to_owned() })
    };
    if names.insert(owned_name(service).as_str(), service.id.as_bytes())?.is_some() {
        return Err(conflict("name", "A service with this name already exists."));
    }
    if routes.insert(address(service).as_str(), service.id.as_bytes())?.is_some() {
        return Err(conflict(
            "function_name",
            "Another service has this public_domain and function_name.",
        ));
    }
    Ok(())
}

/// No user's name holds a NUL, so no two pairs share a key.
fn owned_name(service: &Service) -> String {
    format!("{}\0{}", service.owner, service.name)
}

/// No name holds a NUL, so no two pairs share a key.
fn address(service: &Service) -> String {
    format!("{}\0{}", service.public_domain, service.function_name)
}

fn gone(id: ServiceId) -> Fault {
    Fault::Refused(Error::NotFound { what: "service", id: id.to_string() })
}
