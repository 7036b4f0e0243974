//! Promises about lists of services: filters, order, pages.

use control::{
    name::{ServiceId, UserName},
    service::{Obstacle, Phase, Service, Status},
    store::{Order, ServiceQuery},
};

use super::{Subject, at, edit, on_every_store, service};

on_every_store!(
    filters_take_what_they_say,
    order_is_by_the_keys_then_by_creation,
    status_follows_deployments_and_obstacles,
);

fn user(name: &str) -> UserName {
    UserName::parse(name).expect("valid")
}

async fn created(store: &Subject, owner: &str, name: &str, second: i64) -> Service {
    let (mut service, first) = service(name);
    service.owner = user(owner);
    service.created_at = at(second);
    service.updated_at = at(second);
    store.create_service(&service, &first, None).await.expect("creates");
    service
}

async fn list(store: &Subject, query: &ServiceQuery) -> Vec<ServiceId> {
    let page = store.services(query, 0, 100).await.expect("lists");
    let ids: Vec<_> = page.items.iter().map(|service| service.id).collect();
    assert_eq!(page.count, ids.len() as u64);
    ids
}

fn ordering(keys: &[&str]) -> ServiceQuery {
    let order = |key: &&str| key.parse::<Order>().expect("a key");
    ServiceQuery { ordering: keys.iter().map(order).collect(), ..ServiceQuery::all() }
}

async fn filters_take_what_they_say(store: Subject) {
    let a = created(&store, "alice", "a", 1).await.id;
    let b = created(&store, "bob", "b", 2).await.id;
    let c = created(&store, "alice", "c", 3).await.id;
    assert_eq!(list(&store, &ServiceQuery::all()).await, [a, b, c]);
    let of = |owner| ServiceQuery { owner: Some(user(owner)), ..ServiceQuery::all() };
    assert_eq!(list(&store, &of("alice")).await, [a, c]);
    assert!(list(&store, &of("carol")).await.is_empty());
    let named = |name: &str| ServiceQuery { name: Some(name.to_owned()), ..of("alice") };
    assert_eq!(list(&store, &named("c")).await, [c]);
    assert!(list(&store, &named("b")).await.is_empty());
    assert!(list(&store, &named("no name at all")).await.is_empty());
    store.delete_service(a, None).await.expect("deletes");
    assert_eq!(list(&store, &of("alice")).await, [c]);
    let second = store.services(&ServiceQuery::all(), 1, 1).await.expect("lists");
    assert_eq!((second.count, second.items[0].id), (2, c));
}

async fn order_is_by_the_keys_then_by_creation(store: Subject) {
    let b = created(&store, "alice", "b", 5).await;
    let a = created(&store, "alice", "a", 3).await.id;
    // The same name, which only another owner's service can have.
    let (mut twin, first) = service("b");
    twin.owner = user("bob");
    twin.public_domain = service("c").0.public_domain;
    twin.created_at = at(4);
    store.create_service(&twin, &first, None).await.expect("creates");
    let (b_id, twin) = (b.id, twin.id);
    assert_eq!(list(&store, &ordering(&[])).await, [b_id, a, twin]);
    assert_eq!(list(&store, &ordering(&["name"])).await, [a, b_id, twin]);
    assert_eq!(list(&store, &ordering(&["-name"])).await, [b_id, twin, a]);
    assert_eq!(list(&store, &ordering(&["-name", "created_at"])).await, [twin, b_id, a]);
    assert_eq!(list(&store, &ordering(&["-created_at"])).await, [b_id, twin, a]);
    let (mut next, deployment) = edit(&b, "next");
    next.updated_at = at(9);
    store.update_service(&next, Some(&deployment)).await.expect("updates");
    assert_eq!(list(&store, &ordering(&["-updated_at"])).await[0], b_id);
}

async fn status_follows_deployments_and_obstacles(store: Subject) {
    let service = created(&store, "alice", "a", 1).await;
    let (id, first) = (service.id, service.latest_deployment);
    let is = async |status| {
        for other in Status::ALL {
            let query = ServiceQuery { status: Some(other), ..ServiceQuery::all() };
            let expected = if other == status { vec![id] } else { vec![] };
            assert_eq!(list(&store, &query).await, expected, "{other:?}");
        }
    };
    let fail = async |deployment| {
        let error = Some("no".to_owned());
        let failed = store.record_phase(id, deployment, Phase::Failed, at(2), vec![], error);
        failed.await.expect("records");
    };
    is(Status::Deploying).await;
    fail(first).await;
    is(Status::Failed).await;
    assert_eq!(store.view(id).await.expect("reads").latest_phase, Some(Phase::Failed));
    let (next, second) = edit(&service, "second");
    let service = store.update_service(&next, Some(&second)).await.expect("updates");
    is(Status::Deploying).await;
    store.activate_deployment(id, second.id, at(3)).await.expect("activates");
    is(Status::Live).await;
    let obstacle = Obstacle { message: "full".to_owned(), retry_at: at(9) };
    store.set_obstacle(id, Some(obstacle)).await.expect("sets");
    is(Status::Failing).await;
    store.set_obstacle(id, None).await.expect("sets");
    // One that fails beside the live one changes nothing.
    let (next, third) = edit(&service, "third");
    store.update_service(&next, Some(&third)).await.expect("updates");
    fail(third.id).await;
    is(Status::Live).await;
}
