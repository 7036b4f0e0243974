//! Who may call: `Authorization: Token …`, as Django REST framework's token authentication.

use std::{fmt, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};

use super::{Api, error::ApiError};
use crate::token::Token;

/// Knows the one token that opens the API.
pub struct Authenticator {
    token: Token,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator(…)")
    }
}

impl Authenticator {
    /// Lets in whoever sends `token`.
    pub fn new(token: Token) -> Self {
        Self { token }
    }

    /// Checks the request's credentials.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        const ABSENT: &str = "Authentication credentials were not provided.";
        let refuse = |reason| Err(ApiError::Unauthenticated(reason));
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return refuse(ABSENT);
        };
        let mut words =
            value.as_bytes().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        if !words.next().is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"token")) {
            return refuse(ABSENT); // another scheme is for somebody else
        }
        let (token, more) = (words.next(), words.next());
        let Some(token) = token else {
            return refuse("Invalid token header. No credentials provided.");
        };
        if more.is_some() {
            return refuse("Invalid token header. Token string should not contain spaces.");
        }
        let Ok(token) = std::str::from_utf8(token) else {
            return refuse(
                "Invalid token header. Token string should not contain invalid characters.",
            );
        };
        if self.token.matches(token) { Ok(()) } else { refuse("Invalid token.") }
    }
}

/// Lets a request through to its handler only with valid credentials.
pub(super) async fn require(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    match api.auth.authenticate(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn authenticator() -> Authenticator {
        Authenticator::new(Token::parse("s3cret-s3cret-s3cret").expect("long enough"))
    }

    fn outcome(header_value: Option<&[u8]>) -> Result<(), &'static str> {
        let mut headers = HeaderMap::new();
        if let Some(value) = header_value {
            let value = HeaderValue::from_bytes(value).expect("a header value");
            headers.insert(header::AUTHORIZATION, value);
        }
        match authenticator().authenticate(&headers) {
            Ok(()) => Ok(()),
            Err(ApiError::Unauthenticated(reason)) => Err(reason),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_token_opens() {
        assert_eq!(outcome(Some(b"Token s3cret-s3cret-s3cret")), Ok(()));
        assert_eq!(outcome(Some(b"token   s3cret-s3cret-s3cret")), Ok(()));
        for wrong in
            [&b"Token s3cre"[..], b"Token s3cret-s3cret-s3cret2", b"Token S3CRET-S3CRET-S3CRET"]
        {
            assert_eq!(outcome(Some(wrong)), Err("Invalid token."));
        }
    }

    #[test]
    fn each_refusal_says_why() {
        let absent = Err("Authentication credentials were not provided.");
        assert_eq!(outcome(None), absent);
        assert_eq!(outcome(Some(b"Bearer s3cret-s3cret-s3cret")), absent);
        assert_eq!(outcome(Some(b"")), absent);
        assert_eq!(outcome(Some(b"Token")), Err("Invalid token header. No credentials provided."));
        assert_eq!(
            outcome(Some(b"Token a b")),
            Err("Invalid token header. Token string should not contain spaces.")
        );
        assert_eq!(
            outcome(Some(b"Token \xff")),
            Err("Invalid token header. Token string should not contain invalid characters.")
        );
    }

    #[test]
    fn it_never_prints_its_digest() {
        assert_eq!(format!("{:?}", authenticator()), "Authenticator(…)");
    }
}
