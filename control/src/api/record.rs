//! Services and deployments as the API writes them.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    difference::Difference,
    input::DEFAULT_OCI_RUNTIME,
    variables::{Shown, VarRecord},
};
use crate::{
    denied::Summary,
    error::Result,
    name::{
        DeploymentId, FunctionName, HandlerName, PublicDomain, ReplicaId, ServiceId, ServiceName,
        UserName,
    },
    service::{
        Cause, Deployment, Egress, EventFormat, LogLine, Phase, PhaseEntry, Replica, Seen, Service,
        Status, Wish,
    },
};

/// Fields of a service's record that a client may send back but not change.
pub(super) const READ_ONLY: [&str; 13] = [
    "id",
    "owner",
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
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Service)]
pub(super) struct ServiceRecord {
    id: ServiceId,
    owner: UserName,
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
    env_vars: Vec<VarRecord>,
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
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChangedService)]
pub(super) struct ChangedService {
    #[serde(flatten)]
    pub(super) service: ServiceRecord,
    pub(super) deployment: Option<DeploymentRecord>,
}

/// A container: `{"id": "k3v…", "deployment": "0192…", "state": "ready"}`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replica)]
struct ReplicaRecord {
    id: ReplicaId,
    deployment: DeploymentId,
    state: &'static str,
}

/// A deployment in lists and beside its service: without code and log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Deployment)]
pub(super) struct DeploymentRecord {
    id: DeploymentId,
    service: ServiceId,
    phase: Phase,
    phases: Vec<PhaseEntry>,
    /// Who asked for it.
    created_by: UserName,
    /// Why: `created`, `changed`, `redeployed`, `rolled_back`.
    reason: &'static str,
    /// The deployment that a rollback took up again.
    rolled_back_to: Option<DeploymentId>,
    /// The deployment in whose image it runs: often its own.
    image: DeploymentId,
    error: Option<String>,
    function_runtime: String,
    function_handler: HandlerName,
    event_format: EventFormat,
    memory_mb: u32,
    cpu_shares: u32,
    egress: Egress,
    oci_runtime: String,
    env_vars: Vec<VarRecord>,
    created_at: Timestamp,
}

/// A deployment by itself: also with the code that it runs and its log, oldest line first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeploymentDetail)]
pub(super) struct FullDeployment {
    #[serde(flatten)]
    record: DeploymentRecord,
    function_code: String,
    /// Compared to the deployment before it.
    changes: Difference,
    log: Vec<LogLine>,
}

impl ServiceRecord {
    /// The record of a service as everything about it stands now.
    pub(super) async fn load(api: &Api, service: Service) -> Result<Self> {
        let view = api.store.view(service.id).await?;
        let env_vars = Shown::of(&api.keyring, &service).all(&service.function.env_vars);
        // The view may be newer than the record; then the newer state is the one to tell.
        let live = view.route.and_then(|route| route.live_deployment).or(service.live_deployment);
        let latest_phase = view.latest_phase.unwrap_or(Phase::Queued);
        Ok(Self {
            owner: service.owner,
            url: api.public_url.of(&service.public_domain, &service.function_name),
            status: Status::of(live, latest_phase, view.obstacle.is_some()),
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
            env_vars,
            oci_runtime: oci_runtime(service.function.oci_runtime),
            min_replicas: service.min_replicas,
            max_replicas: service.max_replicas,
            rate_limit: service.rate_limit,
            rate_burst: service.rate_burst,
            live_deployment: live,
            latest_deployment: service.latest_deployment,
            latest_deployment_phase: latest_phase,
            created_at: service.created_at,
            updated_at: service.updated_at,
        })
    }
}

/// The OCI runtime as it is called in answers.
pub(super) fn oci_runtime(name: Option<String>) -> String {
    name.unwrap_or_else(|| DEFAULT_OCI_RUNTIME.to_owned())
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

impl FullDeployment {
    /// The record of a deployment and of what it changed.
    pub(super) fn new(mut deployment: Deployment, changes: Difference, shown: &Shown<'_>) -> Self {
        Self {
            changes,
            function_code: std::mem::take(&mut deployment.function.code),
            log: std::mem::take(&mut deployment.log),
            record: DeploymentRecord::new(deployment, shown),
        }
    }
}

impl DeploymentRecord {
    /// The record of a deployment, whose variables are shown as those of its service.
    pub(super) fn new(deployment: Deployment, shown: &Shown<'_>) -> Self {
        let (reason, rolled_back_to) = match deployment.origin.cause {
            Cause::Created => ("created", None),
            Cause::Changed => ("changed", None),
            Cause::Redeployed => ("redeployed", None),
            Cause::RolledBack { to } => ("rolled_back", Some(to)),
        };
        Self {
            image: deployment.image(),
            created_by: deployment.origin.by,
            reason,
            rolled_back_to,
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
            env_vars: shown.all(&deployment.function.env_vars),
            created_at: deployment.created_at,
        }
    }
}
