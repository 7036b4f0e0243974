//! The admin REST API, in the conventions of Django REST framework: trailing slashes,
//! `Authorization: Token …`, `{"detail": …}` and `{"field": ["message"]}`, numbered pages.
//!
//! A request passes, in this order: who calls ([`auth`]), the audit log, a bound of time, whether its
//! client can read an answer, whether its parameters are clear, on whose things it works, the handler.
//! Handlers talk to [`Store`], [`Logs`] and [`Health`] only. What they change makes the scaler act
//! through the store's hints; nothing here builds or starts anything but the [`Invoker`], whose
//! containers are nobody's replicas.

mod accept;
mod audit;
mod audit_log;
pub mod auth;
mod backup;
mod body;
mod calls;
mod change;
mod condition;
mod deployments;
mod difference;
mod env_vars;
mod error;
mod fields;
mod filter;
mod input;
mod invoke;
mod keys;
mod logs;
mod openapi;
mod page;
mod parameters;
mod probes;
mod record;
mod services;
mod throttle;
mod tokens;
mod url;
mod variables;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRequestParts, Path, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, Uri, header, request::Parts};
use serde::de::DeserializeOwned;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{auth::Authenticator, error::ApiError};
use crate::{
    denied::Denied, health::Health, limits, logs::Logs, rotation::Rotations, secret::Keyring,
    store::Store,
};

pub(crate) use self::input::DEFAULT_OCI_RUNTIME;
pub use self::{calls::Calls, input::Rules, invoke::Invoker, url::PublicUrl};

/// The work of one request of the admin API.
const WORK: Duration = Duration::from_secs(30);
/// All of it, from its head to its answer: with credentials before and the audit log behind.
const REQUEST: Duration = Duration::from_secs(40);

/// What the admin API stands on.
pub struct Api {
    /// Where services and deployments are.
    pub store: Arc<dyn Store>,
    /// What functions wrote.
    pub logs: Arc<Logs>,
    /// What `/readyz` tells.
    pub health: Health,
    /// Names that `function_runtime` may have, for example `["node18", "python3.9"]`.
    pub runtimes: Vec<String>,
    /// Names that `oci_runtime` may have, besides `default`; for example `["runsc"]`.
    pub oci_runtimes: Vec<String>,
    /// What functions tried to reach and could not.
    pub denied: Arc<Denied>,
    /// Seals environment variables.
    pub keyring: Keyring,
    /// Changes of its keys.
    pub rotations: Rotations,
    /// Runs functions that are only tried.
    pub invoker: Invoker,
    /// Who may call.
    pub auth: Authenticator,
    /// Calls that run to their end also when their clients do not wait for it.
    pub calls: Calls,
    /// What a request may carry.
    pub limits: ApiLimits,
    /// How the public reaches a function.
    pub public_url: PublicUrl,
}

/// Bounds of what a request may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiLimits {
    /// Bytes of `function_code` in UTF-8 (`MAX_FUNCTION_CODE_BYTES`), for example 262144.
    pub code_bytes: usize,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self { code_bytes: limits::CODE_BYTES }
    }
}

impl ApiLimits {
    /// Bytes of a request's body. JSON writes one byte of code with up to six (`\u0041`), and code
    /// and variables that are within their own limits must never fail at this one.
    fn body_bytes(self) -> usize {
        let content = self.code_bytes.saturating_add(limits::ENV_BYTES.1);
        content.saturating_mul(6).saturating_add(limits::ADMIN_BODY_SLACK)
    }
}

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
struct Within {
    usual: Duration,
    /// What a function may take that it runs.
    running: Duration,
}

impl Within {
    fn of(self, request: &Request) -> Duration {
        let runs = request.uri().path().ends_with("/invoke/");
        if runs { self.usual + self.running } else { self.usual }
    }
}

/// State of every handler.
type Shared = axum::extract::State<Arc<Api>>;

