//! Directories that the kernel watches for us (inotify).

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;

/// What the kernel tells about directories. Without it there is still the reading now and then.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    dirs: BTreeSet<PathBuf>,
    failing: bool,
}

impl Watch {
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        let told = move |event: notify::Result<notify::Event>| match event {
            // Our own reading is no change.
            Ok(event) if matters(event.kind) => changed.notify_one(),
            Ok(_) => {}
            Err(_) => changed.notify_one(),
        };
        let watcher = notify::recommended_watcher(told);
        let mut watch = Self { watcher: None, dirs: BTreeSet::new(), failing: false };
        match watcher {
            Ok(watcher) => watch.watcher = Some(watcher),
            Err(error) => watch.complain(&error),
        }
        watch
    }

    /// Watches these directories and no others; whether one of them is new.
    pub(super) fn set(&mut self, dirs: BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        for gone in self.dirs.difference(&dirs) {
            let _ = watcher.unwatch(gone); // it may have gone by itself
        }
        let mut failure = None;
        let mut new = false;
        for dir in &dirs {
            // Again for those that are watched: it may be another directory of the same name now.
            match watcher.watch(dir, RecursiveMode::NonRecursive) {
                Ok(()) => new |= !self.dirs.contains(dir),
                Err(error) => failure = Some(error),
            }
        }
        self.dirs = dirs;
        match failure {
            Some(error) if error_matters(&error) => self.complain(&error),
            _ => self.failing = false,
        }
        new
    }

    fn complain(&mut self, error: &notify::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                "watching certificates: {error}; changes are noticed within a minute instead. When \
                 the limit is reached, raise fs.inotify.max_user_watches or max_user_instances"
            );
        }
    }
}

fn matters(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// A directory that went away in between is not worth a word.
fn error_matters(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => false,
        notify::ErrorKind::Io(error) => error.kind() != io::ErrorKind::NotFound,
        _ => true,
    }
}
