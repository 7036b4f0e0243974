//! What every task of the control plane works with, made once at the start.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use crate::{
    denied::Denied,
    deploy::Tally,
    engine::{ContainerSpec, Engine},
    error::{Error, Result},
    firewall::{Enforcement, Gate},
    health::{Dependency, Health},
    image::Images,
    invoke::Invocations,
    logs::Logs,
    name::InstanceId,
    resolver,
    run_dir::RunDir,
    secret::Keyring,
    service::Deployment,
    store::Store,
};

/// The bounds that settings may move.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest run of one request.
    pub function_timeout: Duration,
    /// Largest answer of a function, bytes.
    pub response_bytes: usize,
    /// Containers that are being started at one time.
    pub starts: usize,
    /// Replicas of all services together.
    pub replicas: usize,
    /// Images of earlier versions that each service keeps.
    pub images_kept: usize,
    /// How functions are kept from where they may not go.
    pub enforcement: Enforcement,
    /// Which servers the functions' resolver asks.
    pub dns: resolver::Settings,
    /// The process before this one still finishes requests on its replicas.
    pub handed_over: bool,
    /// OCI runtimes that containers may be started with; the first is the default, when there is one.
    pub oci_runtimes: Vec<String>,
    /// The seccomp profile of every container, as the engine's option.
    pub seccomp: Arc<str>,
}

/// What every driver works with.
pub struct Context {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Where everything runs.
    pub engine: Arc<dyn Engine>,
    /// Builds and removes images.
    pub images: Images,
    /// Keeps the output of removed containers.
    pub logs: Arc<Logs>,
    /// Seals and opens environment variables.
    pub keyring: Keyring,
    /// Whether containers may have a network.
    pub gate: Gate,
    /// What functions tried to reach and could not.
    pub denied: Arc<Denied>,
    /// How deployments went.
    pub deployments: Arc<Tally>,
    /// Told about the engine.
    pub health: Health,
    /// Whose containers are ours.
    pub instance: InstanceId,
    /// Where replicas call home.
    pub run_dir: RunDir,
    /// Bounds.
    pub settings: Settings,
    /// One permit per container that is being started.
    pub starts: Semaphore,
    /// One permit per replica.
    pub replicas: Arc<Semaphore>,
    /// One permit per image that is being built.
    pub builds: Semaphore,
    /// Single invocations that run.
    pub invocations: Invocations,
}

impl Context {
    /// As [`Images::build`], but not beyond the time when the engine is known to be away: a build has
    /// long to come to its end, and one that hangs would keep its turn.
    ///
    /// # Errors
    /// Those of the build; `EngineAway`.
    pub(crate) async fn build(
        &self,
        deployment: &Deployment,
        line: &mut (dyn FnMut(String) + Send),
    ) -> Result<()> {
        let built = tokio::select! {
            built = self.images.build(deployment, line) => built,
            reason = self.health.lost(Dependency::Engine) => {
                Err(Error::EngineAway { operation: "build image", reason })
            }
        };
        self.note_made(&built);
        built
    }

    /// Starts a container, see [`Engine::start`].
    ///
    /// # Errors
    /// The engine's.
    pub(crate) async fn start(&self, spec: &ContainerSpec) -> Result<Option<Ipv4Addr>> {
        let started = self.engine.start(spec).await;
        self.note_made(&started);
        started
    }

    /// What is one function's own fault, or says that the engine is away, says nothing about what it
    /// can make.
    fn note_made<T>(&self, outcome: &Result<T>) {
        match outcome {
            Ok(_) => self.health.note_made(None),
            Err(error) if error.is_of_machine() => {
                tracing::error!(%error, "Docker Engine cannot make what it is asked for");
                self.health.note_made(Some(error.to_string()));
            }
            Err(_) => {}
        }
    }
}
