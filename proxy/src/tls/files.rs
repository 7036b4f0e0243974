//! Which files in a directory belong together as a certificate and its key.
//!
//! | certificate | key |
//! |---|---|
//! | `NAME.crt`, `NAME.cert`, `NAME.cer`, `NAME.pem` | `NAME.key`, or `NAME-key.pem` |
//! | `fullchain.pem` | `privkey.pem` (`cert.pem` and `chain.pem` beside it are not used) |
//! | any of these without a key's file | in the same file |
//!
//! Looked for in the directory itself and in the directories in it, which is how certbot
//! (`live/<name>/`) and Kubernetes (a mounted secret each) lay them out.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Certificates that are looked for in one directory with those in it.
pub(crate) const MOST_PAIRS: usize = 10_000;
/// Bytes of one PEM file.
const FILE_BYTES: u64 = 1024 * 1024;
/// What certificates' files end with.
const ENDINGS: [&str; 4] = ["crt", "cert", "cer", "pem"];

/// The files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Files {
    /// The chain; also holds the key when there is no other file for it.
    pub(crate) chain: PathBuf,
    pub(crate) key: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) files: Vec<Files>,
    /// The directories that were looked into.
    pub(crate) dirs: Vec<PathBuf>,
}

impl Files {
    /// Whether one of them still exists.
    pub(crate) fn exist(&self) -> bool {
        self.chain.exists() || self.key.as_ref().is_some_and(|key| key.exists())
    }

    /// The bytes of the chain and of the key.
    ///
    /// # Errors
    /// The file that cannot be read, and why.
    pub(crate) fn read(&self) -> Result<(Vec<u8>, Vec<u8>), (PathBuf, io::Error)> {
        let read = |path: &Path| read_bounded(path).map_err(|e| (path.to_owned(), e));
        let chain = read(&self.chain)?;
        let key = self.key.as_deref().map(read).transpose()?;
        let key = key.unwrap_or_else(|| chain.clone());
        Ok((chain, key))
    }
}

/// Looks through a directory and those in it. Blocks.
///
/// # Errors
/// What the directory itself could not be read for; one in it that cannot be read counts as empty.
pub(crate) fn find(dir: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    let (names, dirs) = list(dir)?;
    found.add(dir, &names);
    for name in dirs {
        let dir = dir.join(name);
        if let Ok((names, _)) = list(&dir) {
            found.add(&dir, &names);
        }
    }
    found.files.truncate(MOST_PAIRS);
    Ok(found)
}

impl Found {
    fn add(&mut self, dir: &Path, names: &BTreeSet<String>) {
        self.dirs.push(dir.to_owned());
        self.files.extend(pairs(names).into_iter().map(|(chain, key)| Files {
            chain: dir.join(chain),
            key: key.map(|key| dir.join(key)),
        }));
    }
}

/// The certificates among the names of one directory's files, each with its key's file.
fn pairs(names: &BTreeSet<String>) -> Vec<(&str, Option<String>)> {
    let certbot = names.contains("fullchain.pem");
    let is_chain = |name: &&str| {
        let Some((stem, ending)) = name.rsplit_once('.') else { return false };
        let part_of_certbot = certbot && ["cert.pem", "chain.pem"].contains(name);
        ENDINGS.contains(&ending)
            && *name != "privkey.pem"
            && !stem.ends_with("-key")
            && !part_of_certbot
    };
    names
        .iter()
        .map(String::as_str)
        .filter(is_chain)
        .map(|chain| {
            let stem = chain.rsplit_once('.').map_or(chain, |(stem, _)| stem);
            let mut keys = vec![format!("{stem}.key"), format!("{stem}-key.pem")];
            if chain == "fullchain.pem" {
                keys.insert(0, "privkey.pem".to_owned());
            }
            (chain, keys.into_iter().find(|key| names.contains(key)))
        })
        .collect()
}

/// The names of files and of directories; hidden ones are somebody else's business.
fn list(dir: &Path) -> io::Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut files, mut dirs) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(dir)?.take(10 * MOST_PAIRS) {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Links are followed; one that leads nowhere is a file that cannot be read.
        let is_dir = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        if !name.starts_with('.') {
            if is_dir {
                dirs.insert(name)
            } else {
                files.insert(name)
            };
        }
    }
    Ok((files, dirs))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("is not a file")); // a pipe would be waited for
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(io::Error::other(format!("is larger than {FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paired(names: &[&str]) -> Vec<String> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let show = |(chain, key): (&str, Option<String>)| match key {
            Some(key) => format!("{chain}+{key}"),
            None => chain.to_owned(),
        };
        pairs(&names).into_iter().map(show).collect()
    }

    #[test]
    fn files_are_paired_as_the_usual_tools_lay_them_out() {
        let certbot = ["README", "cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"];
        assert_eq!(paired(&certbot), ["fullchain.pem+privkey.pem"]);
        assert_eq!(paired(&["tls.crt", "tls.key"]), ["tls.crt+tls.key"]); // Kubernetes
        assert_eq!(paired(&["a.b.pem", "a.b-key.pem"]), ["a.b.pem+a.b-key.pem"]); // mkcert
        assert_eq!(
            paired(&["a.example.com.cert", "a.example.com.key", "b.pem", "notes.txt"]),
            ["a.example.com.cert+a.example.com.key", "b.pem",]
        );
        assert_eq!(paired(&["cert.pem", "cert.key"]), ["cert.pem+cert.key"]);
        assert!(paired(&["a.key", "privkey.pem", "x-key.pem", "crt"]).is_empty());
    }

    #[test]
    fn directories_are_looked_into_once() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for sub in ["live/a.example", "live/a.example/deeper", "live/.hidden"] {
            fs::create_dir_all(dir.path().join(sub)).expect("creates");
        }
        for file in [
            "live/x.crt",
            "live/.y.crt",
            "live/a.example/fullchain.pem",
            "live/a.example/deeper/z.crt",
            "live/.hidden/z.crt",
        ] {
            fs::write(dir.path().join(file), "").expect("writes");
        }
        let found = find(&dir.path().join("live")).expect("reads");
        let names: Vec<_> = found.files.iter().map(|files| files.chain.clone()).collect();
        assert_eq!(
            names,
            ["live/x.crt", "live/a.example/fullchain.pem"].map(|p| dir.path().join(p))
        );
        assert!(find(&dir.path().join("nowhere")).is_err());
    }
}
