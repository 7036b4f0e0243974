//! What the log says at the start of a Redis with which state gets lost.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::redis::Server;

/// Keeps the messages of warnings.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<String>>);

impl Visit for Warnings {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.lock().expect("nobody panicked").push_str(&format!("{value:?}\n"));
        }
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// What is said when a store in a Redis with these settings is opened.
async fn said_of(settings: &[&str]) -> String {
    let (server, dir) = (Server::with(settings), tempfile::tempdir().expect("temporary directory"));
    said_by(&server, dir.path()).await
}

async fn said_by(server: &Server, data_dir: &Path) -> String {
    let warnings = Warnings::default();
    let _kept = tracing::subscriber::set_default(warnings.clone());
    server.store(data_dir).await;
    let said = warnings.0.lock().expect("nobody panicked");
    said.clone()
}

#[tokio::test]
async fn settings_that_lose_state_are_named() {
    let said = said_of(&["--save", "", "--appendonly", "no"]).await;
    assert!(said.contains("no persistence") && said.contains("appendonly yes"), "{said}");
    let said = said_of(&["--save", "60 1", "--appendonly", "no"]).await;
    assert!(said.contains("no append-only file"), "{said}");
    let evicting = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    let said = said_of(&[&["--appendonly", "yes"][..], &evicting].concat()).await;
    assert!(said.contains("allkeys-lru") && said.contains("noeviction"), "{said}");
    assert!(!said.contains("append"), "{said}");
    let said = said_of(&["--appendonly", "yes", "--maxmemory", "100mb"]).await;
    assert_eq!(said, "", "nothing gets lost");
}

#[tokio::test]
async fn a_redis_that_was_emptied_is_named() {
    let server = Server::with(&["--appendonly", "yes"]);
    let dir = tempfile::tempdir().expect("temporary directory");
    assert_eq!(said_by(&server, dir.path()).await, "");
    assert_eq!(said_by(&server, dir.path()).await, "");
    server.cli(&["FLUSHALL"]);
    let said = said_by(&server, dir.path()).await;
    assert!(said.contains("begins with nothing") && said.contains("restore a backup"), "{said}");
}
