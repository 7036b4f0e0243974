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

    assert_eq!(store.remove_token(Some(&bob), first.id).await.expect("is not his"), None);
    assert!(store.token(&[1; 32]).await.expect("reads").is_some());
    let removed = store.remove_token(Some(&alice), first.id).await.expect("revokes");
    assert_eq!(removed, Some(first.clone()));
    assert_eq!(store.token(&[1; 32]).await.expect("reads"), None);
    assert_eq!(store.remove_token(None, first.id).await.expect("is gone"), None);
    assert_eq!(store.remove_token(None, bobs.id).await.expect("revokes"), Some(bobs));
}

async fn tokens_of_a_user_are_bounded(store: Subject) {
    for digest in 0..limits::TOKENS_PER_USER {
        let digest = u8::try_from(digest).expect("few");
        store.add_token(&token("alice", digest)).await.expect("adds");
    }
    let error = store.add_token(&token("alice", 255)).await.expect_err("one too many");
    assert!(matches!(error, Error::Conflict { field: Some("user"), .. }), "{error}");
    store.add_token(&token("bob", 254)).await.expect("adds");
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
    let entry = |who: &str, action: &str, service| AuditEntry {
        id: 0,
        at: at(1),
        user: user(who),
        token: None,
        address: Some("192.0.2.1".parse().expect("an address")),
        action: action.to_owned(),
        owner: user(who),
        service,
        status: 201,
        detail: Map::new(),
    };
    let entries = [
        entry("alice", "service.create", Some(service)),
        entry("bob", "service.create", None),
        entry("alice", "service.delete", Some(service)),
        entry("al", "service.invoke", None),
    ];
    for entry in &entries {
        store.append_audit(entry).await.expect("appends");
    }
    let ask = async |query: AuditQuery, offset, limit| {
        let page = store.audit(&query, offset, limit).await.expect("reads");
        (page.count, page.items.iter().map(|entry| entry.id).collect::<Vec<_>>())
    };
    let (all, of) = (AuditQuery::default(), |name| Some(user(name)));
    assert_eq!(ask(all.clone(), 0, 10).await, (4, vec![4, 3, 2, 1]));
    assert_eq!(ask(all.clone(), 1, 2).await, (4, vec![3, 2]));
    assert_eq!(ask(all.clone(), 9, 2).await, (4, vec![]));
    let alices = AuditQuery { user: of("alice"), ..all.clone() };
    assert_eq!(ask(alices.clone(), 0, 10).await, (2, vec![3, 1]));
    assert_eq!(ask(alices.clone(), 1, 10).await, (2, vec![1]));
    let created = AuditQuery { action: Some("service.create".to_owned()), ..alices };
    assert_eq!(ask(created, 0, 10).await, (1, vec![1]));
    let about = AuditQuery { service: Some(service), ..all.clone() };
    assert_eq!(ask(about, 0, 1).await, (2, vec![3]));
    let kept = store.audit(&all, 3, 1).await.expect("reads").items;
    assert_eq!(kept, [AuditEntry { id: 1, ..entries[0].clone() }]);
}
