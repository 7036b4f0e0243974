//! `services/`: create, list, read, change, delete.

use axum::{Json, extract::State, response::IntoResponse};
use http::{StatusCode, header};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    Api, Ids, Shared,
    body::JsonObject,
    change::Update,
    error::{ApiError, FieldErrors},
    input::{Input, Rules},
    page::PageRequest,
    record::{ChangedService, ServiceRecord},
};
use crate::{
    error::Error,
    name::ServiceId,
    service::{Deployment, Service},
};

/// How often a change is tried when others change the same service in between. Each lost attempt
/// means that somebody else's was made, so only a crowd gets here.
const ATTEMPTS: usize = 100;

/// `GET services/`
pub(super) async fn list(
    State(api): Shared,
    page: PageRequest,
) -> Result<impl IntoResponse, ApiError> {
    let services = api.store.services(page.offset(), page.limit()).await?;
    page.check(services.count)?;
    let mut records = Vec::with_capacity(services.items.len());
    for service in services.items {
        records.push(api.record(service).await?);
    }
    Ok(page.body(services.count, records))
}

/// `POST services/`
pub(super) async fn create(
    State(api): Shared,
    JsonObject(object): JsonObject,
) -> Result<impl IntoResponse, ApiError> {
    let input = Input::read(object, &Input::REQUIRED, &api.rules()).map_err(ApiError::Fields)?;
    let (service, first) = input.create(Timestamp::now()).map_err(ApiError::Fields)?;
    api.store.create_service(&service, &first).await?;
    let location = format!("/api/v1/services/{}/", service.id);
    let body = api.changed(service, Some(first)).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)))
}

/// `GET services/{id}/`
pub(super) async fn retrieve(
    State(api): Shared,
    Ids(id): Ids<ServiceId>,
) -> Result<impl IntoResponse, ApiError> {
    let service = api.service(id).await?;
    Ok(Json(api.record(service).await?))
}

/// `PUT services/{id}/`: as PATCH, but a complete description is asked for. Optional fields that it
/// leaves out stay as they are, as everywhere in Django REST framework.
pub(super) async fn replace(
    State(api): Shared,
    Ids(id): Ids<ServiceId>,
    JsonObject(object): JsonObject,
) -> Result<impl IntoResponse, ApiError> {
    api.update(id, object, &Input::REQUIRED).await.map(Json)
}

/// `PATCH services/{id}/`
pub(super) async fn patch(
    State(api): Shared,
    Ids(id): Ids<ServiceId>,
    JsonObject(object): JsonObject,
) -> Result<impl IntoResponse, ApiError> {
    api.update(id, object, &[]).await.map(Json)
}

/// `DELETE services/{id}/`
pub(super) async fn delete(
    State(api): Shared,
    Ids(id): Ids<ServiceId>,
) -> Result<StatusCode, ApiError> {
    match api.store.delete_service(id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::NotFound),
    }
}

impl Api {
    fn rules(&self) -> Rules<'_> {
        Rules { runtimes: &self.runtimes, oci_runtimes: &self.oci_runtimes, limits: self.limits }
    }

    /// The service, or 404.
    pub(super) async fn service(&self, id: ServiceId) -> Result<Service, ApiError> {
        self.store.service(id).await?.ok_or(ApiError::NotFound)
    }

    async fn record(&self, service: Service) -> Result<ServiceRecord, ApiError> {
        Ok(ServiceRecord::load(self, service).await?)
    }

    /// Changes a service as a request says, which must have the `required` fields.
    async fn update(
        &self,
        id: ServiceId,
        object: Map<String, Value>,
        required: &[&str],
    ) -> Result<ChangedService, ApiError> {
        let current = self.service(id).await?;
        let input = Input::read(object, required, &self.rules()).map_err(ApiError::Fields)?;
        let apply = |service: &Service| input.apply(service, Timestamp::now());
        let (service, deployment) = self.change(current, apply).await?;
        self.changed(service, deployment).await
    }

    async fn changed(
        &self,
        service: Service,
        deployment: Option<Deployment>,
    ) -> Result<ChangedService, ApiError> {
        let service = self.record(service).await?;
        Ok(ChangedService { service, deployment: deployment.map(Into::into) })
    }

    /// Stores what `change` makes of the service; when somebody else was faster, what it makes of
    /// the service as that one left it. So changes of different fields merge, and of two changes of
    /// one field the later one stays. Returns the service as stored, and the deployment if any.
    pub(super) async fn change(
        &self,
        mut current: Service,
        change: impl Fn(&Service) -> Result<Option<Update>, FieldErrors>,
    ) -> Result<(Service, Option<Deployment>), ApiError> {
        for _ in 0..ATTEMPTS {
            let Some(update) = change(&current).map_err(ApiError::Fields)? else {
                return Ok((current, None));
            };
            match self.store.update_service(&update.service, update.deployment.as_ref()).await {
                Ok(stored) => return Ok((stored, update.deployment)),
                Err(Error::Conflict { field: None, .. }) => {
                    current = self.service(current.id).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::Conflict(
            "Others keep changing this service at the same time. Try again.".to_owned(),
        ))
    }
}
