//! `keys/rotate/`: another key for everything that is sealed. For admins.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, Shared, auth::Caller, body::JsonObject, error::ApiError, fields::Fields};
use crate::{
    error::Kind,
    rotation::{Rotated, State as Rotation},
};

/// How long a caller waits for the end of a rotation before they are told that it runs.
const WAIT: Duration = Duration::from_secs(20);

/// How a rotation is: `{"state": "done", "detail": "…", "values": 12, "lost": 0, "old_keys": 1}`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeyRotation)]
pub(super) struct RotationRecord {
    /// `idle` when there was none since Grid started, `running`, `done`, `failed`.
    state: &'static str,
    /// What that means, in one sentence.
    detail: String,
    #[serde(flatten)]
    rotated: Option<Rotated>,
}

/// `POST keys/rotate/`: starts a rotation, or joins the one that runs.
#[utoipa::path(
    post, path = "/api/v1/keys/rotate/", operation_id = "keys_rotate", tag = "platform",
    responses(
        (status = 200, description = "It is done", body = RotationRecord),
        (status = 202, description = "It runs; GET tells when it is done", body = RotationRecord),
    ),
)]
pub(super) async fn rotate(
    State(api): Shared,
    caller: Caller,
    JsonObject(object): JsonObject,
) -> Result<Response, ApiError> {
    caller.require_admin()?;
    Fields::of(object).finish(&[]).map_err(ApiError::Fields)?;
    let mut state = api.rotations.start(api.store.clone(), api.keyring.clone());
    let ended = state.wait_for(|state| *state != Rotation::Running);
    let state = match tokio::time::timeout(WAIT, ended).await {
        Ok(Ok(state)) => state.clone(),
        Ok(Err(_)) => return Err(ApiError::Internal),
        Err(_) => Rotation::Running,
    };
    let status = match &state {
        Rotation::Running => StatusCode::ACCEPTED,
        Rotation::Failed(Kind::Conflict, message) => {
            return Err(ApiError::Conflict(message.clone()));
        }
        Rotation::Failed(Kind::Unavailable, _) => return Err(ApiError::Unavailable),
        Rotation::Failed(..) => return Err(ApiError::Internal),
        Rotation::Idle | Rotation::Done(_) => StatusCode::OK,
    };
    Ok((status, Json(api.rotation(state))).into_response())
}

/// `GET keys/rotate/`
#[utoipa::path(
    get, path = "/api/v1/keys/rotate/", operation_id = "keys_rotation", tag = "platform",
    responses((status = 200, description = "How it is", body = RotationRecord)),
)]
pub(super) async fn retrieve(
    State(api): Shared,
    caller: Caller,
) -> Result<Json<RotationRecord>, ApiError> {
    caller.require_admin()?;
    Ok(Json(api.rotation(api.rotations.state())))
}

impl Api {
    fn rotation(&self, state: Rotation) -> RotationRecord {
        let (state, detail, rotated) = match state {
            Rotation::Idle => ("idle", "No rotation since Grid started.".to_owned(), None),
            Rotation::Running => ("running", "It runs.".to_owned(), None),
            Rotation::Done(rotated) => ("done", self.meaning(rotated), Some(rotated)),
            Rotation::Failed(_, message) => ("failed", message, None),
        };
        RotationRecord { state, detail, rotated }
    }

