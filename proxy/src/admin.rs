//! The admin API for commands such as `grid token`: that of the Grid that runs, and when none does,
//! the same API in this process, on the store of the data directory. The store has one owner, so a
//! command cannot have it beside `grid serve`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use control::{
    api::{self, Api, ApiLimits, Calls, Invoker, PublicUrl, auth::Authenticator},
    config::{Config, ConfigError},
    engine::docker::Docker,
    error::Error,
    health::Health,
    logs::Logs,
    rotation::Rotations,
    runtime::Runtimes,
    secret::Keyring,
    store::{Opened, embedded::Embedded, redis::Part},
    token::{self, TokenText},
};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::{client::conn::http1, service::Service};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use serde_json::Value;
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};

/// How long a connection to the admin API may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take: longer than the API takes in any case.
const ANSWER: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of one line of an answer: more than the largest entry of a store takes.
const LINE_BYTES: usize = 256 * 1024 * 1024;

/// Calls the admin API as the operator. It blocks, and owns what it needs for that.
pub(crate) struct AdminClient {
    runtime: Runtime,
    way: Way,
    authorization: String,
}

/// Whom it asks.
enum Way {
    /// A Grid that listens there.
    Running(SocketAddr),
    /// Nobody else: the API in this process, which has the store.
    Own(axum::Router),
}

/// Why a command could not call the admin API, or what that refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("the admin API at http://{0}: {1}; is that the address of a Grid (GRID_ADMIN_ADDR)?")]
    Connect(SocketAddr, io::Error),
    #[error("the admin API at http://{0} does not answer within {1} s")]
    Silent(SocketAddr, u64),
    #[error("the connection to the admin API broke: {0}")]
    Broken(String),
    #[error(
        "a Grid listens at http://{0}, but there is no token for it: set SMSLY_TOKEN, or name its data directory with --data-dir ({1} is not there)"
    )]
    NoToken(SocketAddr, String),
    #[error("no Grid listens at {0} (GRID_ADMIN_ADDR), and there is no store in {dir}: name the data directory with --data-dir, or start Grid once", dir = .1.display())]
    NoStore(SocketAddr, PathBuf),
    #[error(
        "no Grid listens at {0} (GRID_ADMIN_ADDR), and its store cannot be opened either: {1}. If a Grid runs, name the address of its admin API with --admin-addr"
    )]
    Store(SocketAddr, Error),
    #[error(transparent)]
    Settings(#[from] ConfigError),
    #[error(transparent)]
    Control(#[from] Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
    #[error("the admin API refused ({}): {said}", status.as_u16())]
    Refused { status: StatusCode, said: String },
}

/// Result of a call.
pub(crate) type Result<T, E = AdminError> = std::result::Result<T, E>;

impl AdminClient {
    /// Finds the Grid that runs with these settings, or opens the store that it would have. Makes
    /// neither a store nor a token.
    ///
    /// # Errors
    /// When there is neither, with what was tried and what to do.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        Self::find(config, false)
    }

    /// As [`AdminClient::open`], but makes the store when there is none yet.
    pub(crate) fn open_or_create(config: &Config) -> Result<Self> {
        Self::find(config, true)
    }

    fn find(config: &Config, create: bool) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let address = reachable(config.admin_addr);
        let exists = config.redis_url.is_some() || Embedded::exists(&config.data_dir);
        let own = || match exists || create {
            true => own(config, address, &runtime),
            false => Err(AdminError::NoStore(address, config.data_dir.clone())),
        };
        let (way, token) = match runtime.block_on(connect(address)) {
            Ok(_) => (Way::Running(address), running(config, address)?),
            Err(AdminError::Connect(_, error)) if nobody_listens(&error) => own()?,
            // A Grid that was started with port 0 has another one now.
            Err(_) if address.port() == 0 => own()?,
            Err(error) => return Err(error),
        };
        let authorization = format!("Token {}", token.as_str());
        Ok(Self { runtime, way, authorization })
    }

    /// Sends one request, such as `("GET", "/api/v1/tokens/?owner=*", None)`; gives the answer's
    /// status and its JSON, null when it has no body.
    ///
    /// # Errors
    /// When there is no answer, or one that is no JSON.
    pub(crate) fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value)> {
        let text = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(text))?;
        self.runtime.block_on(async {
            match &self.way {
                Way::Running(address) => {
                    let answer = timeout(ANSWER, send(*address, request)).await;
                    answer.map_err(|_| AdminError::Silent(*address, ANSWER.as_secs()))?
                }
                // Bounded by itself.
                Way::Own(router) => {
                    match TowerToHyperService::new(router.clone()).call(request).await {
                        Ok(answer) => read(answer).await,
                        Err(never) => match never {},
                    }
                }
            }
        })
    }

    /// As [`AdminClient::call`], for one status alone.
    ///
    /// # Errors
    /// `Refused` for any other, in the API's own words.
    pub(crate) fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        expected: StatusCode,
    ) -> Result<Value> {
        let (status, answer) = self.call(method, path, body)?;
        if status == expected { Ok(answer) } else { Err(self.refused(status, &answer)) }
    }

    /// Asks for an answer that may be long, and has each of its lines taken, without their ends.
    ///
    /// # Errors
    /// When there is no answer, it is refused, it breaks off, or a line is not taken.
    pub(crate) fn lines(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> control::error::Result<()>,
    ) -> Result<()> {
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, &self.authorization)
            .body(Body::empty())?;
        self.runtime.block_on(async {
            let refused = match &self.way {
                Way::Running(address) => {
                    let answering = async |answer| each_line(answer, &mut take).await;
                    let silent = || AdminError::Silent(*address, ANSWER.as_secs());
                    exchange(*address, request, silent, answering).await?
                }
                Way::Own(router) => {
                    match TowerToHyperService::new(router.clone()).call(request).await {
                        Ok(answer) => each_line(answer, &mut take).await?,
                        Err(never) => match never {},
                    }
                }
            };
            match refused {
                None => Ok(()),
                Some((status, answer)) => Err(self.refused(status, &answer)),
            }
        })
    }

    /// What an answer says that is not what was asked for.
    pub(crate) fn refused(&self, status: StatusCode, answer: &Value) -> AdminError {
        let mut said = reason(answer);
        if let (Way::Running(address), StatusCode::UNAUTHORIZED) = (&self.way, status) {
            said += &format!(
                " The Grid at http://{address} has another bootstrap token: name its data directory \
                 with --data-dir, or set SMSLY_TOKEN."
            );
        }
        AdminError::Refused { status, said }
    }
}

