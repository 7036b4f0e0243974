//! `services/`: create, list, read, change, delete.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, Uri, header};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    Api, Ids, Shared,
    auth::Caller,
    body::JsonObject,
    change::{Update, renew},
    condition::{attempt, etag, if_match},
    error::ApiError,
    filter::query,
    input::{Input, Rules},
    openapi::{
        IdempotencyParameter, NewOwnerParameter, OwnerParameter, PageParameters, ServiceFilters,
        ServiceParameter,
    },
    page::{PageBody, PageRequest},
    record::{ChangedService, DeploymentRecord, ServiceRecord},
    variables::Shown,
};
use crate::{
    error::Error,
    name::ServiceId,
    service::{Cause, Deployment, Service},
    store::Creation,
};

/// How often a change is tried when others change the same service in between. Each lost attempt
/// means that somebody else's was made, so only a crowd gets here.
const ATTEMPTS: usize = 100;

/// `GET services/`
#[utoipa::path(
    get, path = "/api/v1/services/", operation_id = "services_list", tag = "services",
    params(PageParameters, OwnerParameter, ServiceFilters),
    responses((status = 200, description = "A page of services", body = PageBody<ServiceRecord>)),
)]
pub(super) async fn list(
    State(api): Shared,
    caller: Caller,
    uri: Uri,
    page: PageRequest,
) -> Result<impl IntoResponse, ApiError> {
    let query = query(&caller, &uri)?;
    let services = api.store.services(&query, page.offset(), page.limit()).await?;
    page.check(services.count)?;
    let mut records = Vec::with_capacity(services.items.len());
    for service in services.items {
        records.push(api.record(service).await?);
    }
    Ok(page.body(services.count, records))
}

/// `POST services/`. With `Idempotency-Key`, an attempt that is repeated gets the service that the
/// first one made.
#[utoipa::path(
    post, path = "/api/v1/services/", operation_id = "services_create", tag = "services",
    params(NewOwnerParameter, IdempotencyParameter),
    responses((
        status = 201, description = "The service, with the deployment that was triggered",
        body = ChangedService, headers(("Location" = String), ("ETag" = String)),
    )),
)]
pub(super) async fn create(
    State(api): Shared,
    caller: Caller,
    headers: HeaderMap,
    JsonObject(object): JsonObject,
) -> Result<Response, ApiError> {
    let Some(owner) = caller.owner.clone() else {
        return Err(ApiError::field("owner", "Name the user for whom the service is made."));
    };
    let attempt = attempt(&headers, &object, &api.keyring)?;
    let input = Input::read(object, &Input::REQUIRED, &api.rules()).map_err(ApiError::Fields)?;
    let created = input.create(owner, caller.user.clone(), &api.keyring, Timestamp::now());
    let (mut service, mut first) = created.map_err(ApiError::Conflicts)?;
    let held = api.keyring.hold().await;
    if !renew(&mut service, Some(&mut first), &api.keyring) {
        return Err(ApiError::Unavailable); // the key that sealed it a moment ago is gone
    }
    let creation = api.store.create_service(&service, &first, attempt.as_ref()).await?;
    drop(held);
    let (service, first) = match creation {
        Creation::New => {
            caller.notes.service(&service);
            caller.notes.deployment(&first);
            (service, Some(first))
        }
        Creation::Repeated(id) => api.made_before(&caller, id).await?,
    };
    let location = format!("/api/v1/services/{}/", service.id);
    let (tag, body) = (etag(&service), api.changed(service, first).await?);
    let headers = [(header::LOCATION, location), (header::ETAG, tag)];
    Ok((StatusCode::CREATED, headers, Json(body)).into_response())
}

/// `GET services/{id}/`
#[utoipa::path(
    get, path = "/api/v1/services/{id}/", operation_id = "services_retrieve", tag = "services",
    params(ServiceParameter, OwnerParameter),
    responses((
        status = 200, description = "The service", body = ServiceRecord, headers(("ETag" = String)),
    )),
)]
pub(super) async fn retrieve(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<ServiceId>,
) -> Result<impl IntoResponse, ApiError> {
    let service = api.service(&caller, id).await?;
    Ok(([(header::ETAG, etag(&service))], Json(api.record(service).await?)))
}

/// `PUT services/{id}/`: as PATCH, but a complete description is asked for. Optional fields that it
/// leaves out stay as they are, as everywhere in Django REST framework.
#[utoipa::path(
    put, path = "/api/v1/services/{id}/", operation_id = "services_update", tag = "services",
    params(ServiceParameter, OwnerParameter),
    responses((
        status = 200, description = "The service, with the deployment that was triggered, if any",
        body = ChangedService, headers(("ETag" = String)),
    )),
)]
pub(super) async fn replace(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<ServiceId>,
    headers: HeaderMap,
    JsonObject(object): JsonObject,
) -> Result<Response, ApiError> {
    api.update(&caller, id, &headers, object, &Input::REQUIRED).await
}

/// `PATCH services/{id}/`
#[utoipa::path(
    patch, path = "/api/v1/services/{id}/", operation_id = "services_partial_update",
    tag = "services", params(ServiceParameter, OwnerParameter),
    responses((
        status = 200, description = "The service, with the deployment that was triggered, if any",
        body = ChangedService, headers(("ETag" = String)),
    )),
)]
pub(super) async fn patch(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<ServiceId>,
    headers: HeaderMap,
    JsonObject(object): JsonObject,
) -> Result<Response, ApiError> {
    api.update(&caller, id, &headers, object, &[]).await
}

