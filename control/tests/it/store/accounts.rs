//! Promises about tokens and the audit log.

use control::{
    account::AccessToken,
    audit::{AuditEntry, AuditQuery},
    error::Error,
    limits,
    name::{ServiceId, TokenId, UserName},
};
use serde_json::Map;

use super::{Subject, at, on_every_store};

on_every_store!(
    tokens_are_found_by_their_digest_until_they_are_revoked,
    tokens_of_a_user_are_bounded,
    uses_of_tokens_are_noted,
    audit_entries_are_numbered_and_found,
);

fn user(name: &str) -> UserName {
    UserName::parse(name).expect("valid")
}

fn token(owner: &str, digest: u8) -> AccessToken {
    AccessToken {
        id: TokenId::new(),
        user: user(owner),
        is_admin: false,
        name: "laptop".to_owned(),
        digest: [digest; 32],
        created_at: at(1),
        expires_at: Some(at(2)),
        last_used_at: None,
    }
}

async fn tokens_are_found_by_their_digest_until_they_are_revoked(store: Subject) {
    let (first, second, bobs) = (token("alice", 1), token("alice", 2), token("bob", 3));
    for token in [&first, &second, &bobs] {
        store.add_token(token).await.expect("adds");
    }
    assert_eq!(store.token(&[1; 32]).await.expect("reads"), Some(first.clone()));
    assert_eq!(store.token(&[9; 32]).await.expect("reads"), None);
    let (alice, bob) = (user("alice"), user("bob"));
    let page = store.tokens(Some(&alice), 0, 10).await.expect("lists");
    assert_eq!((page.count, page.items), (2, vec![second.clone(), first.clone()]));
    let page = store.tokens(None, 1, 1).await.expect("lists");
    assert_eq!((page.count, page.items), (3, vec![second.clone()]));
    let find = async |user: Option<&UserName>, id| {
        store.token_with_id(user, id).await.expect("reads").map(|token| token.digest[0])
    };
    assert_eq!(find(None, first.id).await, Some(1));
    assert_eq!(find(Some(&alice), first.id).await, Some(1));
    assert_eq!(find(Some(&bob), first.id).await, None);
    assert_eq!(find(None, TokenId::new()).await, None);

    assert_eq!(store.remove_token(Some(&bob), first.id).await.expect("is not his"), None);
    assert!(store.token(&[1; 32]).await.expect("reads").is_some());
    let removed = store.remove_token(Some(&alice), first.id).await.expect("revokes");
    assert_eq!(removed, Some(first.clone()));
    assert_eq!(store.token(&[1; 32]).await.expect("reads"), None);
    assert_eq!(store.remove_token(None, first.id).await.expect("is gone"), None);
    assert_eq!(store.remove_token(None, bobs.id).await.expect("revokes"), Some(bobs));
}

async fn tokens_of_a_user_are_bounded(store: Subject) {
    let made = |digest: u8, second, expires_at| AccessToken {
        created_at: at(second),
        expires_at,
        ..token("alice", digest)
    };
    for digest in 0..limits::TOKENS_PER_USER {
        let digest = u8::try_from(digest).expect("few");
        let expires_at = match digest {
            3 => Some(at(9)),
            7 => Some(at(8)),
            _ => None,
        };
        store.add_token(&made(digest, 1, expires_at)).await.expect("adds");
    }
    let error = store.add_token(&made(200, 7, None)).await.expect_err("one too many");
    assert!(matches!(error, Error::Conflict { field: Some("user"), .. }), "{error}");
    store.add_token(&token("bob", 201)).await.expect("adds");

    // Those that have expired make room, the first of them first.
    for (digest, gone) in [(202, 7), (203, 3)] {
        assert!(store.token(&[gone; 32]).await.expect("reads").is_some());
        store.add_token(&made(digest, 9, None)).await.expect("adds");
        assert_eq!(store.token(&[gone; 32]).await.expect("reads"), None);
    }
    assert!(store.add_token(&made(204, 9, None)).await.is_err());
    let page = store.tokens(Some(&user("alice")), 0, 1).await.expect("lists");
    assert_eq!(usize::try_from(page.count).expect("few"), limits::TOKENS_PER_USER);
}

