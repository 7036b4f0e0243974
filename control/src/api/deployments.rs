//! `services/{id}/deployments/`: what was deployed, how it went, and deploying the same again.

use axum::{Json, extract::State, response::IntoResponse};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;

use super::{
    Ids, Shared,
    auth::Caller,
    body::JsonObject,
    change::redeploy,
    error::ApiError,
    fields::Fields,
    page::PageRequest,
    record::{DeploymentRecord, FullDeployment},
};
use crate::{
    name::{DeploymentId, ServiceId},
    service::{Cause, Origin, Service},
};

/// `GET services/{id}/deployments/`, newest first.
pub(super) async fn list(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<ServiceId>,
    page: PageRequest,
) -> Result<impl IntoResponse, ApiError> {
    let service = api.service(&caller, id).await?;
    let deployments = api.store.deployments(service.id, page.offset(), page.limit()).await?;
    page.check(deployments.count)?;
    let records = deployments.items.into_iter().map(DeploymentRecord::from).collect();
    Ok(page.body(deployments.count, records))
}

/// `GET services/{id}/deployments/{deployment}/`
pub(super) async fn retrieve(
    State(api): Shared,
    caller: Caller,
    Ids((service, id)): Ids<(ServiceId, DeploymentId)>,
) -> Result<impl IntoResponse, ApiError> {
    let service = api.service(&caller, service).await?.id;
    let deployment = api.store.deployment(service, id).await?.ok_or(ApiError::NotFound)?;
    Ok(Json(FullDeployment::from(deployment)))
}

/// `POST services/{id}/deployments/`: deploys what the service holds once more, as after an outage
/// that failed a deployment whose code is right.
pub(super) async fn create(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<ServiceId>,
    headers: HeaderMap,
    JsonObject(object): JsonObject,
) -> Result<impl IntoResponse, ApiError> {
    let current = api.service(&caller, id).await?;
    Fields::of(object).finish(&[]).map_err(ApiError::Fields)?;
    let origin = Origin { by: caller.user.clone(), cause: Cause::Redeployed };
    let again =
        |service: &Service| Ok(Some(redeploy(service.clone(), origin.clone(), Timestamp::now())));
    let (service, deployment) = api.change(current, &headers, again).await?;
    let Some(deployment) = deployment else { return Err(ApiError::Internal) };
    let location = format!("/api/v1/services/{}/deployments/{}/", service.id, deployment.id);
    let body = Json(DeploymentRecord::from(deployment));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body))
}
