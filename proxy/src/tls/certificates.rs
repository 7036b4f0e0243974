//! The certificates that are served, and which one a client gets.
//!
//! Chosen by the name that the client sends (SNI): one for exactly that name, then one whose
//! wildcard covers it; among several the first that is good now, the operator's before those of a
//! certificate authority, the longest-lived first. A client that sends no name (it connected to an
//! address) gets one that names an address, if there is one. Everybody else gets the development
//! certificate: `*.localhost` is what it is for, and to others it says who does not answer here
//! without telling them who does.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    development::Development,
    names::{ByName, folded, is_localhost},
    pair::{Pair, Validity},
};

/// All certificates. What a handshake reads is replaced as a whole.
pub(crate) struct Certificates {
    table: ArcSwap<Table>,
    development: ArcSwap<Development>,
    sources: Mutex<Sources>,
}

/// Where certificates come from; earlier ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// `GRID_CERTS_DIR`.
    Directory,
    /// A certificate authority, asked by ACME.
    Acme,
}

/// A certificate with a name for people: its file or domain.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) pair: Arc<Pair>,
}

/// A certificate for metrics and log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) source: Source,
    /// Its file or domain.
    pub(crate) name: String,
    pub(crate) validity: Validity,
}

#[derive(Default)]
struct Sources {
    directory: Vec<Named>,
    acme: Vec<Named>,
}

#[derive(Default)]
struct Table {
    by_name: ByName<Arc<Pair>>,
    nameless: Option<Arc<Pair>>,
}

impl Certificates {
    pub(crate) fn new(development: Development) -> Self {
        Self {
            table: ArcSwap::default(),
            development: ArcSwap::from_pointee(development),
            sources: Mutex::default(),
        }
    }

    /// Replaces all certificates of one source.
    pub(crate) fn set(&self, source: Source, certificates: Vec<Named>, now: Timestamp) {
        let mut sources = self.sources.lock();
        match source {
            Source::Directory => sources.directory = certificates,
            Source::Acme => sources.acme = certificates,
        }
        self.table.store(Arc::new(Table::of(&sources, now)));
    }

    /// Replaces the development certificates.
    pub(crate) fn set_development(&self, development: Development) {
        self.development.store(Arc::new(development));
    }

    /// Whether `GRID_CERTS_DIR` has a certificate for this host that is good now.
    pub(crate) fn directory_covers(&self, host: &str, now: Timestamp) -> bool {
        let sources = self.sources.lock();
        let good = |pair: &Pair| pair.covers(host) && pair.validity.holds(now);
        sources.directory.iter().any(|named| good(&named.pair))
    }

    /// All that are served, but for the development certificate.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let sources = self.sources.lock();
        sources
            .each()
            .map(|(source, named)| Listed {
                source,
                name: named.name.clone(),
                validity: named.pair.validity,
            })
            .collect()
    }

    /// The certificate for a client that sent this name; `can` says what the client supports.
    pub(super) fn choose(
        &self,
        host: Option<&str>,
        can: impl Fn(&Pair) -> bool,
    ) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        let found = match host {
            Some(host) => {
                let mut found = table.by_name.find(host).peekable();
                let first = found.peek().copied();
                found.find(|pair| can(pair)).or(first)
            }
            None => table.nameless.as_ref(),
        };
        if let Some(pair) = found {
            return Some(pair.certified.clone());
        }
        let host = host.and_then(folded);
        let local = host.as_deref().filter(|host| is_localhost(host));
        Some(self.development.load().certificate(local.unwrap_or("localhost")))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let can = |pair: &Pair| pair.certified.key.choose_scheme(schemes).is_some();
        self.choose(hello.server_name(), can)
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

impl Sources {
    fn each(&self) -> impl Iterator<Item = (Source, &Named)> {
        let directory = self.directory.iter().map(|named| (Source::Directory, named));
        directory.chain(self.acme.iter().map(|named| (Source::Acme, named)))
    }
}