    fn meaning(&self, Rotated { values, lost, old_keys }: Rotated) -> String {
        let mut text = match self.keyring.is_kept_in_file() {
            true => format!(
                "Everything is under a new key in the file fernet_keys ({values} values sealed anew, \
                 {old_keys} older keys dropped)."
            ),
            false => format!(
                "Everything is under the first key of GRID_FERNET_KEYS ({values} values sealed \
                 anew). The other {old_keys} can be removed from it now."
            ),
        };
        if lost > 0 {
            text += &format!(
                " But {lost} values are under a key that is not there: give them new values, or add \
                 that key to GRID_FERNET_KEYS and rotate again."
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use http::HeaderMap;
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::{
        api::{
            ApiLimits, Calls, Invoker, PublicUrl,
            auth::Authenticator,
            input::{Input, tests::read},
        },
        engine::docker::Docker,
        environment::Environment,
        health::Health,
        logs::Logs,
        name::ServiceId,
        rotation::Rotations,
        secret::Keyring,
        service::Service,
        store::{Store, embedded::Embedded},
        token::Token,
    };

    /// An API on a store in this directory, with one service that has a variable.
    async fn api(dir: &std::path::Path) -> (Api, ServiceId) {
        let store: Arc<dyn Store> = Arc::new(Embedded::open(dir).expect("opens"));
        let keyring = Keyring::load_or_create(dir, None).expect("keys");
        let engine = Arc::new(Docker::new("unix:///nowhere.sock"));
        let instance = crate::name::InstanceId::random();
        let logs = Logs::new(engine, store.clone(), keyring.clone(), instance, dir.into(), 1024);
        let body = json!({
            "name": "a", "function_runtime": "node18", "function_code": "x",
            "env_vars": [{"key": "KEY", "value": "s3cret", "is_secret": true}],
        });
        let input = read(body, &Input::REQUIRED).expect("valid");
        let alice = Caller::named("alice").user;
        let now = Timestamp::UNIX_EPOCH;
        let (service, first) =
            input.create(alice.clone(), alice, &keyring, now).expect("goes together");
        store.create_service(&service, &first, None).await.expect("creates");
        let api = Api {
            store,
            logs: Arc::new(logs),
            health: Health::default(),
            runtimes: vec!["node18".to_owned()],
            oci_runtimes: vec![],
            denied: Arc::default(),
            keyring,
            rotations: Rotations::default(),
            invoker: Invoker::new(None, 1),
            auth: Authenticator::new(Token::presented("nobody's")),
            calls: Calls::default(),
            limits: ApiLimits::default(),
            public_url: PublicUrl::http(80),
        };
        (api, service.id)
    }

    /// A whole rotation, in the middle of what a request does.
    fn rotate_meanwhile(api: &Api) {
        let rotation = async {
            let mut state = api.rotations.start(api.store.clone(), api.keyring.clone());
            let ended = state.wait_for(|state| *state != Rotation::Running).await.expect("ends");
            assert!(matches!(*ended, Rotation::Done(_)), "{ended:?}");
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(rotation));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_that_was_begun_before_a_rotation_opens_after_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (api, id) = api(dir.path()).await;
        let caller = Caller::named("alice");
        for (nth, change) in [
            json!({"max_replicas": 9}),
            json!({"memory_mb": 256}),
            json!({"env_vars": [{"key": "KEY", "value": "other"}]}),
        ]
        .into_iter()
        .enumerate()
        {
            let current = api.service(&caller, id).await.expect("is there");
            let input = read(change, &[]).expect("valid");
            let tries = AtomicUsize::new(0);
            let apply = |service: &Service| {
                let now = Timestamp::UNIX_EPOCH;
                let applied = input.apply(service, &caller.user, &api.keyring, now);
                // It was read, and sealed, under the keys before.
                if tries.fetch_add(1, SeqCst) == 0 {
                    rotate_meanwhile(&api);
                }
                applied.map_err(ApiError::Conflicts)
            };
            let stored = api.change(&caller, current, &HeaderMap::new(), apply).await;
            let (stored, deployment) = stored.expect("stores");
            let kept = api.store.service(id).await.expect("reads").expect("is there");
            let deployed = api.store.environment(id, stored.latest_deployment).await;
            assert_eq!(deployment.is_some(), nth > 0);
            // With what the next process finds.
            let keyring = Keyring::load_or_create(dir.path(), None).expect("keys");
            let expected = if nth == 2 { "other" } else { "s3cret" };
            for vars in [kept.function.env_vars, deployed.expect("reads")] {
                let opened = Environment::open(&vars, &keyring).expect("opens");
                assert_eq!(opened.variables[0].1, expected);
            }
        }
    }
}
