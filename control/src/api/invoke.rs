//! `services/{id}/invoke/`: runs a function once, beside what is deployed of it, and tells all about
//! it.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{Json, extract::FromRequestParts, extract::State};
use http::{HeaderMap, request::Parts};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    Api, Ids, Shared,
    auth::Caller,
    body::JsonObject,
    calls::Client,
    condition::if_match,
    error::{ApiError, FieldErrors},
    fields::Fields,
    input::{Input, Rules},
    openapi::{OwnerParameter, ServiceParameter},
    throttle::Throttle,
};
use crate::{
    context::Context,
    environment::Environment,
    invoke::{self, Invocation, Report},
    name::{ServiceId, UserName},
    service::{FunctionSpec, Service},
};

/// What may stand in the place of what the service holds.
const DRAFT: [&str; 3] = ["function_runtime", "function_handler", "function_code"];

/// Runs functions, for each user so often.
pub struct Invoker {
    context: Option<Arc<Context>>,
    rate: Option<Throttle<UserName>>,
}

impl Invoker {
    /// So many runs per minute and user, also at once; 0 for any number. Without a context, as where
    /// there is no control plane, nothing can be run.
    pub fn new(context: Option<Arc<Context>>, per_minute: u32) -> Self {
        Self { context, rate: NonZeroU32::new(per_minute).map(Throttle::per_minute) }
    }

    /// The longest time that a run takes.
    pub(super) fn longest(&self) -> Duration {
        let longest = |context: &Arc<Context>| invoke::longest(context.settings.function_timeout);
        self.context.as_ref().map_or(Duration::ZERO, longest)
    }

    async fn run(&self, invocation: Invocation) -> Result<Report, ApiError> {
        let none = || ApiError::Busy("Functions are run by a Grid that serves.".to_owned());
        let context = self.context.as_ref().ok_or_else(none)?;
        Ok(invoke::run(context, invocation).await?)
    }

    fn check(&self, user: &UserName) -> Result<(), ApiError> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.count(user).map_err(ApiError::throttled)
    }
}

/// That this user may invoke now: asked before the request's body is read.
pub(super) struct Turn;

impl FromRequestParts<Arc<Api>> for Turn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, api).await?;
        api.invoker.check(&caller.user).map(|()| Self)
    }
}

/// What a request asks for.
#[derive(Debug)]
struct Wanted {
    event: Value,
    draft: Input,
}

impl Wanted {
    fn read(mut object: Map<String, Value>, rules: &Rules<'_>) -> Result<Self, FieldErrors> {
        let event = object.remove("event").unwrap_or_else(|| Map::new().into());
        let (draft, other) = object.into_iter().partition(|(name, _)| DRAFT.contains(&&**name));
        let mut errors = Fields::of(other).finish(&[]).err().unwrap_or_default();
        match Input::read(draft, &[], rules) {
            Ok(draft) if errors.is_empty() => return Ok(Self { event, draft }),
            Ok(_) => {}
            Err(more) => errors.extend(more),
        }
        Err(errors)
    }

    fn apply(&mut self, function: &mut FunctionSpec) {
        let Input { runtime, handler, code, .. } = &mut self.draft;
        function.runtime = runtime.take().unwrap_or_else(|| function.runtime.clone());
        function.handler = handler.take().unwrap_or_else(|| function.handler.clone());
        function.code = code.take().unwrap_or_else(|| std::mem::take(&mut function.code));
    }
}

/// `POST services/{id}/invoke/`: `{"event": {…}}`, and with `function_code` and the like a draft.
#[utoipa::path(
    post, path = "/api/v1/services/{id}/invoke/", operation_id = "services_invoke",
    tag = "services", params(ServiceParameter, OwnerParameter),
    responses((
        status = 200, description = "How it went, also when the function failed", body = Report,
    )),
)]
pub(super) async fn invoke(
    State(api): Shared,
    caller: Caller,
    _: Turn,
    Ids(id): Ids<ServiceId>,
    headers: HeaderMap,
    mut client: Client,
    JsonObject(object): JsonObject,
) -> Result<Json<Report>, ApiError> {
    let (service, environment) = api.with_environment(&caller, id).await?;
    if_match(&headers, &service)?;
    let mut wanted = Wanted::read(object, &api.rules()).map_err(ApiError::Fields)?;
    let mut function = service.function;
    wanted.apply(&mut function);
    let invocation = Invocation {
        user: caller.user.clone(),
        service: service.id,
        deployment: service.latest_deployment,
        function_name: service.function_name,
        function,
        environment,
        event: wanted.event,
        request_id: Uuid::new_v4().to_string(),
    };
    caller.notes.add("request_id", invocation.request_id.as_str());
    tokio::select! {
        report = api.invoker.run(invocation) => report.map(Json),
        () = client.left() => Err(ApiError::Busy("The client has left.".to_owned())),
    }
}

impl Api {
    /// The service, or 404, with what its code finds in its environment.
    async fn with_environment(
        &self,
        caller: &Caller,
        id: ServiceId,
    ) -> Result<(Service, Environment), ApiError> {
        let open = async || {
            let service = self.service(caller, id).await?;
            let environment = Environment::open(&service.function.env_vars, &self.keyring);
            Ok::<_, ApiError>((service, environment))
        };
        match open().await? {
            (service, Ok(environment)) => Ok((service, environment)),
            // The keys may have been changed between the two.
            (_, Err(_)) => {
                let (service, environment) = open().await?;
                Ok((service, environment?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ApiLimits;

    fn read(body: Value) -> Result<Wanted, FieldErrors> {
        let Value::Object(object) = body else { unreachable!() };
        let runtimes = ["node18".to_owned()];
        Wanted::read(
            object,
            &Rules {
                runtimes: &runtimes,
                oci_runtimes: &[],
                limits: ApiLimits { code_bytes: 1000 },
            },
        )
    }

    #[test]
    fn an_event_is_whatever_it_is() {
        assert_eq!(read(json!({})).expect("good").event, json!({}));
        for event in [json!(null), json!([1]), json!("x"), json!({"body": {"a": "\0"}})] {
            assert_eq!(read(json!({ "event": event })).expect("good").event, event);
        }
    }

    #[test]
    fn a_draft_takes_the_place_of_what_it_names() {
        let mut wanted =
            read(json!({"function_code": "x", "function_handler": "a.b"})).expect("good");
        let mut function: FunctionSpec = serde_json::from_value(json!({
            "runtime": "node18", "handler": "handler", "code": "y", "event_format": "grid",
            "memory_mb": 128, "cpu_shares": 1024,
        }))
        .expect("a function");
        let before = function.clone();
        wanted.apply(&mut function);
        assert_eq!((&*function.code, function.handler.as_str()), ("x", "a.b"));
        assert_eq!((&function.runtime, function.memory_mb), (&before.runtime, before.memory_mb));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let errors = read(json!({
            "function_code": "x".repeat(1001), "function_runtime": "cobol", "memory_mb": 128, "x": 1,
        }));
        let errors = errors.expect_err("refused");
        let names: Vec<_> = errors.keys().map(String::as_str).collect();
        assert_eq!(names, ["function_code", "function_runtime", "memory_mb", "x"]);
        assert_eq!(errors["memory_mb"], json!(["Unknown field."]));
    }
}