impl Table {
    fn of(sources: &Sources, now: Timestamp) -> Self {
        let mut all: Vec<_> = sources.each().collect();
        all.sort_by_key(|(source, named)| {
            let validity = named.pair.validity;
            (!validity.holds(now), *source, std::cmp::Reverse(validity.not_after))
        });
        let mut table = Self::default();
        for (_, Named { pair, .. }) in all {
            for name in &pair.names {
                table.by_name.insert(name, pair.clone());
            }
            if pair.has_address && table.nameless.is_none() {
                table.nameless = Some(pair.clone());
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{development, named};

    fn certificates(directory: Vec<Named>, acme: Vec<Named>) -> Certificates {
        let certificates = Certificates::new(development());
        certificates.set(Source::Directory, directory, Timestamp::now());
        certificates.set(Source::Acme, acme, Timestamp::now());
        certificates
    }

    /// The name of the certificate that is chosen.
    fn chosen(certificates: &Certificates, host: Option<&str>) -> String {
        let certified = certificates.choose(host, |_| true).expect("always one");
        let sources = certificates.sources.lock();
        let found =
            sources.each().find(|(_, named)| Arc::ptr_eq(&named.pair.certified, &certified));
        found.map_or_else(|| "development".to_owned(), |(_, named)| named.name.clone())
    }

    #[test]
    fn the_name_decides() {
        let certificates = certificates(
            vec![
                named("exact", &["a.example.com"], -1, 30),
                named("wildcard", &["*.example.com", "example.com"], -1, 90),
                named("address", &["10.0.0.1"], -1, 30),
            ],
            vec![],
        );
        for (host, expected) in [
            ("a.example.com", "exact"),
            ("A.EXAMPLE.com", "exact"),
            ("a.example.com.", "exact"),
            ("b.example.com", "wildcard"),
            ("example.com", "wildcard"),
            ("x.b.example.com", "development"),
            ("unknown.example", "development"),
            ("hello.localhost", "development"),
            ("10.0.0.1", "development"),
        ] {
            assert_eq!(chosen(&certificates, Some(host)), expected, "{host}");
        }
        assert_eq!(chosen(&certificates, None), "address");
        certificates.set(Source::Directory, vec![], Timestamp::now());
        assert_eq!(chosen(&certificates, None), "development");
    }

    #[test]
    fn among_several_the_good_one_then_the_operators_then_the_longest() {
        let name = &["a.example"];
        let (expired, short, long) = (
            named("expired", name, -90, -1),
            named("short", name, -1, 10),
            named("long", name, -1, 20),
        );
        let acme = named("acme", name, -1, 90);
        let host = Some("a.example");
        let all = certificates(vec![expired.clone(), short, long], vec![acme.clone()]);
        assert_eq!(chosen(&all, host), "long");
        assert!(all.directory_covers("a.example", Timestamp::now()));
        let none_good = certificates(vec![expired.clone()], vec![acme]);
        assert_eq!(chosen(&none_good, host), "acme");
        assert!(!none_good.directory_covers("a.example", Timestamp::now()));
        assert_eq!(chosen(&certificates(vec![expired], vec![]), host), "expired");
    }

    #[test]
    fn a_client_gets_a_kind_of_key_that_it_supports() {
        let name = &["a.example"];
        let certificates =
            certificates(vec![named("one", name, -1, 20), named("two", name, -1, 10)], vec![]);
        let second = certificates.sources.lock().directory[1].pair.clone();
        let chosen = certificates
            .choose(Some("a.example"), |pair| Arc::ptr_eq(&pair.certified, &second.certified));
        assert!(Arc::ptr_eq(&chosen.expect("one"), &second.certified));
        // None is supported: the handshake fails with the reason, not with a stranger's name.
        let first = certificates.sources.lock().directory[0].pair.clone();
        let chosen = certificates.choose(Some("a.example"), |_| false);
        assert!(Arc::ptr_eq(&chosen.expect("one"), &first.certified));
    }
}
