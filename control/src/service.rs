//! The records: a service, its deployments, its replicas. They are what the store keeps and what
//! edge and control tell each other through it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    environment::EnvVar,
    name::{
        DeploymentId, FunctionName, HandlerName, PublicDomain, ReplicaId, ServiceId, ServiceName,
        UserName,
    },
};

/// A function as its owner described it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Never changes.
    pub id: ServiceId,
    /// Whose it is. Never changes.
    #[serde(default = "UserName::operator")]
    pub owner: UserName,
    /// For people; unique among its owner's.
    pub name: ServiceName,
    /// With `public_domain` the function's address; the pair is unique.
    pub function_name: FunctionName,
    /// See `function_name`.
    pub public_domain: PublicDomain,
    /// What the next deployment runs.
    pub function: FunctionSpec,
    /// Replicas that are kept running; 0 lets an idle function sleep.
    pub min_replicas: u32,
    /// Replicas that run at most, and so the number of requests at one time.
    pub max_replicas: u32,
    /// Requests per second; 0 for any number, none for what the settings say.
    #[serde(default)]
    pub rate_limit: Option<u32>,
    /// Requests at once, after a quiet time; none for one second's worth, or what the settings say
    /// together with their rate.
    #[serde(default)]
    pub rate_burst: Option<u32>,
    /// The deployment that serves; none before the first one is live.
    pub live_deployment: Option<DeploymentId>,
    /// The newest deployment, in whatever phase.
    pub latest_deployment: DeploymentId,
    /// Counts the changes; a writer names the version that it changes.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its owner last changed it.
    pub updated_at: Timestamp,
}

/// Everything that ends in a container: a change of it makes a new deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionSpec {
    /// A name of `config/runtimes.toml`, such as `node18`.
    pub runtime: String,
    /// What is called.
    pub handler: HandlerName,
    /// The source text. Stores keep it apart, so that lists stay light.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// The shape of event and result.
    pub event_format: EventFormat,
    /// Memory and swap together, in MiB.
    pub memory_mb: u32,
    /// Relative weight; 1024 is one share.
    pub cpu_shares: u32,
    /// What the code may connect to.
    #[serde(default)]
    pub egress: Egress,
    /// OCI runtime that starts its containers; none for the platform's default.
    #[serde(default)]
    pub oci_runtime: Option<String>,
    /// What the code finds in its environment, in the order of the keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_vars: Vec<EnvVar>,
}

impl FunctionSpec {
    /// Whether both run in containers of one image.
    pub fn shares_image_with(&self, other: &Self) -> bool {
        self.runtime == other.runtime && self.code == other.code
    }
}

/// What a function may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// Public addresses: see [`crate::egress`].
    #[default]
    Public,
    /// Nothing: its containers have no network, and start faster.
    None,
}

impl Egress {
    /// As it is written in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Egress::Public => "public",
            Egress::None => "none",
        }
    }
}

/// The shape of event and result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub enum EventFormat {
    /// Grid's own.
    #[default]
    #[serde(rename = "grid")]
    Grid,
    /// That of AWS Lambda function URLs, version 2.0.
    #[serde(rename = "lambda-v2")]
    LambdaV2,
}

impl EventFormat {
    /// As it is written in requests and in the runner's environment.
    pub fn as_str(self) -> &'static str {
        match self {
            EventFormat::Grid => "grid",
            EventFormat::LambdaV2 => "lambda-v2",
        }
    }
}

/// One attempt to make a [`FunctionSpec`] the one that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Greater than that of earlier deployments.
    pub id: DeploymentId,
    /// Whose it is.
    pub service: ServiceId,
    /// What it runs.
    pub function: FunctionSpec,
    /// The last entry of `phases`.
    pub phase: Phase,
    /// When which phase was entered, oldest first.
    pub phases: Vec<PhaseEntry>,
    /// Build output and what Grid did, oldest first, bounded.
    pub log: Vec<LogLine>,
    /// Why it failed, for the person who wrote the code.
    pub error: Option<String>,
    /// Who asked for it, and why.
    #[serde(default)]
    pub origin: Origin,
    /// The deployment whose image it runs in, when that is not its own.
    #[serde(default)]
    pub image_of: Option<DeploymentId>,
    /// When it was asked for.
    pub created_at: Timestamp,
}

impl Deployment {
    /// A deployment that waits for its turn.
    pub fn queued(
        service: ServiceId,
        function: FunctionSpec,
        origin: Origin,
        now: Timestamp,
    ) -> Self {
        Self {
            id: DeploymentId::new(),
            service,
            function,
            origin,
            image_of: None,
            phase: Phase::Queued,
            phases: vec![PhaseEntry { phase: Phase::Queued, at: now }],
            log: Vec::new(),
            error: None,
            created_at: now,
        }
    }
}

