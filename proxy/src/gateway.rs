//! A public request's way, from its head to its answer. Everything happens in `request_filter`,
//! with our own exchange: Pingora's proxy phases replay only small bodies and know no deadline for
//! a whole exchange.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use control::service::GoneCause;
use http::{HeaderName, HeaderValue, header};
use pingora_core::{
    Error, ErrorType, Result, protocols::http::ServerSession, upstreams::peer::HttpPeer,
};
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session};
use tokio::{sync::Notify, time::Instant};

use crate::{
    admit,
    denial::Denial,
    exchange::{self, Answer, Fault},
    pool::{Lease, Turn},
    respond::{self, Timing},
    route::{Routes, Target},
};

/// Time that a client has for the rest of a body that was refused.
const DRAIN: Duration = Duration::from_secs(1);
/// Slowest reader that is waited for, bytes per second.
const SLOWEST_READER: usize = 16 * 1024;

/// The bounds that settings may move.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) body_bytes: usize,
    pub(crate) body_within: Duration,
    pub(crate) response_bytes: usize,
    pub(crate) function_timeout: Duration,
    pub(crate) queue_within: Duration,
}

/// Serves the public port.
pub(crate) struct Gateway {
    pub(crate) routes: Arc<Routes>,
    pub(crate) bounds: Bounds,
    pub(crate) traffic: Arc<Traffic>,
}

/// What runs at this moment, and whether new requests are taken. Who stops and who ends last must
/// see each other: the orderings are sequentially consistent.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    stopping: AtomicBool,
    running: AtomicUsize,
    /// Woken when the last request ends while stopping.
    ended: Notify,
}

struct Running<'a>(&'a Traffic);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let last = self.0.running.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.0.stopping.load(Ordering::SeqCst) {
            self.0.ended.notify_one();
        }
    }
}

impl Traffic {
    fn enter(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        Running(self)
    }

    /// Requests that run now.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Refuses new requests from now on, and waits until none runs.
    pub(crate) async fn finish(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        while self.running() > 0 {
            self.ended.notified().await;
        }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn request_filter(&self, session: &mut Session, _: &mut ()) -> Result<bool> {
        let _running = self.traffic.enter();
        let session = session.as_downstream_mut();
        prepare(session);
        let request_id = admit::request_id(session.req_header());
        let mut timing = Timing::default();
        match self.serve(session, &request_id, &mut timing).await {
            Ok(answer) => respond::answer(session, answer, &request_id, &timing).await?,
            Err(denial) => {
                tracing::debug!(request_id, ?denial, "denied");
                if !respond::deny(session, &denial, &request_id, &timing).await? {
                    session.set_keepalive(None);
                }
            }
        }
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        // `request_filter` has answered every request.
        Err(Error::explain(ErrorType::InternalError, "no upstream is ever asked for"))
    }
}

impl Gateway {
    async fn serve(
        &self,
        session: &mut ServerSession,
        request_id: &str,
        timing: &mut Timing,
    ) -> Result<Answer, Denial> {
        if self.traffic.stopping.load(Ordering::SeqCst) {
            return Err(Denial::Stopping);
        }
        let target = self.route(session.req_header())?;
        admit::head(session.req_header(), self.bounds.body_bytes)?;
        admit::framing(session)?;
        let body = admit::body(session, self.bounds.body_bytes, self.bounds.body_within).await?;
        let lease = self.acquire(session, &target, timing).await?;
        self.exchange(session, &target, lease, body, request_id, timing).await
    }

    fn route(&self, request: &RequestHeader) -> Result<Arc<Target>, Denial> {
        let host = match request.uri.host() {
            Some(host) => Some(host),
            None => request.headers.get(header::HOST).and_then(|host| host.to_str().ok()),
        };
        let found = host.and_then(|host| self.routes.find(host, request.uri.path()));
        found.ok_or_else(|| {
            // CONNECT and the like have no path, but deserve the right answer.
            admit::head(request, usize::MAX).err().unwrap_or(Denial::NotFound)
        })
    }

    /// A free replica, or one for which the request waits its turn, as long as its client stays.
    async fn acquire(
        &self,
        session: &mut ServerSession,
        target: &Target,
        timing: &mut Timing,
    ) -> Result<Lease, Denial> {
        let mut place = match target.pool.enter()? {
            Turn::Now(lease) => return Ok(lease),
            Turn::Later(place) => place,
        };
        let asked = Instant::now();
        let turn = tokio::select! {
            turn = place.turn(asked + self.bounds.queue_within) => turn.map_err(Denial::from),
            () = client_gone(session) => Err(Denial::ClientGone),
        };
        let waited = asked.elapsed();
        if place.asleep {
            timing.wake = waited
        } else {
            timing.queue = waited
        }
        turn
    }

