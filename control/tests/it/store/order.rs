//! Property test: in whatever order owners update and the deployer claims, fails, activates and
//! restarts, deployments keep their rules.

use control::{
    error::Kind,
    name::DeploymentId,
    service::{Deployment, Phase},
    store::{Durable, Volatile, embedded::Embedded},
};
use proptest::prelude::*;

use super::{at, edit, service};

#[derive(Debug, Clone)]
enum Step {
    Update,
    Claim,
    Record(Phase),
    Activate,
    ActivateAny(prop::sample::Index),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let phase = prop::sample::select(vec![
        Phase::Queued,
        Phase::Building,
        Phase::Deploying,
        Phase::HealthChecking,
        Phase::Failed,
    ]);
    prop_oneof![
        4 => Just(Step::Update),
        4 => Just(Step::Claim),
        4 => phase.prop_map(Step::Record),
        3 => Just(Step::Activate),
        1 => any::<prop::sample::Index>().prop_map(Step::ActivateAny),
        1 => Just(Step::Reopen),
    ]
}

/// Rules that hold whatever happened.
fn check(deployments: &[Deployment], live: Option<DeploymentId>) {
    for deployment in deployments {
        let last = deployment.phases.last().map(|entry| entry.phase);
        assert_eq!(last, Some(deployment.phase));
        assert_eq!(deployment.phase == Phase::Live, Some(deployment.id) == live);
        for pair in deployment.phases.windows(2) {
            let (from, to) = (pair[0].phase, pair[1].phase);
            let ended = matches!(from, Phase::Failed | Phase::Superseded)
                || (from == Phase::Live && to != Phase::Superseded);
            assert!(!ended, "{from:?} to {to:?}");
            assert!(to > from || to == Phase::Building, "{from:?} to {to:?}");
        }
    }
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut store = Embedded::open(dir.path()).expect("opens");
    let (mut service, first) = service("a");
    store.create_service(&service, &first, None).await.expect("creates");
    let id = service.id;
    let mut claimed: Option<DeploymentId> = None;
    let mut live: Option<DeploymentId> = None;
    let mut made = vec![first.id];

    for (time, step) in (10..).zip(steps) {
        match step {
            Step::Update => {
                let (next, deployment) = edit(&service, "next");
                made.push(deployment.id);
                service = store.update_service(&next, Some(&deployment)).await.expect("updates");
            }
            Step::Claim => {
                let all = store.deployments(id, 0, usize::MAX).await.expect("lists").items;
                let newest = all.iter().find(|deployment| !deployment.phase.is_settled());
                let got = store.claim_deployment(id, at(time)).await.expect("claims");
                assert_eq!(got.as_ref().map(|got| got.id), newest.map(|newest| newest.id));
                claimed = got.map(|got| got.id);
                let all = store.deployments(id, 0, usize::MAX).await.expect("lists").items;
                let waiting = all.iter().filter(|deployment| !deployment.phase.is_settled());
                assert_eq!(
                    waiting.map(|waiting| waiting.id).collect::<Vec<_>>().as_slice(),
                    claimed.as_slice()
                );
            }
            Step::Record(phase) => {
                let Some(deployment) = claimed else { continue };
                store
                    .record_phase(id, deployment, phase, at(time), vec![], None)
                    .await
                    .expect("records");
            }
            Step::Activate | Step::ActivateAny(_) => {
                let target = match step {
                    Step::ActivateAny(index) => Some(*index.get(&made)),
                    _ => claimed,
                };
                let Some(target) = target else { continue };
                match store.activate_deployment(id, target, at(time)).await {
                    Ok(before) => {
                        assert_eq!(before, live);
                        assert!(live <= Some(target), "an older deployment took over");
                        live = Some(target);
                    }
                    Err(error) => assert_eq!(error.kind(), Kind::Conflict),
                }
            }
            Step::Reopen => {
                drop(store);
                store = Embedded::open(dir.path()).expect("opens");
            }
        }
        let kept = store.service(id).await.expect("reads").expect("is there");
        assert_eq!(kept.live_deployment, live);
        let route = store.view(id).await.expect("reads").route.expect("is there");
        assert_eq!(route.live_deployment, live);
        check(&store.deployments(id, 0, usize::MAX).await.expect("lists").items, live);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn deployments_keep_their_rules(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(run(steps));
    }
}
