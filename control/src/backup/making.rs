//! `grid backup`: what the admin API sends, with the files of the data directory, becomes a file that is
//! there whole or not at all.

use std::{
    fs,
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{
    digest_of, failed,
    lines::{File, Part, Reading, Writing},
};
use crate::{
    config::Config,
    error::{Error, Result},
    secret::{self, FernetKeys, Keyring},
    token,
};

/// A file that is being written. Dropped before its end, it leaves nothing.
pub struct Making {
    path: PathBuf,
    /// Where it is written until it is whole.
    beside: PathBuf,
    out: BufWriter<fs::File>,
    data_dir: PathBuf,
    files: Vec<File>,
    /// None when neither a setting nor a file has them.
    keyring: Option<Keyring>,
    reading: Reading,
    writing: Writing,
    done: bool,
}

impl Making {
    /// Begins a backup of the Grid that has these settings. Blocks.
    ///
    /// # Errors
    /// `File`.
    pub fn begin(config: &Config, path: &Path) -> Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut names = Vec::new();
        if config.fernet_keys.is_none() {
            names.push(secret::FILE);
        }
        if config.token.is_none() {
            names.push(token::FILE);
        }
        let files = read_files(&config.data_dir, &names)?;
        let keys = match &config.fernet_keys {
            Some(keys) => Some(keys.clone()),
            None => kept_keys(&config.data_dir, &files)?,
        };
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("replace", &beside)(error));
            }
            _ => {}
        }
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
        let file = file.map_err(Error::file("create", &beside))?;
        Ok(Self {
            path: path.to_owned(),
            beside,
            out: BufWriter::new(file),
            data_dir: config.data_dir.clone(),
            files,
            keyring: keys.as_ref().map(Keyring::new),
            reading: Reading::default(),
            writing: Writing::default(),
            done: false,
        })
    }

    /// Takes one line of what the admin API sends, without its end.
    ///
    /// # Errors
    /// `File` when it cannot be written, is no part of a backup, or the backup is that of a Grid with
    /// other keys than those that are here.
    pub fn line(&mut self, line: &[u8]) -> Result<()> {
        let part = self.reading.line(line);
        let text = match part.map_err(|reason| failed("receive", &self.path, reason))? {
            Part::Header(header) => {
                let own = self.keyring.as_ref().map(digest_of);
                if own != header.keys {
                    return Err(self.other_keys());
                }
                let mut text = self.writing.header(&header)?;
                for file in &self.files {
                    text.extend(self.writing.file(file)?);
                }
                text
            }
            Part::Entry(record) => self.writing.entry(&record)?,
            Part::File(_) | Part::End => return Ok(()),
        };
        self.out.write_all(&text).map_err(Error::file("write", &self.beside))
    }

    /// Puts the file in its place, with all that came on the disk: how many entries it has.
    ///
    /// # Errors
    /// `File`, also when not everything came, or the keys were changed meanwhile.
    pub fn finish(mut self) -> Result<u64> {
        self.reading.end().map_err(|reason| failed("receive", &self.path, reason))?;
        let names: Vec<&str> = self.files.iter().map(|file| file.file.as_str()).collect();
        if read_files(&self.data_dir, &names)? != self.files {
            let reason = "the keys or the token were changed meanwhile: try again";
            return Err(failed("write", &self.path, reason));
        }
        let entries = self.writing.entries();
        let trailer = std::mem::take(&mut self.writing).trailer()?;
        let written = self.out.write_all(&trailer).and_then(|()| self.out.flush());
        let written = written.and_then(|()| self.out.get_ref().sync_all());
        written.map_err(Error::file("write", &self.beside))?;
        fs::rename(&self.beside, &self.path).map_err(Error::file("rename", &self.beside))?;
        self.done = true;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(Error::file("sync", dir))?;
        Ok(entries)
    }

    fn other_keys(&self) -> Error {
        let reason = format!(
            "the Grid that answered has other keys for environment variables than {}: name its data \
             directory with --data-dir, or set GRID_FERNET_KEYS as it is set there",
            self.data_dir.join(secret::FILE).display()
        );
        failed("write", &self.path, reason)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.beside); // it is replaced next time
        }
    }
}

/// Those of these files that are there.
fn read_files(data_dir: &Path, names: &[&str]) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for name in names {
        let path = data_dir.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => files.push(File { file: (*name).to_owned(), text }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("read", &path)(error)),
        }
    }
    Ok(files)
}

fn kept_keys(data_dir: &Path, files: &[File]) -> Result<Option<FernetKeys>> {
    let Some(file) = files.iter().find(|file| file.file == secret::FILE) else { return Ok(None) };
    let keys = FernetKeys::parse(&file.text);
    keys.map(Some).map_err(|rule| failed("read", &data_dir.join(secret::FILE), rule))
}
