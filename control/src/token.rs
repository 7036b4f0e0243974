//! The bootstrap token of the admin API: configured, or made once and kept in a file that only the
//! owner of the data directory reads.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// What a token must be, for error messages.
const RULE: &str = "must be at least 16 visible ASCII characters without spaces";

/// The file in the data directory that holds the token when no setting does.
pub(crate) const FILE: &str = "token";

/// A token in the clear, for who has to present it. It does not show itself.
#[derive(Clone)]
pub struct TokenText(String);

/// A secret that callers present. Only its digest is kept, so that nothing can show it.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl TokenText {
    /// Takes a text that is long enough to be a secret.
    ///
    /// # Errors
    /// The rule, when the text breaks it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() < 16 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(RULE);
        }
        Ok(Self(text.to_owned()))
    }

    /// A new one: 160 random bits, 40 hexadecimal digits.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 20];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn token(&self) -> Token {
        Token::presented(&self.0)
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(…)")
    }
}

impl Token {
    /// What a caller presented, whatever it is: it need not keep the rule to be compared.
    pub fn presented(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// The token with this SHA-256 digest.
    pub fn of_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Whether this is the token. Takes as long for a near miss as for a far one.
    pub fn matches(&self, presented: &Self) -> bool {
        let differences = self.0.iter().zip(presented.0).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differences) == 0
    }

    /// The SHA-256 digest of the token: what is kept of it.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The configured token, else that of `<data_dir>/token`, which is made when it is missing. Blocks.
///
/// # Errors
/// `File` when the file cannot be read or written, or holds something else.
pub fn load_or_create(data_dir: &Path, configured: Option<&TokenText>) -> Result<TokenText> {
    match find(data_dir, configured)? {
        Some(token) => Ok(token),
        None => create(data_dir),
    }
}

/// The configured token, else that of `<data_dir>/token`, when there is one. Blocks.
///
/// # Errors
/// As [`load_or_create`].
pub fn find(data_dir: &Path, configured: Option<&TokenText>) -> Result<Option<TokenText>> {
    if let Some(token) = configured {
        return Ok(Some(token.clone()));
    }
    let path = file(data_dir);
    match fs::metadata(&path) {
        Ok(metadata) => load(&path, metadata.permissions().mode()).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", &path)(error)),
    }
}

/// Where the token of a data directory is, when no setting has it.
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

fn load(path: &Path, mode: u32) -> Result<TokenText> {
    if mode & 0o077 != 0 {
        tracing::warn!(
            "{} can be read or changed by others than its owner: chmod 600 it, and replace the \
             token if somebody may have read it",
            path.display()
        );
    }
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    TokenText::parse(text.trim()).map_err(|rule| {
        let reason = format!("{rule}; remove the file to have a new one made");
        Error::file("read", path)(io::Error::new(io::ErrorKind::InvalidData, reason))
    })
}

fn create(data_dir: &Path) -> Result<TokenText> {
    let token = TokenText::random().map_err(Error::file("make", &file(data_dir)))?;
    write_private(data_dir, FILE, &format!("{}\n", token.as_str()))?;
    Ok(token)
}

/// Writes a file that only its owner reads: beside, and moved, so that a crash leaves no half of it.
/// Blocks.
///
/// # Errors
/// `File`.
pub(crate) fn write_private(dir: &Path, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    let (path, beside) = (dir.join(name), dir.join(format!("{name}.new")));
    let write = || -> io::Result<()> {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        fs::File::open(dir)?.sync_all()
    };
    write().map_err(Error::file("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_kept_to_its_owner() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let data = dir.path().join("data");
        assert!(find(&data, None).expect("looks").is_none());
        assert!(!data.exists(), "looking makes nothing");
        let token = load_or_create(&data, None).expect("makes one");
        let path = data.join("token");
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&path).expect("reads");
        let text = text.trim();
        assert!(text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit()), "{text}");
        assert_eq!(token.as_str(), text);
        assert_eq!(load_or_create(&data, None).expect("reads it").as_str(), text);
        // A file that others can read is used, with a warning.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changes");
        let found = find(&data, None).expect("reads it").expect("is there");
        assert_eq!(found.as_str(), text);
    }

    #[test]
    fn a_configured_token_wins_and_leaves_no_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let configured = TokenText::parse("0123456789abcdef").expect("valid");
        let text = load_or_create(dir.path(), Some(&configured)).expect("takes it");
        let token = text.token();
        assert!(token.matches(&Token::presented("0123456789abcdef")));
        for wrong in ["", "0123456789abcdeF", "0123456789abcdef "] {
            assert!(!token.matches(&Token::presented(wrong)));
        }
        assert!(!dir.path().join("token").exists());
        assert_eq!(format!("{token:?} {text:?}"), "Token(…) TokenText(…)");
    }

    #[test]
    fn short_blank_and_foreign_tokens_are_refused() {
        for bad in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdefé"] {
            assert!(TokenText::parse(bad).is_err(), "{bad:?}");
        }
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("token"), "short\n").expect("writes");
        let error = load_or_create(dir.path(), None).expect_err("refused").to_string();
        assert!(error.contains("token: must be at least 16"), "{error}");
    }
}
