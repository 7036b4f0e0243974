//! `services/{id}/deployments/`: what was deployed, how it went, and deploying the same again.

use axum::{Json, extract::State, response::IntoResponse};
use http::{StatusCode, header};
use jiff::Timestamp;

use super::{
    Ids, Shared,
    body::JsonObject,
    change::redeploy,
    error::ApiError,
    fields::Fields,
    page::PageRequest,
    record::{DeploymentRecord, FullDeployment},
};
use crate::{
    name::{DeploymentId, ServiceId},
    service::Service,
};

/// `GET services/{id}/deployments/`, newest first.
pub(super) async fn list(
    State(api): Shared,
    Ids(id): Ids<ServiceId>,
    page: PageRequest,
) -> Result<impl IntoResponse, ApiError> {
    let service = api.service(id).await?;
    let deployments = api.store.deployments(service.id, page.offset(), page.limit()).await?;
    page.check(deployments.count)?;
    let records = deployments.items.into_iter().map(DeploymentRecord::from).collect();
    Ok(page.body(deployments.count, records))
}

/// `GET services/{id}/deployments/{deployment}/`
pub(super) async fn retrieve(
    State(api): Shared,
    Ids((service, id)): Ids<(ServiceId, DeploymentId)>,
) -> Result<impl IntoResponse, ApiError> {
    let deployment = api.store.deployment(service, id).await?.ok_or(ApiError::NotFound)?;
    Ok(Json(FullDeployment::from(deployment)))
}

/// `POST services/{id}/deployments/`: deploys what the service holds once more, as after an outage
/// that failed a deployment whose code is right.
pub(super) async fn create(
    State(api): Shared,
    Ids(id): Ids<ServiceId>,
    JsonObject(object): JsonObject,
) -> Result<impl IntoResponse, ApiError> {
    let current = api.service(id).await?;
    Fields::of(object).finish(&[]).map_err(ApiError::Fields)?;
    let again = |service: &Service| Ok(Some(redeploy(service.clone(), Timestamp::now())));
    let (service, deployment) = api.change(current, again).await?;
    let Some(deployment) = deployment else { return Err(ApiError::Internal) };
    let location = format!("/api/v1/services/{}/deployments/{}/", service.id, deployment.id);
    let body = Json(DeploymentRecord::from(deployment));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body))
}
