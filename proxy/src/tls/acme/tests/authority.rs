//! A certificate authority for tests: the part of RFC 8555 that a client of ours uses, over real
//! TLS, with real signatures, nonces and checks over HTTP. It misbehaves on demand.

mod checker;
mod jws;

use std::{collections::HashSet, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use pingora_core::tls::{ServerTlsStream, TlsAcceptor};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    SanType,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use self::{checker::Checker, jws::Signed};
use crate::tls::{challenges::Challenges, testing::set_validity};

/// What it does wrong.
#[derive(Debug, Clone)]
pub(super) struct Mischief {
    /// Requests whose nonce it does not take.
    pub(super) bad_nonces: u32,
    /// Orders that it refuses with 429, and the pause that it asks for.
    pub(super) limits: u32,
    pub(super) retry_after: u64,
    /// It closes every connection.
    pub(super) away: bool,
    /// It answers everything with 503.
    pub(super) broken: bool,
    /// It issues for another name and key.
    pub(super) wrong_certificate: bool,
    /// From and to when its certificates are good, in days from now.
    pub(super) validity_days: (i64, i64),
}

/// What it has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) accounts: usize,
    pub(super) orders: usize,
    /// Checks of domains over HTTP.
    pub(super) checks: usize,
    pub(super) bad_nonces: u32,
}

pub(super) struct TestAuthority {
    shared: Arc<Shared>,
    checker: Checker,
}

struct Shared {
    base: String,
    checker: SocketAddr,
    issuer: Issuer<'static, KeyPair>,
    root: String,
    state: Mutex<Ca>,
}

#[derive(Default)]
struct Ca {
    mischief: Mischief,
    counts: Counts,
    nonces: HashSet<String>,
    serial: u64,
    accounts: Vec<Account>,
    orders: Vec<Order>,
    /// Domains whose check was good.
    proven: HashSet<String>,
}

struct Account {
    key: jws::Key,
    contact: Value,
    forgotten: bool,
}

struct Order {
    account: usize,
    domain: String,
    token: String,
    status: &'static str,
    check: &'static str,
    problem: Value,
    chain: Option<String>,
}

impl Default for Mischief {
    fn default() -> Self {
        Self {
            bad_nonces: 0,
            limits: 0,
            retry_after: 0,
            away: false,
            broken: false,
            wrong_certificate: false,
            validity_days: (-1, 90),
        }
    }
}

impl TestAuthority {
    pub(super) async fn start(mischief: Mischief) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root").pem();
        let issuer = Issuer::new(params, key);

        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("https://{}", tcp.local_addr().expect("an address"));
        let checker = Checker::start().await;
        let acceptor = acceptor(&issuer);
        let state = Mutex::new(Ca { mischief, ..Ca::default() });
        let shared = Arc::new(Shared { base, checker: checker.addr, issuer, root, state });
        let listener = Listener { tcp, acceptor, shared: shared.clone() };
        let app = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { shared, checker }
    }

    pub(super) fn directory(&self) -> String {
        format!("{}/dir", self.shared.base)
    }

    /// What its own TLS certificate leads to.
    pub(super) fn tls_root(&self) -> &str {
        &self.shared.root
    }

    /// Where the answers to its checks come from.
    pub(super) fn check_with(&self, challenges: Arc<Challenges>) {
        self.checker.serve(challenges);
    }

    /// Whether a domain leads to somebody else.
    pub(super) fn misdirect(&self, domain: &str, elsewhere: bool) {
        self.checker.misdirect(domain, elsewhere);
    }

    pub(super) fn behave(&self, mischief: Mischief) {
        self.shared.state.lock().mischief = mischief;
    }

    pub(super) fn forget_accounts(&self) {
        self.shared.state.lock().accounts.iter_mut().for_each(|account| account.forgotten = true);
    }

    /// The contacts of the newest account.
    pub(super) fn contacts(&self) -> Value {
        self.shared.state.lock().accounts.last().expect("an account").contact.clone()
    }

    pub(super) fn counts(&self) -> Counts {
        self.shared.state.lock().counts
    }
}

fn acceptor(issuer: &Issuer<'static, KeyPair>) -> TlsAcceptor {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
    set_validity(&mut params, -1, 30);
    let certificate = params.signed_by(&key, issuer).expect("signs");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a pair");
    TlsAcceptor::from(Arc::new(config))
}

struct Listener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
}

