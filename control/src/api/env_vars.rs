//! `services/{id}/env_vars/`: a function's environment variables one by one. Each change of one is a
//! change of the service, with the deployment that comes with it.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    Api, Ids, Shared,
    auth::Caller,
    body::JsonObject,
    change::{Update, redeploy},
    condition::etag,
    error::ApiError,
    openapi::{OwnerParameter, PageParameters, ServiceParameter, VariableParameter},
    page::{PageBody, PageRequest},
    record::DeploymentRecord,
    variables::{Shown, VarInput, VarRecord, check_all, find},
};
use crate::{
    environment::EnvVar,
    name::{EnvKey, ServiceId},
    service::{Cause, Deployment, Origin, Service},
};

/// Fields of an answer that may be sent back.
const READ_ONLY: [&str; 1] = ["deployment"];

/// A variable with the deployment that the request triggered, `null` when it triggered none.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChangedEnvVar)]
pub(super) struct ChangedVar {
    #[serde(flatten)]
    var: VarRecord,
    deployment: Option<DeploymentRecord>,
}

/// `GET services/{id}/env_vars/`, in the order of the keys.
#[utoipa::path(
    get, path = "/api/v1/services/{id}/env_vars/", operation_id = "env_vars_list",
    tag = "environment", params(ServiceParameter, PageParameters, OwnerParameter),
    responses((status = 200, description = "A page of variables", body = PageBody<VarRecord>)),
)]
pub(super) async fn list(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<ServiceId>,
    page: PageRequest,
) -> Result<impl IntoResponse, ApiError> {
    let service = api.service(&caller, id).await?;
    let vars = &service.function.env_vars;
    let count = u64::try_from(vars.len()).unwrap_or(u64::MAX);
    page.check(count)?;
    let shown = Shown::of(&api.keyring, &service);
    let records = vars.iter().skip(page.offset()).take(page.limit()).map(|var| shown.one(var));
    Ok(page.body(count, records.collect()))
}

/// `POST services/{id}/env_vars/`
#[utoipa::path(
    post, path = "/api/v1/services/{id}/env_vars/", operation_id = "env_vars_create",
    tag = "environment", params(ServiceParameter, OwnerParameter),
    responses((
        status = 201, description = "The variable, with the deployment that was triggered",
        body = ChangedVar, headers(("Location" = String), ("ETag" = String)),
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
    let input = VarInput::read(object, &["key", "value"], &READ_ONLY).map_err(ApiError::Fields)?;
    let Some(key) = &input.key else { return Err(ApiError::Internal) };
    caller.notes.variable(key);
    let add = |service: &Service| {
        if find(&service.function.env_vars, key).is_some() {
            let message = "An environment variable with this key already exists.";
            return Err(ApiError::conflict("key", message));
        }
        let var = input.merge(key, None, &api.keyring).map_err(ApiError::Conflicts)?;
        api.with_var(service, &caller, key, Some(var))
    };
    let (service, deployment) = api.change(&caller, current, &headers, add).await?;
    let location = format!("/api/v1/services/{}/env_vars/{key}/", service.id);
    let headers = [(header::LOCATION, location), (header::ETAG, etag(&service))];
    let body = api.changed_var(&service, key, deployment)?;
    Ok((StatusCode::CREATED, headers, body).into_response())
}

/// `GET services/{id}/env_vars/{key}/`
#[utoipa::path(
    get, path = "/api/v1/services/{id}/env_vars/{key}/", operation_id = "env_vars_retrieve",
    tag = "environment", params(ServiceParameter, VariableParameter, OwnerParameter),
    responses((
        status = 200, description = "The variable", body = VarRecord, headers(("ETag" = String)),
    )),
)]
pub(super) async fn retrieve(
    State(api): Shared,
    caller: Caller,
    Ids((id, key)): Ids<(ServiceId, EnvKey)>,
) -> Result<impl IntoResponse, ApiError> {
    let service = api.service(&caller, id).await?;
    let var = find(&service.function.env_vars, &key).ok_or(ApiError::NotFound)?;
    let record = Shown::of(&api.keyring, &service).one(var);
    Ok(([(header::ETAG, etag(&service))], Json(record)))
}

