//! The suite: each function takes an empty store and checks one promise of `Store`.

use std::sync::Arc;

use control::{
    error::{Error, Kind},
    limits,
    name::{DeploymentId, FunctionName, ServiceId, ServiceName},
    service::{GoneCause, Obstacle, Phase, Replica, Route, Seen, Service, Wish},
    store::{Change, ServiceQuery},
};
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

use super::{Subject, at, edit, line, on_every_store, phases, replica, service};

on_every_store!(
    creates_and_reads_back,
    refuses_a_name_or_address_that_is_taken,
    updates_count_the_version,
    update_moves_name_and_address,
    update_keeps_the_live_deployment,
    deletes_everything_of_a_service,
    deletes_the_version_that_was_read,
    lists_in_order_of_creation,
    claim_takes_the_newest_and_supersedes_the_rest,
    claims_again_what_was_interrupted,
    phases_move_forward,
    failures_keep_their_error,
    logs_are_bounded,
    a_missing_deployment_is_no_error_for_record,
    the_deployment_before_is_found_with_its_code,
    the_image_of_a_deployment_is_kept,
    activation_replaces_the_live_one,
    activation_refuses_what_cannot_serve,
    history_is_bounded,
    replicas_are_put_wished_reported_removed,
    views_of_unknown_services_are_empty,
    replicas_outlive_their_service,
    hints_follow_each_change,
    one_of_many_writers_wins_each_version,
    one_of_many_creators_gets_the_name,
    views_are_of_one_piece,
);

async fn created(store: &Subject, name: &str) -> Service {
    let (service, first) = service(name);
    store.create_service(&service, &first, None).await.expect("creates");
    service
}

async fn read(store: &Subject, id: ServiceId) -> Service {
    store.service(id).await.expect("reads").expect("is there")
}

fn conflict(error: Error) -> (Option<&'static str>, String) {
    match error {
        Error::Conflict { field, message } => (field, message),
        other => panic!("not a conflict: {other}"),
    }
}

async fn creates_and_reads_back(store: Subject) {
    let (service, mut first) = service("a");
    first.log.push(line("queued"));
    store.create_service(&service, &first, None).await.expect("creates");
    assert_eq!(read(&store, service.id).await, service);
    let kept = store.deployment(service.id, first.id).await.expect("reads");
    assert_eq!(kept, Some(first));
    let view = store.view(service.id).await.expect("reads");
    assert_eq!(view.route, Some(Route::from(&service)));
    assert_eq!(store.service_ids().await.expect("lists"), [service.id]);
    assert_eq!(store.service(ServiceId::new()).await.expect("reads"), None);
}

async fn refuses_a_name_or_address_that_is_taken(store: Subject) {
    let kept = created(&store, "a").await;
    let (same_name, first) = service("a");
    let error = store.create_service(&same_name, &first, None).await.expect_err("refused");
    let name = (Some("name"), "A service with this name already exists.".to_owned());
    assert_eq!(conflict(error), name);

    let (mut same_address, first) = service("b");
    same_address.function_name = kept.function_name.clone();
    same_address.public_domain = kept.public_domain.clone();
    let error = store.create_service(&same_address, &first, None).await.expect_err("refused");
    let address = "Another service has this public_domain and function_name.";
    assert_eq!(conflict(error), (Some("function_name"), address.to_owned()));

    // One half of the address may be shared, and a refused service has left nothing behind.
    same_address.public_domain = service("b").0.public_domain;
    store.create_service(&same_address, &first, None).await.expect("creates");
    let mut renamed = read(&store, same_address.id).await;
    renamed.name = kept.name.clone();
    let error = store.update_service(&renamed, None).await.expect_err("refused");
    assert_eq!(conflict(error), name);
    assert_eq!(store.services(&ServiceQuery::all(), 0, 10).await.expect("lists").count, 2);
}