/// `DELETE services/{id}/`
#[utoipa::path(
    delete, path = "/api/v1/services/{id}/", operation_id = "services_destroy", tag = "services",
    params(ServiceParameter, OwnerParameter),
    responses((status = 204, description = "The service is gone, and its containers will be")),
)]
pub(super) async fn delete(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<ServiceId>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    for _ in 0..ATTEMPTS {
        let service = api.service(&caller, id).await?;
        if_match(&headers, &service)?;
        let version = headers.contains_key(header::IF_MATCH).then_some(service.version);
        match api.store.delete_service(id, version).await {
            Ok(true) => return Ok(StatusCode::NO_CONTENT),
            Ok(false) => return Err(ApiError::NotFound),
            Err(Error::Conflict { .. }) => {} // changed since: does it still match?
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::crowded())
}

impl Api {
    pub(super) fn rules(&self) -> Rules<'_> {
        Rules { runtimes: &self.runtimes, oci_runtimes: &self.oci_runtimes, limits: self.limits }
    }

    /// The service, or 404: also when it is somebody else's.
    pub(super) async fn service(
        &self,
        caller: &Caller,
        id: ServiceId,
    ) -> Result<Service, ApiError> {
        let service = self.store.service(id).await?;
        let service = service.filter(|service| caller.works_for(&service.owner));
        let service = service.ok_or(ApiError::NotFound)?;
        caller.notes.service(&service);
        Ok(service)
    }

    /// What an earlier attempt made, as it is now, with its first deployment while that is kept.
    async fn made_before(
        &self,
        caller: &Caller,
        id: ServiceId,
    ) -> Result<(Service, Option<Deployment>), ApiError> {
        match self.service(caller, id).await {
            Ok(service) => {
                let latest = self.store.deployment(id, service.latest_deployment).await?;
                Ok((service, latest))
            }
            Err(ApiError::NotFound) => Err(ApiError::Conflict(format!(
                "The service that was created with this Idempotency-Key, {id}, was deleted."
            ))),
            Err(error) => Err(error),
        }
    }

    /// Lets the deployment of a change that does not end in the image run in the image that there is.
    async fn share_image(&self, current: &Service, update: &mut Update) -> Result<(), ApiError> {
        if let Some(deployment) = &mut update.deployment
            && deployment.origin.cause == Cause::Changed
            && deployment.function.shares_image_with(&current.function)
        {
            // The service as it is was last deployed by this one: every change of its function is.
            let latest = self.store.deployment(current.id, current.latest_deployment).await?;
            deployment.image_of = latest.map(|latest| latest.image());
        }
        Ok(())
    }

    async fn record(&self, service: Service) -> Result<ServiceRecord, ApiError> {
        Ok(ServiceRecord::load(self, service).await?)
    }

    /// Changes a service as a request says, which must have the `required` fields.
    async fn update(
        &self,
        caller: &Caller,
        id: ServiceId,
        headers: &HeaderMap,
        object: Map<String, Value>,
        required: &[&str],
    ) -> Result<Response, ApiError> {
        let current = self.service(caller, id).await?;
        let input = Input::read(object, required, &self.rules()).map_err(ApiError::Fields)?;
        let apply = |service: &Service| {
            let applied = input.apply(service, &caller.user, &self.keyring, Timestamp::now());
            applied.map_err(ApiError::Conflicts)
        };
        let (service, deployment) = self.change(caller, current, headers, apply).await?;
        let tag = [(header::ETAG, etag(&service))];
        Ok((tag, Json(self.changed(service, deployment).await?)).into_response())
    }

    async fn changed(
        &self,
        service: Service,
        deployment: Option<Deployment>,
    ) -> Result<ChangedService, ApiError> {
        let shown = Shown::of(&self.keyring, &service);
        let deployment = deployment.map(|made| DeploymentRecord::new(made, &shown));
        Ok(ChangedService { service: self.record(service).await?, deployment })
    }

    /// Stores what `change` makes of the service; when somebody else was faster, what it makes of
    /// the service as that one left it. So changes of different fields merge, and of two changes of
    /// one field the later one stays. Who sends `If-Match` gets 412 instead. Returns the service as
    /// stored, and the deployment if any.
    pub(super) async fn change(
        &self,
        caller: &Caller,
        mut current: Service,
        headers: &HeaderMap,
        change: impl Fn(&Service) -> Result<Option<Update>, ApiError>,
    ) -> Result<(Service, Option<Deployment>), ApiError> {
        let mut read_again = false;
        for _ in 0..ATTEMPTS {
            if_match(headers, &current)?;
            let Some(mut update) = change(&current)? else {
                return Ok((current, None));
            };
            self.share_image(&current, &mut update).await?;
            let Update { service, deployment } = &mut update;
            let held = self.keyring.hold().await;
            let opens = renew(service, deployment.as_mut(), &self.keyring);
            // The keys may have been changed since it was read: what is stored opens then. What was lost
            // before stays so, and is in the way of no other change.
            if !opens && !std::mem::replace(&mut read_again, true) {
                drop(held);
                current = self.store.service(current.id).await?.ok_or(ApiError::NotFound)?;
                continue;
            }
            match self.store.update_service(&update.service, update.deployment.as_ref()).await {
                Ok(stored) => {
                    if let Some(deployment) = &update.deployment {
                        caller.notes.deployment(deployment);
                    }
                    return Ok((stored, update.deployment));
                }
                Err(Error::Conflict { field: None, .. }) => {
                    current = self.store.service(current.id).await?.ok_or(ApiError::NotFound)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::crowded())
    }
}
