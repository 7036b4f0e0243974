//! `services/{id}/logs/`: what the function wrote, at once or as it comes.

mod follow;
mod format;
mod query;
mod time;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Uri};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use self::{format::Format, query::Asked};
use super::{
    Ids, Shared,
    auth::Caller,
    error::ApiError,
    openapi::{LogParameters, OwnerParameter, ServiceParameter},
};
use crate::{logs::LogEntry, name::ServiceId};

/// `{"results": [{"at": "…", "stream": "stdout", "replica": "…", "request_id": "…", "line": "…"}]}`
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogLines)]
pub(super) struct Lines {
    results: Vec<LogEntry>,
}

/// `GET services/{id}/logs/?tail=100&since=15m&until=…&request_id=…&format=text&follow=true`, newest
/// line last.
#[utoipa::path(
    get, path = "/api/v1/services/{id}/logs/", operation_id = "services_logs", tag = "services",
    params(ServiceParameter, OwnerParameter, LogParameters),
    responses(
        (
            status = 200, description = "Newest line last; with `follow` as they come",
            content(
                (Lines = "application/json"), (String = "text/plain"),
                (LogEntry = "application/x-ndjson"), (String = "text/event-stream"),
            ),
        ),
        (status = 409, description = "`since` is later than `until`", body = ref("#/components/schemas/Errors")),
    ),
)]
pub(super) async fn read(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<ServiceId>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let service = api.service(&caller, id).await?;
    let Asked { query, follow, format } = Asked::read(&uri, &headers, Timestamp::now())?;
    if follow {
        let follower = api.logs.follow(service.id, &caller.user, query).await?;
        return Ok(follow::answer(api, caller, service.id, follower, format));
    }
    let entries = api.logs.read(service.id, &query).await?;
    Ok(match format {
        Format::Text => {
            let lines = entries.iter().map(format::text).collect::<String>();
            (format.headers(), lines).into_response()
        }
        _ => axum::Json(Lines { results: entries }).into_response(),
    })
}