async fn updates_count_the_version(store: Subject) {
    let first = created(&store, "a").await;
    let (next, deployment) = edit(&first, "second");
    let next = store.update_service(&next, Some(&deployment)).await.expect("updates");
    assert_eq!((next.version, next.latest_deployment), (2, deployment.id));
    assert_eq!(next.function.code, "second");
    assert_eq!(read(&store, first.id).await, next);

    let error = store.update_service(&first, None).await.expect_err("refused");
    assert_eq!(conflict(error).0, None);
    let (stranger, _) = service("b");
    let error = store.update_service(&stranger, None).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::NotFound);

    let mut wider = next.clone();
    wider.max_replicas = 20;
    let wider = store.update_service(&wider, None).await.expect("updates");
    assert_eq!((wider.version, wider.latest_deployment), (3, deployment.id));
    let route = store.view(first.id).await.expect("reads").route.expect("is there");
    assert_eq!(route.max_replicas, 20);
}

async fn update_moves_name_and_address(store: Subject) {
    let mut moved = created(&store, "a").await;
    moved.name = ServiceName::parse("c").expect("valid");
    moved.function_name = FunctionName::parse("c").expect("valid");
    store.update_service(&moved, None).await.expect("updates");
    created(&store, "a").await;
    let mut back = read(&store, moved.id).await;
    back.name = ServiceName::parse("a").expect("valid");
    let error = store.update_service(&back, None).await.expect_err("refused");
    assert_eq!(conflict(error).0, Some("name"));
}

async fn update_keeps_the_live_deployment(store: Subject) {
    let service = created(&store, "a").await;
    let first = service.latest_deployment;
    store.activate_deployment(service.id, first, at(5)).await.expect("activates");
    // Read before the activation, written after it: no conflict, and nothing is undone.
    let (next, deployment) = edit(&service, "second");
    let next = store.update_service(&next, Some(&deployment)).await.expect("updates");
    assert_eq!(next.live_deployment, Some(first));
}

async fn deletes_everything_of_a_service(store: Subject) {
    let gone = created(&store, "a").await;
    let stays = created(&store, "b").await;
    assert!(store.delete_service(gone.id, None).await.expect("deletes"));
    assert!(!store.delete_service(gone.id, None).await.expect("finds nothing"));
    assert_eq!(store.service(gone.id).await.expect("reads"), None);
    assert_eq!(store.deployments(gone.id, 0, 10).await.expect("lists").count, 0);
    let first = store.deployment(gone.id, gone.latest_deployment).await.expect("reads");
    assert_eq!(first, None);
    assert_eq!(store.view(gone.id).await.expect("reads").route, None);
    assert_eq!(store.claim_deployment(gone.id, at(5)).await.expect("claims"), None);
    let error = store
        .activate_deployment(gone.id, gone.latest_deployment, at(5))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), Kind::NotFound);

    assert_eq!(store.service_ids().await.expect("lists"), [stays.id]);
    assert_eq!(store.deployments(stays.id, 0, 10).await.expect("lists").count, 1);
    created(&store, "a").await; // name and address are free again
}

async fn deletes_the_version_that_was_read(store: Subject) {
    let read = created(&store, "a").await;
    let (next, deployment) = edit(&read, "second");
    let next = store.update_service(&next, Some(&deployment)).await.expect("updates");
    let error = store.delete_service(read.id, Some(read.version)).await.expect_err("refused");
    assert_eq!(conflict(error).0, None);
    assert_eq!(store.service(read.id).await.expect("reads"), Some(next.clone()));
    // What happens to a service by itself makes no other version.
    store.activate_deployment(read.id, deployment.id, at(5)).await.expect("activates");
    assert!(store.delete_service(read.id, Some(next.version)).await.expect("deletes"));
    assert!(!store.delete_service(read.id, Some(next.version)).await.expect("finds nothing"));
}

