//! Services and deployments as the API writes them.

use jiff::Timestamp;
use serde::Serialize;

use super::{Api, input::DEFAULT_OCI_RUNTIME};
use crate::{
    denied::Summary,
    error::Result,
    name::{
        DeploymentId, FunctionName, HandlerName, PublicDomain, ReplicaId, ServiceId, ServiceName,
    },
    service::{
        Deployment, Egress, EventFormat, LogLine, Phase, PhaseEntry, Replica, Seen, Service, Wish,
    },
    store::Store,
};

/// Fields of a service's record that a client may send back but not change.
pub(super) const READ_ONLY: [&str; 12] = [
    "id",
    "url",
    "status",
    "problem",
    "live_deployment",
    "latest_deployment",
    "latest_deployment_phase",
    "replicas",
    "egress_denied",
    "created_at",
    "updated_at",
    "deployment",
];

/// A service: `{"id": "9c8b…", "name": "hello", "deploy_type": "FUNCTION", "status": "live", …}`.
#[derive(Debug, Serialize)]
pub(super) struct ServiceRecord {
    id: ServiceId,
    name: ServiceName,
    deploy_type: &'static str,
    function_name: FunctionName,
    function_runtime: String,
    function_handler: HandlerName,
    function_code: String,
    event_format: EventFormat,
    public_domain: PublicDomain,
    url: String,
    memory_mb: u32,
    cpu_shares: u32,
    egress: Egress,
    oci_runtime: String,
    min_replicas: u32,
    max_replicas: u32,
    rate_limit: Option<u32>,
    rate_burst: Option<u32>,
    status: Status,
    /// Why the function cannot be called now, `null` when it can.
    problem: Option<String>,
    live_deployment: Option<DeploymentId>,
    latest_deployment: DeploymentId,
    latest_deployment_phase: Phase,
    replicas: Vec<ReplicaRecord>,
    /// What it tried to reach and could not, since Grid started.
    egress_denied: Summary,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A service with the deployment that the request triggered, `null` when it triggered none.
#[derive(Debug, Serialize)]
pub(super) struct ChangedService {
    #[serde(flatten)]
    pub(super) service: ServiceRecord,
    pub(super) deployment: Option<DeploymentRecord>,
}

/// How a service is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// A deployment serves, and no newer one is on its way.
    Live,
    /// The newest deployment is on its way; an older one may serve meanwhile.
    Deploying,
    /// The newest deployment failed, and none serves.
    Failed,
    /// A deployment is live, but its replicas cannot be started; `problem` says why.
    Failing,
}

/// A container: `{"id": "k3v…", "deployment": "0192…", "state": "ready"}`.
#[derive(Debug, Serialize)]
struct ReplicaRecord {
    id: ReplicaId,
    deployment: DeploymentId,
    state: &'static str,
}

/// A deployment in lists and beside its service: without code and log.
#[derive(Debug, Serialize)]
pub(super) struct DeploymentRecord {
    id: DeploymentId,
    service: ServiceId,
    phase: Phase,
    phases: Vec<PhaseEntry>,
    error: Option<String>,
    function_runtime: String,
    function_handler: HandlerName,
    event_format: EventFormat,
    memory_mb: u32,
    cpu_shares: u32,
    egress: Egress,
    oci_runtime: String,
    created_at: Timestamp,
}

/// A deployment by itself: also with the code that it runs and its log, oldest line first.
#[derive(Debug, Serialize)]
pub(super) struct FullDeployment {
    #[serde(flatten)]
    record: DeploymentRecord,
    function_code: String,
    log: Vec<LogLine>,
}