/// The token of the Grid that runs.
fn running(config: &Config, address: SocketAddr) -> Result<TokenText> {
    let found = token::find(&config.data_dir, config.token.as_ref())?;
    let file = || token::file(&config.data_dir).display().to_string();
    found.ok_or_else(|| AdminError::NoToken(address, file()))
}

/// The API on the store of the data directory, and a token for it that nobody else ever has.
fn own(config: &Config, address: SocketAddr, runtime: &Runtime) -> Result<(Way, TokenText)> {
    let opened = runtime.block_on(Opened::open(config, Part::Control));
    let store = opened.map_err(|error| AdminError::Store(address, error))?;
    let runtimes = Runtimes::load(config.share_dir())?;
    let keyring = Keyring::load_or_create(&config.data_dir, config.fernet_keys.as_ref())?;
    let instance = store.instance_id().clone();
    let store = store.store();
    let logs = Logs::new(
        Arc::new(Docker::new(&config.docker_host)),
        store.clone(),
        keyring.clone(),
        instance,
        config.data_dir.join("logs"),
        config.log_bytes as u64,
    );
    let token = TokenText::random()?;
    let router = api::router(Api {
        logs: Arc::new(logs),
        store,
        health: Health::default(),
        runtimes: runtimes.iter().map(|runtime| runtime.name.clone()).collect(),
        oci_runtimes: config.oci_runtimes.clone(),
        denied: Arc::default(),
        keyring,
        rotations: Rotations::default(),
        invoker: Invoker::new(None, 0),
        auth: Authenticator::new(token.token()),
        calls: Calls::default(),
        limits: ApiLimits { code_bytes: config.code_bytes },
        public_url: PublicUrl::http(config.http_addr.port()),
    });
    Ok((Way::Own(router), token))
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| AdminError::Connect(address, error)),
        Err(_) => Err(AdminError::Silent(address, CONNECT.as_secs())),
    }
}

