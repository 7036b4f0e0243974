//! Files of the data directory that only its owner reads.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use super::TlsError;

/// Puts a file (mode 0600) in place as a whole, making its directory (mode 0700) when it is missing.
/// A crash leaves the old one or the new one. Blocks.
///
/// # Errors
/// The file, and why it could not be written.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let write = || -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        match fs::remove_file(beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(beside, path)?;
        fs::File::open(dir)?.sync_all()
    };
    write().map_err(TlsError::file("write", path))
}
