//! `audit_log/`: who changed what. It is read here and changed by nobody.

use axum::{extract::State, response::IntoResponse};
use http::Uri;

use super::{
    Shared,
    auth::Caller,
    error::{ApiError, FieldErrors},
    fields::Fields,
    openapi::{AuditFilters, OwnerParameter, PageParameters},
    page::{PageBody, PageRequest},
    parameters::{given_parameter, query_parameter},
};
use crate::{
    audit::{AuditEntry, AuditQuery},
    name::UserName,
};

/// `GET audit_log/?user=&service=&action=`, newest first: what the caller did, and what others did to
/// what is the caller's.
#[utoipa::path(
    get, path = "/api/v1/audit_log/", operation_id = "audit_log_list", tag = "users",
    params(PageParameters, OwnerParameter, AuditFilters),
    responses((status = 200, description = "Newest first", body = PageBody<AuditEntry>)),
)]
pub(super) async fn list(
    State(api): Shared,
    caller: Caller,
    uri: Uri,
    page: PageRequest,
) -> Result<impl IntoResponse, ApiError> {
    let query = query(&caller, &uri)?;
    let entries = api.store.audit(&query, page.offset(), page.limit()).await?;
    page.check(entries.count)?;
    Ok(page.body(entries.count, entries.items))
}

/// An admin who asks for somebody's calls means all of them, whomever they concern.
fn query(caller: &Caller, uri: &Uri) -> Result<AuditQuery, ApiError> {
    let query = read(uri).map_err(ApiError::Fields)?;
    let Some(user) = &query.user else {
        return Ok(AuditQuery { of: caller.owner.clone(), ..query });
    };
    if !caller.is_admin && *user != caller.user {
        return Err(ApiError::Forbidden);
    }
    let everybody = caller.is_admin && query_parameter(uri, "owner").is_none();
    Ok(AuditQuery { of: caller.owner.clone().filter(|_| !everybody), ..query })
}

fn read(uri: &Uri) -> Result<AuditQuery, FieldErrors> {
    let mut fields = Fields::of_query(uri, &["user", "service"]);
    let query = AuditQuery {
        of: None,
        user: fields.name::<UserName>("user"),
        service: fields.name("service"),
        action: given_parameter(uri, "action"),
    };
    fields.finish(&[])?;
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(is_admin: bool, uri: &'static str) -> Result<AuditQuery, ApiError> {
        let uri = Uri::from_static(uri);
        let caller = Caller { is_admin, ..Caller::named("alice") };
        query(&caller.for_owner(&uri)?, &uri)
    }

    #[test]
    fn everybody_sees_what_concerns_them_and_admins_what_they_ask_for() {
        let user = |name: &str| Some(UserName::parse(name).expect("valid"));
        let of = |of, user| Ok(AuditQuery { of, user, ..AuditQuery::default() });
        for is_admin in [false, true] {
            assert_eq!(ask(is_admin, "/?user=&page=2"), of(user("alice"), None));
        }
        assert_eq!(ask(false, "/?user=alice"), of(user("alice"), user("alice")));
        assert_eq!(ask(false, "/?user=bob"), Err(ApiError::Forbidden));
        assert_eq!(ask(true, "/?user=bob"), of(None, user("bob")));
        assert_eq!(ask(true, "/?user=bob&owner=alice"), of(user("alice"), user("bob")));
        assert_eq!(ask(true, "/?owner=*"), of(None, None));
        assert_eq!(ask(true, "/?owner=bob"), of(user("bob"), None));
        let wrong = ApiError::field("service", "Must be a valid UUID.");
        assert_eq!(ask(false, "/?service=x"), Err(wrong));
    }
}
