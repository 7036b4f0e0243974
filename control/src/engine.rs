//! The container engine, as little of it as Grid needs. Containers are named after their replica,
//! and everything carries labels, so nothing about containers has to be stored elsewhere.

pub mod docker;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use ipnet::Ipv4Net;
use jiff::Timestamp;

use crate::{
    advisory::Versions,
    error::Result,
    name::{DeploymentId, InstanceId, ReplicaId, ServiceId},
};

/// Labels of one container or image.
pub type Labels = BTreeMap<String, String>;

/// Names of the labels.
pub mod label {
    /// `true` on everything that Grid made.
    pub const MANAGED: &str = "grid.managed";
    /// The data directory's id.
    pub const INSTANCE: &str = "grid.instance";
    /// The service.
    pub const SERVICE: &str = "grid.service";
    /// The deployment.
    pub const DEPLOYMENT: &str = "grid.deployment";
    /// The replica; containers only.
    pub const REPLICA: &str = "grid.replica";
    /// The runner layer that a function's image is made on; images only.
    pub const RUNNER: &str = "grid.runner";
    /// `true` on containers of single invocations, which are nobody's replicas.
    pub const INVOCATION: &str = "grid.invocation";
}

/// Everything that is needed to make the container of a replica, or of a single invocation.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// Whose data directory.
    pub instance: InstanceId,
    /// Whose function.
    pub service: ServiceId,
    /// Which version.
    pub deployment: DeploymentId,
    /// The container's name follows from it.
    pub replica: ReplicaId,
    /// Whether it is a single invocation's: then it is not among the [`Engine::containers`].
    pub invocation: bool,
    /// Directory on the host that appears read-only at `/run/grid`.
    pub run_dir: std::path::PathBuf,
    /// What runs, and how it is shut in.
    pub sandbox: Sandbox,
}

/// What runs in a container, and how it is shut in. Whatever is the same for all of them is up to
/// the engine's implementation.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Image to run.
    pub image: String,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// None for no network at all.
    pub network: Option<Attachment>,
    /// The OCI runtime that starts it; none for the engine's own choice.
    pub oci_runtime: Option<String>,
    /// The seccomp profile, as the engine's option: `seccomp={…}`.
    pub seccomp: Arc<str>,
    /// Memory and swap together, MiB.
    pub memory_mb: u32,
    /// Relative weight; also sets the ceiling: 1024 is one core, and never less than one.
    pub cpu_shares: u32,
}

/// How a container is attached to the network that functions share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the network.
    pub network: String,
    /// Its DNS server; none for the engine's own choice.
    pub dns: Option<Ipv4Addr>,
}

/// The network that functions share: a bridge of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// As the engine calls it.
    pub name: String,
    /// The interface on the host.
    pub bridge: String,
    /// The containers' addresses.
    pub subnet: Ipv4Net,
    /// The host's address in it.
    pub gateway: Ipv4Addr,
}

/// A command that runs in a container of its own, shut in like a function.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Its container carries this label.
    pub instance: InstanceId,
    /// Image, network and the rest.
    pub sandbox: Sandbox,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Longest run, start included.
    pub within: Duration,
}

/// What the engine says about itself and its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// What runs containers here, and in which versions.
    pub versions: Versions,
    /// Names of the OCI runtimes that it knows.
    pub oci_runtimes: Vec<String>,
    /// Its security features, such as `name=seccomp,profile=default`.
    pub security: Vec<String>,
    /// Bounds that its kernel cannot set: `memory`, `swap`, `processes`, `CPU`.
    pub no_bound_on: Vec<&'static str>,
}

/// A container of ours, as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// From its labels.
    pub service: ServiceId,
    /// From its labels.
    pub deployment: DeploymentId,
    /// From its labels.
    pub replica: ReplicaId,
    /// Whether its process runs.
    pub running: bool,
    /// Its address, when it has a network.
    pub address: Option<Ipv4Addr>,
}

/// An image of ours, as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its tag; its id when it has none, as what an interrupted build leaves.
    pub name: String,
    /// From its labels.
    pub service: ServiceId,
    /// From its labels.
    pub deployment: DeploymentId,
    /// Seconds since 1970.
    pub created: i64,
}

impl Image {
    /// Whether it has a tag, by which containers can be started.
    pub fn is_tagged(&self) -> bool {
        !self.name.starts_with("sha256:")
    }
}

/// How a container's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// It used more memory than it has.
    pub out_of_memory: bool,
    /// Exit status; 137 is a kill.
    pub code: i64,
    /// Its container is gone or going, and whoever asks did not remove it: how it ended says nothing.
    pub removed: bool,
}

impl Exit {
    /// What it means to the one who wrote the function.
    pub fn meaning(self) -> String {
        match self {
            Self { removed: true, .. } => "somebody else removed its container".to_owned(),
            Self { out_of_memory: true, .. } => {
                "it used more memory than the service's memory_mb allows".to_owned()
            }
            Self { code: 137, .. } => "it was killed (status 137)".to_owned(),
            Self { code, .. } => format!("its process exited with status {code}"),
        }
    }
}

/// One line of a container's output, or a piece of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    /// When the engine received it; no two of a stream have the same time.
    pub at: Timestamp,
    /// From standard error.
    pub stderr: bool,
    /// Without its end.
    pub line: String,
    /// Whether it is the beginning of a line.
    pub start: LineStart,
    /// The line goes on behind it.
    pub cut_end: bool,
}