async fn lists_in_order_of_creation(store: Subject) {
    let mut services = Vec::new();
    for name in ["d", "b", "a", "c"] {
        services.push(created(&store, name).await);
    }
    store.delete_service(services.remove(1).id, None).await.expect("deletes");
    let page = store.services(&ServiceQuery::all(), 0, 2).await.expect("lists");
    assert_eq!((page.count, page.items.as_slice()), (3, &services[..2]));
    let page = store.services(&ServiceQuery::all(), 2, 2).await.expect("lists");
    assert_eq!((page.count, page.items.as_slice()), (3, &services[2..]));
    assert!(
        store.services(&ServiceQuery::all(), 9, usize::MAX).await.expect("lists").items.is_empty()
    );
    assert!(store.services(&ServiceQuery::all(), 0, 0).await.expect("lists").items.is_empty());
}

async fn claim_takes_the_newest_and_supersedes_the_rest(store: Subject) {
    let mut service = created(&store, "a").await;
    for round in 0..20 {
        let (next, deployment) = edit(&service, &format!("code {round}"));
        service = store.update_service(&next, Some(&deployment)).await.expect("updates");
    }
    let claimed = store.claim_deployment(service.id, at(9)).await.expect("claims");
    let claimed = claimed.expect("something waits");
    assert_eq!(claimed.id, service.latest_deployment);
    assert_eq!(claimed.function.code, "code 19");

    let page = store.deployments(service.id, 0, 100).await.expect("lists");
    assert_eq!((page.count, page.items.len()), (21, 21));
    assert!(page.items.is_sorted_by(|newer, older| newer.id > older.id));
    assert!(page.items.iter().all(|deployment| deployment.function.code.is_empty()));
    for old in &page.items[1..] {
        assert_eq!(phases(old), [Phase::Queued, Phase::Superseded]);
        assert_eq!(old.phases[1].at, at(9));
    }
    let middle = store.deployments(service.id, 5, 3).await.expect("lists");
    assert_eq!((middle.count, middle.items.as_slice()), (21, &page.items[5..8]));

    store.activate_deployment(service.id, claimed.id, at(10)).await.expect("activates");
    assert_eq!(store.claim_deployment(service.id, at(11)).await.expect("claims"), None);
}

async fn claims_again_what_was_interrupted(store: Subject) {
    let service = created(&store, "a").await;
    let (id, first) = (service.id, service.latest_deployment);
    for phase in [Phase::Building, Phase::Deploying, Phase::HealthChecking] {
        store.record_phase(id, first, phase, at(2), vec![], None).await.expect("records");
    }
    let again = store.claim_deployment(id, at(3)).await.expect("claims").expect("is unsettled");
    assert_eq!(again.id, first);
    store.record_phase(id, first, Phase::Building, at(4), vec![], None).await.expect("records");
    let kept = store.deployment(id, first).await.expect("reads").expect("is there");
    assert_eq!(kept.phase, Phase::Building);
}

async fn phases_move_forward(store: Subject) {
    let service = created(&store, "a").await;
    let (id, first) = (service.id, service.latest_deployment);
    let steps = [
        (Phase::Building, 2),
        (Phase::Building, 3),
        (Phase::Deploying, 4),
        (Phase::Queued, 5),
        (Phase::HealthChecking, 6),
        (Phase::Deploying, 7),
    ];
    for (phase, seconds) in steps {
        store
            .record_phase(id, first, phase, at(seconds), vec![line(phase.as_str())], None)
            .await
            .expect("records");
    }
    store.activate_deployment(id, first, at(8)).await.expect("activates");
    for phase in [Phase::Building, Phase::Failed, Phase::Superseded] {
        let error = Some("too late".to_owned());
        store.record_phase(id, first, phase, at(9), vec![], error).await.expect("records");
    }
    let kept = store.deployment(id, first).await.expect("reads").expect("is there");
    let entries: Vec<_> = kept.phases.iter().map(|entry| (entry.phase, entry.at)).collect();
    assert_eq!(
        entries,
        [
            (Phase::Queued, at(1)),
            (Phase::Building, at(2)),
            (Phase::Deploying, at(4)),
            (Phase::HealthChecking, at(6)),
            (Phase::Live, at(8)),
        ]
    );
    assert_eq!((kept.phase, kept.error), (Phase::Live, None));
    assert_eq!(kept.log.len(), steps.len()); // lines count, whether or not the phase moved
}

