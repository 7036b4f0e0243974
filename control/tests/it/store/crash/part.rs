//! What one worker has in the store, and what its steps make of that.

use std::collections::BTreeMap;

use control::{
    account::AccessToken,
    audit::AuditQuery,
    error::Error,
    name::{DeploymentId, FunctionName, PublicDomain, ServiceId, ServiceName, TokenId, UserName},
    service::{Deployment, Phase, Route, Service},
    store::{Durable, ServiceQuery, Volatile, embedded::Embedded},
};
use serde::{Deserialize, Serialize};

use super::super::{at, service};

/// Everything of one worker, which nobody else touches.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Part {
    pub(super) services: BTreeMap<String, Kept>,
    pub(super) tokens: Vec<TokenId>,
    /// Entries in the audit log, which are numbered from 1 on.
    pub(super) notes: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    pub(super) id: ServiceId,
    pub(super) version: u64,
    pub(super) live: Option<DeploymentId>,
    /// In the order in which they were made: the number of its code, and its phase when that is
    /// settled. Other phases need not survive.
    pub(super) deployments: BTreeMap<DeploymentId, (u64, Option<Phase>)>,
}

/// One durable verb; or one that is not, `Build` and `Use`, which changes nothing that is compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Step {
    Create { name: String, id: ServiceId, first: DeploymentId, code: u64 },
    Update { name: String, deployment: Option<(DeploymentId, u64)> },
    Delete { name: String },
    Claim { name: String },
    Build { name: String, deployment: DeploymentId },
    Fail { name: String, deployment: DeploymentId },
    Activate { name: String, deployment: DeploymentId },
    Add { token: TokenId },
    Revoke { token: TokenId },
    Use { token: TokenId },
    Note,
}

pub(super) fn user(worker: usize) -> UserName {
    UserName::parse(format!("worker-{worker}")).expect("valid")
}

/// Code that tells its number, of a length between a few bytes and several pages.
pub(super) fn code(number: u64) -> String {
    let length = usize::try_from(number * 7919 % 24_000).expect("small");
    let word = format!("{number} ");
    word.repeat(1 + length / word.len())
}

fn number_of(text: &str) -> u64 {
    let number = text.split(' ').next().and_then(|word| word.parse().ok());
    let number = number.expect("code begins with its number");
    assert_eq!(text, code(number), "code is whole");
    number
}

impl Kept {
    pub(super) fn latest(&self) -> (DeploymentId, u64) {
        let (id, (code, _)) = self.deployments.last_key_value().expect("one at least");
        (*id, *code)
    }

    /// Those that are not settled, oldest first.
    pub(super) fn waiting(&self) -> Vec<DeploymentId> {
        let waiting = self.deployments.iter().filter(|(_, (_, phase))| phase.is_none());
        waiting.map(|(id, _)| *id).collect()
    }

    /// The whole record.
    pub(super) fn record(&self, worker: usize, name: &str) -> Service {
        let (mut record, _) = service(name);
        let (latest, number) = self.latest();
        record.id = self.id;
        record.owner = user(worker);
        record.function.code = code(number);
        record.max_replicas = u32::try_from(self.version).expect("small");
        record.version = self.version;
        record.live_deployment = self.live;
        record.latest_deployment = latest;
        record
    }

    fn settle(&mut self, id: DeploymentId, phase: Phase) {
        self.deployments.get_mut(&id).expect("is known").1 = Some(phase);
    }
}

impl Part {
    pub(super) fn after(&self, step: &Step) -> Self {
        let mut part = self.clone();
        match step {
            Step::Create { name, id, first, code } => {
                let deployments = BTreeMap::from([(*first, (*code, None))]);
                let kept = Kept { id: *id, version: 1, live: None, deployments };
                part.services.insert(name.clone(), kept);
            }
            Step::Update { name, deployment } => {
                let kept = part.kept(name);
                kept.version += 1;
                kept.deployments.extend(deployment.map(|(id, code)| (id, (code, None))));
            }
            Step::Delete { name } => drop(part.services.remove(name)),
            Step::Claim { name } => {
                let kept = part.kept(name);
                let waiting = kept.waiting();
                for id in waiting.split_last().map_or(&[][..], |(_, older)| older) {
                    kept.settle(*id, Phase::Superseded);
                }
            }
            Step::Fail { name, deployment } => part.kept(name).settle(*deployment, Phase::Failed),
            Step::Activate { name, deployment } => {
                let kept = part.kept(name);
                let older = kept.waiting().into_iter().filter(|id| id < deployment);
                for id in older.chain(kept.live) {
                    kept.settle(id, Phase::Superseded);
                }
                kept.settle(*deployment, Phase::Live);
                kept.live = Some(*deployment);
            }
            Step::Add { token } => part.tokens.push(*token),
            Step::Revoke { token } => part.tokens.retain(|known| known != token),
            Step::Note => part.notes += 1,
            Step::Build { .. } | Step::Use { .. } => {}
        }
        part
    }

