//! What is kept when the Redis itself fails: it is killed, stands still, is emptied, or is full.

use std::{sync::Arc, time::Duration};

use control::{
    error::{Error, Result},
    name::ServiceId,
    service::Service,
    store::{
        Durable, ServiceQuery, Volatile,
        redis::{Part, Redis},
    },
};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::{SOON, reason, soon, told, until};
use crate::{
    redis::{Server, open},
    store::{edit, replica, service},
};

async fn created(store: &Redis, name: &str) -> Service {
    let (service, first) = service(name);
    store.create_service(&service, &first, None).await.expect("creates");
    service
}

/// Updates a service again and again; returns how often that was acknowledged, and how often it may
/// have been done besides.
async fn updates(store: Redis, id: ServiceId, rounds: usize) -> (u64, u64) {
    let (mut acknowledged, mut unknown) = (0, 0);
    for _ in 0..rounds {
        let kept = soon(async || store.service(id).await).await.expect("is there");
        let (next, deployment) = edit(&kept, "next");
        match told(async || store.update_service(&next, Some(&deployment)).await).await {
            Some(updated) => {
                assert_eq!(updated.version, kept.version + 1);
                acknowledged += 1;
            }
            None => unknown += 1,
        }
    }
    (acknowledged, unknown)
}

/// Writes from several sides while something is done to the Redis.
async fn while_written(server: &mut Server, harm: impl AsyncFnOnce(&mut Server)) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = server.store(dir.path()).await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d"] {
        ids.push(created(&store, name).await.id);
    }
    let mut hints = store.watch();
    let writing = join_all(ids.iter().map(|id| updates(store.clone(), *id, 40)));
    let harming = async {
        hints.recv().await.expect("they write");
        harm(server).await;
    };
    let (outcomes, ()) = tokio::join!(writing, harming);
    for (id, (acknowledged, unknown)) in ids.into_iter().zip(outcomes) {
        let kept = soon(async || store.service(id).await).await.expect("is there");
        let done = kept.version - 1;
        assert!((acknowledged..=acknowledged + unknown).contains(&done), "{done} are done");
        assert!(acknowledged > 0);
        let newest = soon(async || store.deployments(id, 0, 1).await).await;
        assert_eq!(newest.items[0].id, kept.latest_deployment);
    }
    let listed = soon(async || store.services(&ServiceQuery::all(), 0, 9).await).await;
    assert_eq!(listed.count, 4);
}