async fn failures_keep_their_error(store: Subject) {
    let service = created(&store, "a").await;
    let (id, first) = (service.id, service.latest_deployment);
    let error = Some("line 1: no such word".to_owned());
    store
        .record_phase(id, first, Phase::Failed, at(2), vec![line("failed")], error.clone())
        .await
        .expect("records");
    let kept = store.deployment(id, first).await.expect("reads").expect("is there");
    assert_eq!((kept.phase, &kept.error), (Phase::Failed, &error));
    assert_eq!(kept.log, [line("failed")]);
    assert_eq!(store.claim_deployment(id, at(3)).await.expect("claims"), None);
    assert_eq!(read(&store, id).await.live_deployment, None);
}

async fn logs_are_bounded(store: Subject) {
    let service = created(&store, "a").await;
    let (id, first) = (service.id, service.latest_deployment);
    let long = "é".repeat(limits::MESSAGE_CHARS + 1);
    for batch in 0..3 {
        let mut lines: Vec<_> = (0..250).map(|n| line(&format!("{batch} {n}"))).collect();
        lines.push(line(&long));
        store.record_phase(id, first, Phase::Building, at(2), lines, None).await.expect("records");
    }
    let log = store.deployment(id, first).await.expect("reads").expect("is there").log;
    assert_eq!(log.len(), limits::DEPLOYMENT_LOG_LINES);
    assert_eq!(log[0].line, "1 2");
    assert_eq!(log[log.len() - 1].line.chars().count(), limits::MESSAGE_CHARS);
    let page = store.deployments(id, 0, 1).await.expect("lists");
    assert_eq!(page.items[0].log, log);
}

async fn a_missing_deployment_is_no_error_for_record(store: Subject) {
    let (service, first) = service("a");
    store
        .record_phase(service.id, first.id, Phase::Building, at(2), vec![line("x")], None)
        .await
        .expect("ignores");
    let kept = store.deployment(service.id, first.id).await.expect("reads");
    assert_eq!(kept, None);
}

async fn the_image_of_a_deployment_is_kept(store: Subject) {
    let (first_of, mut first) = service("a");
    let other = DeploymentId::new();
    first.image_of = Some(other);
    store.create_service(&first_of, &first, None).await.expect("creates");
    let image = async || {
        let kept = store.deployment(first_of.id, first.id).await.expect("reads").expect("is there");
        kept.image()
    };
    assert_eq!(image().await, other);
    let mut hints = store.watch();
    store.record_image(first_of.id, first.id, None).await.expect("records");
    assert_eq!(image().await, first.id);
    assert_eq!(hints.try_recv(), Ok(Change::Service(first_of.id)));
    store.record_image(first_of.id, first.id, None).await.expect("is so already");
    assert_eq!(hints.try_recv(), Err(TryRecvError::Empty));
    store.record_image(first_of.id, other, None).await.expect("nobody is missed");
}

async fn the_deployment_before_is_found_with_its_code(store: Subject) {
    let first = created(&store, "a").await;
    created(&store, "b").await;
    let (next, second) = edit(&first, "second");
    store.update_service(&next, Some(&second)).await.expect("updates");
    let before = async |id| store.deployment_before(first.id, id).await.expect("reads");
    let found = before(second.id).await.expect("the first");
    assert_eq!((found.id, found.function.code.as_str()), (first.latest_deployment, "first"));
    assert_eq!(before(first.latest_deployment).await, None);
    assert_eq!(store.deployment_before(ServiceId::new(), second.id).await.expect("reads"), None);
}