async fn send(address: SocketAddr, request: Request<Body>) -> Result<(StatusCode, Value)> {
    // Bounded by whoever asks.
    let silent = || AdminError::Silent(address, ANSWER.as_secs());
    exchange(address, request, silent, read).await
}

/// Sends a request and has its answer read. The answer's head comes within [`ANSWER`].
async fn exchange<T>(
    address: SocketAddr,
    request: Request<Body>,
    silent: impl Fn() -> AdminError,
    read: impl AsyncFnOnce(Response<hyper::body::Incoming>) -> Result<T>,
) -> Result<T> {
    let stream = TokioIo::new(connect(address).await?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(broken)?;
    let answer = async {
        let head = timeout(ANSWER, sender.send_request(request)).await.map_err(|_| silent())?;
        read(head.map_err(broken)?).await
    };
    tokio::select! {
        answer = answer => answer,
        // It has no end of its own while an answer is on its way.
        ended = connection => Err(match ended {
            Ok(()) => broken("it was closed without an answer"),
            Err(error) => broken(error),
        }),
    }
}

async fn read<B>(answer: Response<B>) -> Result<(StatusCode, Value)>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
    let bytes = body.map_err(broken)?.to_bytes();
    if bytes.is_empty() {
        return Ok((status, Value::Null));
    }
    let value = serde_json::from_slice(&bytes);
    Ok((status, value.map_err(|_| broken(format!("{status} with a body that is not JSON")))?))
}

/// Has each line of a good answer taken; gives one that is not.
async fn each_line<B>(
    answer: Response<B>,
    take: &mut impl FnMut(&[u8]) -> control::error::Result<()>,
) -> Result<Option<(StatusCode, Value)>>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + std::fmt::Display,
{
    if answer.status() != StatusCode::OK {
        return read(answer).await.map(Some);
    }
    let mut body = answer.into_body();
    let mut line = Vec::new();
    loop {
        let silence = || broken(format!("nothing came for {} s", ANSWER.as_secs()));
        let frame = timeout(ANSWER, body.frame()).await.map_err(|_| silence())?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if line.len() > LINE_BYTES {
                return Err(broken("a line is too long"));
            }
            if line.pop_if(|last| *last == b'\n').is_some() {
                take(&line)?;
                line.clear();
            }
        }
    }
    if line.is_empty() { Ok(None) } else { Err(broken("it ended within a line")) }
}

fn broken(reason: impl ToString) -> AdminError {
    AdminError::Broken(reason.to_string())
}

/// What listens everywhere is asked on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn nobody_listens(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// One line of what the API says: `{"detail": "Not found."}`, or `{"name": ["…"]}`.
fn reason(answer: &Value) -> String {
    if let Value::String(detail) = &answer["detail"] {
        return detail.clone();
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let field = |(name, errors): (&String, &Value)| match errors {
        Value::Array(errors) => {
            format!("{name}: {}", errors.iter().map(text).collect::<Vec<_>>().join(" "))
        }
        other => format!("{name}: {}", text(other)),
    };
    match answer {
        Value::Object(fields) => fields.iter().map(field).collect::<Vec<_>>().join("; "),
        other => text(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_listens_everywhere_is_asked_here() {
        for (listens, asked) in [
            ("0.0.0.0:8000", "127.0.0.1:8000"),
            ("[::]:8000", "[::1]:8000"),
            ("10.0.0.1:8000", "10.0.0.1:8000"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
        ] {
            let listens: SocketAddr = listens.parse().expect("an address");
            assert_eq!(reachable(listens).to_string(), asked);
        }
    }

    #[test]
    fn a_refusal_is_one_line_in_the_apis_words() {
        assert_eq!(reason(&json!({"detail": "Not found."})), "Not found.");
        let fields = json!({"name": ["Too long.", "Too odd."], "user": ["No."]});
        assert_eq!(reason(&fields), "name: Too long. Too odd.; user: No.");
        assert_eq!(reason(&Value::Null), "null");
    }
}
