//! The only place that turns an error into an admin API response. What the caller did wrong is
//! told in full; what went wrong inside goes to the log.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::error::{Error, Kind};

/// Field → what is wrong with it: `{"name": ["This field is required."]}`; at a list of objects, what
/// is wrong with each: `{"env_vars": [{}, {"key": ["This field is required."]}]}`.
pub(super) type FieldErrors = BTreeMap<String, Value>;
/// What is wrong with an object or a list as a whole.
pub(super) const NON_FIELD_ERRORS: &str = "non_field_errors";

/// One message at one field.
pub(super) fn at(field: &str, message: impl Into<String>) -> FieldErrors {
    BTreeMap::from([(field.to_owned(), json!([message.into()]))])
}

/// Seconds after which a caller may try again when something is away.
const RETRY_AFTER: u32 = 5;

/// Every answer of the admin API that is not a success.
#[derive(Debug, PartialEq)]
pub(super) enum ApiError {
    /// 301 to the path with its slash.
    Moved(String),
    /// 400, at fields.
    Fields(FieldErrors),
    /// 400, the body is not JSON.
    Parse(String),
    /// 401.
    Unauthenticated(&'static str),
    /// 403: the caller is known, and this is not for them.
    Forbidden,
    /// 404.
    NotFound,
    /// 404: the list has no such page.
    InvalidPage,
    /// 404, with the path that was probably meant.
    MissingSlash(String),
    /// 405; the router adds `Allow`.
    MethodNotAllowed(Method),
    /// 406: the client takes nothing that may come back.
    NotAcceptable,
    /// 408: the body did not arrive.
    BodyTimeout,
    /// 409.
    Conflict(String),
    /// 409, at fields: each is right by itself, but not with what is there, or with another one.
    Conflicts(FieldErrors),
    /// 412: somebody else changed it since it was read.
    PreconditionFailed,
    /// 413, with the limit in bytes.
    BodyTooLarge(usize),
    /// 415, with what was sent.
    UnsupportedMedia(String),
    /// 429, with the seconds after which it is worth trying again.
    Throttled(u64),
    /// 500.
    Internal,
    /// 503: not now, for this reason.
    Busy(String),
    /// 503: something that Grid needs is away.
    Unavailable,
    /// 503: no answer in time.
    TimedOut,
}

impl ApiError {
    /// One field's error.
    pub(super) fn field(name: &str, message: impl Into<String>) -> Self {
        Self::Fields(at(name, message))
    }

    /// The caller has to wait.
    pub(super) fn throttled(wait: Duration) -> Self {
        Self::Throttled(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }

    /// One field's conflict with what is there.
    pub(super) fn conflict(name: &str, message: impl Into<String>) -> Self {
        Self::Conflicts(at(name, message))
    }

    /// Each attempt met a change of somebody else's.
    pub(super) fn crowded() -> Self {
        let message = "Others keep changing this service at the same time. Try again.";
        Self::Conflict(message.to_owned())
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Moved(_) => StatusCode::MOVED_PERMANENTLY,
            Self::Fields(_) | Self::Parse(_) => StatusCode::BAD_REQUEST,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound | Self::InvalidPage | Self::MissingSlash(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict(_) | Self::Conflicts(_) => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMedia(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Throttled(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy(_) | Self::Unavailable | Self::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn body(&self) -> Value {
        let detail = match self {
            Self::Fields(errors) | Self::Conflicts(errors) => return json!(errors),
            Self::Moved(target) => format!("Moved to {target}."),
            Self::Parse(reason) => format!("JSON parse error - {reason}"),
            Self::Unauthenticated(reason) => (*reason).to_owned(),
            Self::Forbidden => "You do not have permission to perform this action.".to_owned(),
            Self::NotFound => "Not found.".to_owned(),
            Self::InvalidPage => "Invalid page.".to_owned(),
            Self::MissingSlash(path) => {
                format!("Not found. The path lacks its trailing slash: use {path}")
            }
            Self::MethodNotAllowed(method) => format!("Method \"{method}\" not allowed."),
            Self::NotAcceptable => "Could not satisfy the request Accept header.".to_owned(),
            Self::BodyTimeout => "The request's body did not arrive in time.".to_owned(),
            Self::Conflict(message) | Self::Busy(message) => message.clone(),
            Self::PreconditionFailed => {
                "It was changed since it was read: If-Match names an older version. Read it again."
                    .to_owned()
            }
            Self::Throttled(1) => {
                "Request was throttled. Expected available in 1 second.".to_owned()
            }
            Self::Throttled(seconds) => {
                format!("Request was throttled. Expected available in {seconds} seconds.")
            }
            Self::BodyTooLarge(limit) => {
                format!("The request's body is larger than {limit} bytes.")
            }
            Self::UnsupportedMedia(media) => {
                format!("Unsupported media type \"{media}\" in request.")
            }
            Self::Internal => "Internal error. The log of Grid has the reason.".to_owned(),
            Self::Unavailable => {
                "Something that Grid needs does not answer. Try again shortly.".to_owned()
            }
            Self::TimedOut => "No answer in time. The change may have been made.".to_owned(),
        };
        json!({ "detail": detail })
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error.kind() {
            Kind::NotFound => Self::NotFound,
            Kind::Conflict => match error {
                Error::Conflict { field: Some(field), message } => Self::conflict(field, message),
                other => Self::Conflict(other.to_string()),
            },
            Kind::Unavailable => {
                if let Error::Busy(message) = error {
                    return Self::Busy(message);
                }
                tracing::warn!(%error, "admin API: unavailable");
                Self::Unavailable
            }
            Kind::Failed => {
                tracing::error!(%error, "admin API: failed");
                Self::Internal
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self {
            Self::Unauthenticated(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Token"));
            }
            Self::Throttled(seconds) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Self::Busy(_) | Self::Unavailable | Self::TimedOut => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
            }
            Self::Moved(target) => {
                // It comes from a parsed URI, so it is always a valid header value.
                if let Ok(target) = HeaderValue::from_str(&target) {
                    headers.insert(header::LOCATION, target);
                }
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_text_stays_inside() {
        let secret = "/var/lib/grid: password=hunter2";
        let errors = [
            Error::Store { operation: "put", reason: secret.into() },
            Error::EngineAway { operation: "list", reason: secret.into() },
            Error::Engine { operation: "start", subject: secret.into(), reason: secret.into() },
            Error::Deployment(secret.into()),
            Error::File {
                operation: "read",
                path: secret.into(),
                source: std::io::Error::other(secret),
            },
            Error::NotFound { what: "service", id: secret.into() },
        ];
        for error in errors {
            let answer = ApiError::from(error);
            assert!(!answer.body().to_string().contains("hunter2"), "{answer:?}");
            assert!(answer.status().as_u16() >= 400);
        }
    }

    #[test]
    fn a_conflict_at_a_field_is_that_fields_error() {
        let at_field = Error::Conflict {
            field: Some("name"),
            message: "service with this name already exists.".into(),
        };
        let answer = ApiError::from(at_field);
        assert_eq!(answer.status(), StatusCode::CONFLICT);
        assert_eq!(answer.body(), json!({"name": ["service with this name already exists."]}));
        let moved_on = Error::Conflict { field: None, message: "changed meanwhile".into() };
        let answer = ApiError::from(moved_on);
        assert_eq!(answer.status(), StatusCode::CONFLICT);
        assert_eq!(answer.body(), json!({"detail": "changed meanwhile"}));
    }

    #[test]
    fn what_is_away_is_worth_another_try() {
        let response = ApiError::Unavailable.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
    }
}
