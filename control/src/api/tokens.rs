//! `tokens/`: make, list and revoke tokens. Nobody reads one again: what is kept is its digest.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    Ids, Shared,
    auth::Caller,
    body::JsonObject,
    error::{ApiError, FieldErrors, at},
    fields::Fields,
    openapi::{NewOwnerParameter, OwnerParameter, PageParameters, TokenParameter},
    page::{PageBody, PageRequest},
};
use crate::{
    account::AccessToken,
    limits,
    name::{TokenId, UserName},
    token::TokenText,
};

/// Fields of a record that a client may send back.
pub(super) const READ_ONLY: [&str; 4] = ["id", "created_at", "last_used_at", "expired"];
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// `{"id": "0192…", "user": "alice", "is_admin": false, "name": "laptop", "expired": false, …}`
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub(super) struct TokenRecord {
    id: TokenId,
    user: UserName,
    is_admin: bool,
    name: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    /// To the minute.
    last_used_at: Option<Timestamp>,
    expired: bool,
}

/// A new token: the one time that it is shown.
#[derive(Serialize, ToSchema)]
pub(super) struct NewToken {
    #[serde(flatten)]
    record: TokenRecord,
    /// What goes into `Authorization: Token …`.
    token: String,
}

/// What a request asks for.
#[derive(Debug)]
struct Wanted {
    user: Option<UserName>,
    is_admin: bool,
    name: String,
    expires_at: Option<Timestamp>,
    expires_in_days: Option<u32>,
}

/// `GET tokens/`, newest first, also those that have expired.
#[utoipa::path(
    get, path = "/api/v1/tokens/", operation_id = "tokens_list", tag = "users",
    params(PageParameters, OwnerParameter),
    responses((status = 200, description = "Newest first", body = PageBody<TokenRecord>)),
)]
pub(super) async fn list(
    State(api): Shared,
    caller: Caller,
    page: PageRequest,
) -> Result<impl IntoResponse, ApiError> {
    let tokens = api.store.tokens(caller.owner.as_ref(), page.offset(), page.limit()).await?;
    page.check(tokens.count)?;
    let now = Timestamp::now();
    let records = tokens.items.into_iter().map(|token| TokenRecord::of(token, now)).collect();
    Ok(page.body(tokens.count, records))
}

/// `POST tokens/`. A user makes tokens for itself, an admin for anybody. What matters is what the
/// token of this request may do, and not what others of its user may.
#[utoipa::path(
    post, path = "/api/v1/tokens/", operation_id = "tokens_create", tag = "users",
    params(NewOwnerParameter),
    responses((
        status = 201, description = "The token, which is shown this once", body = NewToken,
        headers(("Location" = String)),
    )),
)]
pub(super) async fn create(
    State(api): Shared,
    caller: Caller,
    JsonObject(object): JsonObject,
) -> Result<Response, ApiError> {
    let now = Timestamp::now();
    let wanted = Wanted::read(object).map_err(ApiError::Fields)?;
    let expires_at = wanted.end(now).map_err(ApiError::Conflicts)?;
    let Some(user) = wanted.user.or_else(|| caller.owner.clone()) else {
        return Err(ApiError::field("user", "Name the user for whom the token is made."));
    };
    if wanted.is_admin || user != caller.user {
        caller.require_admin()?;
    }
    let text = TokenText::random().map_err(|error| {
        tracing::error!(%error, "no token can be made");
        ApiError::Internal
    })?;
    let token = AccessToken {
        id: TokenId::new(),
        user,
        is_admin: wanted.is_admin,
        name: wanted.name,
        digest: *text.token().digest(),
        created_at: now,
        expires_at,
        last_used_at: None,
    };
    caller.notes.owner(&token.user);
    api.store.add_token(&token).await?;
    caller.notes.add("token", token.id.to_string());
    let headers = [
        (header::LOCATION, location(token.id)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let body =
        Json(NewToken { record: TokenRecord::of(token, now), token: text.as_str().to_owned() });
    Ok((StatusCode::CREATED, headers, body).into_response())
}

/// `GET tokens/{id}/`
#[utoipa::path(
    get, path = "/api/v1/tokens/{id}/", operation_id = "tokens_retrieve", tag = "users",
    params(TokenParameter, OwnerParameter),
    responses((status = 200, description = "The token, without what is secret", body = TokenRecord)),
)]
pub(super) async fn retrieve(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<TokenId>,
) -> Result<impl IntoResponse, ApiError> {
    let token = api.store.token_with_id(caller.owner.as_ref(), id).await?;
    let token = token.ok_or(ApiError::NotFound)?;
    Ok(Json(TokenRecord::of(token, Timestamp::now())))
}

/// `DELETE tokens/{id}/`: it opens nothing from now on. A token may revoke itself.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{id}/", operation_id = "tokens_destroy", tag = "users",
    params(TokenParameter, OwnerParameter),
    responses((status = 204, description = "It is refused from now on")),
)]
pub(super) async fn revoke(
    State(api): Shared,
    caller: Caller,
    Ids(id): Ids<TokenId>,
) -> Result<StatusCode, ApiError> {
    caller.notes.add("token", id.to_string());
    let token = api.store.remove_token(caller.owner.as_ref(), id).await?;
    let token = token.ok_or(ApiError::NotFound)?;
    api.auth.note_revoked();
    caller.notes.owner(&token.user);
    caller.notes.add("name", token.name);
    Ok(StatusCode::NO_CONTENT)
}

