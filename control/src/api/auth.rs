//! Who calls: `Authorization: Token …`, as Django REST framework's token authentication, and on
//! whose services.

mod failures;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Uri, header, request::Parts};
use jiff::Timestamp;
use tokio::sync::watch;

use self::failures::Failures;
use super::{Api, audit::Notes, error::ApiError, parameters::query_parameter};
use crate::{
    account::AccessToken,
    limits,
    name::{TokenId, UserName},
    store::Store,
    token::Token,
};

/// What is said to whom the token does not open anything, whatever is wrong with it.
const INVALID: &str = "Invalid token.";

/// Knows the operator's token, and who tried others in vain.
pub struct Authenticator {
    bootstrap: Token,
    failures: Failures,
    /// Told of each token that is revoked.
    revoked: watch::Sender<()>,
}

/// Who made a request, and on whose services it works.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Who.
    pub(super) user: UserName,
    /// Whether this one may act for others.
    pub(super) is_admin: bool,
    /// With which token; none for the bootstrap token.
    pub(super) token: Option<TokenId>,
    /// From when on that opens nothing.
    pub(super) expires_at: Option<Timestamp>,
    /// From where.
    pub(super) address: Option<IpAddr>,
    /// Whose services this request works on; none for everybody's.
    pub(super) owner: Option<UserName>,
    /// For the audit log.
    pub(super) notes: Notes,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator(…)")
    }
}

impl Authenticator {
    /// Lets in who sends `bootstrap`, as the operator, or a token that the store knows.
    pub fn new(bootstrap: Token) -> Self {
        Self { bootstrap, failures: Failures::default(), revoked: watch::Sender::default() }
    }

    /// To be called when a token was revoked, for those that still use it.
    pub(super) fn note_revoked(&self) {
        self.revoked.send_replace(());
    }

    /// Changes with each token that is revoked from now on.
    pub(super) fn revocations(&self) -> watch::Receiver<()> {
        self.revoked.subscribe()
    }

    /// Checks the request's credentials.
    async fn authenticate(
        &self,
        store: &dyn Store,
        headers: &HeaderMap,
        address: Option<IpAddr>,
    ) -> Result<Caller, ApiError> {
        let token = credentials(headers).map_err(ApiError::Unauthenticated)?;
        self.failures.check(address, &token)?;
        let now = Timestamp::now();
        if self.bootstrap.matches(&token) {
            self.failures.passed(address, &token);
            return Ok(Caller::operator(address));
        }
        match store.token(token.digest()).await? {
            Some(known) if opens(&known, &token, now) => {
                self.failures.passed(address, &token);
                note_use(store, &known, now).await;
                Ok(Caller {
                    owner: Some(known.user.clone()),
                    user: known.user,
                    is_admin: known.is_admin,
                    token: Some(known.id),
                    expires_at: known.expires_at,
                    address,
                    notes: Notes::default(),
                })
            }
            _ => {
                self.failures.failed(address)?;
                Err(ApiError::Unauthenticated(INVALID))
            }
        }
    }
}

/// Compared once more in a time that says nothing: the store found it by a key that it may have
/// compared in another way.
fn opens(known: &AccessToken, presented: &Token, now: Timestamp) -> bool {
    Token::of_digest(known.digest).matches(presented) && !known.has_expired(now)
}

/// To the minute: a busy client must not cost a write for each of its requests.
async fn note_use(store: &dyn Store, token: &AccessToken, now: Timestamp) {
    let noted = limits::TOKEN_USE_NOTED;
    let fresh = |last: Timestamp| {
        now.duration_since(last).unsigned_abs() < noted // a clock that was set back counts as well
    };
    if token.last_used_at.is_some_and(fresh) {
        return;
    }
    if let Err(error) = store.note_token_use(token.id, now).await {
        tracing::warn!(token = %token.id, %error, "the use of a token was not noted");
    }
}

/// The token that a request carries.
fn credentials(headers: &HeaderMap) -> Result<Token, &'static str> {
    const ABSENT: &str = "Authentication credentials were not provided.";
    let value = headers.get(header::AUTHORIZATION).ok_or(ABSENT)?;
    let mut words = value.as_bytes().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    if !words.next().is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"token")) {
        return Err(ABSENT); // another scheme is for somebody else
    }
    let (token, more) = (words.next(), words.next());
    let token = token.ok_or("Invalid token header. No credentials provided.")?;
    if more.is_some() {
        return Err("Invalid token header. Token string should not contain spaces.");
    }
    let token = std::str::from_utf8(token)
        .map_err(|_| "Invalid token header. Token string should not contain invalid characters.")?;
    Ok(Token::presented(token))
}