/// The whole API as an axum router: `/api/v1/…`, `/healthz` and `/readyz`. Every answer is JSON,
/// except logs that were asked for as text.
///
/// ```no_run
/// # async fn serve(api: control::api::Api) -> std::io::Result<()> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
/// axum::serve(listener, control::api::router(api)).await
/// # }
/// ```
pub fn router(api: Api) -> Router {
    let api = Arc::new(api);
    let running = api.invoker.longest();
    let (guarded, contract) = documented().split_for_parts();
    let mut open = Router::new();
    for path in contract.paths.paths.keys() {
        if let Some(bare) = path.strip_suffix('/') {
            open = open.route(bare, any(missing_slash));
        }
    }
    // From the inside out. The order matters: a wrong method is told only to whom the token is known,
    // and is nothing that the audit log has to have.
    let guarded = guarded
        .route_layer(middleware::from_fn(auth::for_owner))
        .route_layer(middleware::from_fn(parameters::once))
        .route_layer(middleware::from_fn(accept::served))
        .route_layer(middleware::from_fn_with_state(Within { usual: WORK, running }, bounded))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), audit::keep))
        .method_not_allowed_fallback(method_not_allowed)
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), auth::require));
    let (probes, of_probes) = probed().split_for_parts();
    let text = Bytes::from(openapi::written(contract.merge_from(of_probes), &api.rules()));
    let contract = get(|| async { ([(header::CONTENT_TYPE, "application/json")], text) });
    let open = open.merge(probes).route(openapi::PATH, contract);
    guarded
        .merge(open.method_not_allowed_fallback(method_not_allowed))
        .merge(openapi::page())
        .fallback(|| async { ApiError::NotFound })
        .layer(middleware::from_fn_with_state(Within { usual: REQUEST, running }, bounded))
        .with_state(api)
}

/// What a process without an admin API has on the admin port: `/healthz` and `/readyz`.
pub fn probes(health: Health) -> Router {
    let readyz = move || async move { probes::readiness(health.state()) };
    let probes =
        Router::new().route("/healthz", get(probes::healthz)).route("/readyz", get(readyz));
    probes.method_not_allowed_fallback(method_not_allowed).fallback(|| async { ApiError::NotFound })
}

/// The contract as JSON: what `GET /api/v1/openapi.json` answers and `grid openapi` prints.
pub fn openapi(rules: &Rules<'_>) -> String {
    openapi::written(documented().merge(probed()).into_openapi(), rules)
}

/// What needs a token.
fn documented() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(services::list, services::create))
        .routes(routes!(services::retrieve, services::replace, services::patch, services::delete))
        .routes(routes!(deployments::list, deployments::create))
        .routes(routes!(deployments::retrieve))
        .routes(routes!(deployments::rollback))
        .routes(routes!(env_vars::list, env_vars::create))
        .routes(routes!(env_vars::retrieve, env_vars::replace, env_vars::patch, env_vars::delete))
        .routes(routes!(keys::rotate, keys::retrieve))
        .routes(routes!(invoke::invoke))
        .routes(routes!(logs::read))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::retrieve, tokens::revoke))
        .routes(routes!(audit_log::list))
        .routes(routes!(backup::read))
        .routes(routes!(probes::runtimes))
}

/// What needs none.
fn probed() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(probes::healthz)).routes(routes!(probes::readyz))
}

/// Ends every request in time, and keeps one that panics from taking its connection with it.
async fn bounded(State(within): State<Within>, request: Request, next: Next) -> Response {
    let bound = within.of(&request);
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(bound, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => ApiError::Internal.into_response(), // the panic hook has logged it
        Err(_) => ApiError::TimedOut.into_response(),
    }
}

async fn method_not_allowed(method: Method) -> ApiError {
    ApiError::MethodNotAllowed(method)
}

/// A path that lacks its last slash. Only GET can be sent elsewhere without losing its body.
async fn missing_slash(method: Method, uri: Uri) -> Response {
    let path = format!("{}/", uri.path());
    if method != Method::GET && method != Method::HEAD {
        return ApiError::MissingSlash(path).into_response();
    }
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    ApiError::Moved(target).into_response()
}

/// The ids in a path. One that is no id names nothing, so it is answered with 404.
struct Ids<T>(T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Ids<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(ids)) => Ok(Self(ids)),
            Err(_) => Err(ApiError::NotFound),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_hold_code_in_which_every_byte_is_escaped() {
        let limits = ApiLimits { code_bytes: 1024 };
        let escaped = r"\u0041".repeat(limits.code_bytes);
        assert!(limits.body_bytes() > escaped.len());
        assert_eq!(ApiLimits { code_bytes: usize::MAX }.body_bytes(), usize::MAX);
    }
}