async fn activation_replaces_the_live_one(store: Subject) {
    let service = created(&store, "a").await;
    let (id, first) = (service.id, service.latest_deployment);
    assert_eq!(store.activate_deployment(id, first, at(2)).await.expect("activates"), None);
    let (next, second) = edit(&service, "second");
    store.update_service(&next, Some(&second)).await.expect("updates");
    let before = store.activate_deployment(id, second.id, at(3)).await.expect("activates");
    assert_eq!(before, Some(first));

    let kept = read(&store, id).await;
    assert_eq!((kept.live_deployment, kept.version), (Some(second.id), 2));
    assert_eq!(kept.function.code, "second");
    let route = store.view(id).await.expect("reads").route.expect("is there");
    assert_eq!(route.live_deployment, Some(second.id));
    let old = store.deployment(id, first).await.expect("reads").expect("is there");
    assert_eq!(phases(&old), [Phase::Queued, Phase::Live, Phase::Superseded]);
    let again = store.activate_deployment(id, second.id, at(4)).await.expect("is live already");
    assert_eq!(again, Some(second.id));
    let new = store.deployment(id, second.id).await.expect("reads").expect("is there");
    assert_eq!(phases(&new), [Phase::Queued, Phase::Live]);
}

async fn activation_refuses_what_cannot_serve(store: Subject) {
    let service = created(&store, "a").await;
    let (id, first) = (service.id, service.latest_deployment);
    let (next, second) = edit(&service, "second");
    store.update_service(&next, Some(&second)).await.expect("updates");
    store.claim_deployment(id, at(2)).await.expect("claims");
    let error = store.activate_deployment(id, first, at(3)).await.expect_err("superseded");
    assert_eq!(error.kind(), Kind::Conflict);
    let (_, unknown) = edit(&service, "unknown");
    let error = store.activate_deployment(id, unknown.id, at(3)).await.expect_err("unknown");
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(read(&store, id).await.live_deployment, None);
}

async fn history_is_bounded(store: Subject) {
    let mut service = created(&store, "a").await;
    let id = service.id;
    let live = service.latest_deployment;
    store.activate_deployment(id, live, at(2)).await.expect("activates");
    let mut previous = live;
    // Far more failures than are kept: the live one is the oldest and stays.
    for round in 0..limits::DEPLOYMENTS_KEPT + 20 {
        let (next, deployment) = edit(&service, "broken");
        service = store.update_service(&next, Some(&deployment)).await.expect("updates");
        if round == 3 {
            let error = store.activate_deployment(id, deployment.id, at(2)).await;
            assert_eq!(error.expect("activates"), Some(live));
            previous = deployment.id;
            continue;
        }
        let error = Some("broken".to_owned());
        store
            .record_phase(id, deployment.id, Phase::Failed, at(3), vec![], error)
            .await
            .expect("records");
    }
    let page = store.deployments(id, 0, 1000).await.expect("lists");
    assert_eq!(page.items.len(), limits::DEPLOYMENTS_KEPT + 2); // those two are older than the rest
    let has = |id| page.items.iter().any(|deployment| deployment.id == id);
    assert!(has(live) && has(previous));

    let (next, last) = edit(&service, "good");
    store.update_service(&next, Some(&last)).await.expect("updates");
    store.activate_deployment(id, last.id, at(4)).await.expect("activates");
    let page = store.deployments(id, 0, 1000).await.expect("lists");
    assert_eq!(page.items.len(), limits::DEPLOYMENTS_KEPT + 1);
    let has = |id| page.items.iter().any(|deployment| deployment.id == id);
    assert!(has(last.id) && has(previous) && !has(live));
}