/// Lets a request through only with valid credentials: what is behind it knows their [`Caller`].
pub(super) async fn require(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address = peer.map(|ConnectInfo(peer)| peer.ip().to_canonical());
    match api.auth.authenticate(&*api.store, request.headers(), address).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Lets a request through to its handler only when its caller may work on what `?owner=` names.
pub(super) async fn for_owner(caller: Caller, mut request: Request, next: Next) -> Response {
    match caller.for_owner(request.uri()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

impl Caller {
    fn operator(address: Option<IpAddr>) -> Self {
        let user = UserName::operator();
        let (owner, notes) = (Some(user.clone()), Notes::default());
        Self { user, is_admin: true, token: None, expires_at: None, address, owner, notes }
    }

    /// An ordinary user.
    #[cfg(test)]
    pub(super) fn named(name: &str) -> Self {
        let user = UserName::parse(name).expect("valid");
        Self { owner: Some(user.clone()), user, is_admin: false, ..Self::operator(None) }
    }

    /// Applies `?owner=`: an admin acts for the user that it names, or with `*` for all of them.
    pub(super) fn for_owner(mut self, uri: &Uri) -> Result<Self, ApiError> {
        let Some(owner) = query_parameter(uri, "owner") else { return Ok(self) };
        let owner = match owner.as_str() {
            "*" => None,
            name => {
                Some(UserName::parse(name).map_err(|e| ApiError::field("owner", e.to_string()))?)
            }
        };
        if !self.is_admin && owner.as_ref() != Some(&self.user) {
            return Err(ApiError::Forbidden);
        }
        if let Some(owner) = &owner {
            self.notes.owner(owner);
        }
        self.owner = owner;
        Ok(self)
    }

    /// Whether the request works on what this user owns.
    pub(super) fn works_for(&self, owner: &UserName) -> bool {
        self.owner.as_ref().is_none_or(|own| own == owner)
    }

    /// 403 for whoever is no admin.
    pub(super) fn require_admin(&self) -> Result<(), ApiError> {
        if self.is_admin { Ok(()) } else { Err(ApiError::Forbidden) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Every route that asks for one is behind `require`.
        parts.extensions.get::<Self>().cloned().ok_or(ApiError::Internal)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn refusal(value: Option<&[u8]>) -> Result<Token, &'static str> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            let value = HeaderValue::from_bytes(value).expect("a header value");
            headers.insert(header::AUTHORIZATION, value);
        }
        credentials(&headers)
    }

    fn caller(is_admin: bool) -> Caller {
        Caller { is_admin, ..Caller::named("alice") }
    }

    #[test]
    fn credentials_are_found_whatever_the_spelling_around_them() {
        let expected = Token::presented("s3cret");
        for good in [&b"Token s3cret"[..], b"token  s3cret ", b"TOKEN\ts3cret"] {
            assert!(refusal(Some(good)).expect("found").matches(&expected));
        }
    }

    #[test]
    fn each_refusal_says_why() {
        let absent = "Authentication credentials were not provided.";
        let cases: [(Option<&[u8]>, &str); 6] = [
            (None, absent),
            (Some(b"Bearer s3cret"), absent),
            (Some(b""), absent),
            (Some(b"Token"), "Invalid token header. No credentials provided."),
            (Some(b"Token a b"), "Invalid token header. Token string should not contain spaces."),
            (
                Some(b"Token \xff"),
                "Invalid token header. Token string should not contain invalid characters.",
            ),
        ];
        for (value, reason) in cases {
            assert_eq!(refusal(value).expect_err("refused"), reason);
        }
    }

    #[test]
    fn only_an_admin_acts_for_others() {
        let ask = |is_admin, uri| caller(is_admin).for_owner(&Uri::from_static(uri));
        let bob = UserName::parse("bob").expect("valid");
        assert!(ask(false, "/a/").expect("own").works_for(&caller(false).user));
        assert!(ask(false, "/a/?owner=alice").is_ok());
        for uri in ["/a/?owner=bob", "/a/?owner=*"] {
            assert_eq!(ask(false, uri).err(), Some(ApiError::Forbidden));
            assert!(ask(true, uri).expect("an admin").works_for(&bob));
        }
        assert!(!ask(true, "/a/").expect("an admin").works_for(&bob));
        assert!(ask(true, "/a/?owner=a%20b").is_err());
    }

    #[test]
    fn it_never_prints_its_digest() {
        let authenticator = Authenticator::new(Token::presented("s3cret"));
        assert_eq!(format!("{authenticator:?}"), "Authenticator(…)");
    }
}
