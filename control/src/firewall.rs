//! The kernel's part of the egress policy, and who looks after it. One task puts everything in
//! place before the first container with a network is started, has it proved by a canary, watches
//! it, and puts it back when somebody takes it away. While it is not in place, the gate is closed:
//! no such container is started, and the running ones are cut off.
//!
//! ```text
//! unknown ──→ open ⇄ closed, waiting
//!    └───────────────→ ↑      tried again, at once and then with growing pauses
//! ```

mod canary;
mod counts;
mod events;
mod latch;
mod ruleset;
mod table;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use self::{
    counts::Counts,
    events::{Change, Events},
    ruleset::Copy,
    table::{Held, Kept},
};
use crate::{
    context::Context,
    denied::Target,
    egress::EgressPolicy,
    engine::{Attachment, Network, Probe},
    error::{Error, Kind, Result},
    health::Dependency,
    limits,
    resolver::{Refusal, Resolver},
    sandbox,
    tool::explain,
};

/// How the egress policy is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// By the firewall; without it nothing with a network runs.
    Firewall,
    /// By the guard in the runner alone, which hostile code gets round.
    GuardOnly,
}

/// Whether containers with a network may be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not known yet.
    Unknown,
    /// They may, attached to this.
    Open(Attachment),
    /// They may not; why.
    Closed(String),
    /// They may not, because the engine does not do its part; why.
    Waiting(String),
}

/// What the firewall's task says, for everybody who starts containers.
#[derive(Debug)]
pub struct Gate(watch::Sender<State>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(State::Unknown))
    }
}

impl Gate {
    /// Waits until the gate is open, for a bounded time.
    ///
    /// # Errors
    /// `Firewall` with the reason why it is not; `Busy` when that is only a matter of time.
    pub async fn pass(&self) -> Result<Attachment> {
        let mut state = self.0.subscribe();
        let open = state.wait_for(|state| matches!(state, State::Open(_)));
        let _ = tokio::time::timeout(limits::GATE, open).await;
        match &*self.0.borrow() {
            State::Open(attachment) => Ok(attachment.clone()),
            State::Closed(reason) => Err(Error::Firewall(reason.clone())),
            State::Waiting(reason) => Err(Error::Busy(format!("firewall: {reason}"))),
            // Where the engine is slow, the proof takes longer than the wait for it.
            State::Unknown => Err(Error::Busy("firewall: not checked yet".to_owned())),
        }
    }

    /// Why the gate is closed, when it is.
    pub fn closed(&self) -> Option<String> {
        match &*self.0.borrow() {
            State::Closed(reason) | State::Waiting(reason) => Some(reason.clone()),
            State::Open(_) | State::Unknown => None,
        }
    }

    /// Follows the state.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }
}

/// The functions' DNS, when nobody looks after the firewall any more; ends when this is dropped.
#[derive(Debug)]
pub struct Dns {
    _resolver: JoinSet<Result<()>>,
}

