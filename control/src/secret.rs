//! Encryption of what must not be read from the disk: environment variables, under Fernet keys
//! (`GRID_FERNET_KEYS`, newest first; made once and kept in a file when unset).

use std::{fmt, fs, io, path::Path, sync::Arc};

use fernet::{Fernet, MultiFernet};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    token,
};

/// What a key must be, for error messages.
const RULE: &str =
    "must be Fernet keys (32 bytes in URL-safe base64), separated by commas, newest first";
/// The file in the data directory that holds the keys when no setting does.
const FILE: &str = "fernet_keys";

/// An encrypted text, as it is kept: a Fernet token. Only a [`Keyring`] opens it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}

/// Fernet keys as a setting names them, checked: `"<newest>,<older>"`.
#[derive(Clone)]
pub struct FernetKeys(Vec<String>);

impl FernetKeys {
    /// Takes one key or several, newest first.
    ///
    /// # Errors
    /// The rule, when one of them is no key.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let keys: Vec<_> =
            text.split([',', '\n']).map(str::trim).filter(|key| !key.is_empty()).collect();
        let good = |key: &&str| Fernet::new(key).is_some();
        if keys.is_empty() || !keys.iter().all(good) {
            return Err(RULE);
        }
        Ok(Self(keys.into_iter().map(str::to_owned).collect()))
    }

    /// One new key.
    pub fn generate() -> Self {
        Self(vec![Fernet::generate_key()])
    }

    /// A new key in front of these, which stay to open what they sealed.
    pub fn rotated(&self) -> Self {
        let newest = std::iter::once(Fernet::generate_key());
        Self(newest.chain(self.0.iter().cloned()).collect())
    }

    /// The newest key alone.
    pub fn newest(&self) -> Self {
        Self(self.0.iter().take(1).cloned().collect())
    }

    /// As they stand in the file: one a line.
    fn text(&self) -> String {
        self.0.iter().map(|key| format!("{key}\n")).collect()
    }
}

impl fmt::Debug for FernetKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FernetKeys(…)")
    }
}

/// Seals and opens texts. Cheap to clone; all clones are one keyring.
#[derive(Clone)]
pub struct Keyring {
    keys: Arc<RwLock<MultiFernet>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(…)")
    }
}

impl Keyring {
    /// Seals with the newest of the keys, opens with any.
    pub fn new(keys: &FernetKeys) -> Self {
        Self { keys: Arc::new(RwLock::new(multi(keys))) }
    }

    /// Takes other keys from now on.
    pub fn replace(&self, keys: &FernetKeys) {
        *self.keys.write() = multi(keys);
    }

    /// Encrypts a text.
    pub fn seal(&self, text: &str) -> Sealed {
        Sealed(self.keys.read().encrypt(text.as_bytes()))
    }

    /// Decrypts a text.
    ///
    /// # Errors
    /// `Store` when none of the keys opens it.
    pub fn open(&self, sealed: &Sealed) -> Result<String> {
        let failed = |reason: &str| Error::Store {
            operation: "open an encrypted value",
            reason: reason.to_owned(),
        };
        let bytes = self.keys.read().decrypt(&sealed.0).map_err(|_| {
            failed("none of the keys opens it; add the key that it was sealed with to GRID_FERNET_KEYS")
        })?;
        String::from_utf8(bytes).map_err(|_| failed("it is not text"))
    }
}

fn multi(keys: &FernetKeys) -> MultiFernet {
    // Each was checked when the keys were read.
    MultiFernet::new(keys.0.iter().filter_map(|key| Fernet::new(key)).collect())
}

/// The configured keys, else those of `<data_dir>/fernet_keys`, which is made with one key when it
/// is missing. Blocks.
///
/// # Errors
/// `File` when the file cannot be read or written, or holds something else.
pub fn load_or_create(data_dir: &Path, configured: Option<&FernetKeys>) -> Result<FernetKeys> {
    if let Some(keys) = configured {
        return Ok(keys.clone());
    }
    let path = data_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => FernetKeys::parse(&text).map_err(|rule| {
            Error::file("read", &path)(io::Error::new(io::ErrorKind::InvalidData, rule))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let keys = FernetKeys::generate();
            store(data_dir, &keys)?;
            Ok(keys)
        }
        Err(error) => Err(Error::file("read", &path)(error)),
    }
}

/// Writes the keys to `<data_dir>/fernet_keys`, whole or not at all. Blocks.
///
/// # Errors
/// `File`.
pub fn store(data_dir: &Path, keys: &FernetKeys) -> Result<()> {
    token::write_private(data_dir, FILE, &keys.text())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_an_older_key_sealed_is_opened_and_newly_sealed_by_the_newest() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = load_or_create(dir.path(), None).expect("makes one");
        let sealed = Keyring::new(&first).seal("hunter2");
        let rotated = first.rotated();
        let ring = Keyring::new(&rotated);
        assert_eq!(ring.open(&sealed).expect("opens"), "hunter2");
        let again = ring.seal("hunter2");
        assert!(Keyring::new(&first).open(&again).is_err());
        let newest = Keyring::new(&rotated.newest());
        assert_eq!(newest.open(&again).expect("opens"), "hunter2");
        let error = newest.open(&sealed).expect_err("the key is gone").to_string();
        assert!(error.contains("GRID_FERNET_KEYS") && !error.contains("hunter2"), "{error}");
        newest.replace(&rotated);
        assert!(newest.open(&sealed).is_ok());
    }

    #[test]
    fn keys_are_made_once_and_kept_to_their_owner() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let made = load_or_create(dir.path(), None).expect("makes one");
        let path = dir.path().join(FILE);
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = load_or_create(dir.path(), None).expect("reads it");
        assert_eq!(read.text(), made.text());
        store(dir.path(), &made.rotated()).expect("writes");
        assert_eq!(load_or_create(dir.path(), None).expect("reads").0.len(), 2);
        fs::write(&path, "no key\n").expect("writes");
        let error = load_or_create(dir.path(), None).expect_err("refused").to_string();
        assert!(error.contains("fernet_keys: must be Fernet keys"), "{error}");
    }

    #[test]
    fn nothing_that_holds_a_secret_shows_it() {
        let keys = FernetKeys::generate();
        let ring = Keyring::new(&keys);
        let shown = format!("{keys:?} {ring:?} {:?}", ring.seal("x"));
        assert_eq!(shown, "FernetKeys(…) Keyring(…) Sealed(…)");
        for bad in ["", ",", "c2hvcnQ=", &format!("{},x", Fernet::generate_key())] {
            assert!(FernetKeys::parse(bad).is_err(), "{bad:?}");
        }
    }
}
