//! `services/{id}/deployments/`: what was deployed and how it went, deploying the same again, and
//! going back to what was.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;

use super::{
    Api, Ids, Shared,
    auth::Caller,
    body::JsonObject,
    change::redeploy,
    condition::etag,
    difference::Difference,
    error::ApiError,
    fields::Fields,
    openapi::{DeploymentParameter, OwnerParameter, PageParameters, ServiceParameter},
    page::{PageBody, PageRequest},
    record::{DeploymentRecord, FullDeployment},
    variables::Shown,
};
use crate::{
    environment::keep_secret,
    limits,
    name::{DeploymentId, ServiceId},
    service::{Cause, Deployment, Origin, Phase, Service},
};

/// `GET services/{id}/deployments/`, newest first.
#[utoipa::path(
    get, path = "/api/v1/services/{id}/deployments/", operation_id = "deployments_list",
    tag = "deployments", params(ServiceParameter, PageParameters, OwnerParameter),
    responses((status = 200, description = "Newest first", body = PageBody<DeploymentRecord>)),
)]
pub(super) async fn list(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<ServiceId>,
    page: PageRequest,
) -> Result<impl IntoResponse, ApiError> {
    let service = api.service(&caller, id).await?;
    let deployments = api.store.deployments(service.id, page.offset(), page.limit()).await?;
    page.check(deployments.count)?;
    let shown = Shown::of(&api.keyring, &service);
    let record = |deployment| DeploymentRecord::new(deployment, &shown);
    Ok(page.body(deployments.count, deployments.items.into_iter().map(record).collect()))
}

/// `GET services/{id}/deployments/{deployment}/`
#[utoipa::path(
    get, path = "/api/v1/services/{id}/deployments/{deployment}/",
    operation_id = "deployments_retrieve", tag = "deployments",
    params(ServiceParameter, DeploymentParameter, OwnerParameter),
    responses((
        status = 200, description = "With its code, its log and what it changed",
        body = FullDeployment,
    )),
)]
pub(super) async fn retrieve(
    State(api): Shared,
    caller: Caller,
    Ids((service, id)): Ids<(ServiceId, DeploymentId)>,
) -> Result<impl IntoResponse, ApiError> {
    let service = api.service(&caller, service).await?;
    let deployment = api.store.deployment(service.id, id).await?.ok_or(ApiError::NotFound)?;
    let before = api.store.deployment_before(service.id, id).await?;
    let changes = Difference::of(&deployment, before.as_ref(), &api.keyring);
    let shown = Shown::of(&api.keyring, &service);
    Ok(Json(FullDeployment::new(deployment, changes, &shown)))
}

/// `POST services/{id}/deployments/`: deploys what the service holds once more, as after an outage
/// that failed a deployment whose code is right.
#[utoipa::path(
    post, path = "/api/v1/services/{id}/deployments/", operation_id = "deployments_create",
    tag = "deployments", params(ServiceParameter, OwnerParameter),
    responses((
        status = 201, description = "The new deployment", body = DeploymentRecord,
        headers(("Location" = String), ("ETag" = String)),
    )),
)]
pub(super) async fn create(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<ServiceId>,
    headers: HeaderMap,
    JsonObject(object): JsonObject,
) -> Result<Response, ApiError> {
    let current = api.service(&caller, id).await?;
    Fields::of(object).finish(&[]).map_err(ApiError::Fields)?;
    let origin = Origin { by: caller.user.clone(), cause: Cause::Redeployed };
    let again =
        |service: &Service| Ok(Some(redeploy(service.clone(), origin.clone(), Timestamp::now())));
    let (service, deployment) = api.change(&caller, current, &headers, again).await?;
    created(&api, &service, deployment)
}

/// `POST services/{id}/rollback/`: `{"deployment": "0192…"}` makes what that deployment ran the
/// service's function again; without a body the deployment that was live before the live one. It is
/// live as soon as a container of its image is, when that is kept, and is built anew otherwise.
#[utoipa::path(
    post, path = "/api/v1/services/{id}/rollback/", operation_id = "services_rollback",
    tag = "deployments", params(ServiceParameter, OwnerParameter),
    responses((
        status = 201, description = "The new deployment", body = DeploymentRecord,
        headers(("Location" = String), ("ETag" = String)),
    )),
)]
pub(super) async fn rollback(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<ServiceId>,
    headers: HeaderMap,
    JsonObject(object): JsonObject,
) -> Result<Response, ApiError> {
    let current = api.service(&caller, id).await?;
    let mut fields = Fields::of(object);
    let target = fields.name::<DeploymentId>("deployment");
    fields.finish(&[]).map_err(ApiError::Fields)?;
    let target = match target {
        Some(target) => api.store.deployment(id, target).await?,
        None => api.previously_live(&current).await?,
    };
    let refused = |reason: &str| Err(ApiError::conflict("deployment", reason));
    let Some(target) = target else {
        return refused("There is no such deployment, or it is not kept any more.");
    };
    if !target.was_live() {
        return refused("It never was live.");
    }
    let cause = Cause::RolledBack { to: target.id };
    let take_up = |service: &Service| {
        let mut function = target.function.clone();
        keep_secret(&mut function.env_vars, &service.function.env_vars);
        let origin = Origin { by: caller.user.clone(), cause };
        let mut update =
            redeploy(Service { function, ..service.clone() }, origin, Timestamp::now());
        if let Some(deployment) = &mut update.deployment {
            deployment.image_of = Some(target.image());
        }
        Ok(Some(update))
    };
    let (service, deployment) = api.change(&caller, current, &headers, take_up).await?;
    created(&api, &service, deployment)
}

fn created(
    api: &Api,
    service: &Service,
    deployment: Option<Deployment>,
) -> Result<Response, ApiError> {
    let Some(deployment) = deployment else { return Err(ApiError::Internal) };
    let location = format!("/api/v1/services/{}/deployments/{}/", service.id, deployment.id);
    let headers = [(header::LOCATION, location), (header::ETAG, etag(service))];
    let record = DeploymentRecord::new(deployment, &Shown::of(&api.keyring, service));
    Ok((StatusCode::CREATED, headers, Json(record)).into_response())
}

impl Api {
    /// The deployment that was live before the live one.
    async fn previously_live(&self, service: &Service) -> Result<Option<Deployment>, ApiError> {
        let kept = limits::DEPLOYMENTS_KEPT * 2;
        let history = self.store.deployments(service.id, 0, kept).await?.items;
        let live = service.live_deployment;
        let earlier = history.into_iter().filter(|d| Some(d.id) != live && d.was_live());
        match earlier
            .max_by_key(|d| d.phases.iter().rev().find(|e| e.phase == Phase::Live).map(|e| e.at))
        {
            Some(found) => Ok(self.store.deployment(service.id, found.id).await?),
            None => Ok(None),
        }
    }
}
