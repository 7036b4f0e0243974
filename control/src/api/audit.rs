//! Writes down who changed what: one entry for each call that may change something or run code, also
//! for one that is refused, and whether its client waits for the answer or not. `auth` comes first,
//! so who is not known is not in it.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::Method;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::{Api, auth::Caller, calls::Client, error::ApiError};
use crate::{
    audit::AuditEntry,
    error::Error,
    name::{EnvKey, ServiceId, UserName},
    service::{Deployment, Service},
};

/// How long an answer waits for its entry.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// Names of fields that an entry has at most, and characters of each: a client chooses them.
const FIELDS: (usize, usize) = (50, 64);

/// What the handler of a call adds to its entry. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    owner: Option<UserName>,
    service: Option<ServiceId>,
    detail: Map<String, Value>,
}

impl Notes {
    /// Whose it is that is touched, when that is not the caller's own.
    pub(super) fn owner(&self, owner: &UserName) {
        self.0.lock().owner = Some(owner.clone());
    }

    /// Which service it is about, and with it whose.
    pub(super) fn service(&self, service: &Service) {
        self.owner(&service.owner);
        self.0.lock().service = Some(service.id);
        self.add("name", service.name.as_str());
    }

    /// Which deployment it triggered.
    pub(super) fn deployment(&self, deployment: &Deployment) {
        self.add("deployment", deployment.id.to_string());
    }

    /// Which environment variable of the service it is about.
    pub(super) fn variable(&self, key: &EnvKey) {
        self.add("env_var", key.as_str());
    }

    /// Which fields the client sent; their values stay out of it.
    pub(super) fn fields(&self, object: &Map<String, Value>) {
        let (most, chars) = FIELDS;
        let names = object.keys().take(most).map(|name| name.chars().take(chars).collect());
        let names: Vec<String> = names.collect();
        self.add("fields", names);
    }

    /// Anything else that is worth knowing, and no secret.
    pub(super) fn add(&self, name: &str, value: impl Into<Value>) {
        self.0.lock().detail.insert(name.to_owned(), value.into());
    }

    fn take(&self) -> Noted {
        std::mem::take(&mut self.0.lock())
    }
}

/// Lets a call through to its handler, and has its entry written before it is answered.
pub(super) async fn keep(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        return ApiError::Internal.into_response(); // every route is behind `auth::require`
    };
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let action = action(request.method(), path);
    let service = service_in(request.uri().path());
    let calls = api.calls.clone();
    let (_presence, client) = Client::present();
    request.extensions_mut().insert(client);
    let call = async move {
        let response = next.run(request).await;
        let noted = caller.notes.take();
        let entry = AuditEntry {
            id: 0, // the store's
            at: Timestamp::now(),
            owner: noted.owner.unwrap_or_else(|| caller.user.clone()),
            user: caller.user,
            token: caller.token,
            address: caller.address,
            action,
            service: noted.service.or(service),
            status: response.status().as_u16(),
            detail: noted.detail,
        };
        api.write_entry(&entry).await;
        response
    };
    calls.run(call).await.unwrap_or_else(|| ApiError::TimedOut.into_response())
}

impl Api {
    /// The call has been made, so it is answered as it went, also when its entry cannot be written:
    /// then the log has it.
    async fn write_entry(&self, entry: &AuditEntry) {
        let written = tokio::time::timeout(WRITTEN_WITHIN, self.store.append_audit(entry)).await;
        let error = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::Store { operation: "append to audit log", reason: "no answer".into() },
        };
        let entry = serde_json::to_string(entry).unwrap_or_default();
        tracing::error!(%error, %entry, "an entry is missing in the audit log");
    }
}

/// What a call asks for, by the last word of its route.
fn action(method: &Method, path: &str) -> String {
    let word = path.rsplit('/').find(|word| !word.is_empty() && !word.starts_with('{'));
    let known = match (word.unwrap_or_default(), method.as_str()) {
        ("services", "POST") => "service.create",
        ("services", "PUT" | "PATCH") => "service.update",
        ("services", "DELETE") => "service.delete",
        ("deployments", "POST") => "service.deploy",
        ("rollback", "POST") => "service.rollback",
        ("invoke", "POST") => "service.invoke",
        ("env_vars", "POST") => "env_var.create",
        ("env_vars", "PUT" | "PATCH") => "env_var.update",
        ("env_vars", "DELETE") => "env_var.delete",
        ("tokens", "POST") => "token.create",
        ("tokens", "DELETE") => "token.revoke",
        ("rotate", "POST") => "keys.rotate",
        _ => return format!("{method} {path}"), // never left out
    };
    known.to_owned()
}

/// The service that a path names, whoever's it is, and if it is one at all.
fn service_in(path: &str) -> Option<ServiceId> {
    path.strip_prefix("/api/v1/services/")?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_action_is_named_by_its_route() {
        for (method, path, expected) in [
            ("POST", "/api/v1/services/", "service.create"),
            ("PATCH", "/api/v1/services/{id}/", "service.update"),
            ("DELETE", "/api/v1/services/{id}/", "service.delete"),
            ("POST", "/api/v1/services/{id}/deployments/", "service.deploy"),
            (
                "POST",
                "/api/v1/services/{id}/deployments/{deployment}/rollback/",
                "service.rollback",
            ),
            ("POST", "/api/v1/services/{id}/invoke/", "service.invoke"),
            ("PUT", "/api/v1/services/{id}/env_vars/{key}/", "env_var.update"),
            ("DELETE", "/api/v1/tokens/{id}/", "token.revoke"),
            ("POST", "/api/v1/keys/rotate/", "keys.rotate"),
            ("POST", "/api/v1/news/", "POST /api/v1/news/"),
        ] {
            let method = method.parse().expect("a method");
            assert_eq!(action(&method, path), expected, "{path}");
        }
    }

    #[test]
    fn a_path_names_a_service_or_none() {
        let id = "9c8b4b1a-7d1c-4a2b-9a55-2e8c3d4f9b21";
        for path in [format!("/api/v1/services/{id}/"), format!("/api/v1/services/{id}/invoke/")] {
            assert_eq!(service_in(&path).map(|id| id.to_string()).as_deref(), Some(id));
        }
        for path in ["/api/v1/services/", "/api/v1/services/x/", &format!("/api/v1/tokens/{id}/")] {
            assert_eq!(service_in(path), None, "{path}");
        }
    }

    #[test]
    fn a_client_does_not_choose_how_long_an_entry_is() {
        let object = (0..1000).map(|n| (format!("{n:0>1000}"), json!("hunter2"))).collect();
        let notes = Notes::default();
        notes.fields(&object);
        let text = Value::Object(notes.take().detail).to_string();
        assert!(text.len() < 4000 && !text.contains("hunter2"), "{}", text.len());
    }
}