impl Deployment {
    /// The deployment whose image it runs in: often its own.
    pub fn image(&self) -> DeploymentId {
        self.image_of.unwrap_or(self.id)
    }

    /// Whether it serves or has served.
    pub fn was_live(&self) -> bool {
        self.phases.iter().any(|entry| entry.phase == Phase::Live)
    }
}

/// Who asked for a deployment, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Who.
    pub by: UserName,
    /// Why.
    pub cause: Cause,
}

impl Default for Origin {
    /// What is said of deployments that were made before their origins were kept.
    fn default() -> Self {
        Self { by: UserName::operator(), cause: Cause::Changed }
    }
}

/// Why there is a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its service was made.
    Created,
    /// Code or settings were changed.
    Changed,
    /// The same was asked for again.
    Redeployed,
    /// An earlier deployment was taken up again.
    RolledBack {
        /// Which one.
        to: DeploymentId,
    },
}

/// How a service is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A deployment serves, and no newer one is on its way.
    Live,
    /// The newest deployment is on its way; an older one may serve meanwhile.
    Deploying,
    /// The newest deployment failed, and none serves.
    Failed,
    /// A deployment is live, but its replicas cannot be started.
    Failing,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Live, Self::Deploying, Self::Failed, Self::Failing];

    /// What follows from the live deployment, the newest one's phase, and whether replicas cannot be
    /// started.
    pub fn of(live: Option<DeploymentId>, latest: Phase, obstructed: bool) -> Self {
        match (live, latest) {
            (_, latest) if !latest.is_settled() => Self::Deploying,
            (None, latest) if latest != Phase::Live => Self::Failed,
            _ if obstructed => Self::Failing,
            _ => Self::Live,
        }
    }

    /// As it is written in answers and queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Deploying => "deploying",
            Self::Failed => "failed",
            Self::Failing => "failing",
        }
    }
}

/// Where a deployment is. It only moves forward, and ends in one of the last three.
///
/// ```text
/// queued → building → deploying → health_checking → live → superseded
///    └──────────┴───────────┴────────────┴→ failed
///    └→ superseded (a newer deployment came before its turn)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for its turn.
    Queued,
    /// The image is being built.
    Building,
    /// The candidate container is being started.
    Deploying,
    /// The candidate loads the code.
    HealthChecking,
    /// It serves.
    Live,
    /// It never will; the one before it still serves.
    Failed,
    /// A newer one took its place.
    Superseded,
}

impl Phase {
    /// Nothing more will happen to a deployment in this phase by itself.
    pub fn is_settled(self) -> bool {
        matches!(self, Phase::Live | Phase::Failed | Phase::Superseded)
    }

    /// As it is written in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Building => "building",
            Phase::Deploying => "deploying",
            Phase::HealthChecking => "health_checking",
            Phase::Live => "live",
            Phase::Failed => "failed",
            Phase::Superseded => "superseded",
        }
    }
}

/// When a deployment entered a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PhaseEntry {
    /// The phase.
    pub phase: Phase,
    /// When.
    pub at: Timestamp,
}

/// A line of a deployment's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When.
    pub at: Timestamp,
    /// One line, without its end.
    pub line: String,
}

/// What edge and control know of one container. Control writes `wish`, the edge writes `seen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Also the name of its run directory.
    pub id: ReplicaId,
    /// Whose it is.
    pub service: ServiceId,
    /// What it runs.
    pub deployment: DeploymentId,
    /// What control wants of it.
    pub wish: Wish,
    /// What the edge saw of it last; none before it called home.
    pub seen: Option<Seen>,
}

impl Replica {
    /// A replica that has not called home yet.
    pub fn new(id: ReplicaId, service: ServiceId, deployment: DeploymentId) -> Self {
        Self { id, service, deployment, wish: Wish::Serve, seen: None }
    }
}

/// What control wants of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// Take its call and give it requests, once its deployment is live.
    Serve,
    /// Give it no more requests and report [`GoneCause::Drained`] when it has none.
    Drain,
}

/// What the edge saw of a replica last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// It called home and its code is loaded.
    Ready,
    /// It is ready and has had nothing to do for the idle time.
    Idle,
    /// It called home, but its code does not load.
    Unloadable {
        /// The loader's message.
        message: String,
    },
    /// The edge will never use it again; its container has to go.
    Gone {
        /// Why.
        cause: GoneCause,
    },
}

/// Why the edge gave up a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GoneCause {
    /// Control asked for it.
    Drained,
    /// A request ran past its deadline.
    TimedOut,
    /// The connection ended: the process is gone or has closed it.
    Closed,
    /// What it sent is not an answer.
    Garbled,
    /// It did not answer `/health` or `/ready` in time.
    Unresponsive,
}

