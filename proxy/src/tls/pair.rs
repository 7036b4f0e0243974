//! A certificate with its chain and key, read from PEM and checked: that they belong together, and
//! which names and which time they are good for.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    InconsistentKeys,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::names::Pattern;

/// A certificate that can be served.
#[derive(Debug)]
pub(crate) struct Pair {
    /// What rustls needs of it.
    pub(crate) certified: Arc<CertifiedKey>,
    /// The DNS names that it is good for.
    pub(crate) names: Vec<Pattern>,
    /// Whether it names an IP address, so that it may do for clients that name no host.
    pub(crate) has_address: bool,
    /// When it is good.
    pub(crate) validity: Validity,
}

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    /// The first moment.
    pub(crate) not_before: Timestamp,
    /// The last moment.
    pub(crate) not_after: Timestamp,
}

/// Why PEM text is no certificate that can be served. What to do comes with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PairError {
    #[error("has no certificate in PEM form: write the whole chain to it, the server's own first")]
    NoCertificate,
    #[error("is not readable as PEM: {0}; write the file again")]
    BadPem(String),
    #[error("has a certificate that cannot be read: {0}; write the file again")]
    BadCertificate(String),
    #[error("has no private key in PEM form: put the key beside it, as NAME.key")]
    NoKey,
    #[error("has a key of a kind that is not supported: use ECDSA, Ed25519 or RSA")]
    BadKey,
    #[error("does not belong to the key beside it: write both files again")]
    Mismatch,
    #[error("names no host that it is good for: have it issued with subjectAltName")]
    NoNames,
}

impl Pair {
    /// Reads the chain, the server's own certificate first, and the key. Both may be in one text.
    pub(crate) fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, PairError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| PairError::BadPem(e.to_string()))?;
        let own = chain.first().ok_or(PairError::NoCertificate)?;
        let (names, has_address, validity) = read(own)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| match e {
            rustls::pki_types::pem::Error::NoItemsFound => PairError::NoKey,
            other => PairError::BadPem(other.to_string()),
        })?;
        let key = any_supported_type(&key).map_err(|_| PairError::BadKey)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(PairError::Mismatch),
            Err(error) => return Err(PairError::BadCertificate(error.to_string())),
        }
        Ok(Self { certified: Arc::new(certified), names, has_address, validity })
    }

    /// Whether it is good for this host.
    pub(crate) fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.matches(host))
    }
}

impl Validity {
    /// Whether it is good now.
    pub(crate) fn holds(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// What is in a certificate: names, whether there is an address among them, and its time.
fn read(der: &CertificateDer<'_>) -> Result<(Vec<Pattern>, bool, Validity), PairError> {
    let bad = |reason: String| PairError::BadCertificate(reason);
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| bad(e.to_string()))?;
    let time = |seconds| Timestamp::from_second(seconds).map_err(|e| bad(e.to_string()));
    let validity = Validity {
        not_before: time(certificate.validity().not_before.timestamp())?,
        not_after: time(certificate.validity().not_after.timestamp())?,
    };
    let alternative = certificate.subject_alternative_name().map_err(|e| bad(e.to_string()))?;
    let general = alternative.map(|extension| extension.value.general_names.as_slice());
    let general = general.unwrap_or_default();
    let names: Vec<_> = general
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Pattern::parse(name),
            _ => None,
        })
        .collect();
    let has_address = general.iter().any(|name| matches!(name, GeneralName::IPAddress(_)));
    if names.is_empty() && !has_address {
        return Err(PairError::NoNames);
    }
    Ok((names, has_address, validity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{Issued, issue};

    #[test]
    fn a_pair_knows_its_names_and_time() {
        let Issued { chain, key } = issue(&["A.example.com", "*.b.example", "10.0.0.1"], -1, 30);
        let pair = Pair::from_pem(chain.as_bytes(), key.as_bytes()).expect("good");
        let names: Vec<_> = pair.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a.example.com", "*.b.example"]);
        assert!(pair.has_address && pair.covers("x.b.example") && !pair.covers("b.example"));
        assert!(pair.validity.holds(Timestamp::now()));
        let both = format!("{key}{chain}");
        Pair::from_pem(both.as_bytes(), both.as_bytes()).expect("one file for both");
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_the_reason() {
        let (one, two) = (issue(&["a.example"], -1, 30), issue(&["a.example"], -1, 30));
        let read = |chain: &str, key: &str| {
            Pair::from_pem(chain.as_bytes(), key.as_bytes()).expect_err("refused")
        };
        assert_eq!(read("", &one.key), PairError::NoCertificate);
        assert_eq!(read("garbage\n", &one.key), PairError::NoCertificate);
        assert_eq!(read(&one.chain, ""), PairError::NoKey);
        assert_eq!(read(&one.chain, &two.key), PairError::Mismatch);
        let half = &one.chain[..one.chain.len() / 2];
        assert!(matches!(read(half, &one.key), PairError::BadPem(_)));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(read(nonsense, &one.key), PairError::BadCertificate(_)));
        assert_eq!(read(&issue(&[], -1, 1).chain, &one.key), PairError::NoNames);
        let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(read(&one.chain, nonsense), PairError::BadKey);
    }
}