    async fn exchange(
        &self,
        session: &ServerSession,
        target: &Target,
        mut lease: Lease,
        body: Bytes,
        request_id: &str,
        timing: &mut Timing,
    ) -> Result<Answer, Denial> {
        let request = self.request(session, target, &body, request_id);
        let (request, link) = match (request, lease.start()) {
            (Ok(request), Some(link)) => (request, link),
            _ => return Err(Denial::BadRequest("The request cannot be passed on.")),
        };
        let began = Instant::now();
        let deadline = began + self.bounds.function_timeout;
        let outcome =
            exchange::run(link, request, body, self.bounds.response_bytes, deadline).await;
        timing.exec = began.elapsed();
        match outcome {
            Ok((answer, Some(link))) => {
                lease.give_back(link);
                accept(answer)
            }
            Ok((answer, None)) => {
                lease.retire(GoneCause::Closed);
                accept(answer)
            }
            Err(fault) => {
                tracing::debug!(request_id, replica = %lease.replica(), ?fault, "exchange failed");
                let (cause, denial) = self.blame(fault);
                lease.retire(cause);
                Err(denial)
            }
        }
    }

    fn blame(&self, fault: Fault) -> (GoneCause, Denial) {
        match fault {
            Fault::TimedOut => (GoneCause::TimedOut, Denial::Timeout(self.bounds.function_timeout)),
            Fault::Closed => (GoneCause::Closed, Denial::Crashed),
            Fault::Garbled(reason) => {
                tracing::info!(reason, "a replica's answer was refused");
                (GoneCause::Garbled, Denial::InvalidAnswer)
            }
            Fault::TooLarge => {
                (GoneCause::Garbled, Denial::AnswerTooLarge(self.bounds.response_bytes))
            }
        }
    }

    /// The request as the runner gets it (runners/PROTOCOL.md).
    fn request(
        &self,
        session: &ServerSession,
        target: &Target,
        body: &Bytes,
        request_id: &str,
    ) -> Result<Box<RequestHeader>> {
        let came = session.req_header();
        let path = came.uri.path_and_query().map_or("/", |target| target.as_str());
        let size = came.headers.len() + 8;
        let mut request = RequestHeader::build(came.method.clone(), path.as_bytes(), Some(size))?;
        for (name, value) in &came.headers {
            if exchange::passes_through(name) {
                request.append_header(name.clone(), value.clone())?;
            }
        }
        if !request.headers.contains_key(header::HOST)
            && let Some(host) = came.uri.host()
        {
            request.insert_header(header::HOST, host)?;
        }
        request.insert_header(header::CONTENT_LENGTH, body.len())?;
        let source = session.client_addr().and_then(|addr| addr.as_inet());
        let source = source.map(|addr| addr.ip().to_string()).unwrap_or_default();
        for (name, value) in [
            ("x-grid-request-id", request_id),
            ("x-grid-deadline-ms", &self.bounds.function_timeout.as_millis().to_string()),
            ("x-grid-source-ip", &source),
            ("x-grid-function", target.function.as_str()),
            ("x-grid-scheme", "http"),
        ] {
            let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
            request.insert_header(HeaderName::from_static(name), value)?;
        }
        Ok(Box::new(request))
    }
}

/// What Pingora's defaults are too strict or too patient with.
fn prepare(session: &mut ServerSession) {
    session.set_total_drain_timeout(Some(DRAIN));
    session.set_min_send_rate(Some(SLOWEST_READER));
    session.set_pipelining_enabled(true);
    if let ServerSession::H1(session) = session {
        // A denied request's body is drained, so that its connection survives.
        session.set_close_on_response_before_downstream_finish(false);
    }
}

/// A function's own failure becomes a denial: its details are not for the public.
fn accept(answer: Answer) -> Result<Answer, Denial> {
    if !answer.failed {
        return Ok(answer);
    }
    let (kind, message) = exchange::failure(&answer.body);
    Err(Denial::Function { kind, message })
}

/// Ends when the client has hung up. A client that sends its next request early is still there.
async fn client_gone(session: &mut ServerSession) {
    match session.read_body_or_idle(true).await {
        Err(error) if *error.etype() != ErrorType::ConnectError => {}
        _ => {
            session.set_keepalive(None);
            std::future::pending().await
        }
    }
}
