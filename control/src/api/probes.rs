//! What needs no service: `/healthz`, `/readyz`, and the runtimes that there are.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{
    Shared,
    error::ApiError,
    openapi::PageParameters,
    page::{PageBody, PageRequest},
};
use crate::health;

/// `{"status": "unavailable", "checks": {"engine": "…", "images": "ok", "store": "ok"}}`
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Readiness {
    status: &'static str,
    /// `ok`, or what is wrong and what to do.
    #[schema(value_type = BTreeMap<String, String>)]
    checks: BTreeMap<&'static str, String>,
}

/// A runtime: `{"name": "node18"}`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Runtime)]
pub(super) struct RuntimeRecord {
    name: String,
}

/// `GET /healthz`: the process answers.
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "platform",
    responses((status = 200, description = "The process answers", body = BTreeMap<String, String>)),
)]
pub(super) async fn healthz() -> impl IntoResponse {
    Json(json!({ "status": "ok" }))
}

/// `GET /readyz`: everything that Grid needs is there.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "platform",
    responses(
        (status = 200, description = "Everything that Grid needs is there", body = Readiness),
        (status = 503, description = "Something is not, and this is what", body = Readiness),
    ),
)]
pub(super) async fn readyz(State(api): Shared) -> Response {
    readiness(api.health.state())
}

/// What `/readyz` answers.
pub(super) fn readiness(state: health::State) -> Response {
    let ready = state.values().all(Option::is_none);
    let body = Json(Readiness::of(state));
    if ready {
        return body.into_response();
    }
    let retry_after = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::SERVICE_UNAVAILABLE, retry_after, body).into_response()
}

/// `GET runtimes/`
#[utoipa::path(
    get, path = "/api/v1/runtimes/", operation_id = "runtimes_list", tag = "platform",
    params(PageParameters),
    responses((status = 200, description = "What code can be written for", body = PageBody<RuntimeRecord>)),
)]
pub(super) async fn runtimes(
    State(api): Shared,
    page: PageRequest,
) -> Result<impl IntoResponse, ApiError> {
    let count = api.runtimes.len() as u64;
    page.check(count)?;
    let names = api.runtimes.iter().skip(page.offset()).take(page.limit());
    Ok(page.body(count, names.map(|name| RuntimeRecord { name: name.clone() }).collect()))
}

impl Readiness {
    fn of(state: health::State) -> Self {
        let ready = state.values().all(Option::is_none);
        let tell = |problem: Option<String>| problem.unwrap_or_else(|| "ok".to_owned());
        Self {
            status: if ready { "ok" } else { "unavailable" },
            checks: state.into_iter().map(|(what, p)| (what.as_str(), tell(p))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Dependency, Health};

    #[test]
    fn one_thing_that_is_away_is_named() {
        let health = Health::default();
        for dependency in Dependency::ALL {
            health.set(dependency, None);
        }
        assert_eq!(Readiness::of(health.state()).status, "ok");
        health.set(Dependency::Engine, Some("no answer".to_owned()));
        let readiness = Readiness::of(health.state());
        assert_eq!(readiness.status, "unavailable");
        assert_eq!(readiness.checks["engine"], "no answer");
        assert_eq!(readiness.checks["images"], "ok");
    }
}