async fn replicas_are_put_wished_reported_removed(store: Subject) {
    let service = created(&store, "a").await;
    let id = service.id;
    let mut first = replica(id, service.latest_deployment);
    let second = replica(id, service.latest_deployment);
    store.put_replica(first.clone()).await.expect("puts");
    store.put_replica(second.clone()).await.expect("puts");
    store.wish_replica(id, &first.id, Wish::Drain).await.expect("wishes");
    let gone = Seen::Gone { cause: GoneCause::Drained };
    store.report_replica(id, &first.id, gone.clone(), 3).await.expect("reports");
    (first.wish, first.seen) = (Wish::Drain, Some(gone));
    let view = store.view(id).await.expect("reads");
    assert_eq!((view.replicas, view.demand), (vec![first.clone(), second.clone()], 3));

    store.put_replica(Replica { seen: None, ..first.clone() }).await.expect("replaces");
    store.remove_replica(id, &second.id).await.expect("removes");
    store.request_capacity(id, 7).await.expect("asks");
    let obstacle = Obstacle { message: "no memory".to_owned(), retry_at: at(60) };
    store.set_obstacle(id, Some(obstacle.clone())).await.expect("sets");
    let view = store.view(id).await.expect("reads");
    assert_eq!(view.replicas, [Replica { seen: None, ..first }]);
    assert_eq!((view.demand, view.obstacle), (7, Some(obstacle)));
    store.set_obstacle(id, None).await.expect("clears");
    assert_eq!(store.view(id).await.expect("reads").obstacle, None);

    // Unknown replicas are no error and do not come to be.
    store.wish_replica(id, &second.id, Wish::Drain).await.expect("ignores");
    store.report_replica(id, &second.id, Seen::Ready, 0).await.expect("takes the demand");
    store.remove_replica(id, &second.id).await.expect("ignores");
    assert_eq!(store.services_with_replicas().await.expect("lists"), [id]);
    let view = store.view(id).await.expect("reads");
    assert_eq!((view.replicas.len(), view.demand), (1, 0));
}

async fn views_of_unknown_services_are_empty(store: Subject) {
    let id = ServiceId::new();
    store.request_capacity(id, 5).await.expect("ignores");
    let obstacle = Obstacle { message: "x".to_owned(), retry_at: at(1) };
    store.set_obstacle(id, Some(obstacle)).await.expect("ignores");
    let view = store.view(id).await.expect("reads");
    assert_eq!((view.route, view.replicas), (None, vec![]));
    assert_eq!((view.demand, view.obstacle), (0, None));
    assert!(store.service_ids().await.expect("lists").is_empty());
}

async fn replicas_outlive_their_service(store: Subject) {
    let service = created(&store, "a").await;
    let id = service.id;
    let last = replica(id, service.latest_deployment);
    store.put_replica(last.clone()).await.expect("puts");
    store.request_capacity(id, 2).await.expect("asks");
    store.delete_service(id, None).await.expect("deletes");
    let view = store.view(id).await.expect("reads");
    assert_eq!((view.route, view.replicas.as_slice()), (None, [last.clone()].as_slice()));
    assert!(store.service_ids().await.expect("lists").is_empty());
    // A control that begins now finds it by this alone.
    assert_eq!(store.services_with_replicas().await.expect("lists"), [id]);
    store.remove_replica(id, &last.id).await.expect("removes");
    assert!(store.services_with_replicas().await.expect("lists").is_empty());
    let view = store.view(id).await.expect("reads");
    assert_eq!((view.replicas, view.demand), (vec![], 0));
}

/// Exactly one hint has arrived, for this service.
fn hinted(hints: &mut Receiver<Change>, service: ServiceId) {
    assert_eq!(hints.try_recv(), Ok(Change::Service(service)));
    silent(hints);
}

fn silent(hints: &mut Receiver<Change>) {
    assert_eq!(hints.try_recv(), Err(TryRecvError::Empty));
}

