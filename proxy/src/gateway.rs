//! A public request's way, from its head to its answer.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
#[cfg(any(test, fuzzing))]
use control::limits;
use control::service::GoneCause;
use tokio::time::Instant;

use crate::{
    admit,
    bound::{self, Alarm},
    client::{Body, Client, Peer},
    denial::Denial,
    exchange::{self, Begun, Fault, Rest, Said},
    fields::{write_field, write_number},
    flow::{self, Flow, Stock},
    hop,
    line::Parcel,
    link::Link,
    observe::{Observer, Record},
    origin::Proxies,
    pool::{Again, Lease, Refusal, Turn},
    rate::ClientRates,
    request::Request,
    respond::{self, Answer, Timing},
    route::{Routes, Target},
    tls::Plain,
    traffic::Traffic,
    upgrade::hatch,
};

/// Ends the head of a request.
const HEAD_END: &[u8] = b"\r\n";
/// Bytes that a request's head has beside what its client sent, usually.
const OWN_FIELDS: usize = 512;
/// What another process may take beyond the bounds of a request, which are its own.
const PASSING_ON: Duration = Duration::from_secs(10);

/// The bounds that settings may move.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) body_bytes: usize,
    pub(crate) body_within: Duration,
    pub(crate) response_bytes: usize,
    pub(crate) function_timeout: Duration,
    pub(crate) queue_within: Duration,
}

/// Serves public requests.
pub(crate) struct Gateway {
    pub(crate) routes: Arc<Routes>,
    pub(crate) bounds: Bounds,
    pub(crate) traffic: Arc<Traffic>,
    /// What waits for slow clients.
    pub(crate) stock: Arc<Stock>,
    pub(crate) plain: Plain,
    pub(crate) rates: ClientRates,
    /// Whom to believe about clients.
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) observer: Arc<Observer>,
}

