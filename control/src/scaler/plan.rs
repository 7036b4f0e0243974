//! How many replicas a service should have, and which of them should go: pure policy.

use crate::{
    name::{DeploymentId, ReplicaId},
    service::{Seen, ServiceView},
};

/// A replica as the plan sees it.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub id: ReplicaId,
    pub deployment: DeploymentId,
    /// Starting or serving.
    pub counts: bool,
    /// Serving.
    pub serves: bool,
    /// A deployment in progress still needs it.
    pub candidate: bool,
    pub seen: Option<Seen>,
}

/// What should change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Plan {
    pub start: usize,
    pub retire: Vec<ReplicaId>,
}

/// `wanted = clamp(demand, min_replicas, max_replicas)`. More are started when there are fewer,
/// unless `may_start` forbids it. When there are more, idle ones go; others only when there are
/// more than `max_replicas`, those first that do not serve yet. Replicas of other deployments go,
/// except the candidate of one in progress.
pub(super) fn plan(view: &ServiceView, standing: &[Standing], may_start: bool) -> Plan {
    let counting = standing.iter().filter(|replica| replica.counts);
    let Some(route) = &view.route else {
        return Plan { start: 0, retire: counting.map(|replica| replica.id.clone()).collect() };
    };
    let (mut current, others): (Vec<_>, Vec<_>) =
        counting.partition(|replica| Some(replica.deployment) == route.live_deployment);
    let mut retire: Vec<_> =
        others.iter().filter(|replica| !replica.candidate).map(|r| r.id.clone()).collect();
    if route.live_deployment.is_none() {
        return Plan { start: 0, retire };
    }

    let max = route.max_replicas as usize;
    let wanted = (view.demand as usize).max(route.min_replicas as usize).min(max);
    let missing = wanted.saturating_sub(current.len());
    let spare = current.len().saturating_sub(wanted);
    let over = current.len().saturating_sub(max);

    current.sort_by_key(|replica| (replica.seen != Some(Seen::Idle), replica.serves));
    let leaves = |(place, replica): &(usize, &&Standing)| {
        *place < over || (*place < spare && replica.seen == Some(Seen::Idle))
    };
    retire.extend(current.iter().enumerate().filter(leaves).map(|(_, r)| r.id.clone()));
    Plan { start: if may_start { missing } else { 0 }, retire }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        name::{FunctionName, PublicDomain, ServiceId},
        service::Route,
    };

    fn view(live: Option<DeploymentId>, demand: u32, min: u32, max: u32) -> ServiceView {
        ServiceView {
            route: Some(Route {
                live_deployment: live,
                min_replicas: min,
                max_replicas: max,
                ..Route::new(
                    ServiceId::new(),
                    PublicDomain::parse("a.localhost").expect("valid"),
                    FunctionName::parse("a").expect("valid"),
                )
            }),
            replicas: Vec::new(),
            demand,
            obstacle: None,
            latest_phase: None,
        }
    }

    fn replica(deployment: DeploymentId, seen: Option<Seen>) -> Standing {
        Standing {
            id: ReplicaId::random(),
            deployment,
            counts: true,
            serves: seen.is_some(),
            candidate: false,
            seen,
        }
    }

    #[test]
    fn nothing_starts_before_a_deployment_is_live() {
        assert_eq!(plan(&view(None, 5, 2, 4), &[], true), Plan::default());
    }

    #[test]
    fn an_idle_function_sleeps_and_its_old_versions_go() {
        let (old, live) = (DeploymentId::new(), DeploymentId::new());
        let standing = [
            replica(live, Some(Seen::Idle)),
            replica(live, Some(Seen::Ready)),
            replica(old, Some(Seen::Ready)),
        ];
        let plan = plan(&view(Some(live), 0, 0, 4), &standing, true);
        assert_eq!(plan.retire, [standing[2].id.clone(), standing[0].id.clone()]);
        assert_eq!(plan.start, 0);
    }

    #[test]
    fn the_candidate_of_a_deployment_in_progress_stays() {
        let (live, next) = (DeploymentId::new(), DeploymentId::new());
        let mut candidate = replica(next, None);
        candidate.candidate = true;
        let standing = [replica(live, Some(Seen::Ready)), candidate];
        assert_eq!(plan(&view(Some(live), 1, 0, 4), &standing, true), Plan::default());
    }

    proptest! {
        #[test]
        fn the_number_of_replicas_moves_to_what_is_wanted(
            idle in 0usize..6, busy in 0usize..6, starting in 0usize..6,
            demand in 0u32..12, min in 0u32..5, extra in 0u32..6,
        ) {
            let max = (min + extra).max(1);
            let live = DeploymentId::new();
            let mut standing = Vec::new();
            standing.extend((0..idle).map(|_| replica(live, Some(Seen::Idle))));
            standing.extend((0..busy).map(|_| replica(live, Some(Seen::Ready))));
            standing.extend((0..starting).map(|_| replica(live, None)));
            let plan = plan(&view(Some(live), demand, min, max), &standing, true);
            let after = standing.len() + plan.start - plan.retire.len();
            prop_assert!(plan.start == 0 || plan.retire.is_empty());
            prop_assert!(after >= min as usize);
            prop_assert!(after <= max as usize);
            prop_assert!(after >= (demand.min(max)) as usize);
            let busy_retired = standing.iter()
                .filter(|r| r.seen != Some(Seen::Idle) && plan.retire.contains(&r.id)).count();
            prop_assert!(busy_retired <= standing.len().saturating_sub(max as usize));
        }
    }
}
