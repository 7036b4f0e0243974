//! Who may commit: one data directory at a time, and of it one process.

use std::{fs, path::Path};

use control::store::{
    Durable, Volatile,
    redis::{Part, Redis},
};

use super::{reason, soon};
use crate::{
    redis::{Server, open},
    store::{replica, service},
};

async fn create(store: &Redis, name: &str) -> control::error::Result<control::store::Creation> {
    let (service, first) = service(name);
    store.create_service(&service, &first, None).await
}

async fn refusal(server: &Server, data_dir: &Path, part: Part) -> String {
    match open(&server.socket(), data_dir, part).await {
        Ok(_) => panic!("it is refused"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn one_process_of_a_data_directory_has_control() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temporary directory"));
    let first = server.store(dir.path()).await;
    let refused = refusal(&server, dir.path(), Part::Control).await;
    assert!(refused.contains("is used by another Grid"), "{refused}");
    create(&first, "a").await.expect("creates");

    // Handed over, it is the next one's, at once.
    first.close().await;
    let second = server.store(dir.path()).await;
    assert_eq!(second.instance_id(), first.instance_id());
    let refused = reason(create(&first, "b").await);
    assert!(refused.contains("has no control"), "{refused}");
    create(&second, "b").await.expect("creates");
    assert_eq!(first.service_ids().await.expect("reads").len(), 2, "it goes on to read");
    drop(second);
    create(&server.store(dir.path()).await, "c").await.expect("creates");
}

#[tokio::test]
async fn an_edge_does_not_commit() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temporary directory"));
    let control = server.store(dir.path()).await;
    create(&control, "a").await.expect("creates");
    let edge = open(&server.socket(), dir.path(), Part::Edge).await.expect("opens");
    let refused = reason(create(&edge, "b").await);
    assert!(refused.contains("has no control"), "{refused}");
    let id = edge.service_ids().await.expect("reads")[0];
    edge.request_capacity(id, 3).await.expect("asks");
    assert_eq!(control.view(id).await.expect("reads").demand, 3);
}

/// A copy of what makes a data directory a Grid's.
fn copy(dir: &Path) -> tempfile::TempDir {
    let other = tempfile::tempdir().expect("temporary directory");
    for file in ["instance", "control"] {
        fs::copy(dir.join(file), other.path().join(file)).expect("copies");
    }
    other
}

#[tokio::test]
async fn a_copy_of_the_data_directory_gets_no_control_while_it_is_held() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temporary directory"));
    let store = server.store(dir.path()).await;
    let refused = refusal(&server, copy(dir.path()).path(), Part::Control).await;
    assert!(refused.contains("another Grid controls"), "{refused}");
    create(&store, "a").await.expect("creates");
}

#[tokio::test]
async fn control_that_was_lost_is_fenced() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temporary directory"));
    let lost = server.store(dir.path()).await;
    let (a, first) = service("a");
    lost.create_service(&a, &first, None).await.expect("creates");
    // As when it had stood still for so long that its hold ran out.
    assert_eq!(server.cli(&["DEL", "{grid}:3:control"]), "1");
    let other = copy(dir.path());
    let holder = server.store(other.path()).await;
    let fenced = reason(create(&lost, "b").await);
    assert!(fenced.contains("another Grid controls"), "{fenced}");
    assert!(reason(lost.update_service(&a, None).await).contains("another Grid controls"));
    holder.update_service(&a, None).await.expect("updates");
    assert_eq!(lost.service(a.id).await.expect("reads").expect("is there").version, 2);

    // It has control again when the other one gives it up and is forgotten.
    holder.close().await;
    assert_eq!(server.cli(&["DEL", "{grid}:3:control"]), "1");
    soon(async || create(&lost, "c").await).await;
}

#[tokio::test]
async fn state_of_others_is_refused() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temporary directory"));
    drop(server.store(dir.path()).await);
    let other = tempfile::tempdir().expect("temporary directory");
    drop(Server::start().store(other.path()).await);
    let refused = refusal(&server, other.path(), Part::Edge).await;
    assert!(refused.contains("of another Grid") && refused.contains("GRID_REDIS_PREFIX"));

    server.cli(&["HSET", "{grid}:meta", "schema", "4"]);
    let refused = refusal(&server, dir.path(), Part::Control).await;
    assert!(refused.contains("written by a newer Grid (schema 4"), "{refused}");
    server.cli(&["HSET", "{grid}:meta", "schema", "x"]);
    assert!(refusal(&server, dir.path(), Part::Control).await.contains("unknown schema"));
}

#[tokio::test]
async fn a_replica_outlives_the_control_that_made_it() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temporary directory"));
    let store = server.store(dir.path()).await;
    let (a, first) = service("a");
    store.create_service(&a, &first, None).await.expect("creates");
    store.put_replica(replica(a.id, first.id)).await.expect("puts");
    drop(store);
    let view = server.store(dir.path()).await.view(a.id).await.expect("reads");
    assert_eq!(view.replicas.len(), 1);
}
