//! Encryption of what must not be read from the disk: environment variables, under Fernet keys
//! (`GRID_FERNET_KEYS`, newest first; made once and kept in a file when unset).

use std::{fmt, fs, io, path::Path, sync::Arc};

use fernet::Fernet;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{sync::OwnedRwLockReadGuard, task::spawn_blocking};

use crate::{
    error::{Error, Result},
    token,
};

/// What a key must be, for error messages.
const RULE: &str =
    "must be Fernet keys (32 bytes in URL-safe base64), separated by commas, newest first";
/// The file in the data directory that holds the keys when no setting does.
pub(crate) const FILE: &str = "fernet_keys";

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

    /// How many there are: one at least.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
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
    /// The data directory in whose file the keys are; none when a setting has them.
    file_in: Option<Arc<Path>>,
    keys: Arc<RwLock<Keys>>,
    /// Read by whoever stores what is sealed, written by whoever changes the keys.
    held: Arc<tokio::sync::RwLock<()>>,
}

struct Keys {
    texts: FernetKeys,
    /// The same, ready for use.
    fernets: Vec<Fernet>,
}

/// While this is there, the keys stay as they are: what is under the newest one is so still when it
/// has been stored.
#[derive(Debug)]
pub struct Held {
    _keys: OwnedRwLockReadGuard<()>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(…)")
    }
}

impl Keyring {
    /// Seals with the newest of the keys, opens with any.
    pub fn new(keys: &FernetKeys) -> Self {
        let keys = Arc::new(RwLock::new(Keys::of(keys)));
        Self { file_in: None, keys, held: Arc::default() }
    }

    /// The configured keys, else those of `<data_dir>/fernet_keys`, which is made with one key when it
    /// is missing. Blocks.
    ///
    /// # Errors
    /// `File` when the file cannot be read or written, or holds something else.
    pub fn load_or_create(data_dir: &Path, configured: Option<&FernetKeys>) -> Result<Self> {
        match configured {
            Some(keys) => Ok(Self::new(keys)),
            None => {
                Ok(Self { file_in: Some(data_dir.into()), ..Self::new(&read_or_create(data_dir)?) })
            }
        }
    }

    /// Whether the keys are in a file of Grid's own, and not in a setting.
    pub fn is_kept_in_file(&self) -> bool {
        self.file_in.is_some()
    }

    /// Writes other keys to the file, if they are kept in one, and takes them from then on.
    ///
    /// # Errors
    /// `File`; then everything is as it was.
    pub async fn keep(&self, keys: &FernetKeys) -> Result<()> {
        if let Some(dir) = self.file_in.clone() {
            let keys = keys.clone();
            let written = spawn_blocking(move || store(&dir, &keys)).await;
            let stopped = |error| Error::Store { operation: "write keys", reason: error };
            written.map_err(|error| stopped(error.to_string()))??;
        }
        self.replace(keys).await;
        Ok(())
    }

    /// Takes other keys from now on. Waits until nobody holds the old ones.
    async fn replace(&self, keys: &FernetKeys) {
        let _nobody = self.held.write().await;
        *self.keys.write() = Keys::of(keys);
    }

    /// Holds the keys, for the time between a [`Keyring::renew`] and the end of the store's
    /// transaction. Who holds them must not hold them once more.
    pub async fn hold(&self) -> Held {
        Held { _keys: self.held.clone().read_owned().await }
    }

    /// The keys that it has.
    pub fn keys(&self) -> FernetKeys {
        self.keys.read().texts.clone()
    }

    /// Encrypts a text.
    pub fn seal(&self, text: &str) -> Sealed {
        Sealed(self.keys.read().fernets[0].encrypt(text.as_bytes()))
    }

    /// Encrypts anew what another key than the newest one sealed; says whether it was so.
    ///
    /// # Errors
    /// As [`Keyring::open`].
    pub fn renew(&self, sealed: &mut Sealed) -> Result<bool> {
        if open_with(&self.keys.read().fernets[..1], sealed).is_some() {
            return Ok(false);
        }
        *sealed = self.seal(&self.open(sealed)?);
        Ok(true)
    }

    /// A digest of a text that only a holder of the newest key can make: what is short enough to be
    /// guessed cannot be told from it.
    pub fn digest(&self, text: &str) -> [u8; 32] {
        let keys = self.keys.read();
        let key = &keys.texts.0[0];
        let inner = Sha256::new().chain_update(key).chain_update(text).finalize();
        Sha256::new().chain_update(key).chain_update(inner).finalize().into()
    }

    /// Decrypts a text. When none of the keys opens it, those of the file are read again: another
    /// process, which has control, may have changed them.
    ///
    /// # Errors
    /// `Store` when none of the keys opens it.
    pub fn open(&self, sealed: &Sealed) -> Result<String> {
        let failed = |reason: &str| Error::Store {
            operation: "open an encrypted value",
            reason: reason.to_owned(),
        };
        let known = open_with(&self.keys.read().fernets, sealed);
        let bytes = known.or_else(|| self.open_with_file(sealed)).ok_or_else(|| {
            failed("none of the keys opens it; add the key that it was sealed with to GRID_FERNET_KEYS")
        })?;
        String::from_utf8(bytes).map_err(|_| failed("it is not text"))
    }
}

