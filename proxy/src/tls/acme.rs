//! Certificates from a certificate authority (ACME, RFC 8555, challenge HTTP-01), for the domains
//! of existing services that need one.
//!
//! One task asks; what it has got is in the store of certificates and in the data directory.

pub(crate) mod challenges;
mod client;
mod failure;
mod issue;
pub(crate) mod schedule;
mod storage;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use control::name::PublicDomain;
use instant_acme::{Account, NewAccount};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{sync::OnceCell, task::JoinSet};

pub(crate) use self::schedule::Pace;
use self::{
    challenges::Challenges,
    client::Client,
    failure::Failure,
    issue::Issued,
    schedule::{Next, Schedule, Status},
    storage::{Storage, StoredAccount},
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
    authority: Authority,
    client: Client,
    storage: Storage,
    challenges: Arc<Challenges>,
    pace: Pace,
    /// Made or read when it is first needed.
    account: Mutex<Arc<OnceCell<Account>>>,
}

type Outcome = (PublicDomain, Result<Issued, Failure>);

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
        let asking = Asking {
            authority,
            client,
            storage,
            challenges: Arc::default(),
            pace,
            account: Mutex::default(),
        };
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
        let mut attempts = JoinSet::<Outcome>::new();
        loop {
            let now = Timestamp::now();
            self.tidy(now);
            let held = self.held.lock().clone();
            schedule.set(self.wanted(now), |domain| held.get(domain).map(|pair| pair.validity));
            let pause = loop {
                match schedule.next(now) {
                    Next::Start(domain) => {
                        drop(attempts.spawn(self.asking.clone().attempt(domain)))
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
                Some(ended) = attempts.join_next() => match ended {
                    Ok((domain, outcome)) => self.settle(&mut schedule, &domain, outcome),
                    Err(error) => tracing::error!("an attempt to get a certificate ended: {error}"),
                },
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
    async fn attempt(self: Arc<Self>, domain: PublicDomain) -> Outcome {
        let work = async {
            let account = self.account().await?;
            issue::issue(&account, &self.challenges, &domain, &self.pace).await
        };
        let outcome = tokio::time::timeout(self.pace.attempt, work).await.unwrap_or_else(|_| {
            let seconds = self.pace.attempt.as_secs();
            Err(Failure::domain(format!("it took longer than {seconds} s")))
        });
        if outcome.as_ref().is_err_and(|failure| failure.account_unknown) {
            self.storage.remove_account();
            *self.account.lock() = Arc::default();
        }
        (domain, outcome)
    }

    /// Our account: the one we know, the one that is stored, or a new one.
    async fn account(&self) -> Result<Account, Failure> {
        let cell = self.account.lock().clone();
        cell.get_or_try_init(|| async {
            match self.storage.account() {
                Some(stored) => self.restore(stored).await,
                None => self.register().await,
            }
        })
        .await
        .cloned()
    }

    async fn restore(&self, stored: StoredAccount) -> Result<Account, Failure> {
        let StoredAccount { email, credentials } = stored;
        // The credentials are taken by the library, and cannot be copied but through their text.
        let text = serde_json::to_string(&credentials)
            .map_err(|e| Failure::authority(format!("reading the ACME account: {e}")))?;
        let account = Account::builder_with_http(Box::new(self.client.clone()))
            .from_credentials(credentials)
            .await
            .map_err(|e| Failure::of("reaching the certificate authority", e))?;
        if email != self.authority.email {
            let contact = self.contact();
            let contact: Vec<_> = contact.iter().map(String::as_str).collect();
            account
                .update_contacts(&contact)
                .await
                .map_err(|e| Failure::of("changing the ACME account's e-mail address", e))?;
            let credentials = serde_json::from_str(&text)
                .map_err(|e| Failure::authority(format!("reading the ACME account: {e}")))?;
            self.keep(credentials);
        }
        Ok(account)
    }

    async fn register(&self) -> Result<Account, Failure> {
        let contact = self.contact();
        let contact: Vec<_> = contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let (account, credentials) = Account::builder_with_http(Box::new(self.client.clone()))
            .create(&new, self.authority.directory.clone(), None)
            .await
            .map_err(|error| {
                let failure = Failure::of("making an ACME account", error);
                // Whatever is wrong with it, it is not one domain's fault.
                match failure.fault {
                    failure::Fault::Domain => Failure::authority(failure.reason),
                    _ => failure,
                }
            })?;
        self.keep(credentials);
        tracing::info!("made an ACME account with {}", self.authority.directory);
        Ok(account)
    }

    fn keep(&self, credentials: instant_acme::AccountCredentials) {
        let account = StoredAccount { email: self.authority.email.clone(), credentials };
        if let Err(error) = self.storage.put_account(&account) {
            tracing::error!("keeping the ACME account: {error}; a restart will make another one");
        }
    }

    fn contact(&self) -> Vec<String> {
        self.authority.email.iter().map(|email| format!("mailto:{email}")).collect()
    }
}

/// Any number.
fn chance() -> u16 {
    let mut bytes = [0; 2];
    // Without chance the pauses are a bit longer, which does no harm.
    let _ = getrandom::fill(&mut bytes);
    u16::from_ne_bytes(bytes)
}