async fn uses_of_tokens_are_noted(store: Subject) {
    let known = token("alice", 1);
    store.add_token(&known).await.expect("adds");
    store.note_token_use(known.id, at(7)).await.expect("notes");
    store.note_token_use(TokenId::new(), at(7)).await.expect("is no error");
    let noted = AccessToken { last_used_at: Some(at(7)), ..known };
    assert_eq!(store.token(&[1; 32]).await.expect("reads"), Some(noted));
}

async fn audit_entries_are_numbered_and_found(store: Subject) {
    let service = ServiceId::new();
    let entry = |who: &str, owner: &str, action: &str, service| AuditEntry {
        id: 0,
        at: at(1),
        user: user(who),
        token: None,
        address: Some("192.0.2.1".parse().expect("an address")),
        action: action.to_owned(),
        owner: user(owner),
        service,
        status: 201,
        detail: Map::new(),
    };
    let entries = [
        entry("alice", "alice", "service.create", Some(service)),
        entry("bob", "bob", "service.create", None),
        entry("alice", "alice", "service.delete", Some(service)),
        entry("al", "al", "service.invoke", None),
        entry("alice", "bob", "service.invoke", Some(ServiceId::new())),
    ];
    for entry in &entries {
        store.append_audit(entry).await.expect("appends");
    }
    let ask = async |query: AuditQuery, offset, limit| {
        let page = store.audit(&query, offset, limit).await.expect("reads");
        (page.count, page.items.iter().map(|entry| entry.id).collect::<Vec<_>>())
    };
    let (all, named) = (AuditQuery::default(), |name| Some(user(name)));
    assert_eq!(ask(all.clone(), 0, 10).await, (5, vec![5, 4, 3, 2, 1]));
    assert_eq!(ask(all.clone(), 1, 2).await, (5, vec![4, 3]));
    assert_eq!(ask(all.clone(), 9, 2).await, (5, vec![]));

    // What they did, and what was done to what is theirs.
    let (of_alice, of_bob) =
        [named("alice"), named("bob")].map(|of| AuditQuery { of, ..all.clone() }).into();
    assert_eq!(ask(of_alice.clone(), 0, 10).await, (3, vec![5, 3, 1]));
    assert_eq!(ask(of_alice.clone(), 1, 1).await, (3, vec![3]));
    assert_eq!(ask(of_bob.clone(), 0, 10).await, (2, vec![5, 2]));
    assert_eq!(ask(AuditQuery { of: named("nobody"), ..all.clone() }, 0, 10).await, (0, vec![]));

    // Other criteria, alone and together.
    let by_alice = AuditQuery { user: named("alice"), ..all.clone() };
    assert_eq!(ask(by_alice.clone(), 2, 10).await, (3, vec![1]));
    let by_bob = AuditQuery { user: named("bob"), ..all.clone() };
    assert_eq!(ask(by_bob, 0, 10).await, (1, vec![2]));
    assert_eq!(ask(AuditQuery { user: named("alice"), ..of_bob }, 0, 10).await, (1, vec![5]));
    let created = |query| AuditQuery { action: Some("service.create".to_owned()), ..query };
    assert_eq!(ask(created(by_alice), 0, 10).await, (1, vec![1]));
    assert_eq!(ask(created(all.clone()), 1, 10).await, (2, vec![1]));
    let about = AuditQuery { service: Some(service), ..all.clone() };
    assert_eq!(ask(about.clone(), 0, 1).await, (2, vec![3]));
    assert_eq!(ask(created(about.clone()), 0, 10).await, (1, vec![1]));
    assert_eq!(ask(AuditQuery { of: named("bob"), ..about }, 0, 10).await, (0, vec![]));
    let kept = store.audit(&all, 4, 1).await.expect("reads").items;
    assert_eq!(kept, [AuditEntry { id: 1, ..entries[0].clone() }]);
}