    fn kept(&mut self, name: &str) -> &mut Kept {
        self.services.get_mut(name).expect("is known")
    }

    /// What a store has of a worker, when its parts agree with each other.
    pub(super) async fn load(store: &Embedded, worker: usize) -> Self {
        let owner = user(worker);
        let mut part = Self::default();
        let query = ServiceQuery { owner: Some(owner.clone()), ..ServiceQuery::all() };
        let listed = store.services(&query, 0, 100).await.expect("lists");
        assert_eq!(listed.count, listed.items.len() as u64);
        let ids = store.service_ids().await.expect("lists");
        for record in listed.items {
            assert!(ids.contains(&record.id));
            let found = store.service(record.id).await.expect("reads");
            assert_eq!(found.as_ref(), Some(&record));
            let kept = load_service(store, &record).await;
            assert_eq!(kept.record(worker, record.name.as_str()), record);
            names_are_taken(store, &record).await;
            part.services.insert(record.name.to_string(), kept);
        }
        let tokens = store.tokens(Some(&owner), 0, 1000).await.expect("lists").items;
        part.tokens = tokens.iter().rev().map(|token| token.id).collect();
        for token in tokens {
            assert_eq!(
                token,
                AccessToken { last_used_at: token.last_used_at, ..made(&token.user, token.id) }
            );
        }
        let query = AuditQuery { user: Some(owner), ..AuditQuery::default() };
        let noted = store.audit(&query, 0, 3).await.expect("reads");
        let numbers = noted.items.iter().map(|entry| entry.detail["number"].as_u64());
        let expected = (1..=noted.count).rev().take(3).map(Some);
        assert_eq!(numbers.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "entries are whole");
        part.notes = noted.count;
        part
    }
}

/// A token as it is made for a user.
pub(super) fn made(user: &UserName, id: TokenId) -> AccessToken {
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(id.as_bytes());
    AccessToken {
        id,
        user: user.clone(),
        is_admin: false,
        name: "of a worker".to_owned(),
        digest,
        created_at: at(1),
        expires_at: None,
        last_used_at: None,
    }
}

async fn load_service(store: &Embedded, record: &Service) -> Kept {
    let page = store.deployments(record.id, 0, 1000).await.expect("lists");
    let mut deployments = BTreeMap::new();
    for listed in page.items {
        let found = store.deployment(record.id, listed.id).await.expect("reads");
        let found = found.expect("what is listed is there");
        assert_eq!((found.phase, &found.log), (listed.phase, &listed.log));
        assert_eq!(found.phases.last().map(|entry| entry.phase), Some(found.phase));
        assert_eq!(found.phase == Phase::Live, record.live_deployment == Some(found.id));
        assert_eq!(found.phase == Phase::Failed, found.error.is_some());
        let settled = Some(found.phase).filter(|phase| phase.is_settled());
        deployments.insert(found.id, (number_of(&found.function.code), settled));
    }
    let view = store.view(record.id).await.expect("reads");
    assert_eq!(view.route, Some(Route::from(record)));
    let latest = store.deployment(record.id, record.latest_deployment).await.expect("reads");
    assert_eq!(view.latest_phase, latest.map(|latest| latest.phase));
    Kept { id: record.id, version: record.version, live: record.live_deployment, deployments }
}

/// Nobody else can have the name of a service, nor its address.
async fn names_are_taken(store: &Embedded, record: &Service) {
    let (mut other, first): (Service, Deployment) = service("other");
    other.owner = record.owner.clone();
    other.name = record.name.clone();
    let refused = store.create_service(&other, &first, None).await.expect_err("it is taken");
    assert!(matches!(refused, Error::Conflict { field: Some("name"), .. }), "{refused}");
    other.name = ServiceName::parse("other").expect("valid");
    other.function_name = FunctionName::parse(record.function_name.as_str()).expect("valid");
    other.public_domain = PublicDomain::parse(record.public_domain.as_str()).expect("valid");
    let refused = store.create_service(&other, &first, None).await.expect_err("it is taken");
    assert!(matches!(refused, Error::Conflict { field: Some("function_name"), .. }), "{refused}");
}
