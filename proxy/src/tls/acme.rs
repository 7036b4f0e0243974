//! Certificates from a certificate authority (ACME, RFC 8555, challenge HTTP-01), for the domains
//! of existing services that need one.
//!
//! One task asks; what it has got is in the store of certificates and in the data directory.

mod account;
pub(crate) mod challenges;
mod client;
mod failure;
mod issue;
pub(crate) mod schedule;
mod storage;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use control::name::PublicDomain;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::task::JoinSet;

pub(crate) use self::schedule::Pace;
use self::{
    account::OurAccount,
    challenges::Challenges,
    client::Client,
    failure::Failure,
    issue::Issued,
    schedule::{Next, Schedule, Status},
    storage::Storage,
};
use super::{
    TlsError,
    certificates::{Certificates, Named, Source},
    domains::Domains,
    names::{is_address, is_localhost},
    pair::Pair,
};

/// How often it is looked whether `GRID_CERTS_DIR` covers a domain now, or not any more.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Who is asked.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    pub(crate) directory: String,
    pub(crate) email: Option<String>,
    /// To which the authority's own certificate must lead.
    pub(crate) ca_file: Option<PathBuf>,
}

/// The parts of ACME in this process.
pub(crate) struct Acme {
    asking: Arc<Asking>,
    certificates: Arc<Certificates>,
    domains: Arc<Domains>,
    held: Mutex<BTreeMap<PublicDomain, Arc<Pair>>>,
    status: Mutex<Vec<Status>>,
}

/// What an attempt needs.
struct Asking {
    account: OurAccount,
    storage: Storage,
    challenges: Arc<Challenges>,
    pace: Pace,
}

impl Acme {
    /// Reads the certificates that there are already, and serves them. Blocks.
    ///
    /// # Errors
    /// The roots that the authority is checked by cannot be used.
    pub(crate) fn open(
        authority: Authority,
        data_dir: &Path,
        certificates: Arc<Certificates>,
        pace: Pace,
        now: Timestamp,
    ) -> Result<Self, TlsError> {
        let storage = Storage::of(data_dir, &authority.directory);
        let held = storage.certificates(now);
        let client = Client::new(authority.ca_file.as_deref())?;
        let account = OurAccount::new(authority, client, storage.clone());
        let asking = Asking { account, storage, challenges: Arc::default(), pace };
        let acme = Self {
            asking: Arc::new(asking),
            certificates,
            domains: Arc::default(),
            held: Mutex::new(held),
            status: Mutex::default(),
        };
        acme.serve(now);
        Ok(acme)
    }

    pub(crate) fn challenges(&self) -> Arc<Challenges> {
        self.asking.challenges.clone()
    }

    pub(crate) fn domains(&self) -> Arc<Domains> {
        self.domains.clone()
    }

    pub(crate) fn status(&self) -> Vec<Status> {
        self.status.lock().clone()
    }

    /// Asks for what is needed until `stop`.
    pub(crate) async fn run(&self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = self.ask() => {}
            () = stop => {}
        }
    }

    async fn ask(&self) {
        let mut schedule = Schedule::new(self.asking.pace);
        // Attempts end with this task.
        let mut attempts = JoinSet::new();
        let mut asked = HashMap::new();
        loop {
            let now = Timestamp::now();
            self.tidy(now);
            let held = self.held.lock().clone();
            schedule.set(self.wanted(now), |domain| held.get(domain).map(|pair| pair.validity));
            let pause = loop {
                match schedule.next(now) {
                    Next::Start(domain) => {
                        let attempt = self.asking.clone().attempt(domain.clone());
                        asked.insert(attempts.spawn(attempt).id(), domain);
                    }
                    Next::Wait(until) => {
                        let pause = Duration::try_from(until.duration_since(now));
                        break pause.unwrap_or_default().min(LOOK_AGAIN);
                    }
                    Next::Idle => break LOOK_AGAIN,
                }
            };
            *self.status.lock() = schedule.status();
            tokio::select! {
                () = self.domains.changed() => {}
                Some(ended) = attempts.join_next_with_id() => {
                    let (id, outcome) = ended.unwrap_or_else(|error| {
                        (error.id(), Err(Failure::authority(format!("a fault in Grid: {error}"))))
                    });
                    if let Some(domain) = asked.remove(&id) {
                        self.settle(&mut schedule, &domain, outcome);
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The domains that need a certificate from the authority.
    fn wanted(&self, now: Timestamp) -> Vec<PublicDomain> {
        let needs = |domain: &PublicDomain| {
            let name = domain.as_str();
            !is_localhost(name)
                && !is_address(name)
                && name.len() <= storage::DOMAIN_BYTES
                && !self.certificates.directory_covers(name, now)
        };
        self.domains.all().into_iter().filter(needs).collect()
    }

    fn settle(
        &self,
        schedule: &mut Schedule,
        domain: &PublicDomain,
        outcome: Result<Issued, Failure>,
    ) {
        let now = Timestamp::now();
        match outcome {
            Ok(Issued { pair, chain, key }) => {
                let validity = pair.validity;
                if let Err(error) = self.asking.storage.put_certificate(domain, &chain, &key) {
                    tracing::error!(
                        "keeping the certificate of {domain}: {error}; it is served, but will have \
                         to be asked for again after a restart"
                    );
                }
                self.held.lock().insert(domain.clone(), Arc::new(pair));
                self.serve(now);
                schedule.succeeded(domain, validity);
                tracing::info!(
                    "a new certificate for {domain} is good until {}; it will be renewed after {}",
                    validity.not_after,
                    schedule::renewal(validity)
                );
            }
            Err(failure) => {
                let next = schedule.failed(domain, &failure, chance(), now);
                tracing::warn!("no certificate for {domain}: {failure}; tried again at {next}");
            }
        }
    }

    /// Forgets certificates that have ended and that nobody needs any more.
    fn tidy(&self, now: Timestamp) {
        let mut held = self.held.lock();
        let before = held.len();
        let wanted = self.domains.all();
        held.retain(|domain, pair| {
            let keep = now <= pair.validity.not_after || wanted.contains(domain);
            if !keep {
                self.asking.storage.remove_certificate(domain);
            }
            keep
        });
        let changed = held.len() != before;
        drop(held);
        if changed {
            self.serve(now);
        }
    }

    fn serve(&self, now: Timestamp) {
        let named = |(domain, pair): (&PublicDomain, &Arc<Pair>)| Named {
            name: domain.to_string(),
            pair: pair.clone(),
        };
        let certificates = self.held.lock().iter().map(named).collect();
        self.certificates.set(Source::Acme, certificates, now);
    }
}

impl Asking {
    async fn attempt(self: Arc<Self>, domain: PublicDomain) -> Result<Issued, Failure> {
        let work = async {
            let account = self.account.get().await?;
            issue::issue(&account, &self.challenges, &domain, &self.pace).await
        };
        let outcome = tokio::time::timeout(self.pace.attempt, work).await.unwrap_or_else(|_| {
            let seconds = self.pace.attempt.as_secs();
            Err(Failure::domain(format!("it took longer than {seconds} s")))
        });
        if outcome.as_ref().is_err_and(|failure| failure.account_unknown) {
            self.account.forget();
        }
        outcome
    }
}

/// Any number.
fn chance() -> u16 {
    let mut bytes = [0; 2];
    // Without chance the pauses are a bit longer, which does no harm.
    let _ = getrandom::fill(&mut bytes);
    u16::from_ne_bytes(bytes)
}
