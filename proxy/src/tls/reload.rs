//! Reads `GRID_CERTS_DIR`, again whenever something in it changes.
//!
//! What is bad never replaces what is good: a certificate whose files cannot be used any more (half
//! written, garbage, another key's, out of its time) is served as it was, until the files are good
//! again or both are gone.

mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::{sync::Notify, time::timeout};

use self::watch::Watch;
use super::{
    certificates::{Certificates, Named, Source},
    files::{self, Files, Found},
    pair::Pair,
};

/// When changes are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// After the last one of a row of changes.
    pub(crate) quiet: Duration,
    /// Even when changes do not end.
    pub(crate) longest: Duration,
    /// Even when no change was noticed.
    pub(crate) again: Duration,
}

/// The directory as it was read last.
pub(crate) struct Reader {
    dir: PathBuf,
    certificates: Arc<Certificates>,
    /// By the chain's file.
    held: BTreeMap<PathBuf, Held>,
    /// What has been said of a file, and of which content of it.
    said: BTreeMap<PathBuf, (Content, String)>,
}

#[derive(Clone)]
struct Held {
    files: Files,
    content: Content,
    pair: Arc<Pair>,
}

/// A digest of a chain and its key, or nothing when they cannot be read.
type Content = Option<[u8; 32]>;

impl Default for Pace {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(250),
            longest: Duration::from_secs(5),
            again: Duration::from_secs(60),
        }
    }
}

impl Reader {
    pub(crate) fn new(dir: PathBuf, certificates: Arc<Certificates>) -> Self {
        Self { dir, certificates, held: BTreeMap::new(), said: BTreeMap::new() }
    }

    /// Reads all of it. Blocks. Gives the directories whose changes matter.
    pub(crate) fn read(&mut self, now: Timestamp) -> BTreeSet<PathBuf> {
        let found = match files::find(&self.dir) {
            Ok(found) => found,
            Err(error) => {
                let dir = self.dir.clone();
                self.complain(&dir, None, format!("cannot be read: {error}; make it readable"));
                // What is served stays: a directory that is away is not one that is empty.
                return watched(&self.dir, &Found::default());
            }
        };
        let mut held = BTreeMap::new();
        let mut faulty = BTreeSet::from([self.dir.clone()]);
        if found.files.len() >= files::MOST_PAIRS {
            let dir = self.dir.clone();
            let most = files::MOST_PAIRS;
            self.complain(
                &dir,
                None,
                format!("has more than {most} certificates: the rest is left out"),
            );
        } else {
            self.said.remove(&self.dir);
        }
        for files in &found.files {
            let before = self.held.get(&files.chain);
            match load(files, before, now) {
                Ok(loaded) => {
                    if before.is_some_and(|before| before.content != loaded.content) {
                        tracing::info!(
                            "read {} again: its certificate has changed",
                            show(&files.chain)
                        );
                    }
                    held.insert(files.chain.clone(), loaded);
                }
                Err(Fault { file, content, reason }) => {
                    let kept = before.cloned();
                    let outcome = match &kept {
                        Some(_) => "the certificate that was there before is served meanwhile",
                        None => "no certificate is served from it",
                    };
                    faulty.insert(file.clone());
                    self.complain(&file, content, format!("{reason} ({outcome})"));
                    held.extend(kept.map(|kept| (files.chain.clone(), kept)));
                }
            }
        }
        // One file of two may be away for a moment while they are replaced.
        for (chain, before) in &self.held {
            if !held.contains_key(chain) && before.files.exist() {
                held.insert(chain.clone(), before.clone());
            } else if !held.contains_key(chain) {
                tracing::info!("{} is gone: its certificate is not served any more", show(chain));
            }
        }
        self.said.retain(|file, _| faulty.contains(file));
        self.held = held;
        let named = self.held.iter().map(|(chain, held)| Named {
            name: show(chain.strip_prefix(&self.dir).unwrap_or(chain)),
            pair: held.pair.clone(),
        });
        self.certificates.set(Source::Directory, named.collect(), now);
        watched(&self.dir, &found)
    }

    /// Logs what is wrong with a file, once for each content of it.
    fn complain(&mut self, file: &Path, content: Content, line: String) {
        let news = (content, line);
        if self.said.get(file) != Some(&news) {
            tracing::error!("reading certificates: {} {}", show(file), news.1);
            self.said.insert(file.to_owned(), news);
        }
    }
}

struct Fault {
    file: PathBuf,
    content: Content,
    reason: String,
}

fn load(files: &Files, before: Option<&Held>, now: Timestamp) -> Result<Held, Fault> {
    let (chain, key) = files.read().map_err(|(file, error)| Fault {
        file,
        content: None,
        reason: format!("cannot be read: {error}; make it readable for Grid"),
    })?;
    let content = Some(Sha256::new().chain_update(&chain).chain_update(&key).finalize().into());
    if let Some(before) = before.filter(|before| before.content == content) {
        return Ok(Held { files: files.clone(), ..before.clone() });
    }
    let fault = |reason: String| Fault { file: files.chain.clone(), content, reason };
    let pair = Pair::from_pem(&chain, &key).map_err(|error| fault(error.to_string()))?;
    if !pair.validity.holds(now) && before.is_some_and(|before| before.pair.validity.holds(now)) {
        let (from, to) = (pair.validity.not_before, pair.validity.not_after);
        return Err(fault(format!(
            "has a certificate that is good from {from} to {to}, which is not now: put one in its \
             place that is"
        )));
    }
    Ok(Held { files: files.clone(), content, pair: Arc::new(pair) })
}

/// The directories whose changes matter: those that were looked into, those that links lead to, and
/// the one that has the directory in it, should that be replaced as a whole.
fn watched(dir: &Path, found: &Found) -> BTreeSet<PathBuf> {
    let targets = found.files.iter().flat_map(|files| {
        [Some(&files.chain), files.key.as_ref()].into_iter().flatten().filter_map(|file| {
            let target = fs::canonicalize(file).ok()?;
            target.parent().map(Path::to_owned)
        })
    });
    let mut dirs: BTreeSet<PathBuf> = targets.collect();
    dirs.extend(found.dirs.iter().filter_map(|dir| fs::canonicalize(dir).ok()));
    dirs.extend(dir.parent().map(Path::to_owned));
    dirs
}

/// Reads again after each change until `stop` turns true.
pub(crate) async fn follow(mut reader: Reader, pace: Pace, stop: impl Future<Output = ()>) {
    let changed = Arc::new(Notify::new());
    let mut watch = Watch::new(changed.clone());
    let reading = async {
        loop {
            let (back, dirs) = match tokio::task::spawn_blocking(move || {
                let dirs = reader.read(Timestamp::now());
                (reader, dirs)
            })
            .await
            {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!("reading certificates ended: {error}; restart Grid");
                    return;
                }
            };
            reader = back;
            if watch.set(dirs) {
                continue; // it may have changed while it was read and not yet watched
            }
            if timeout(pace.again, changed.notified()).await.is_ok() {
                let settled =
                    async { while timeout(pace.quiet, changed.notified()).await.is_ok() {} };
                let _ = timeout(pace.longest, settled).await;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = stop => {}
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
