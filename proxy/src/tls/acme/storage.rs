//! What is kept of an authority: our account with it, and the certificates it gave. All under
//! `<data dir>/acme/<authority>/`, readable by the owner only.
//!
//! A certificate's key and chain are one file that is replaced as a whole, so that they always
//! belong together. Another authority (or its staging) has another directory: its certificates are
//! not taken for those of this one.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use control::name::PublicDomain;
use instant_acme::AccountCredentials;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::tls::{TlsError, pair::Pair, private};

/// Bytes of a domain that can be the name of a file.
pub(crate) const DOMAIN_BYTES: usize = 240;

/// The directory of one authority.
#[derive(Debug, Clone)]
pub(crate) struct Storage(PathBuf);

/// Our account with an authority.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredAccount {
    pub(crate) email: Option<String>,
    pub(crate) credentials: AccountCredentials,
}

impl Storage {
    /// That of the authority with this directory URL.
    pub(crate) fn of(data_dir: &Path, directory_url: &str) -> Self {
        let host = directory_url.split('/').nth(2).unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let host: String = host.chars().take(80).map(plain).collect();
        let digest = Sha256::digest(directory_url);
        let id: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        Self(data_dir.join("acme").join(format!("{host}-{id}")))
    }

    /// The account, when there is one. One that cannot be read is as good as none: a new one costs
    /// nothing. Blocks.
    pub(crate) fn account(&self) -> Option<StoredAccount> {
        let path = self.account_path();
        let read = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        match read {
            Ok(account) => Some(account),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = path.display();
                tracing::warn!("cannot read {path}: {error}; a new ACME account is made");
                None
            }
        }
    }

    /// Keeps the account. Blocks.
    pub(crate) fn put_account(&self, account: &StoredAccount) -> Result<(), TlsError> {
        let path = self.account_path();
        let bytes = serde_json::to_vec(account)
            .map_err(|e| TlsError::file("write", &path)(io::Error::other(e)))?;
        private::write(&path, &bytes)
    }

    /// Forgets the account. Blocks.
    pub(crate) fn remove_account(&self) {
        let _ = fs::remove_file(self.account_path());
    }

    /// All certificates that can be read, but not those that have ended. Blocks.
    pub(crate) fn certificates(&self, now: Timestamp) -> BTreeMap<PublicDomain, Arc<Pair>> {
        let mut certificates = BTreeMap::new();
        let Ok(entries) = fs::read_dir(self.0.join("certificates")) else { return certificates };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let domain = name.strip_suffix(".pem").and_then(|d| PublicDomain::parse(d).ok());
            let Some(domain) = domain else { continue };
            let pair = fs::read(&path)
                .map_err(|e| e.to_string())
                .and_then(|bytes| Pair::from_pem(&bytes, &bytes).map_err(|e| e.to_string()));
            match pair {
                Ok(pair) if now > pair.validity.not_after => self.remove_certificate(&domain),
                Ok(pair) => drop(certificates.insert(domain, Arc::new(pair))),
                Err(error) => tracing::warn!(
                    "cannot use {}: {error}; a new certificate is asked for",
                    path.display()
                ),
            }
        }
        certificates
    }

    /// Keeps a certificate: its chain and key as PEM. Blocks.
    pub(crate) fn put_certificate(
        &self,
        domain: &PublicDomain,
        chain: &str,
        key: &str,
    ) -> Result<(), TlsError> {
        private::write(&self.certificate_path(domain), format!("{key}{chain}").as_bytes())
    }

    /// Forgets a certificate. Blocks.
    pub(crate) fn remove_certificate(&self, domain: &PublicDomain) {
        let _ = fs::remove_file(self.certificate_path(domain));
    }

    fn account_path(&self) -> PathBuf {
        self.0.join("account.json")
    }

    fn certificate_path(&self, domain: &PublicDomain) -> PathBuf {
        self.0.join("certificates").join(format!("{domain}.pem"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::tls::testing::{Issued, issue};

    #[test]
    fn certificates_are_kept_private_and_per_authority() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let storage = Storage::of(dir.path(), "https://ca.example:14000/dir");
        let now = Timestamp::now();
        assert!(storage.certificates(now).is_empty());
        let domain = |name: &str| PublicDomain::parse(name).expect("valid");
        for (name, to) in [("a.example", 30), ("old.example", -1)] {
            let Issued { chain, key } = issue(&[name], -90, to);
            storage.put_certificate(&domain(name), &chain, &key).expect("writes");
        }
        let broken = storage.certificate_path(&domain("broken.example"));
        fs::write(&broken, "garbage").expect("writes");
        let path = storage.certificate_path(&domain("a.example"));
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("a directory"))), (0o600, 0o700));

        let kept: Vec<_> = storage.certificates(now).into_keys().collect();
        assert_eq!(kept, [domain("a.example")]);
        assert!(!storage.certificate_path(&domain("old.example")).exists());
        let staging = Storage::of(dir.path(), "https://ca.example:14000/staging");
        assert!(staging.certificates(now).is_empty());
    }

    #[test]
    fn an_account_that_cannot_be_read_is_none() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let storage = Storage::of(dir.path(), "https://ca.example/dir");
        assert!(storage.account().is_none());
        fs::create_dir_all(&storage.0).expect("creates");
        fs::write(storage.account_path(), "{").expect("writes");
        assert!(storage.account().is_none());
        storage.remove_account();
        assert!(!storage.account_path().exists());
    }

    #[test]
    fn the_longest_domain_fits_a_file_name() {
        let label = "a".repeat(59);
        let domain = [label.as_str(); 4].join(".");
        assert_eq!(domain.len(), DOMAIN_BYTES - 1);
        let dir = tempfile::tempdir().expect("temporary directory");
        let storage = Storage::of(dir.path(), "https://ca.example/dir");
        let domain = PublicDomain::parse(domain).expect("valid");
        storage.put_certificate(&domain, "", "").expect("writes");
    }
}
