//! Certificates for `localhost` and the names below it: an authority of this Grid's own, made once
//! and kept in the data directory, and certificates that it signs when they are asked for.
//!
//! Clients do not take `*.localhost` for a wildcard (it would be one for a whole top-level domain);
//! some refuse the certificate for it. So each name gets a certificate of its own. Who wants them to be trusted imports the authority; it
//! is constrained to `localhost`, so that whoever gets its key cannot pretend to be anybody else.

use std::{collections::HashMap, path::Path, sync::Arc};

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData,
};
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    sign::{CertifiedKey, SigningKey},
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, private};

/// How long the authority is good, and how long before its end a new one is made, in days.
const AUTHORITY_DAYS: (i64, i64) = (820, 60);
/// How long a certificate is good, in days. A new set is made every day.
const DAYS: i64 = 30;
/// Certificates that are kept; beyond that they are signed anew when asked for.
const MOST_KEPT: usize = 256;

/// The authority and what it has signed.
pub(crate) struct Development {
    issuer: Issuer<'static, KeyPair>,
    /// One key for all the certificates.
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    now: Timestamp,
    /// What is served when there cannot be one for the name.
    localhost: Arc<CertifiedKey>,
    kept: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl Development {
    /// Reads the authority from `<dir>/development-ca.pem` and `.key`, or makes it when it is
    /// missing, unreadable or near its end. Blocks.
    ///
    /// # Errors
    /// The file that cannot be written, or what could not be made.
    pub(crate) fn open(dir: &Path, now: Timestamp) -> Result<Self, TlsError> {
        let (certificate, key) = (dir.join("development-ca.pem"), dir.join("development-ca.key"));
        let kept = std::fs::read_to_string(&key)
            .ok()
            .and_then(|text| KeyPair::from_pem(&text).ok())
            .filter(|key| still_good(&certificate, key, now));
        let authority = match kept {
            Some(key) => key,
            None => {
                let made = KeyPair::generate().map_err(TlsError::Development)?;
                let signed = authority(&made, now)
                    .and_then(|params| params.self_signed(&made))
                    .map_err(TlsError::Development)?;
                private::write(&key, made.serialize_pem().as_bytes())?;
                private::write(&certificate, signed.pem().as_bytes())?;
                made
            }
        };
        Self::of(authority, now)
    }

    fn of(authority_key: KeyPair, now: Timestamp) -> Result<Self, TlsError> {
        let params = authority(&authority_key, now).map_err(TlsError::Development)?;
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().map_err(TlsError::Development)?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = any_supported_type(&der).map_err(TlsError::Crypto)?;
        let localhost =
            sign("localhost", &issuer, &key, &signing, now).map_err(TlsError::Development)?;
        Ok(Self { issuer, key, signing, now, localhost, kept: Mutex::default() })
    }

    /// A certificate for this name, which is `localhost` or below it.
    pub(crate) fn certificate(&self, name: &str) -> Arc<CertifiedKey> {
        if name == "localhost" {
            return self.localhost.clone();
        }
        if let Some(kept) = self.kept.lock().get(name) {
            return kept.clone();
        }
        let Ok(made) = sign(name, &self.issuer, &self.key, &self.signing, self.now) else {
            return self.localhost.clone(); // not a name that a certificate can have
        };
        let mut kept = self.kept.lock();
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(name.to_owned(), made.clone());
        made
    }
}

/// What the authority's certificate says. Its name follows from its key, so that two Grids' are told
/// apart where both are trusted.
fn authority(key: &KeyPair, now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let digest = Sha256::digest(key.der_bytes());
    let id: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut params = valid(CertificateParams::default(), now, AUTHORITY_DAYS.0);
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, format!("Grid Functions development {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(
                std::net::Ipv6Addr::LOCALHOST.into(),
                128,
            )),
        ],
        excluded_subtrees: Vec::new(),
    });
    Ok(params)
}

fn sign(
    name: &str,
    issuer: &Issuer<'static, KeyPair>,
    key: &KeyPair,
    signing: &Arc<dyn SigningKey>,
    now: Timestamp,
) -> Result<Arc<CertifiedKey>, rcgen::Error> {
    let mut names = vec![name.to_owned()];
    if name == "localhost" {
        names.extend(["127.0.0.1", "::1"].map(str::to_owned));
    }
    let mut params = valid(CertificateParams::new(names)?, now, DAYS);
    params.distinguished_name.remove(DnType::CommonName);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let signed = params.signed_by(key, issuer)?;
    Ok(Arc::new(CertifiedKey::new(vec![signed.der().clone()], signing.clone())))
}

/// From yesterday, for clocks that are behind, for so many days.
fn valid(mut params: CertificateParams, now: Timestamp, days: i64) -> CertificateParams {
    let day = |days: i64| {
        let date = now.to_zoned(TimeZone::UTC).date().saturating_add(days.days());
        let number = |number: i8| u8::try_from(number).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), number(date.month()), number(date.day()))
    };
    params.not_before = day(-1);
    params.not_after = day(days);
    params
}

/// Whether the file has this key's certificate, and it is good for a while yet.
fn still_good(certificate: &Path, key: &KeyPair, now: Timestamp) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(certificate) else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return false };
    let left = certificate.validity().not_after.timestamp() - now.as_second();
    let own = certificate.public_key().subject_public_key.data.as_ref() == key.der_bytes();
    own && left > AUTHORITY_DAYS.1 * 86_400
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn authority_file(dir: &Path) -> String {
        fs::read_to_string(dir.join("development-ca.pem")).expect("is there")
    }

    #[test]
    fn the_authority_is_made_once_kept_private_and_replaced_before_its_end() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dir = dir.path().join("tls");
        let now = Timestamp::now();
        Development::open(&dir, now).expect("makes one");
        let first = authority_file(&dir);
        let mode = fs::metadata(dir.join("development-ca.key")).expect("is there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);

        Development::open(&dir, now + (24 * 700).hours()).expect("reads it");
        assert_eq!(authority_file(&dir), first);
        Development::open(&dir, now + (24 * 780).hours()).expect("makes another");
        let second = authority_file(&dir);
        assert_ne!(second, first);
        // The key of another authority, and a key that is none.
        fs::write(dir.join("development-ca.pem"), first).expect("writes");
        Development::open(&dir, now).expect("makes another");
        let third = authority_file(&dir);
        fs::write(dir.join("development-ca.key"), "garbage").expect("writes");
        Development::open(&dir, now).expect("makes another");
        assert_ne!(authority_file(&dir), third);
    }

    #[test]
    fn names_are_kept_up_to_a_bound() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let development = Development::open(dir.path(), Timestamp::now()).expect("makes one");
        let again = |name: &str| development.certificate(name);
        assert!(Arc::ptr_eq(&again("a.localhost"), &again("a.localhost")));
        assert!(Arc::ptr_eq(&again("localhost"), &again("localhost")));
        for number in 0..2 * MOST_KEPT {
            again(&format!("n{number}.localhost"));
        }
        assert!(development.kept.lock().len() <= MOST_KEPT);
        assert!(Arc::ptr_eq(&again("ü.localhost"), &again("localhost")));
    }
}
