//! Promises about attempts to create a service that are repeated, about owners' names, and about
//! environment variables.

use control::{
    environment::{EnvVar, Environment},
    error::Error,
    limits,
    name::{EnvKey, IdempotencyKey, ServiceId, UserName},
    secret::{FernetKeys, Keyring},
    store::{Attempt, Creation, Resealed, ServiceQuery},
};

use super::{Subject, at, edit, on_every_store, service};

on_every_store!(
    a_repeated_attempt_makes_nothing,
    an_attempt_is_forgotten_after_its_time,
    a_refused_attempt_may_be_repeated,
    names_are_their_owners,
    values_are_sealed_anew_everywhere,
);

fn attempt(key: &str, fingerprint: u8) -> Attempt {
    let key = IdempotencyKey::parse(key).expect("valid");
    Attempt { key, fingerprint: [fingerprint; 32] }
}

async fn count(store: &Subject) -> u64 {
    store.services(&ServiceQuery::all(), 0, 0).await.expect("lists").count
}

async fn a_repeated_attempt_makes_nothing(store: Subject) {
    let (first, deployment) = service("a");
    let create = async |service, deployment, attempt: &Attempt| {
        store.create_service(service, deployment, Some(attempt)).await
    };
    let made = create(&first, &deployment, &attempt("k", 1)).await.expect("creates");
    assert_eq!(made, Creation::New);
    let (again, deployment) = service("a");
    let made = create(&again, &deployment, &attempt("k", 1)).await.expect("repeats");
    assert_eq!(made, Creation::Repeated(first.id));
    let error = create(&again, &deployment, &attempt("k", 2)).await.expect_err("refused");
    assert!(matches!(error, Error::Conflict { field: None, .. }), "{error}");
    assert_eq!(count(&store).await, 1);

    // The key is its user's own, and remembered beyond the service.
    let (mut other, deployment) = service("b");
    other.owner = UserName::parse("bob").expect("valid");
    let made = create(&other, &deployment, &attempt("k", 2)).await.expect("creates");
    assert_eq!(made, Creation::New);
    store.delete_service(first.id, None).await.expect("deletes");
    let made = create(&again, &deployment, &attempt("k", 1)).await.expect("repeats");
    assert_eq!(made, Creation::Repeated(first.id));
    assert_eq!(count(&store).await, 1);
}

async fn an_attempt_is_forgotten_after_its_time(store: Subject) {
    let kept = i64::try_from(limits::ATTEMPTS_REMEMBERED.0.as_secs()).expect("seconds");
    for (name, second, expected) in
        [("a", 1, None), ("b", 1 + kept, Some(())), ("c", 2 + kept, None)]
    {
        let (mut service, first) = service(name);
        service.created_at = at(second);
        let made = store.create_service(&service, &first, Some(&attempt("k", 1))).await;
        let made = made.expect("creates");
        assert_eq!(made == Creation::New, expected.is_none(), "{name}");
    }
}

async fn a_refused_attempt_may_be_repeated(store: Subject) {
    let (taken, first) = service("a");
    store.create_service(&taken, &first, None).await.expect("creates");
    let (again, first) = service("a");
    let key = attempt("k", 1);
    store.create_service(&again, &first, Some(&key)).await.expect_err("the name is taken");
    store.delete_service(taken.id, None).await.expect("deletes");
    let made = store.create_service(&again, &first, Some(&key)).await.expect("creates");
    assert_eq!(made, Creation::New);
}

async fn names_are_their_owners(store: Subject) {
    let (alices, first) = service("a");
    store.create_service(&alices, &first, None).await.expect("creates");
    let (mut bobs, first) = service("a");
    bobs.owner = UserName::parse("bob").expect("valid");
    // The address is everybody's.
    let error = store.create_service(&bobs, &first, None).await.expect_err("refused");
    assert!(matches!(error, Error::Conflict { field: Some("function_name"), .. }), "{error}");
    bobs.public_domain = service("b").0.public_domain;
    store.create_service(&bobs, &first, None).await.expect("creates");
    assert_eq!(count(&store).await, 2);
}

async fn values_are_sealed_anew_everywhere(store: Subject) {
    let old = FernetKeys::generate();
    let (old_ring, ring) = (Keyring::new(&old), Keyring::new(&old.rotated()));
    let sealed = |keyring: &Keyring, value: &str| EnvVar {
        key: EnvKey::parse("KEY").expect("valid"),
        value: keyring.seal(value),
        is_secret: true,
    };
    let (mut first, mut deployment) = service("a");
    first.function.env_vars = vec![sealed(&old_ring, "one")];
    deployment.function.env_vars.clone_from(&first.function.env_vars);
    store.create_service(&first, &deployment, None).await.expect("creates");
    let (mut next, _) = edit(&first, "second");
    next.function.env_vars = vec![sealed(&old_ring, "two")];
    let (_, second) = edit(&next, "second");
    let before = store.update_service(&next, Some(&second)).await.expect("updates");

    let reseal = async |id, ring: &Keyring| {
        let Resealed { renewed, lost } = store.reseal(id, ring).await.expect("reseals");
        (renewed, lost)
    };
    assert_eq!(reseal(first.id, &ring).await, (3, 0));
    assert_eq!(reseal(first.id, &ring).await, (0, 0), "they are under the newest key already");
    let foreign = Keyring::new(&FernetKeys::generate());
    assert_eq!(reseal(first.id, &foreign).await, (0, 3), "what no key opens stays as it is");
    let open = |kept: &[EnvVar]| {
        let opened = Environment::open(kept, &ring).expect("opens");
        assert!(Environment::open(kept, &old_ring).is_err());
        opened.variables[0].1.clone()
    };
    for (id, value) in [(deployment.id, "one"), (second.id, "two")] {
        let kept = store.environment(first.id, id).await.expect("reads");
        assert_eq!(open(&kept), value);
    }
    let after = store.service(first.id).await.expect("reads").expect("is there");
    assert_eq!(open(&after.function.env_vars), "two");
    assert_eq!((after.version, after.updated_at), (before.version, before.updated_at));
    assert_eq!(reseal(ServiceId::new(), &ring).await, (0, 0));
}