async fn hints_follow_each_change(store: Subject) {
    let mut hints = store.watch();
    let service = created(&store, "a").await;
    let id = service.id;
    hinted(&mut hints, id);
    let (taken, first) = super::service("a");
    store.create_service(&taken, &first, None).await.expect_err("refused");
    silent(&mut hints);
    store.claim_deployment(id, at(2)).await.expect("claims");
    silent(&mut hints); // nothing was superseded
    let (next, second) = edit(&service, "second");
    store.update_service(&next, Some(&second)).await.expect("updates");
    hinted(&mut hints, id);
    store.claim_deployment(id, at(2)).await.expect("claims");
    hinted(&mut hints, id);
    let building = || store.record_phase(id, second.id, Phase::Building, at(3), vec![], None);
    building().await.expect("records");
    hinted(&mut hints, id);
    building().await.expect("records");
    silent(&mut hints);
    store.activate_deployment(id, second.id, at(4)).await.expect("activates");
    hinted(&mut hints, id);

    // The first time is news, the second is not.
    let replica = replica(id, second.id);
    for expect in [hinted, |hints: &mut _, _| silent(hints)] {
        store.put_replica(replica.clone()).await.expect("puts");
        expect(&mut hints, id);
    }
    for expect in [hinted, |hints: &mut _, _| silent(hints)] {
        store.wish_replica(id, &replica.id, Wish::Drain).await.expect("wishes");
        expect(&mut hints, id);
    }
    for expect in [hinted, |hints: &mut _, _| silent(hints)] {
        store.report_replica(id, &replica.id, Seen::Ready, 1).await.expect("reports");
        expect(&mut hints, id);
    }
    for expect in [hinted, |hints: &mut _, _| silent(hints)] {
        store.request_capacity(id, 2).await.expect("asks");
        expect(&mut hints, id);
    }
    store.remove_replica(id, &replica.id).await.expect("removes");
    hinted(&mut hints, id);
    store.delete_service(id, None).await.expect("deletes");
    hinted(&mut hints, id);
    store.delete_service(id, None).await.expect("finds nothing");
    silent(&mut hints);
}

async fn one_of_many_writers_wins_each_version(store: Subject) {
    let service = created(&store, "a").await;
    for round in 0..5 {
        let before = read(&store, service.id).await;
        let attempts: Vec<_> = (0..16)
            .map(|writer| {
                let (store, before) = (Arc::clone(&store), before.clone());
                tokio::spawn(async move {
                    let (next, deployment) = edit(&before, &format!("{round} {writer}"));
                    store.update_service(&next, Some(&deployment)).await
                })
            })
            .collect();
        let mut winners = Vec::new();
        for attempt in attempts {
            match attempt.await.expect("does not panic") {
                Ok(winner) => winners.push(winner),
                Err(error) => assert_eq!(conflict(error).0, None),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(winners[0].version, before.version + 1);
        assert_eq!(read(&store, service.id).await, winners[0]);
    }
    assert_eq!(store.deployments(service.id, 0, 1).await.expect("lists").count, 6);
}

async fn one_of_many_creators_gets_the_name(store: Subject) {
    let attempts: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let (service, first) = service("a");
                store.create_service(&service, &first, None).await
            })
        })
        .collect();
    let mut made = 0;
    for attempt in attempts {
        match attempt.await.expect("does not panic") {
            Ok(_) => made += 1,
            Err(error) => assert_eq!(conflict(error).0, Some("name")),
        }
    }
    assert_eq!(made, 1);
    assert_eq!(store.services(&ServiceQuery::all(), 0, 10).await.expect("lists").count, 1);
}

/// Each hint's reader sees at least what the hint is about, and never a mixture of two updates.
async fn views_are_of_one_piece(store: Subject) {
    let mut service = created(&store, "a").await;
    let id = service.id;
    let mut hints = store.watch();
    let watcher = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut last = 0;
            while last < 30 {
                hints.recv().await.expect("the store is there");
                let route = store.view(id).await.expect("reads").route.expect("is there");
                assert_eq!(route.max_replicas, route.min_replicas + 5);
                assert!(route.min_replicas >= last, "views do not go back");
                last = route.min_replicas;
            }
        })
    };
    for round in 1..=30 {
        (service.min_replicas, service.max_replicas) = (round, round + 5);
        service = store.update_service(&service, None).await.expect("updates");
        let route = store.view(id).await.expect("reads").route.expect("is there");
        assert_eq!(route.min_replicas, round, "a writer sees its own write");
    }
    watcher.await.expect("does not panic");
}
