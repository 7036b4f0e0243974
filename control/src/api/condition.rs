//! Requests that depend on what was before: `If-Match`, so that two editors do not overwrite each
//! other, and `Idempotency-Key`, so that a creation can be repeated when its answer was lost.

use http::{HeaderMap, header};
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::{name::IdempotencyKey, secret::Keyring, service::Service, store::Attempt};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The entity tag of what a service's owner can change: `"7"`. What happens to the service by itself
/// (its status, its replicas) makes no other tag: it would be in the way of an editor.
pub(super) fn etag(service: &Service) -> String {
    format!("\"{}\"", service.version)
}

/// # Errors
/// `PreconditionFailed` when `If-Match` is there and does not name the service's version.
pub(super) fn if_match(headers: &HeaderMap, service: &Service) -> Result<(), ApiError> {
    let mut tags = headers.get_all(header::IF_MATCH).iter().peekable();
    if tags.peek().is_none() {
        return Ok(());
    }
    let current = etag(service);
    let names = |tag: &str| tag == "*" || tag == current;
    let named = tags
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| names(tag.trim()));
    if named { Ok(()) } else { Err(ApiError::PreconditionFailed) }
}

/// The attempt that a request is one of, when it says so.
pub(super) fn attempt(
    headers: &HeaderMap,
    object: &Map<String, Value>,
    keyring: &Keyring,
) -> Result<Option<Attempt>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let key = IdempotencyKey::parse(text)
        .map_err(|error| ApiError::field("Idempotency-Key", error.to_string()))?;
    // Keys of an object are in their order, whatever that was in the request. There may be secrets
    // among the values, short enough to be guessed by a plain digest.
    let fingerprint = keyring.digest(&Value::Object(object.clone()).to_string());
    Ok(Some(Attempt { key, fingerprint }))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::{
        api::input::{Input, tests::read},
        name::UserName,
        secret::FernetKeys,
    };

    fn keyring() -> Keyring {
        Keyring::new(&FernetKeys::generate())
    }

    fn service() -> Service {
        let body = json!({"name": "a", "function_runtime": "node18", "function_code": "x"});
        let input = read(body, &Input::REQUIRED).expect("valid");
        let operator = UserName::operator;
        let created = input.create(operator(), operator(), &keyring(), Timestamp::UNIX_EPOCH);
        Service { version: 7, ..created.expect("consistent").0 }
    }

    #[test]
    fn a_version_is_matched_by_its_own_tag_and_by_any() {
        let check = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_MATCH, HeaderValue::from_static(value));
            }
            if_match(&headers, &service()).is_ok()
        };
        assert!(check(&[]));
        assert!(check(&["\"7\""]) && check(&["*"]) && check(&["\"6\" , \"7\""]));
        assert!(check(&["\"6\"", "\"7\""]));
        // A weak tag is never enough to change something.
        assert!(!check(&["\"6\""]) && !check(&["7"]) && !check(&["W/\"7\""]) && !check(&[""]));
    }

    #[test]
    fn an_attempt_is_the_same_whatever_the_order_of_its_fields() {
        let keyring = keyring();
        let of = |key: &'static str, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static(key));
            attempt(&headers, &serde_json::from_str(body).expect("an object"), &keyring)
        };
        let first = of("k", r#"{"a": 1, "b": 2}"#).expect("valid");
        assert_eq!(of("k", r#"{"b":2,"a":1}"#), Ok(first.clone()));
        assert_ne!(of("k", r#"{"b":2,"a":2}"#), Ok(first));
        assert!(of("", "{}").is_err() && of("a b", "{}").is_err());
        assert_eq!(attempt(&HeaderMap::new(), &Map::new(), &keyring), Ok(None));
    }
}