impl axum::serve::Listener for Listener {
    type Io = ServerTlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, addr) = self.tcp.accept().await.expect("accepts");
            if self.shared.state.lock().mischief.away {
                continue;
            }
            let handshake = self.acceptor.accept(stream);
            if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(10), handshake).await {
                return (stream, addr);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A problem document's type, without its prefix, and its status.
struct Problem(u16, &'static str, String);
type Answered = Result<Response, Problem>;

impl Problem {
    fn malformed(text: impl Into<String>) -> Self {
        Self(400, "malformed", text.into())
    }

    fn json(&self) -> Value {
        let kind = format!("urn:ietf:params:acme:error:{}", self.1);
        json!({"type": kind, "detail": self.2, "status": self.0})
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let answered = shared.answer(&method, uri.path(), &body);
    let mut response = answered.unwrap_or_else(|problem| {
        let status = StatusCode::from_u16(problem.0).expect("a status");
        let kind = [("content-type", "application/problem+json")];
        (status, kind, problem.json().to_string()).into_response()
    });
    let state = &mut shared.state.lock();
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert("retry-after", state.mischief.retry_after.into());
    }
    let nonce = state.fresh("nonce");
    state.nonces.insert(nonce.clone());
    response.headers_mut().insert("replay-nonce", nonce.parse().expect("a value"));
    response
}

impl Ca {
    fn fresh(&mut self, kind: &str) -> String {
        self.serial += 1;
        format!("{kind}-{}", self.serial)
    }
}

impl Shared {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn answer(self: &Arc<Self>, method: &Method, path: &str, body: &[u8]) -> Answered {
        let mut state = self.state.lock();
        if state.mischief.broken {
            return Err(Problem(503, "serverInternal", "out of order".to_owned()));
        }
        match (method.as_str(), path) {
            ("GET", "/dir") => {
                return Ok(axum::Json(json!({
                    "newNonce": self.url("/nonce"), "newAccount": self.url("/account"),
                    "newOrder": self.url("/order"), "revokeCert": self.url("/revoke"),
                    "keyChange": self.url("/key"), "meta": {"termsOfService": self.url("/terms")},
                }))
                .into_response());
            }
            ("HEAD", "/nonce") => return Ok(StatusCode::OK.into_response()),
            ("POST", _) => {}
            _ => return Err(Problem(404, "malformed", format!("{method} {path}"))),
        }
        let signed = Signed::parse(body, &self.url(path)).map_err(Problem::malformed)?;
        let mut known = state.nonces.remove(&signed.nonce);
        if state.mischief.bad_nonces > 0 {
            state.mischief.bad_nonces -= 1;
            state.counts.bad_nonces += 1;
            known = false;
        }
        if !known {
            return Err(Problem(400, "badNonce", "this nonce is not known".to_owned()));
        }
        let Some(kid) = &signed.kid else { return self.new_account(&mut state, path, &signed) };
        let id = kid.strip_prefix(&self.url("/account/")).and_then(|id| id.parse::<usize>().ok());
        let account = id.and_then(|id| Some((id, state.accounts.get_mut(id)?)));
        let Some((id, account)) = account.filter(|(_, account)| !account.forgotten) else {
            return Err(Problem(400, "accountDoesNotExist", "no such account".to_owned()));
        };
        signed.verify(&account.key).map_err(Problem::malformed)?;
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let number = |text: &str| text.parse::<usize>().map_err(|_| Problem::malformed("a number"));
        match parts[..] {
            ["account", _] => {
                account.contact = signed.payload["contact"].clone();
                Ok(axum::Json(json!({"status": "valid"})).into_response())
            }
            ["order"] => self.new_order(&mut state, id, &signed),
            [kind, order] => self.order_part(&mut state, id, kind, number(order)?, &signed),
            _ => Err(Problem(404, "malformed", path.to_owned())),
        }
    }

    fn new_account(&self, state: &mut Ca, path: &str, signed: &Signed) -> Answered {
        let key = signed.key.clone().ok_or_else(|| Problem::malformed("no key"))?;
        signed.verify(&key).map_err(Problem::malformed)?;
        if path != "/account" || signed.payload["termsOfServiceAgreed"] != true {
            return Err(Problem(403, "userActionRequired", "agree to the terms".to_owned()));
        }
        let url = self.url(&format!("/account/{}", state.accounts.len()));
        let contact = signed.payload["contact"].clone();
        state.accounts.push(Account { key, contact, forgotten: false });
        state.counts.accounts += 1;
        let body = axum::Json(json!({"status": "valid"}));
        Ok((StatusCode::CREATED, [("location", url)], body).into_response())
    }

    fn new_order(&self, state: &mut Ca, account: usize, signed: &Signed) -> Answered {
        if state.mischief.limits > 0 {
            state.mischief.limits -= 1;
            return Err(Problem(429, "rateLimited", "too many orders".to_owned()));
        }
        let identifiers = signed.payload["identifiers"].as_array().cloned().unwrap_or_default();
        let [identifier] = &identifiers[..] else { return Err(Problem::malformed("one name")) };
        let domain = identifier["value"].as_str().unwrap_or_default().to_owned();
        let proven = state.proven.contains(&domain);
        state.counts.orders += 1;
        let token = state.fresh("token");
        let (status, check) = if proven { ("ready", "valid") } else { ("pending", "pending") };
        let problem = Value::Null;
        state.orders.push(Order { account, domain, token, status, check, problem, chain: None });
        let number = state.orders.len() - 1;
        let url = self.url(&format!("/order/{number}"));
        let body = axum::Json(self.order_json(number, &state.orders[number]));
        Ok((StatusCode::CREATED, [("location", url)], body).into_response())
    }

    fn order_part(
        self: &Arc<Self>,
        state: &mut Ca,
        account: usize,
        kind: &str,
        number: usize,
        signed: &Signed,
    ) -> Answered {
        let mischief = state.mischief.clone();
        let key = state.accounts[account].key.clone();
        let order = state.orders.get_mut(number).filter(|order| order.account == account);
        let order = order.ok_or_else(|| Problem(404, "malformed", "no such order".to_owned()))?;
        match kind {
            "order" => Ok(axum::Json(self.order_json(number, order)).into_response()),
            "authz" => Ok(axum::Json(json!({
                "status": order.check,
                "identifier": {"type": "dns", "value": order.domain},
                "challenges": [
                    {"type": "dns-01", "url": self.url("/x/0"), "token": "x", "status": "pending"},
                    self.challenge_json(number, order),
                ],
            }))
            .into_response()),
            "challenge" => {
                state.counts.checks += 1;
                let expected = format!("{}.{}", order.token, key.thumbprint());
                let question = (order.domain.clone(), order.token.clone());
                tokio::spawn(self.clone().check(number, question, expected));
                let order = &state.orders[number];
                Ok(axum::Json(self.challenge_json(number, order)).into_response())
            }
            "finalize" => {
                if order.status != "ready" {
                    return Err(Problem(403, "orderNotReady", order.status.to_owned()));
                }
                order.chain = Some(self.issue(order, &mischief, &signed.payload)?);
                order.status = "valid";
                Ok(axum::Json(self.order_json(number, order)).into_response())
            }
            "cert" => order
                .chain
                .clone()
                .map(IntoResponse::into_response)
                .ok_or_else(|| Problem::malformed("not yet")),
            _ => Err(Problem(404, "malformed", kind.to_owned())),
        }
    }

    /// Asks the domain over HTTP, as the authority's half of HTTP-01.
    async fn check(
        self: Arc<Self>,
        number: usize,
        (domain, token): (String, String),
        expected: String,
    ) {
        let answer = checker::fetch(self.checker, &domain, &token).await;
        let state = &mut self.state.lock();
        let order = &mut state.orders[number];
        if answer.as_deref().is_ok_and(|answer| answer == expected) {
            (order.status, order.check) = ("ready", "valid");
            let domain = order.domain.clone();
            state.proven.insert(domain);
        } else {
            (order.status, order.check) = ("invalid", "invalid");
            let detail = format!("the answer was {answer:?}");
            order.problem = Problem(403, "incorrectResponse", detail).json();
        }
    }

    fn issue(
        &self,
        order: &Order,
        mischief: &Mischief,
        payload: &Value,
    ) -> Result<String, Problem> {
        let bad = |e: &dyn std::fmt::Debug| Problem(400, "badCSR", format!("{e:?}"));
        let csr = payload["csr"].as_str().unwrap_or_default();
        let csr = CertificateSigningRequestDer::from(jws::decode(csr).map_err(|e| bad(&e))?);
        let mut csr = CertificateSigningRequestParams::from_der(&csr).map_err(|e| bad(&e))?;
        let name = order.domain.clone().try_into().expect("a name");
        if csr.params.subject_alt_names != [SanType::DnsName(name)] {
            return Err(bad(&csr.params.subject_alt_names));
        }
        let (from, to) = mischief.validity_days;
        set_validity(&mut csr.params, from, to);
        let certificate = if mischief.wrong_certificate {
            let key = KeyPair::generate().expect("a key");
            csr.params.signed_by(&key, &self.issuer)
        } else {
            csr.signed_by(&self.issuer)
        };
        Ok(format!("{}{}", certificate.map_err(|e| bad(&e))?.pem(), self.root))
    }

    fn order_json(&self, number: usize, order: &Order) -> Value {
        let mut body = json!({
            "status": order.status,
            "identifiers": [{"type": "dns", "value": order.domain}],
            "authorizations": [self.url(&format!("/authz/{number}"))],
            "finalize": self.url(&format!("/finalize/{number}")),
        });
        if order.chain.is_some() {
            body["certificate"] = json!(self.url(&format!("/cert/{number}")));
        }
        body
    }

    fn challenge_json(&self, number: usize, order: &Order) -> Value {
        let mut body = json!({
            "type": "http-01", "url": self.url(&format!("/challenge/{number}")),
            "token": order.token, "status": order.check,
        });
        if !order.problem.is_null() {
            body["error"] = order.problem.clone();
        }
        body
    }
}