impl Gateway {
    /// One that does nothing beside passing on.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn bare(routes: Arc<Routes>, bounds: Bounds) -> Self {
        Self {
            routes,
            bounds,
            traffic: Arc::default(),
            stock: Stock::new(limits::FLOWING_BYTES),
            plain: Plain::default(),
            rates: ClientRates::default(),
            proxies: Arc::default(),
            observer: Arc::new(Observer::bare()),
        }
    }

    /// Answers one request; its waits end by the alarm of its task.
    pub(crate) async fn answer<C: Client>(
        &self,
        client: &mut C,
        request: &Request,
        peer: &Peer,
        alarm: &mut Alarm,
    ) {
        let _running = self.traffic.enter();
        let peer = &*peer.behind(request);
        let peer = &*self.proxies.origin(peer, &request.fields);
        let request_id = admit::request_id(request, peer);
        let mut record = self.observer.begin(request);
        match self.serve(client, request, peer, &request_id, &mut record, alarm).await {
            Ok(answer) => {
                let sent = respond::answer(client, answer, &request_id, &mut record).await;
                if let Err(error) = sent {
                    let trace = record.trace.id;
                    tracing::debug!(%request_id, %trace, %error, "an answer was not delivered");
                }
            }
            Err(denial) => self.deny(client, request, &denial, &request_id, &mut record).await,
        }
        self.observer.end(record, request, peer, &request_id);
    }

    /// Answers what is no request.
    pub(crate) async fn refuse<C: Client>(
        &self,
        client: &mut C,
        request: &Request,
        peer: &Peer,
        denial: Denial,
    ) {
        let _running = self.traffic.enter();
        let request_id = admit::request_id(request, peer);
        let mut record = self.observer.begin(request);
        self.deny(client, request, &denial, &request_id, &mut record).await;
        self.observer.end(record, request, peer, &request_id);
    }

    async fn deny<C: Client>(
        &self,
        client: &mut C,
        request: &Request,
        denial: &Denial,
        request_id: &str,
        record: &mut Record<'_>,
    ) {
        let trace = record.trace.id;
        tracing::debug!(request_id, %trace, ?denial, "denied");
        if let Err(error) = respond::deny(client, request, denial, request_id, record).await {
            tracing::debug!(request_id, %trace, %error, "a denial was not delivered");
        }
    }

    async fn serve<C: Client>(
        &self,
        client: &mut C,
        request: &Request,
        peer: &Peer,
        request_id: &str,
        record: &mut Record<'_>,
        alarm: &mut Alarm,
    ) -> Result<Answer, Denial> {
        if let Some(next) = self.traffic.next() {
            admit::head(request)?;
            admit::length(request, self.bounds.body_bytes)?;
            let body = self.body(client).await?;
            return self.pass_on(next, request, peer, body, request_id, record).await;
        }
        if let Some(answer) = self.plain.answer(request, peer) {
            return Ok(answer);
        }
        admit::head(request)?;
        let target = self.routes.find(&request.host, request.path()).ok_or(Denial::NotFound)?;
        record.target = Some(target.clone());
        admit::rate(&self.rates, peer, &target)?;
        admit::length(request, self.bounds.body_bytes)?;
        let body = self.body(client).await?;
        record.request_bytes = body.len() as u64;
        let mut asked = None;
        loop {
            let mut timing = record.timing;
            let parcel = || {
                let mut head = Vec::new();
                self.write_head(&mut head, request, peer, record, body.len(), request_id);
                Parcel { head, body: body.clone() }
            };
            let lease = self.acquire(client, &target, &mut asked, parcel, &mut timing, alarm).await;
            record.timing = timing;
            let Some(mut lease) = lease? else {
                let next = self.traffic.next().ok_or(Denial::Stopping)?;
                return self.pass_on(next, request, peer, body, request_id, record).await;
            };
            let mut link = lease.start().ok_or(Denial::Crashed)?;
            if !link.is_awaiting {
                self.write_head(&mut link.wire, request, peer, record, body.len(), request_id);
                link.wire.extend_from_slice(HEAD_END);
            }
            let timing = &mut record.timing;
            if let Some(answer) = self.exchange(request, lease, link, &body, timing, alarm).await? {
                return Ok(answer);
            }
        }
    }

    /// Has the process that replaced this one answer, and tell what is to be told about it.
    async fn pass_on(
        &self,
        next: &Path,
        request: &Request,
        peer: &Peer,
        body: Bytes,
        request_id: &str,
        record: &mut Record<'_>,
    ) -> Result<Answer, Denial> {
        record.passed_on = true;
        let write = |wire: &mut Vec<u8>| {
            self.write_head(wire, request, peer, record, body.len(), request_id);
            wire.extend_from_slice(HEAD_END);
        };
        let within = self.bounds.queue_within + self.bounds.function_timeout + PASSING_ON;
        let exchange::Answer { status, fields, body, .. } =
            match hatch::pass(next, write, &request.method, &body, within).await {
                Ok(answer) => answer,
                Err(denial) => {
                    record.passed_on = false; // so it is for us to tell
                    return Err(denial);
                }
            };
        let body = match body {
            Begun::Whole { body, .. } => Body::Whole(body),
            Begun::Absent { length, .. } => Body::Absent(length),
            Begun::Rest(rest) => Body::Flow(self.let_flow(rest, None)),
            Begun::CalledBack { .. } => return Err(Denial::Stopping),
        };
        Ok(Answer { status, fields, body })
    }

    async fn body<C: Client>(&self, client: &mut C) -> Result<Bytes, Denial> {
        let within = self.bounds.body_within;
        let read = bound::within(within, client.body(self.bounds.body_bytes)).await;
        read.unwrap_or(Err(Denial::BodyTimeout(within)))
    }

    /// A free replica, or one for which the request waits its turn, as long as its client stays. None
    /// when another process has them. `asked` is when it began to wait: a request that has waited before
    /// is one that was called back.
    async fn acquire<C: Client>(
        &self,
        client: &mut C,
        target: &Target,
        asked: &mut Option<Instant>,
        parcel: impl FnOnce() -> Parcel,
        timing: &mut Timing,
        alarm: &mut Alarm,
    ) -> Result<Option<Lease>, Denial> {
        let again = if asked.is_some() { Again::Yes } else { Again::No };
        let mut place = match target.pool.enter(again) {
            Ok(Turn::Now(lease)) => {
                timing.exec_from = Some(Instant::now());
                return Ok(Some(lease));
            }
            Ok(Turn::Later(place)) => place,
            Err(Refusal::Released) => return Ok(None),
            Err(refusal) => return Err(refusal.into()),
        };
        let asked = *asked.get_or_insert_with(Instant::now);
        if again == Again::No && !place.asleep {
            place.offer(parcel());
        }
        let turn = tokio::select! {
            turn = place.turn(asked + self.bounds.queue_within, alarm) => match turn {
                Ok(lease) => Ok(Some(lease)),
                Err(Refusal::Released) => return Ok(None),
                Err(refusal) => Err(refusal.into()),
            },
            () = client.gone() => place.withdraw().await.map(Some).ok_or(Denial::ClientGone),
        };
        let now = Instant::now();
        timing.exec_from = turn.is_ok().then_some(now);
        let waited = now.duration_since(asked);
        if place.asleep {
            timing.wake = waited
        } else {
            timing.queue = waited
        }
        turn
    }

    /// None when the request was called back before the replica began it.
    async fn exchange(
        &self,
        request: &Request,
        lease: Lease,
        link: Link,
        body: &[u8],
        timing: &mut Timing,
        alarm: &mut Alarm,
    ) -> Result<Option<Answer>, Denial> {
        let began = timing.exec_from.unwrap_or_else(Instant::now);
        let deadline = began + self.bounds.function_timeout;
        let most = self.bounds.response_bytes;
        let outcome = exchange::run(link, &request.method, body, most, deadline, alarm).await;
        let ended = Instant::now();
        timing.exec = ended.duration_since(began);
        let exchange::Answer { status, fields, failed, body } = match outcome {
            Ok(answer) => answer,
            Err(fault) => {
                give_up(lease, &fault);
                return Err(self.denial(&fault));
            }
        };
        let body = match body {
            Begun::Whole { body, link } => {
                lease.settle(link, ended).await;
                Body::Whole(body)
            }
            Begun::Absent { length, link } => {
                lease.settle(link, ended).await;
                Body::Absent(length)
            }
            Begun::Rest(rest) => Body::Flow(self.let_flow(rest, Some(lease))),
            Begun::CalledBack { link } => {
                lease.settle(link, ended).await;
                return Ok(None);
            }
        };
        match body {
            // A function's own failure becomes a denial: its details are not for the public.
            Body::Whole(body) if failed => {
                let Said { error: kind, message, .. } = Said::read(&body);
                Err(Denial::Function { kind, message })
            }
            Body::Absent(_) if failed => {
                let kind = if status.as_u16() == 452 { "ssrf_blocked" } else { "" };
                Err(Denial::Function { kind: kind.to_owned(), message: String::new() })
            }
            body => Ok(Some(Answer { status, fields, body })),
        }
    }

    /// Reads the rest of a long answer beside the client's reading of it. The task ends at the
    /// deadline of the exchange at the latest, and who stops waits for it.
    fn let_flow(&self, rest: Rest, lease: Option<Lease>) -> Flow {
        let (source, flow) = flow::flow(rest.length(), &self.stock);
        let running = self.traffic.enter();
        tokio::spawn(async move {
            match (rest.pump(source).await, lease) {
                (Ok(link), Some(lease)) => lease.settle(link, Instant::now()).await,
                (Err(fault), Some(lease)) => give_up(lease, &fault),
                (_, None) => {}
            }
            drop(running);
        });
        flow
    }

    fn denial(&self, fault: &Fault) -> Denial {
        match fault {
            Fault::TimedOut => Denial::Timeout(self.bounds.function_timeout),
            Fault::Closed => Denial::Crashed,
            Fault::Garbled(_) => Denial::InvalidAnswer,
            Fault::TooLarge => Denial::AnswerTooLarge(self.bounds.response_bytes),
        }
    }

    /// The head of the request as the runner gets it (runners/PROTOCOL.md), but for its end.
    fn write_head(
        &self,
        wire: &mut Vec<u8>,
        request: &Request,
        peer: &Peer,
        record: &Record<'_>,
        body_bytes: usize,
        request_id: &str,
    ) {
        wire.clear();
        wire.reserve(request.target.len() + request.fields.size() + OWN_FIELDS);
        wire.extend_from_slice(request.method.as_str().as_bytes());
        wire.push(b' ');
        wire.extend_from_slice(request.target.as_bytes());
        wire.extend_from_slice(b" HTTP/1.1\r\n");
        write_field(wire, b"host", request.host.as_bytes());
        let own = hop::Named::of(&request.fields);
        for (name, value) in request.fields.iter() {
            let passes = name != b"host" && hop::passes(name) && !own.names(name);
            if passes && (record.passed_on || !record.trace.replaces(name)) {
                write_field(wire, name, value);
            }
        }
        if !record.passed_on {
            write_field(wire, b"traceparent", &record.trace.traceparent());
        }
        write_number(wire, b"content-length", body_bytes as u64);
        let milliseconds = u64::try_from(self.bounds.function_timeout.as_millis());
        write_number(wire, b"x-grid-deadline-ms", milliseconds.unwrap_or(u64::MAX));
        write_field(wire, b"x-grid-request-id", request_id.as_bytes());
        write_field(wire, b"x-grid-source-ip", peer.source.as_bytes());
        if let Some(target) = &record.target {
            write_field(wire, b"x-grid-function", target.function.as_str().as_bytes());
        }
        write_field(wire, b"x-grid-scheme", peer.scheme.as_bytes());
    }
}

/// A replica that did not answer as it should is not used again.
fn give_up(lease: Lease, fault: &Fault) {
    let replica = lease.replica();
    match fault {
        Fault::Garbled(reason) => {
            tracing::info!(%replica, reason, "a replica's answer was refused")
        }
        _ => tracing::debug!(%replica, ?fault, "an exchange failed"),
    }
    lease.retire(match fault {
        Fault::TimedOut => GoneCause::TimedOut,
        Fault::Closed => GoneCause::Closed,
        Fault::Garbled(_) | Fault::TooLarge => GoneCause::Garbled,
    });
}