/// Looks after the firewall and the resolver until `stop` turns true. The rules stay then: so do
/// the containers. DNS goes on as long as what this returns is kept: the next process can answer
/// beside it.
pub async fn run(context: Arc<Context>, mut stop: watch::Receiver<bool>) -> Dns {
    let (refusals, refused) = mpsc::channel(64);
    let mut keeper = Keeper {
        context,
        refusals,
        refused,
        resolver: JoinSet::new(),
        counts: Counts::default(),
        network: None,
        held: None,
        proved_at: None,
    };
    tokio::select! {
        () = keeper.keep() => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    if let Some(held) = keeper.held.take() {
        held.end().await;
    }
    Dns { _resolver: keeper.resolver }
}

/// Puts rules and routes in place without looking after them.
///
/// # Errors
/// `Tool` with what to do.
pub(crate) async fn install(network: &Network, policy: &EgressPolicy) -> Result<()> {
    latch::install(network, policy).await?;
    Kept::install(network, policy).await.map(|_| ())
}

/// Removes what [`install`] made.
///
/// # Errors
/// `Tool`.
pub(crate) async fn remove(network: &Network) -> Result<()> {
    table::remove(network).await?;
    latch::remove(network).await
}

pub(crate) use self::canary::sing as prove;

struct Keeper {
    context: Arc<Context>,
    refusals: mpsc::Sender<Refusal>,
    refused: mpsc::Receiver<Refusal>,
    /// The resolver's one task; ends with this.
    resolver: JoinSet<Result<()>>,
    /// What the resolver and the held copy were made for.
    network: Option<Network>,
    /// What was denied, as last read.
    counts: Counts,
    /// The copy of the rules that only this process can remove; none where `nft` cannot hold one.
    held: Option<Held>,
    /// When a canary came to its end last.
    proved_at: Option<Instant>,
}

/// What is watched while the gate is open.
struct Standing {
    network: Network,
    kept: Kept,
    events: Events,
}

impl Keeper {
    async fn keep(&mut self) {
        let mut pause = limits::ENGINE_RETRY;
        loop {
            let outcome = match self.context.settings.enforcement {
                Enforcement::Firewall => self.enforce().await,
                Enforcement::GuardOnly => self.waive().await,
            };
            match outcome {
                // It was in place: put back at once what somebody took away.
                Ok(lost) => {
                    tracing::warn!("{lost}; it is put back");
                    self.context.health.set(Dependency::Firewall, Some(lost.clone()));
                    self.close(State::Closed(lost));
                    pause = limits::ENGINE_RETRY;
                }
                Err(error) => {
                    // Its return is to be noticed at once: until then nothing with a network starts.
                    let state = match error.kind() {
                        Kind::Unavailable => {
                            pause = limits::ENGINE_RETRY;
                            State::Waiting
                        }
                        _ => State::Closed,
                    };
                    self.close(state(error.to_string()));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(limits::FIREWALL_RETRY);
                }
            }
        }
    }

    /// Puts everything in place and keeps it there. Returns what is missing when something is.
    async fn enforce(&mut self) -> Result<String> {
        let network = match self.network().await {
            Ok(network) => network,
            Err(error) => {
                self.hold_on().await;
                return Err(error);
            }
        };
        let mut standing = match self.set_up(&network).await {
            Ok(standing) => standing,
            Err(error) => {
                self.cut_off(&network).await;
                return Err(error);
            }
        };
        self.open(&network, true);
        let lost = self.watch(&mut standing).await;
        if self.held.is_none() || Held::check(&network).await.is_err() {
            self.held = None;
            self.cut_off(&network).await;
        }
        Ok(lost)
    }

    /// The functions' network, which is made when it is not there. What was made for an earlier one
    /// does not fit another: it has other addresses.
    async fn network(&mut self) -> Result<Network> {
        let network = self.context.engine.network(&self.context.instance).await?;
        if self.network.as_ref() != Some(&network) {
            tracing::debug!(network = %network.name, subnet = %network.subnet, "the functions' network");
            self.held = None;
            self.resolver.shutdown().await;
            self.proved_at = None;
            self.network = Some(network.clone());
        }
        Ok(network)
    }

    /// Containers may outlive their engine. While it cannot say which network they have, and nobody
    /// watches the rules of the last one that it told of, the held copy is what they are judged by.
    async fn hold_on(&mut self) {
        let Some(network) = self.network.clone() else { return };
        if self.held.is_none() || Held::check(&network).await.is_err() {
            self.held = None;
            self.cut_off(&network).await;
        }
    }

    async fn set_up(&mut self, network: &Network) -> Result<Standing> {
        let policy = EgressPolicy::fixed();
        // Before anything is put in place, so that nothing is taken away unseen.
        let events = Events::subscribe()
            .map_err(|e| Error::Firewall(explain(&format!("watch the rules: {e}"))))?;
        latch::install(network, policy).await?;
        let kept = Kept::install(network, policy).await?;
        // Its sets are new; those of the held copy, which stays, have been read.
        self.counts.forget(Copy::Kept);
        if self.held.is_none() {
            self.counts.forget(Copy::Held);
            self.held = Held::install(network, policy).await.map(Some).unwrap_or_else(|error| {
                tracing::warn!(%error, "the firewall has no copy that only Grid can remove: when somebody removes its rules, only routes hold until they are back");
                None
            });
        }
        latch::set_bridge(network, true).await?;
        self.serve_dns(network).await?;
        self.prove(network).await?;
        kept.check().await?;
        Ok(Standing { network: network.clone(), kept, events })
    }

    /// Functions without a network harm nobody. Where the bridge cannot be taken down, there is
    /// mostly none.
    async fn cut_off(&self, network: &Network) {
        if let Err(error) = latch::set_bridge(network, false).await {
            tracing::error!(%error, "functions that run already are not cut off");
        }
    }

    /// A canary, unless one has just been there: who removes rules again and again shall not make us
    /// start containers again and again.
    async fn prove(&mut self, network: &Network) -> Result<()> {
        if self.proved_at.is_some_and(|at| at.elapsed() < limits::CANARY_EVERY) {
            return Ok(());
        }
        let context = &self.context;
        let probe = Probe {
            instance: context.instance.clone(),
            sandbox: sandbox::least(
                context,
                context.images.any_runner().await?,
                Some(attach(network)),
            ),
            command: Vec::new(),
            within: Duration::ZERO,
        };
        canary::sing(&context.engine, network, probe, true).await?;
        self.proved_at = Some(Instant::now());
        Ok(())
    }

    /// Watches, and tells what was denied, until something is not as it should be; returns what.
    async fn watch(&mut self, standing: &mut Standing) -> String {
        let mut denied = false;
        let mut not_before = Instant::now();
        loop {
            tokio::select! {
                change = standing.events.next() => {
                    denied |= change == Change::Rules;
                    if let Err(error) = self.look(standing, change).await {
                        return error.to_string();
                    }
                }
                () = tokio::time::sleep_until(not_before), if denied => {}
                ended = self.resolver.join_next() => return resolver_ended(ended),
                Some(refusal) = self.refused.recv() => self.note_refusal(refusal).await,
            }
            // However many denials there are, they are read once a second.
            if denied && Instant::now() >= not_before {
                if let Err(error) = self.read_denied(&standing.network).await {
                    return error.to_string();
                }
                denied = false;
                not_before = Instant::now() + limits::DENIED_EVERY;
            }
        }
    }

    /// Whether everything that a change may concern is still there.
    async fn look(&self, standing: &Standing, change: Change) -> Result<()> {
        match change {
            Change::Links if latch::isolate_ports(&standing.network).await? => return Ok(()),
            Change::Links => {
                let bridge = &standing.network.bridge;
                return Err(Error::Firewall(format!("somebody took the bridge {bridge} down")));
            }
            Change::Routes => {
                return latch::check(&standing.network, EgressPolicy::fixed()).await;
            }
            Change::Rules => {}
        }
        standing.kept.check().await?;
        match &self.held {
            Some(_) => Held::check(&standing.network).await,
            None => Ok(()),
        }
    }

    /// Works without a firewall, because somebody said so.
    async fn waive(&mut self) -> Result<String> {
        let network = self.network().await?;
        tracing::warn!(
            "egress.enforcement is guard-only: hostile functions can reach this machine, its networks and each other"
        );
        // Rules of an earlier start, which may have cut functions off as well; where they cannot be
        // removed there are none.
        let _ = remove(&network).await;
        let _ = latch::set_bridge(&network, true).await;
        let dns = self.serve_dns(&network).await;
        if let Err(error) = &dns {
            tracing::warn!(%error, "functions use the engine's DNS");
            self.context.health.set(Dependency::Resolver, None);
        }
        self.open(&network, dns.is_ok());
        loop {
            tokio::select! {
                Some(ended) = self.resolver.join_next() => return Ok(resolver_ended(Some(ended))),
                Some(refusal) = self.refused.recv() => self.note_refusal(refusal).await,
            }
        }
    }

    /// Starts the resolver on the gateway, unless it runs.
    async fn serve_dns(&mut self, network: &Network) -> Result<()> {
        if !self.resolver.is_empty() {
            return Ok(());
        }
        let bound = async {
            let resolver = Resolver::new(self.context.settings.dns.clone(), self.refusals.clone())?;
            Arc::new(resolver).bind((network.gateway, 53).into()).await
        };
        match bound.await {
            Ok(listening) => {
                self.resolver.spawn(listening.serve());
                self.context.health.set(Dependency::Resolver, None);
                Ok(())
            }
            Err(error) => {
                self.context.health.set(Dependency::Resolver, Some(error.to_string()));
                Err(error)
            }
        }
    }

    async fn read_denied(&mut self, network: &Network) -> Result<()> {
        let listed = table::denied(network).await?;
        for ((source, target), attempts) in self.counts.grow(listed, Instant::now()) {
            self.note(source, target, attempts).await;
        }
        Ok(())
    }

    async fn note_refusal(&self, refusal: Refusal) {
        if let IpAddr::V4(source) = refusal.client {
            self.note(source, Target::dns(&refusal.name, refusal.address), 1).await;
        }
    }

    async fn note(&self, source: Ipv4Addr, target: Target, attempts: u64) {
        let Some(line) = self.context.denied.add(source, target, attempts) else { return };
        tracing::warn!(service = %line.service, replica = %line.replica, "{}", line.text);
        let noted = self.context.logs.note(line.service, &line.replica, line.text).await;
        if let Err(error) = noted {
            tracing::warn!(service = %line.service, %error, "a denial is not in the function's log");
        }
    }

    fn open(&self, network: &Network, dns: bool) {
        self.context.health.set(Dependency::Firewall, None);
        let mut attachment = attach(network);
        attachment.dns = attachment.dns.filter(|_| dns);
        tracing::info!(network = %network.name, subnet = %network.subnet, "functions may use the network");
        self.context.gate.0.send_replace(State::Open(attachment));
    }

    fn close(&self, state: State) {
        if let State::Closed(reason) | State::Waiting(reason) = &state
            && self.context.health.set(Dependency::Firewall, Some(reason.clone()))
        {
            tracing::error!("containers with a network are not started: {reason}");
        }
        self.context.gate.0.send_replace(state);
    }
}

fn attach(network: &Network) -> Attachment {
    Attachment { network: network.name.clone(), dns: Some(network.gateway) }
}

fn resolver_ended(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> String {
    match ended {
        Some(Ok(Err(error))) => format!("the resolver ended: {error}"),
        Some(Err(error)) => format!("the resolver failed: {error}"),
        Some(Ok(Ok(()))) | None => "the resolver ended".to_owned(),
    }
}
