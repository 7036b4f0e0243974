//! When a certificate authority is asked for which certificate. Pure: time and chance come from
//! outside.
//!
//! ```text
//! Waiting ──due──→ Running ──succeeded──→ Waiting, due at two thirds of the certificate's life
//!                     └─────failed──────→ Waiting, due after a pause that doubles
//! ```
//!
//! What is wrong with the authority itself (it is away, or says that it is asked too much) makes
//! everything pause, and is not held against the domain. Attempts per hour are bounded for all
//! together; certificates that end go before new ones, and domains that failed less go first, so
//! that names that lead elsewhere do not keep the others waiting.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use control::name::PublicDomain;
use jiff::{SignedDuration, Timestamp};

use super::failure::{Failure, Fault};
use crate::tls::pair::Validity;

/// Bounds and pauses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Attempts that start within an hour, all domains together.
    pub(crate) per_hour: usize,
    /// Attempts that run at one time.
    pub(crate) at_once: usize,
    /// First and longest pause after a domain failed.
    pub(crate) domain: (Duration, Duration),
    /// First and longest pause after the authority failed.
    pub(crate) authority: (Duration, Duration),
    /// Longest pause that an authority can ask for with Retry-After.
    pub(crate) retry_after: Duration,
    /// How long one attempt may take.
    pub(crate) attempt: Duration,
    /// First pause between two questions whether something is done; it doubles.
    pub(crate) poll: Duration,
}

/// The plan for all domains.
#[derive(Debug)]
pub(crate) struct Schedule {
    pace: Pace,
    domains: BTreeMap<PublicDomain, Entry>,
    /// Nothing starts before.
    paused_until: Timestamp,
    authority_failures: u32,
    /// When the attempts of the last hour started.
    recent: VecDeque<Timestamp>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask for this domain's certificate.
    Start(PublicDomain),
    /// Nothing before this moment.
    Wait(Timestamp),
    /// Nothing until something changes.
    Idle,
}

/// How a domain fares, for metrics and log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) domain: PublicDomain,
    /// Of the certificate that there is.
    pub(crate) validity: Option<Validity>,
    /// Failures since the last success.
    pub(crate) failures: u32,
    pub(crate) last_error: Option<String>,
    /// When it is tried next; None while it is being tried.
    pub(crate) next_attempt: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Entry {
    validity: Option<Validity>,
    due: Timestamp,
    failures: u32,
    running: bool,
    last_error: Option<String>,
}

impl Default for Pace {
    fn default() -> Self {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        Self {
            // Let's Encrypt allows 300 orders in three hours, and five failed checks of one name
            // in one hour.
            per_hour: 80,
            at_once: 4,
            domain: (5 * minute, 24 * hour),
            authority: (minute, hour),
            retry_after: 48 * hour,
            attempt: 3 * minute,
            poll: Duration::from_secs(1),
        }
    }
}