impl Keyring {
    /// Opens with the keys that are in the file now, and takes them when they do.
    fn open_with_file(&self, sealed: &Sealed) -> Option<Vec<u8>> {
        let dir = self.file_in.as_ref()?;
        let keys = Keys::of(&read_or_create(dir).ok()?);
        let opened = open_with(&keys.fernets, sealed)?;
        *self.keys.write() = keys;
        Some(opened)
    }
}

impl Keys {
    /// There is at least one, and each was checked when it was read.
    fn of(keys: &FernetKeys) -> Self {
        let fernets = keys.0.iter().filter_map(|key| Fernet::new(key)).collect();
        Self { texts: keys.clone(), fernets }
    }
}

/// What one of the keys opens. When it was sealed is of no account: a clock that was wrong for a while
/// must not cost anybody their values.
fn open_with(fernets: &[Fernet], sealed: &Sealed) -> Option<Vec<u8>> {
    const ANY_TIME: u64 = u64::MAX / 2;
    fernets.iter().find_map(|key| key.decrypt_at_time(&sealed.0, None, ANY_TIME).ok())
}

fn read_or_create(data_dir: &Path) -> Result<FernetKeys> {
    let path = data_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => FernetKeys::parse(&text).map_err(|rule| {
            Error::file("read", &path)(io::Error::new(io::ErrorKind::InvalidData, rule))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(data_dir, &path),
        Err(error) => Err(Error::file("read", &path)(error)),
    }
}

/// Makes the file with one key, or reads the one that another process of this data directory has made
/// in the meantime: what was sealed with a key that nobody has could never be opened.
fn create(data_dir: &Path, path: &Path) -> Result<FernetKeys> {
    let keys = FernetKeys::generate();
    let draft = format!("{FILE}.{}", std::process::id());
    token::write_private(data_dir, &draft, &keys.text())?;
    let draft = data_dir.join(draft);
    let made = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(Error::file("remove", &draft))?;
    match made {
        Ok(()) => Ok(keys),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_or_create(data_dir),
        Err(error) => Err(Error::file("create", path)(error)),
    }
}

/// Writes the keys to `<data_dir>/fernet_keys`, whole or not at all. Blocks.
fn store(data_dir: &Path, keys: &FernetKeys) -> Result<()> {
    token::write_private(data_dir, FILE, &keys.text())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn what_an_older_key_sealed_is_opened_and_newly_sealed_by_the_newest() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = read_or_create(dir.path()).expect("makes one");
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
        newest.replace(&rotated).await;
        assert!(newest.open(&sealed).is_ok());
    }

    #[test]
    fn what_another_key_sealed_is_renewed_and_nothing_else() {
        let first = FernetKeys::generate();
        let rotated = first.rotated();
        let ring = Keyring::new(&rotated);
        let mut old = Keyring::new(&first).seal("hunter2");
        assert!(ring.renew(&mut old).expect("opens"));
        let kept = old.clone();
        assert!(!ring.renew(&mut old).expect("opens"));
        assert_eq!(old, kept);
        assert_eq!(Keyring::new(&rotated.newest()).open(&old).expect("opens"), "hunter2");
        let mut foreign = Keyring::new(&FernetKeys::generate()).seal("hunter2");
        assert!(ring.renew(&mut foreign).is_err());
    }

    #[tokio::test]
    async fn keys_are_not_replaced_under_who_holds_them() {
        let first = FernetKeys::generate();
        let ring = Keyring::new(&first);
        let (held, again) = (ring.hold().await, ring.hold().await);
        let other = tokio::spawn({
            let ring = ring.clone();
            async move { ring.replace(&FernetKeys::generate()).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(ring.keys().text(), first.text());
        drop((held, again));
        other.await.expect("replaces");
        assert_ne!(ring.keys().text(), first.text());
    }

    #[test]
    fn a_clock_that_is_set_back_costs_no_value() {
        let keys = FernetKeys::generate();
        let year_3000 = 32_503_680_000;
        let sealed = Keys::of(&keys).fernets[0].encrypt_at_time(b"hunter2", year_3000);
        assert_eq!(Keyring::new(&keys).open(&Sealed(sealed)).expect("opens"), "hunter2");
    }

    #[test]
    fn a_digest_is_that_of_a_text_under_a_key() {
        let (ring, other) =
            (Keyring::new(&FernetKeys::generate()), Keyring::new(&FernetKeys::generate()));
        assert_eq!(ring.digest("a"), ring.clone().digest("a"));
        assert_ne!(ring.digest("a"), ring.digest("b"));
        assert_ne!(ring.digest("a"), other.digest("a"));
    }

    #[test]
    fn keys_are_made_once_and_kept_to_their_owner() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let made = read_or_create(dir.path()).expect("makes one");
        let path = dir.path().join(FILE);
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = read_or_create(dir.path()).expect("reads it");
        assert_eq!(read.text(), made.text());
        store(dir.path(), &made.rotated()).expect("writes");
        assert_eq!(read_or_create(dir.path()).expect("reads").0.len(), 2);
        fs::write(&path, "no key\n").expect("writes");
        let error = read_or_create(dir.path()).expect_err("refused").to_string();
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