#[tokio::test]
async fn a_killed_redis_loses_nothing_acknowledged() {
    while_written(&mut Server::durable(), async |server| {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            server.kill();
            server.start_again();
        }
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_stands_still_is_an_error_and_then_none() {
    while_written(&mut Server::start(), async |server| {
        server.pause();
        // Longer than a call is patient.
        tokio::time::sleep(Duration::from_secs(8)).await;
        server.resume();
    })
    .await;
}

#[tokio::test]
async fn calls_to_a_redis_that_stands_still_end() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temporary directory"));
    let store = server.store(dir.path()).await;
    let kept = created(&store, "a").await;
    server.pause();
    let mut calls = Vec::new();
    for _ in 0..50 {
        let (store, id) = (store.clone(), kept.id);
        calls.push(tokio::spawn(async move { reason(store.view(id).await) }));
    }
    for _ in 0..50 {
        let (store, kept) = (store.clone(), kept.clone());
        calls.push(tokio::spawn(async move { reason(store.update_service(&kept, None).await) }));
    }
    for call in calls {
        let answer = timeout(SOON, call).await.expect("each call ends").expect("does not panic");
        assert!(answer.contains("Redis at unix://"), "{answer}");
    }
    server.resume();
    let kept = soon(async || store.service(kept.id).await).await.expect("is there");
    assert!(kept.version <= 2, "one of them may have been done: {}", kept.version);
}

/// That nothing says that there is nothing.
async fn says_that_it_is_emptied(store: &Arc<Redis>, kept: &Service) {
    fn check<T: std::fmt::Debug>(outcome: Result<T>) {
        let said = reason(outcome);
        assert!(said.contains("lost the state") && said.contains("restore a backup"), "{said}");
    }
    let (id, deployment) = (kept.id, kept.latest_deployment);
    let (other, first) = service("b");
    let replica = replica(id, deployment);
    check(store.create_service(&other, &first, None).await);
    check(store.update_service(kept, None).await);
    check(store.delete_service(id, None).await);
    check(store.service(id).await);
    check(store.services(&ServiceQuery::all(), 0, 9).await);
    check(store.service_ids().await);
    check(store.deployment(id, deployment).await);
    check(store.deployment_before(id, deployment).await);
    check(store.deployments(id, 0, 9).await);
    check(store.claim_deployment(id, kept.created_at).await);
    check(store.activate_deployment(id, deployment, kept.created_at).await);
    check(store.environment(id, deployment).await);
    check(store.token(&[0; 32]).await);
    check(store.tokens(None, 0, 9).await);
    check(store.audit(&control::audit::AuditQuery::default(), 0, 9).await);
    check(store.put_replica(replica.clone()).await);
    check(store.remove_replica(id, &replica.id).await);
    check(store.request_capacity(id, 1).await);
    check(store.set_obstacle(id, None).await);
    check(store.view(id).await);
}

#[tokio::test]
async fn an_emptied_redis_is_not_taken_for_an_empty_one() {
    let (mut server, dir) = (Server::durable(), tempfile::tempdir().expect("temporary directory"));
    let store = Arc::new(server.store(dir.path()).await);
    let kept = created(&store, "a").await;
    assert_eq!(store.service_ids().await.expect("lists"), [kept.id]);
    let backup = tempfile::tempdir().expect("temporary directory");
    Server::copy_log(server.dir(), backup.path());
    server.cli(&["FLUSHALL"]);
    says_that_it_is_emptied(&store, &kept).await;

    // Restored, it works again.
    server.kill();
    Server::copy_log(backup.path(), server.dir());
    server.start_again();
    assert_eq!(soon(async || store.service(kept.id).await).await, Some(kept.clone()));
    assert_eq!(store.service_ids().await.expect("lists"), [kept.id]);
    store.update_service(&kept, None).await.expect("updates");
}

#[tokio::test]
async fn a_backup_takes_lists_back_with_it() {
    let (mut server, dir) = (Server::durable(), tempfile::tempdir().expect("temporary directory"));
    let store = server.store(dir.path()).await;
    let edge = open(&server.socket(), dir.path(), Part::Edge).await.expect("opens");
    let kept = created(&store, "a").await;
    let backup = tempfile::tempdir().expect("temporary directory");
    Server::copy_log(server.dir(), backup.path());
    store.delete_service(kept.id, None).await.expect("deletes");
    let lost = created(&store, "b").await;
    for store in [&store, &edge] {
        assert_eq!(store.service_ids().await.expect("lists"), [lost.id]);
    }
    server.kill();
    Server::copy_log(backup.path(), server.dir());
    server.start_again();
    for store in [&store, &edge] {
        let listed = soon(async || store.service_ids().await).await;
        assert_eq!(listed, [kept.id], "one service then and now, but another one");
    }
}

#[tokio::test]
async fn a_full_redis_refuses_whole_changes() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temporary directory"));
    let store = server.store(dir.path()).await;
    let kept = created(&store, "a").await;
    let mut renamed = kept.clone();
    renamed.name = control::name::ServiceName::parse("c").expect("valid");
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let (b, first) = service("b");
    let refused = reason(store.create_service(&b, &first, None).await);
    assert!(refused.contains("OOM"), "{refused}");
    let replica = replica(kept.id, kept.latest_deployment);
    assert!(reason(store.put_replica(replica.clone()).await).contains("OOM"));
    let outcome = store.update_service(&renamed, None).await;
    let is_done = outcome.is_ok();
    if let Err(error) = outcome {
        assert!(matches!(error, Error::Store { .. }), "{error}");
    }
    let read = store.service(kept.id).await.expect("reads").expect("is there");
    assert_eq!((read.version == 2, read.name == renamed.name), (is_done, is_done));

    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    if !is_done {
        store.update_service(&renamed, None).await.expect("updates");
    }
    store.create_service(&b, &first, None).await.expect("creates");
    store.put_replica(replica).await.expect("puts");
    created(&store, "d").await;
    assert_eq!(store.service_ids().await.expect("lists").len(), 3);
}

#[tokio::test]
async fn a_redis_that_cannot_save_refuses_changes() {
    let server = Server::with(&["--save", "3600 1000000", "--appendonly", "no"]);
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = server.store(dir.path()).await;
    let kept = created(&store, "a").await;
    // A file that cannot be written: its name is a directory's.
    std::fs::create_dir_all(server.dir().join("dump.rdb/x")).expect("creates");
    server.cli(&["BGSAVE"]);
    until(async || server.cli(&["INFO", "persistence"]).contains("bgsave_status:err")).await;
    let said = reason(store.update_service(&kept, None).await);
    assert!(said.contains("MISCONF"), "{said}");
    assert!(store.service(kept.id).await.expect("reads").is_some());
    std::fs::remove_dir_all(server.dir().join("dump.rdb")).expect("removes");
    server.cli(&["SAVE"]);
    store.update_service(&kept, None).await.expect("updates");
}