impl Schedule {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            domains: BTreeMap::new(),
            paused_until: Timestamp::MIN,
            authority_failures: 0,
            recent: VecDeque::new(),
        }
    }

    /// Replaces the domains that want a certificate; `held` gives that of a domain that has one.
    pub(crate) fn set(
        &mut self,
        wanted: impl IntoIterator<Item = PublicDomain>,
        held: impl Fn(&PublicDomain) -> Option<Validity>,
    ) {
        let mut before = std::mem::take(&mut self.domains);
        for domain in wanted {
            let entry = before.remove(&domain).unwrap_or_else(|| {
                let validity = held(&domain);
                let due = validity.map_or(Timestamp::MIN, renewal);
                Entry { validity, due, ..Entry::default() }
            });
            self.domains.insert(domain, entry);
        }
        // Those that run are counted until they have ended.
        self.domains.extend(before.into_iter().filter(|(_, entry)| entry.running));
    }

    /// What is to be done now. A domain that is to be started counts as running from here on.
    pub(crate) fn next(&mut self, now: Timestamp) -> Next {
        let hour_ago = now - SignedDuration::from_hours(1);
        while self.recent.front().is_some_and(|start| *start <= hour_ago) {
            self.recent.pop_front();
        }
        let running = self.domains.values().filter(|entry| entry.running).count();
        if running >= self.pace.at_once {
            return Next::Idle; // the end of one is a change
        }
        let waiting = || self.domains.iter().filter(|(_, entry)| !entry.running);
        let Some(earliest) = waiting().map(|(_, entry)| entry.due).min() else { return Next::Idle };
        let free = match self.recent.front() {
            Some(oldest) if self.recent.len() >= self.pace.per_hour => {
                *oldest + SignedDuration::from_hours(1)
            }
            _ => Timestamp::MIN,
        };
        let at = earliest.max(self.paused_until).max(free);
        if at > now {
            return Next::Wait(at);
        }
        let first = waiting()
            .filter(|(_, entry)| entry.due <= now)
            .min_by_key(|(_, entry)| (entry.validity.is_none(), entry.failures, entry.due))
            .map(|(domain, _)| domain.clone());
        let Some(domain) = first else { return Next::Idle };
        if let Some(entry) = self.domains.get_mut(&domain) {
            entry.running = true;
        }
        self.recent.push_back(now);
        Next::Start(domain)
    }

    /// A certificate has come.
    pub(crate) fn succeeded(&mut self, domain: &PublicDomain, validity: Validity) {
        self.authority_failures = 0;
        if let Some(entry) = self.domains.get_mut(domain) {
            *entry = Entry { validity: Some(validity), due: renewal(validity), ..Entry::default() };
        }
    }

    /// None has come. `chance` is any number; gives when the domain is tried next.
    pub(crate) fn failed(
        &mut self,
        domain: &PublicDomain,
        failure: &Failure,
        chance: u16,
        now: Timestamp,
    ) -> Timestamp {
        let asked = |after: Option<Duration>| after.unwrap_or_default().min(self.pace.retry_after);
        let (own, all) = match failure.fault {
            Fault::Domain => (true, None),
            // The limit may be this domain's only: the others try again a bit earlier.
            Fault::Limit(after) => (true, Some((asked(after), self.pace.authority.1))),
            Fault::Authority(after) => (false, Some((asked(after), self.pace.retry_after))),
        };
        if let Some((asked, most)) = all {
            // Attempts that ran beside the one that failed first say nothing new.
            if now >= self.paused_until {
                let pause = backoff(self.pace.authority, self.authority_failures, chance);
                self.authority_failures = self.authority_failures.saturating_add(1);
                self.paused_until = later(now, pause);
            }
            self.paused_until = self.paused_until.max(later(now, asked.min(most)));
        } else {
            self.authority_failures = 0;
        }
        let Some(entry) = self.domains.get_mut(domain) else { return now };
        entry.running = false;
        entry.last_error = Some(failure.reason.clone());
        entry.due = now;
        if own {
            let pause = backoff(self.pace.domain, entry.failures, chance);
            let asked = all.map(|(asked, _)| asked).unwrap_or_default();
            entry.failures = entry.failures.saturating_add(1);
            entry.due = later(now, pause.max(asked));
        }
        entry.due.max(self.paused_until)
    }

    /// How every domain fares.
    pub(crate) fn status(&self) -> Vec<Status> {
        let status = |(domain, entry): (&PublicDomain, &Entry)| Status {
            domain: domain.clone(),
            validity: entry.validity,
            failures: entry.failures,
            last_error: entry.last_error.clone(),
            next_attempt: (!entry.running).then(|| entry.due.max(self.paused_until)),
        };
        self.domains.iter().map(status).collect()
    }
}

/// When two thirds of a certificate's life are over.
pub(crate) fn renewal(validity: Validity) -> Timestamp {
    let life = validity.not_after.duration_since(validity.not_before);
    validity.not_before.checked_add(life / 3 * 2).unwrap_or(validity.not_after)
}

/// The first pause, doubled by each failure up to the longest, and up to a quarter shorter by
/// chance.
fn backoff((first, longest): (Duration, Duration), failures: u32, chance: u16) -> Duration {
    let pause = first.saturating_mul(1 << failures.min(16)).min(longest);
    pause - pause.mul_f64(f64::from(chance) / f64::from(u16::MAX) / 4.0)
}

fn later(now: Timestamp, pause: Duration) -> Timestamp {
    now.checked_add(pause).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
