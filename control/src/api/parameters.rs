//! Parameters of a query: each at most once, so that no two readers of a request can take it for
//! different ones.

use std::collections::HashSet;

use axum::{
    extract::{Query, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::Uri;

use super::error::ApiError;

/// Lets a request through only when none of its parameters is there twice.
pub(super) async fn once(request: Request, next: Next) -> Response {
    match repeated(request.uri()) {
        None => next.run(request).await,
        Some(name) => {
            ApiError::field(&name, "This parameter may be given once only.").into_response()
        }
    }
}

/// The value of a parameter, decoded. None when it is absent.
pub(super) fn query_parameter(uri: &Uri, name: &str) -> Option<String> {
    pairs(uri).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// As [`query_parameter`]; one that is empty counts as absent.
pub(super) fn given_parameter(uri: &Uri, name: &str) -> Option<String> {
    query_parameter(uri, name).filter(|value| !value.is_empty())
}

/// The first name that comes back.
fn repeated(uri: &Uri) -> Option<String> {
    let mut seen = HashSet::new();
    pairs(uri).into_iter().map(|(name, _)| name).find(|name| !seen.insert(name.clone()))
}

fn pairs(uri: &Uri) -> Vec<(String, String)> {
    Query::try_from_uri(uri).map_or_else(|_| Vec::new(), |Query(pairs)| pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let uri = Uri::from_static("/a/?tail=1&request_id=a%20b&flag");
        assert_eq!(query_parameter(&uri, "tail").as_deref(), Some("1"));
        assert_eq!(query_parameter(&uri, "request_id").as_deref(), Some("a b"));
        assert_eq!(query_parameter(&uri, "flag").as_deref(), Some(""));
        assert_eq!(given_parameter(&uri, "flag"), None);
        assert_eq!(query_parameter(&uri, "other"), None);
    }

    #[test]
    fn a_name_that_comes_back_is_found_however_it_is_spelled() {
        let of = |uri| repeated(&Uri::from_static(uri));
        assert_eq!(of("/a/?a=1&b=2&%61=1").as_deref(), Some("a"));
        assert_eq!(of("/a/?a=1&A=1&b=&a%20=1"), None);
        assert_eq!(of("/a/"), None);
    }
}