impl ServiceRecord {
    /// The record of a service as everything about it stands now.
    pub(super) async fn load(api: &Api, service: Service) -> Result<Self> {
        let (store, public_url) = (&*api.store, &api.public_url);
        let latest_phase = latest_phase(store, &service).await?;
        let view = store.view(service.id).await?;
        Ok(Self {
            url: public_url.of(&service.public_domain, &service.function_name),
            status: Status::of(service.live_deployment, latest_phase, view.obstacle.is_some()),
            problem: view.obstacle.map(|obstacle| obstacle.message),
            egress_denied: api.denied.of(service.id),
            replicas: view.replicas.into_iter().map(ReplicaRecord::from).collect(),
            id: service.id,
            name: service.name,
            deploy_type: "FUNCTION",
            function_name: service.function_name,
            function_runtime: service.function.runtime,
            function_handler: service.function.handler,
            function_code: service.function.code,
            event_format: service.function.event_format,
            public_domain: service.public_domain,
            memory_mb: service.function.memory_mb,
            cpu_shares: service.function.cpu_shares,
            egress: service.function.egress,
            oci_runtime: oci_runtime(service.function.oci_runtime),
            min_replicas: service.min_replicas,
            max_replicas: service.max_replicas,
            rate_limit: service.rate_limit,
            rate_burst: service.rate_burst,
            live_deployment: service.live_deployment,
            latest_deployment: service.latest_deployment,
            latest_deployment_phase: latest_phase,
            created_at: service.created_at,
            updated_at: service.updated_at,
        })
    }
}

fn oci_runtime(name: Option<String>) -> String {
    name.unwrap_or_else(|| DEFAULT_OCI_RUNTIME.to_owned())
}

/// The service was read before its deployment, and both may have moved on in between; then the
/// newer state is the one to tell.
async fn latest_phase(store: &dyn Store, service: &Service) -> Result<Phase> {
    if service.live_deployment == Some(service.latest_deployment) {
        return Ok(Phase::Live);
    }
    let deployment = store.deployment(service.id, service.latest_deployment).await?;
    Ok(deployment.map_or(Phase::Queued, |deployment| deployment.phase))
}

impl Status {
    fn of(live: Option<DeploymentId>, latest: Phase, obstructed: bool) -> Self {
        match (live, latest) {
            (_, latest) if !latest.is_settled() => Self::Deploying,
            (None, latest) if latest != Phase::Live => Self::Failed,
            _ if obstructed => Self::Failing,
            _ => Self::Live,
        }
    }
}

impl From<Replica> for ReplicaRecord {
    fn from(replica: Replica) -> Self {
        let state = match (&replica.seen, replica.wish) {
            (Some(Seen::Gone { .. }), _) => "gone",
            (_, Wish::Drain) => "draining",
            (Some(Seen::Unloadable { .. }), _) => "failed",
            (Some(Seen::Idle), _) => "idle",
            (Some(Seen::Ready), _) => "ready",
            (None, _) => "starting",
        };
        Self { id: replica.id, deployment: replica.deployment, state }
    }
}

impl From<Deployment> for FullDeployment {
    fn from(mut deployment: Deployment) -> Self {
        Self {
            function_code: std::mem::take(&mut deployment.function.code),
            log: std::mem::take(&mut deployment.log),
            record: deployment.into(),
        }
    }
}

impl From<Deployment> for DeploymentRecord {
    fn from(deployment: Deployment) -> Self {
        Self {
            id: deployment.id,
            service: deployment.service,
            phase: deployment.phase,
            phases: deployment.phases,
            error: deployment.error,
            function_runtime: deployment.function.runtime,
            function_handler: deployment.function.handler,
            event_format: deployment.function.event_format,
            memory_mb: deployment.function.memory_mb,
            cpu_shares: deployment.function.cpu_shares,
            egress: deployment.function.egress,
            oci_runtime: oci_runtime(deployment.function.oci_runtime),
            created_at: deployment.created_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_change_of_a_serving_function_leaves_it_live() {
        let live = Some(DeploymentId::new());
        assert_eq!(Status::of(None, Phase::Queued, false), Status::Deploying);
        assert_eq!(Status::of(None, Phase::Failed, true), Status::Failed);
        assert_eq!(Status::of(live, Phase::Live, false), Status::Live);
        assert_eq!(Status::of(live, Phase::Live, true), Status::Failing);
        assert_eq!(Status::of(live, Phase::Building, true), Status::Deploying);
        assert_eq!(Status::of(live, Phase::Failed, false), Status::Live);
    }
}