impl GoneCause {
    /// For logs.
    pub fn as_str(self) -> &'static str {
        match self {
            GoneCause::Drained => "drained",
            GoneCause::TimedOut => "a request ran past its deadline",
            GoneCause::Closed => "its connection ended",
            GoneCause::Garbled => "its answer was not valid",
            GoneCause::Unresponsive => "it did not answer a health check",
        }
    }
}

/// Why no replica can be started now: told to waiting requests at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// For the public: short, without internals.
    pub message: String,
    /// When a new attempt will be made.
    pub retry_at: Timestamp,
}

/// All that the edge needs to serve one service, read in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    /// None when the service was deleted; its replicas may outlive it for a moment.
    pub route: Option<Route>,
    /// Every replica that control has made and not yet removed.
    pub replicas: Vec<Replica>,
    /// Requests that run or wait, as the edge last said.
    pub demand: u32,
    /// Set while replicas cannot be started.
    pub obstacle: Option<Obstacle>,
    /// How far the newest deployment is; none for a service that was deleted.
    pub latest_phase: Option<Phase>,
}

/// The part of a service that decides where requests go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The service.
    pub service: ServiceId,
    /// Host.
    pub public_domain: PublicDomain,
    /// Path.
    pub function_name: FunctionName,
    /// The deployment that serves.
    pub live_deployment: Option<DeploymentId>,
    /// See [`Service`].
    pub min_replicas: u32,
    /// See [`Service`].
    pub max_replicas: u32,
    /// See [`Service`].
    pub rate_limit: Option<u32>,
    /// See [`Service`].
    pub rate_burst: Option<u32>,
}

impl Route {
    /// The route of a service that says nothing about itself and has nothing deployed yet.
    pub fn new(
        service: ServiceId,
        public_domain: PublicDomain,
        function_name: FunctionName,
    ) -> Self {
        Self {
            service,
            public_domain,
            function_name,
            live_deployment: None,
            min_replicas: 0,
            max_replicas: 1,
            rate_limit: None,
            rate_burst: None,
        }
    }
}

impl From<&Service> for Route {
    fn from(service: &Service) -> Self {
        Self {
            service: service.id,
            public_domain: service.public_domain.clone(),
            function_name: service.function_name.clone(),
            live_deployment: service.live_deployment,
            min_replicas: service.min_replicas,
            max_replicas: service.max_replicas,
            rate_limit: service.rate_limit,
            rate_burst: service.rate_burst,
        }
    }
}

/// Records for tests.
#[cfg(test)]
pub(crate) mod example {
    use super::*;

    /// A function with this code, and otherwise nothing particular.
    pub(crate) fn function(code: &str, env_vars: Vec<EnvVar>) -> FunctionSpec {
        FunctionSpec {
            runtime: "node18".to_owned(),
            handler: HandlerName::parse("handler").expect("valid"),
            code: code.to_owned(),
            event_format: EventFormat::Grid,
            memory_mb: 128,
            cpu_shares: 1024,
            egress: Egress::Public,
            oci_runtime: None,
            env_vars,
        }
    }

    /// A service that nobody has stored yet, with its first deployment.
    pub(crate) fn service(
        name: &str,
        function: FunctionSpec,
        now: Timestamp,
    ) -> (Service, Deployment) {
        let id = ServiceId::new();
        let origin = Origin { by: UserName::operator(), cause: Cause::Created };
        let first = Deployment::queued(id, function.clone(), origin, now);
        let service = Service {
            id,
            owner: UserName::operator(),
            name: ServiceName::parse(name).expect("valid"),
            function_name: FunctionName::parse(name).expect("valid"),
            public_domain: PublicDomain::parse(format!("{name}.localhost")).expect("valid"),
            function,
            min_replicas: 0,
            max_replicas: 1,
            rate_limit: None,
            rate_burst: None,
            live_deployment: None,
            latest_deployment: first.id,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        (service, first)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_service_that_was_stored_before_there_were_rates_and_owners_is_read() {
        let mut record = json!({
            "id": ServiceId::new(), "name": "a", "function_name": "a", "public_domain": "a.example",
            "function": {
                "runtime": "node18", "handler": "handler", "event_format": "grid",
                "memory_mb": 128, "cpu_shares": 1024,
            },
            "min_replicas": 0, "max_replicas": 4, "live_deployment": null,
            "latest_deployment": DeploymentId::new(), "version": 1,
            "created_at": Timestamp::UNIX_EPOCH, "updated_at": Timestamp::UNIX_EPOCH,
        });
        let read = |record: &Value| serde_json::from_value::<Service>(record.clone());
        let service = read(&record).expect("an old record");
        assert_eq!((service.rate_limit, service.rate_burst), (None, None));
        assert_eq!(service.owner, UserName::operator());
        record["rate_limit"] = json!(0);
        record["rate_burst"] = json!(5);
        let service = read(&record).expect("a new record");
        let route = Route::from(&service);
        assert_eq!((route.rate_limit, route.rate_burst), (Some(0), Some(5)));
    }

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
