//! The only DNS server that functions have. It asks the host's own servers and withholds an answer
//! with an address that functions may not reach. The firewall is the boundary; this is what makes
//! the refusal clear and early.
//!
//! ```text
//! listen ── a packet ──> clients (rate, number) ──> wire (is it a question for us?)
//!                                                     │
//!            names (answered here) <── lookup <───────┘
//!            cache (checked answers) <──┤
//!            upstream (host's servers) <┘ ──> every address checked ──> answer or refusal
//!            withheld (why was it refused?) ──> lookup
//! ```
//!
//! Each answer is checked when it arrives and only checked ones are kept, so a name that changes
//! its address between two questions gains nothing. Nothing in a packet decides where a question
//! goes: it goes to the configured servers.
//!
//! A withheld name does not exist for programs. The guard in the function's process asks why, beneath
//! [`WITHHELD`], and names the blocked address in its error.

mod cache;
mod clients;
mod limits;
mod listen;
mod lookup;
mod names;
mod upstream;
mod wire;
mod withheld;

#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hickory_proto::op::ResponseCode;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use self::{
    cache::Cache, clients::Clients, lookup::Outcome, upstream::Upstream, wire::Transport,
    withheld::Recent,
};
pub use self::{
    listen::Listening,
    names::{CANARY, CANARY_ADDRESS, WITHHELD},
    upstream::upstreams_of,
};
use crate::{
    egress::EgressPolicy,
    error::{Error, Result},
};

/// What the resolver works with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The servers that are asked, the first one first.
    pub upstreams: Vec<SocketAddr>,
    /// What functions may connect to.
    pub policy: &'static EgressPolicy,
}

/// An answer that was withheld from a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Who asked.
    pub client: IpAddr,
    /// The name that was asked for.
    pub name: String,
    /// The first address in the answer that functions may not reach.
    pub address: IpAddr,
}

/// The resolver without its sockets.
#[derive(Debug)]
pub struct Resolver {
    policy: &'static EgressPolicy,
    upstream: Upstream,
    cache: Mutex<Cache>,
    recent: Mutex<Recent>,
    clients: Arc<Clients>,
    refusals: mpsc::Sender<Refusal>,
}

impl Resolver {
    /// A resolver that asks these servers. Refusals that nobody takes from the channel are lost.
    ///
    /// # Errors
    /// No server is given.
    pub fn new(settings: Settings, refusals: mpsc::Sender<Refusal>) -> Result<Self> {
        if settings.upstreams.is_empty() {
            return Err(Error::Resolver {
                operation: "start with",
                subject: "no upstream servers".to_owned(),
                reason: "name at least one DNS server".to_owned(),
            });
        }
        Ok(Self {
            policy: settings.policy,
            upstream: Upstream::new(settings.upstreams),
            cache: Mutex::default(),
            recent: Mutex::default(),
            clients: Arc::default(),
            refusals,
        })
    }

    /// The answer to a packet; none when it deserves none.
    async fn answer(&self, client: IpAddr, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let request = match wire::read(packet) {
            Ok(request) => request,
            Err(answer) => return wire::encode(*answer?, transport.limit(None)),
        };
        let question = request.queries.first()?;
        let (name, kind) = (&question.name, question.query_type);
        let outcome = match withheld::subject(name) {
            // Not a refusal of its own: the question before it was one.
            Some(subject) => Outcome::Found(self.tell(name, kind, &subject).await),
            None => self.look_up(name, kind).await,
        };
        let answer = match outcome {
            Outcome::Found(found) => wire::answer(&request, found.code, found.records),
            Outcome::Failed => wire::answer(&request, ResponseCode::ServFail, Vec::new()),
            Outcome::Withheld(address) => {
                self.recent.lock().put(name, address);
                let name = name.to_ascii();
                let _ = self.refusals.try_send(Refusal { client, name, address });
                wire::withheld(&request)
            }
        };
        wire::encode(answer, transport.limit(Some(&request)))
    }
}