/// `PUT services/{id}/env_vars/{key}/`. Whether it is a secret stays as it is, unless it is said.
#[utoipa::path(
    put, path = "/api/v1/services/{id}/env_vars/{key}/", operation_id = "env_vars_update",
    tag = "environment", params(ServiceParameter, VariableParameter, OwnerParameter),
    responses((
        status = 200, description = "The variable, with the deployment that was triggered, if any",
        body = ChangedVar, headers(("ETag" = String)),
    )),
)]
pub(super) async fn replace(
    State(api): Shared,
    caller: Caller,
    Ids((id, key)): Ids<(ServiceId, EnvKey)>,
    headers: HeaderMap,
    JsonObject(object): JsonObject,
) -> Result<Response, ApiError> {
    api.update_var(&caller, id, &key, &headers, object, &["value"]).await
}

/// `PATCH services/{id}/env_vars/{key}/`
#[utoipa::path(
    patch, path = "/api/v1/services/{id}/env_vars/{key}/",
    operation_id = "env_vars_partial_update", tag = "environment",
    params(ServiceParameter, VariableParameter, OwnerParameter),
    responses((
        status = 200, description = "The variable, with the deployment that was triggered, if any",
        body = ChangedVar, headers(("ETag" = String)),
    )),
)]
pub(super) async fn patch(
    State(api): Shared,
    caller: Caller,
    Ids((id, key)): Ids<(ServiceId, EnvKey)>,
    headers: HeaderMap,
    JsonObject(object): JsonObject,
) -> Result<Response, ApiError> {
    api.update_var(&caller, id, &key, &headers, object, &[]).await
}

/// `DELETE services/{id}/env_vars/{key}/`
#[utoipa::path(
    delete, path = "/api/v1/services/{id}/env_vars/{key}/", operation_id = "env_vars_destroy",
    tag = "environment", params(ServiceParameter, VariableParameter, OwnerParameter),
    responses((status = 204, description = "It is gone, and will be for the function")),
)]
pub(super) async fn delete(
    State(api): Shared,
    caller: Caller,
    Ids((id, key)): Ids<(ServiceId, EnvKey)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let current = api.service(&caller, id).await?;
    caller.notes.variable(&key);
    let remove = |service: &Service| {
        find(&service.function.env_vars, &key).ok_or(ApiError::NotFound)?;
        api.with_var(service, &caller, &key, None)
    };
    api.change(&caller, current, &headers, remove).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Api {
    /// Changes the variable that a request names, which must have the `required` fields.
    async fn update_var(
        &self,
        caller: &Caller,
        id: ServiceId,
        key: &EnvKey,
        headers: &HeaderMap,
        object: Map<String, Value>,
        required: &[&str],
    ) -> Result<Response, ApiError> {
        let current = self.service(caller, id).await?;
        caller.notes.variable(key);
        find(&current.function.env_vars, key).ok_or(ApiError::NotFound)?;
        let input = VarInput::read(object, required, &READ_ONLY).map_err(ApiError::Fields)?;
        if input.key.as_ref().is_some_and(|named| named != key) {
            let message = "It stays as it is: delete this variable and make another one.";
            return Err(ApiError::conflict("key", message));
        }
        let put = |service: &Service| {
            let known = find(&service.function.env_vars, key).ok_or(ApiError::NotFound)?;
            let var = input.merge(key, Some(known), &self.keyring);
            let var = var.map_err(ApiError::Conflicts)?;
            if var == *known {
                return Ok(None);
            }
            self.with_var(service, caller, key, Some(var))
        };
        let (service, deployment) = self.change(caller, current, headers, put).await?;
        let body = self.changed_var(&service, key, deployment)?;
        Ok(([(header::ETAG, etag(&service))], body).into_response())
    }

    /// The service with this variable in the place of the one with its key, or without it.
    fn with_var(
        &self,
        service: &Service,
        caller: &Caller,
        key: &EnvKey,
        var: Option<EnvVar>,
    ) -> Result<Option<Update>, ApiError> {
        let mut service = service.clone();
        let vars = &mut service.function.env_vars;
        vars.retain(|known| known.key != *key);
        vars.extend(var);
        vars.sort_by(|a, b| a.key.cmp(&b.key));
        check_all(vars, &self.keyring).map_err(ApiError::Conflicts)?;
        let origin = Origin { by: caller.user.clone(), cause: Cause::Changed };
        Ok(Some(redeploy(service, origin, Timestamp::now())))
    }

    fn changed_var(
        &self,
        service: &Service,
        key: &EnvKey,
        deployment: Option<Deployment>,
    ) -> Result<Json<ChangedVar>, ApiError> {
        let shown = Shown::of(&self.keyring, service);
        let var = find(&service.function.env_vars, key).ok_or(ApiError::NotFound)?;
        let deployment = deployment.map(|made| DeploymentRecord::new(made, &shown));
        Ok(Json(ChangedVar { var: shown.one(var), deployment }))
    }
}