/// Whether a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineStart {
    /// It does.
    Line,
    /// Nothing before it was read.
    Unknown,
    /// It is a piece of the line before.
    Rest,
}

/// Which lines of a container's output are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputQuery {
    /// So many of the newest at most; of these, those within the times. Pieces count as lines.
    pub tail: usize,
    /// None before this time, to the second.
    pub since: Option<Timestamp>,
    /// None after this time, to the second.
    pub until: Option<Timestamp>,
}

/// Lines of a container's output, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The lines.
    pub lines: Vec<OutputLine>,
    /// The query has left out older ones, perhaps.
    pub cut: bool,
}

/// What the engine says without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineEvent {
    /// A container's process ended.
    Died {
        /// Whose it was.
        service: ServiceId,
        /// Which one.
        replica: ReplicaId,
    },
}

/// A container engine. Each call has a bound of its own; `EngineAway` means that the engine did not
/// answer, every other error that it refused.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Succeeds when the engine answers.
    async fn ping(&self) -> Result<()>;

    /// The content id of an image, if it is there.
    async fn image_id(&self, image: &str) -> Result<Option<String>>;

    /// The labels of an image, if it is there.
    async fn image_labels(&self, image: &str) -> Result<Option<Labels>>;

    /// Gets an image from its registry.
    async fn pull(&self, image: &str) -> Result<()>;

    /// Builds an image from a tar archive with a `Dockerfile`, which also sets the labels. Each line
    /// of output is given to `line`. What the Dockerfile runs has no network unless `network` is set.
    async fn build(
        &self,
        tag: &str,
        context: Bytes,
        args: BTreeMap<String, String>,
        network: bool,
        line: &mut (dyn FnMut(String) + Send),
    ) -> Result<()>;

    /// The images that carry this instance's labels, of one service or of all.
    async fn images(&self, instance: &InstanceId, service: Option<ServiceId>)
    -> Result<Vec<Image>>;

    /// Removes an image, by its tag or id; one that is gone or still used is no error.
    async fn remove_image(&self, name: &str) -> Result<()>;

    /// The network that functions share; made when it is not there.
    async fn network(&self, instance: &InstanceId) -> Result<Network>;

    /// The networks of every Grid on this engine.
    async fn networks(&self) -> Result<Vec<Network>>;

    /// Removes that network; one that is gone is no error.
    async fn remove_network(&self, instance: &InstanceId) -> Result<()>;

    /// What the engine is.
    async fn about(&self) -> Result<About>;

    /// Runs a command in a container of its own, and gives all that it wrote. The container is gone
    /// afterwards.
    async fn probe(&self, probe: &Probe) -> Result<String>;

    /// Makes and starts a replica's container. Its address, when it has a network.
    ///
    /// # Errors
    /// `NotFound` of an `image` when that is missing.
    async fn start(&self, spec: &ContainerSpec) -> Result<Option<Ipv4Addr>>;

    /// Ends a container's processes at once; one that has ended or is gone is no error.
    async fn kill(&self, instance: &InstanceId, replica: &ReplicaId) -> Result<()>;

    /// Removes a container, ended or not; one that is gone is no error.
    async fn remove(&self, instance: &InstanceId, replica: &ReplicaId) -> Result<()>;

    /// How a container ended, if it does within the time; none when it still runs.
    async fn exit(
        &self,
        instance: &InstanceId,
        replica: &ReplicaId,
        within: Duration,
    ) -> Result<Option<Exit>>;

    /// What a container wrote so far; nothing when it is gone.
    async fn output(
        &self,
        instance: &InstanceId,
        replica: &ReplicaId,
        query: &OutputQuery,
    ) -> Result<Output>;

    /// The same, and what it writes from then on. Ends when the container does, or is gone, and after
    /// an error.
    ///
    /// # Errors
    /// `EngineAway`, at once or in the stream.
    fn follow_output(
        &self,
        instance: &InstanceId,
        replica: &ReplicaId,
        query: &OutputQuery,
    ) -> Result<BoxStream<'static, Result<OutputLine>>>;

    /// The replicas' containers that carry this instance's labels, of one service or of all.
    async fn containers(
        &self,
        instance: &InstanceId,
        service: Option<ServiceId>,
    ) -> Result<Vec<Container>>;

    /// The containers of single invocations that carry this instance's labels.
    async fn invocations(&self, instance: &InstanceId) -> Result<Vec<ReplicaId>>;

    /// What happens to the replicas' containers of this instance from now on. Ends when the engine goes away.
    async fn events(&self, instance: &InstanceId) -> Result<BoxStream<'static, EngineEvent>>;
}

/// Labels of a function's container or image.
pub fn labels(
    instance: &InstanceId,
    service: ServiceId,
    deployment: DeploymentId,
    replica: Option<&ReplicaId>,
) -> Labels {
    let mut labels = Labels::from([
        (label::MANAGED.to_owned(), "true".to_owned()),
        (label::INSTANCE.to_owned(), instance.to_string()),
        (label::SERVICE.to_owned(), service.to_string()),
        (label::DEPLOYMENT.to_owned(), deployment.to_string()),
    ]);
    if let Some(replica) = replica {
        labels.insert(label::REPLICA.to_owned(), replica.to_string());
    }
    labels
}
