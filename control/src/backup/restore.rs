//! `grid restore`: looks the whole file through, then writes.

use std::{
    fs,
    io::{self, BufReader, Seek},
    path::{Path, PathBuf},
};

use super::{
    digest_of, failed,
    lines::{File, Header, Part, Reading},
    next_line,
};
use crate::{
    config::Config,
    error::{Error, Result},
    secret::{self, FernetKeys, Keyring},
    store::{Opened, Record},
    token::{self, TokenText},
};

/// Entries and bytes of the file that are written by one transaction.
const BATCH: (usize, usize) = (500, 1024 * 1024);

/// What a restore has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Entries of the store.
    pub entries: u64,
    /// When the backup was made, in RFC 3339.
    pub made_at: String,
    /// Whether the keys are there that the environment variables in it were sealed with.
    pub opens: bool,
}

/// What is known of a file that was looked through.
struct Known {
    header: Header,
    files: Vec<File>,
    digest: String,
    entries: u64,
}

/// Restores a backup into the store and the data directory of these settings. Blocks in between. One that
/// was interrupted can be repeated; Grid does not start on what that left.
///
/// # Errors
/// `File` when the file is damaged, cut off, or from a newer Grid, or another file is in the place of
/// one that it brings; `Conflict` when the store is not empty; `Store` when another Grid has it. Nothing
/// was written then.
pub async fn restore(config: &Config, path: &Path) -> Result<Restored> {
    let file = fs::File::open(path).map_err(Error::file("open", path))?;
    let mut file = BufReader::new(file);
    let known = look_through(&mut file, path)?;
    let missing = missing_files(&config.data_dir, &known.files)?;

    let store = Opened::open_as(config, &known.header.instance).await?;
    store.begin_to_fill().await.map_err(|error| in_use(error, config))?;
    for File { file, text } in missing {
        token::write_private(&config.data_dir, file, text)?;
    }
    file.rewind().map_err(Error::file("read", path))?;
    fill(&store, &mut file, path, &known).await?;
    store.close().await;

    let keys = match &config.fernet_keys {
        Some(keys) => Some(keys.clone()),
        None => kept_keys(&config.data_dir)?,
    };
    let digest = keys.map(|keys| digest_of(&Keyring::new(&keys)));
    Ok(Restored {
        entries: known.entries,
        made_at: known.header.made_at.to_string(),
        opens: known.header.keys.is_none() || known.header.keys == digest,
    })
}

/// What has to be done about a store that has something in it already.
pub(super) fn in_use(error: Error, config: &Config) -> Error {
    let Error::Conflict { message, .. } = error else { return error };
    let message = match &config.redis_url {
        Some(url) => format!(
            "the Redis at {url} cannot take a backup, since {message} under the prefix {}: use another \
             GRID_REDIS_PREFIX",
            config.redis_prefix
        ),
        None => format!(
            "the data directory {} cannot take a backup, since {message}: use another GRID_DATA_DIR",
            config.data_dir.display()
        ),
    };
    Error::Conflict { field: None, message }
}

fn look_through(file: &mut BufReader<fs::File>, path: &Path) -> Result<Known> {
    let wrong = |reason: String| failed("read", path, reason);
    let mut reading = Reading::default();
    let (mut header, mut files) = (None, Vec::new());
    while let Some(line) = next_line(file).map_err(Error::file("read", path))? {
        match reading.line(&line).map_err(wrong)? {
            Part::Header(first) => header = Some(first),
            Part::File(file) => {
                check_file(&file).map_err(wrong)?;
                files.push(file);
            }
            Part::Entry(_) | Part::End => {}
        }
    }
    let (digest, entries) = reading.end().map_err(wrong)?;
    let digest = digest.to_owned();
    let header = header.ok_or_else(|| wrong("it is empty".to_owned()))?;
    Ok(Known { header, files, digest, entries })
}

/// Only what is known is written to the data directory.
fn check_file(file: &File) -> Result<(), String> {
    let name = &file.file;
    let checked = match name.as_str() {
        secret::FILE => FernetKeys::parse(&file.text).map(drop),
        token::FILE => TokenText::parse(file.text.trim()).map(drop),
        _ => Err("is no file that a backup brings"),
    };
    checked.map_err(|rule| format!("the file \"{name}\" in it: {rule}"))
}

/// Those that are not there yet.
fn missing_files<'f>(data_dir: &Path, files: &'f [File]) -> Result<Vec<&'f File>> {
    let mut missing = Vec::new();
    for file in files {
        let path: PathBuf = data_dir.join(&file.file);
        match fs::read_to_string(&path) {
            Ok(text) if text == file.text => {}
            Ok(_) => {
                let reason = "it is there, with another content than the backup's: remove it if \
                              nothing needs it, or use another GRID_DATA_DIR";
                return Err(failed("restore", &path, reason));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(file),
            Err(error) => return Err(Error::file("read", &path)(error)),
        }
    }
    Ok(missing)
}

async fn fill(
    store: &Opened,
    file: &mut BufReader<fs::File>,
    path: &Path,
    known: &Known,
) -> Result<()> {
    let wrong = |reason: String| failed("read", path, reason);
    let mut reading = Reading::default();
    let (mut batch, mut bytes) = (Vec::<Record>::new(), 0);
    while let Some(line) = next_line(file).map_err(Error::file("read", path))? {
        if let Part::Entry(record) = reading.line(&line).map_err(wrong)? {
            batch.push(record);
            bytes += line.len();
        }
        if batch.len() >= BATCH.0 || bytes >= BATCH.1 {
            store.fill(std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
    }
    if reading.end().map_err(wrong)? != (known.digest.as_str(), known.entries) {
        return Err(wrong("it was changed meanwhile".to_owned()));
    }
    store.fill(batch).await?;
    store.end_to_fill(known.entries).await
}

fn kept_keys(data_dir: &Path) -> Result<Option<FernetKeys>> {
    let path = data_dir.join(secret::FILE);
    match fs::read_to_string(&path) {
        Ok(text) => FernetKeys::parse(&text).map(Some).map_err(|rule| failed("read", &path, rule)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", &path)(error)),
    }
}