impl Wanted {
    fn read(object: Map<String, Value>) -> Result<Self, FieldErrors> {
        let mut fields = Fields::of(object);
        fields.require(&["name"]);
        let wanted = Self {
            user: fields.name("user"),
            is_admin: fields.boolean("is_admin").unwrap_or(false),
            name: name(&mut fields).unwrap_or_default(),
            expires_at: fields.time_or_null("expires_at").flatten(),
            expires_in_days: fields
                .integer_or_null("expires_in_days", limits::TOKEN_DAYS)
                .flatten(),
        };
        fields.finish(&READ_ONLY)?;
        Ok(wanted)
    }

    /// When it expires.
    fn end(&self, now: Timestamp) -> Result<Option<Timestamp>, FieldErrors> {
        let refuse = |field: &str, reason: &str| Err(at(field, reason));
        match (self.expires_at, self.expires_in_days) {
            (Some(_), Some(_)) => refuse("expires_in_days", "Send either this or expires_at."),
            (Some(end), None) if end <= now => refuse("expires_at", "Must be in the future."),
            (Some(end), None) => Ok(Some(end)),
            (None, Some(days)) => {
                let days = i32::try_from(days).unwrap_or(i32::MAX);
                Ok(Some(now.saturating_add(DAY * days).unwrap_or(Timestamp::MAX)))
            }
            (None, None) => Ok(None),
        }
    }
}

/// It is shown in terminals, so nothing in it may steer one.
fn name(fields: &mut Fields) -> Option<String> {
    let text = fields.text_up_to("name", limits::TOKEN_NAME_CHARS)?;
    if text.chars().any(char::is_control) {
        fields.refuse("name", "Control characters are not allowed.");
        return None;
    }
    Some(text)
}

fn location(id: TokenId) -> HeaderValue {
    let path = format!("/api/v1/tokens/{id}/");
    HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static("")) // an id is always one
}

impl TokenRecord {
    fn of(token: AccessToken, now: Timestamp) -> Self {
        Self {
            expired: token.has_expired(now),
            id: token.id,
            user: token.user,
            is_admin: token.is_admin,
            name: token.name,
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<Wanted, FieldErrors> {
        let Value::Object(object) = body else { unreachable!() };
        Wanted::read(object)
    }

    #[test]
    fn a_time_of_expiry_is_given_in_one_of_two_ways() {
        let end = |body: Value| {
            let wanted = read(body).expect("valid");
            wanted.end(Timestamp::UNIX_EPOCH).map(|end| end.map(|at| at.to_string()))
        };
        let day = Some("1970-01-02T00:00:00Z".to_owned());
        for (body, expected) in [
            (json!({"name": "a"}), None),
            (json!({"name": "a", "expires_at": null, "expires_in_days": null}), None),
            (json!({"name": "a", "expires_in_days": 1, "expires_at": null}), day.clone()),
            (json!({"name": "a", "expires_at": "1970-01-02T02:00:00+02:00"}), day),
        ] {
            assert_eq!(end(body), Ok(expected));
        }
        let most = json!({"name": "a", "expires_in_days": limits::TOKEN_DAYS.end()});
        assert!(end(most).is_ok_and(|end| end.is_some_and(|at| at.starts_with("2069-"))));
        for (body, field, message) in [
            (
                json!({"name": "a", "expires_at": "1970-01-01T00:00:00Z"}),
                "expires_at",
                "Must be in the future.",
            ),
            (
                json!({"name": "a", "expires_in_days": 1, "expires_at": "2000-01-01T00:00:00Z"}),
                "expires_in_days",
                "Send either this or expires_at.",
            ),
        ] {
            assert_eq!(end(body), Err(at(field, message)));
        }
    }

    #[test]
    fn what_is_wrong_is_told_at_its_field() {
        let long = "é".repeat(limits::TOKEN_NAME_CHARS) + "a";
        for (body, field, message) in [
            (json!({}), "name", "This field is required."),
            (json!({"name": " "}), "name", "This field may not be blank."),
            (json!({"name": long}), "name", "Ensure this field has no more than 100 characters."),
            (json!({"name": "a\u{1b}[2J"}), "name", "Control characters are not allowed."),
            (json!({"name": "a", "is_admin": "maybe"}), "is_admin", "Must be a valid boolean."),
            (
                json!({"name": "a", "expires_at": "tomorrow"}),
                "expires_at",
                "Must be a time as in RFC 3339, for example 2027-01-31T12:00:00Z.",
            ),
            (
                json!({"name": "a", "expires_in_days": 0}),
                "expires_in_days",
                "Ensure this value is greater than or equal to 1.",
            ),
            (json!({"name": "a", "token": "mine"}), "token", "Unknown field."),
        ] {
            let errors = read(body.clone()).expect_err("refused");
            assert_eq!(errors, at(field, message), "{body}");
        }
        assert_eq!(read(json!({"name": " a é "})).expect("valid").name, " a é ");
    }
}
