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
