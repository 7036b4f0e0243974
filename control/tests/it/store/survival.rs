//! What the embedded store promises about its file: what it acknowledged is there again.

use std::{fs, path::Path};

use control::{
    service::Phase,
    store::{Durable, Page, ServiceQuery, Volatile, embedded::Embedded},
};

use super::{at, edit, line, phases, replica, service};

fn open(dir: &Path) -> Embedded {
    Embedded::open(dir).expect("opens")
}

/// The data directory as a `kill -9` at this moment would leave it: what was written, and nothing
/// that a close would add.
fn as_if_killed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("temporary directory");
    fs::copy(dir.join("grid.redb"), copy.path().join("grid.redb")).expect("copies");
    copy
}

#[tokio::test]
async fn everything_acknowledged_survives_a_reopen() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = open(dir.path());
    let instance = store.instance_id().clone();
    let (a, first) = service("a");
    let (b, first_of_b) = service("b");
    store.create_service(&a, &first, None).await.expect("creates");
    store.create_service(&b, &first_of_b, None).await.expect("creates");
    store.activate_deployment(a.id, first.id, at(2)).await.expect("activates");
    let (next, second) = edit(&a, "second");
    let a = store.update_service(&next, Some(&second)).await.expect("updates");
    let failed = Some("no".to_owned());
    store
        .record_phase(a.id, second.id, Phase::Failed, at(3), vec![line("no")], failed)
        .await
        .expect("records");
    store.delete_service(b.id, None).await.expect("deletes");
    store.put_replica(replica(a.id, first.id)).await.expect("puts");
    let deployments = store.deployments(a.id, 0, 10).await.expect("lists");
    let route = store.view(a.id).await.expect("reads").route;
    drop(store); // nothing is closed in any other way

    let store = open(dir.path());
    assert_eq!(store.instance_id(), &instance);
    assert_eq!(store.service_ids().await.expect("lists"), [a.id]);
    assert_eq!(
        store.services(&ServiceQuery::all(), 0, 10).await.expect("lists"),
        Page { count: 1, items: vec![a.clone()] }
    );
    assert_eq!(store.deployments(a.id, 0, 10).await.expect("lists"), deployments);
    let code = store.deployment(a.id, second.id).await.expect("reads").expect("is there");
    assert_eq!(code.function.code, "second");
    let view = store.view(a.id).await.expect("reads");
    assert_eq!((view.route, view.replicas), (route, vec![]));
    // Names are kept with their owners.
    let (again, first) = service("a");
    store.create_service(&again, &first, None).await.expect_err("refused");
    let (again, first) = service("b");
    store.create_service(&again, &first, None).await.expect("creates");
}

#[tokio::test]
async fn a_kill_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = open(dir.path());
    let (service, first) = service("a");
    store.create_service(&service, &first, None).await.expect("creates");
    let store_of = |dir: &tempfile::TempDir| open(dir.path());

    let killed = as_if_killed(dir.path());
    let kept = store_of(&killed).service(service.id).await.expect("reads");
    assert_eq!(kept.as_ref(), Some(&service));

    store.activate_deployment(service.id, first.id, at(2)).await.expect("activates");
    let killed = as_if_killed(dir.path());
    let kept = store_of(&killed).service(service.id).await.expect("reads").expect("is there");
    assert_eq!(kept.live_deployment, Some(first.id));

    store.delete_service(service.id, None).await.expect("deletes");
    let killed = as_if_killed(dir.path());
    assert_eq!(store_of(&killed).service(service.id).await.expect("reads"), None);
}

#[tokio::test]
async fn a_kill_on_the_way_leaves_a_deployment_that_starts_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = open(dir.path());
    let (service, first) = service("a");
    store.create_service(&service, &first, None).await.expect("creates");
    let building = vec![line("building")];
    store
        .record_phase(service.id, first.id, Phase::Building, at(2), building.clone(), None)
        .await
        .expect("records");

    let killed = as_if_killed(dir.path());
    let again = open(killed.path()).claim_deployment(service.id, at(3)).await.expect("claims");
    assert_eq!(again.map(|deployment| deployment.id), Some(first.id));

    // A commit that must survive takes the earlier ones with it.
    store.update_service(&service, None).await.expect("updates");
    let killed = as_if_killed(dir.path());
    let kept = open(killed.path()).deployment(service.id, first.id).await.expect("reads");
    let kept = kept.expect("is there");
    assert_eq!((phases(&kept), kept.log), (vec![Phase::Queued, Phase::Building], building));
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_a_whole_change() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = open(dir.path());
    let mut hints = store.watch();
    let (service, first) = service("a");
    {
        let create = store.create_service(&service, &first, None);
        tokio::pin!(create);
        // Polled once, so that the work has begun; then dropped.
        std::future::poll_fn(|context| {
            let _ = create.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    hints.recv().await.expect("the change is made all the same");
    assert_eq!(store.service(service.id).await.expect("reads").as_ref(), Some(&service));
    assert!(store.view(service.id).await.expect("reads").route.is_some());
}

#[tokio::test]
async fn a_store_that_was_handed_over_is_the_next_ones() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = open(dir.path());
    let (a, first) = service("a");
    store.create_service(&a, &first, None).await.expect("creates");
    store.put_replica(replica(a.id, first.id)).await.expect("puts");
    assert!(Embedded::open(dir.path()).is_err(), "one at a time");
    store.close().await;
    let next = open(dir.path());
    assert_eq!(next.service(a.id).await.expect("reads").map(|service| service.id), Some(a.id));

    let (b, first_of_b) = service("b");
    let refused = store.create_service(&b, &first_of_b, None).await.expect_err("it is closed");
    assert!(refused.to_string().contains("handed it over"), "{refused}");
    assert!(store.service(a.id).await.is_err());
    // Whoever still serves goes on with what it knows.
    assert_eq!(store.service_ids().await.expect("known"), [a.id]);
    assert_eq!(store.view(a.id).await.expect("known").replicas.len(), 1);
    store.request_capacity(a.id, 3).await.expect("nobody listens, nothing fails");
}
