//! `backup/`: everything that the store keeps, for `grid backup`. For admins.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;

use super::{Shared, auth::Caller, error::ApiError};
use crate::backup;

/// `GET backup/`: a backup without the keys that environment variables are sealed with. An answer that
/// breaks off, or lacks its last line, is none.
#[utoipa::path(
    get, path = "/api/v1/backup/", operation_id = "backup", tag = "platform",
    responses((
        status = 200, description = "All entries of the store, line by line; docs/backup.md",
        content((String = "application/x-ndjson")),
    )),
)]
pub(super) async fn read(State(api): Shared, caller: Caller) -> Result<Response, ApiError> {
    caller.require_admin()?;
    let lines = backup::read(api.store.clone(), &api.keyring).await?;
    tracing::info!(user = %caller.user, "a backup is read");
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((headers, Body::from_stream(lines)).into_response())
}
