//! Docker Engine through bollard. Every call is bounded here, because the client itself only bounds
//! the wait for an answer's first bytes.

mod container;
mod image;
mod network;
mod output;
mod probe;

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    net::Ipv4Addr,
    sync::OnceLock,
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    Docker as Client,
    errors::Error as ClientError,
    models::EventMessage,
    query_parameters::{EventsOptions, EventsOptionsBuilder},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};

use super::{
    About, Container, ContainerSpec, Engine, EngineEvent, Exit, Image, Labels, Network, Output,
    OutputLine, OutputQuery, Probe, label,
};
use crate::{
    advisory::Versions,
    error::{Error, Result},
    limits,
    name::{InstanceId, ReplicaId, ServiceId},
};

/// A Docker Engine (or one that speaks its API).
#[derive(Debug)]
pub struct Docker {
    host: String,
    /// Made at the first call for which the engine's socket exists.
    client: OnceLock<Client>,
}

impl Docker {
    /// A client for the engine at `host` (`unix:///path` or `tcp://address`). Nothing is sent yet,
    /// and the engine need not be there yet.
    pub fn new(host: &str) -> Self {
        Self { host: host.to_owned(), client: OnceLock::new() }
    }

    fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::connect_with_host(&self.host).map_err(|e| Error::EngineAway {
            operation: "connect",
            reason: format!("{}: {e}", self.host),
        })?;
        Ok(self.client.get_or_init(|| client))
    }

    async fn describe(&self) -> Result<About> {
        let client = self.client()?;
        let version =
            call("ask version", "of itself", limits::ENGINE_CALL, client.version()).await?;
        let info = call("ask facts", "about itself", limits::ENGINE_CALL, client.info()).await?;
        let mut runtimes: Vec<_> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort();
        let components = version.components.unwrap_or_default();
        let component =
            |name: &str| components.iter().find(|c| c.name == name).map(|c| c.version.clone());
        Ok(About {
            versions: Versions {
                engine: version.version,
                containerd: component("containerd"),
                runc: component("runc"),
                kernel: version.kernel_version.or(info.kernel_version).unwrap_or_default(),
            },
            oci_runtimes: runtimes,
            no_bound_on: [
                ("memory", info.memory_limit),
                ("swap", info.swap_limit),
                ("processes", info.pids_limit),
                ("CPU", info.cpu_cfs_quota),
            ]
            .into_iter()
            .filter_map(|(what, there)| (there == Some(false)).then_some(what))
            .collect(),
            security: info.security_options.unwrap_or_default(),
        })
    }

    async fn subscribe(&self, instance: &InstanceId) -> Result<BoxStream<'static, EngineEvent>> {
        let mut filters = of_instance(instance, None);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        filters.insert("event".to_owned(), vec!["die".to_owned()]);
        // What is asked for here is on its way while the containers are already being listed.
        let since = jiff::Timestamp::now().saturating_sub(limits::ENGINE_EVENTS_BACK);
        let since = since.map(jiff::Timestamp::as_second).unwrap_or_default().to_string();
        let options = EventsOptionsBuilder::default().filters(&filters).since(&since).build();
        Ok(follow(self.client()?.clone(), options))
    }
}

/// The stream owns its client, so that it may outlive the caller's borrow.
fn follow(client: Client, options: EventsOptions) -> BoxStream<'static, EngineEvent> {
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        let mut events = std::pin::pin!(client.events(Some(options)));
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = sender.closed() => return,
            };
            match event {
                Some(Ok(message)) => {
                    if let Some(event) = died(&message)
                        && sender.send(event).await.is_err()
                    {
                        return;
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "the engine's event stream broke");
                    return;
                }
                None => return,
            }
        }
    });
    futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|event| (event, receiver))
    })
    .boxed()
}

fn died(message: &EventMessage) -> Option<EngineEvent> {
    let attributes = message.actor.as_ref()?.attributes.as_ref()?;
    if attributes.contains_key(label::INVOCATION) {
        return None;
    }
    Some(EngineEvent::Died {
        service: attributes.get(label::SERVICE)?.parse().ok()?,
        replica: attributes.get(label::REPLICA)?.parse().ok()?,
    })
}

#[async_trait]
impl Engine for Docker {
    async fn ping(&self) -> Result<()> {
        call("ping", "the engine", limits::ENGINE_PING, self.client()?.ping()).await.map(|_| ())
    }

    async fn image_id(&self, image: &str) -> Result<Option<String>> {
        self.find_image(image).await
    }

    async fn image_labels(&self, image: &str) -> Result<Option<Labels>> {
        self.labels_of_image(image).await
    }

    async fn pull(&self, image: &str) -> Result<()> {
        self.pull_image(image).await
    }

    async fn build(
        &self,
        tag: &str,
        context: Bytes,
        args: BTreeMap<String, String>,
        network: bool,
        line: &mut (dyn FnMut(String) + Send),
    ) -> Result<()> {
        self.build_image(tag, context, args, network, line).await
    }

    async fn images(
        &self,
        instance: &InstanceId,
        service: Option<ServiceId>,
    ) -> Result<Vec<Image>> {
        self.list_images(instance, service).await
    }

    async fn remove_image(&self, name: &str) -> Result<()> {
        self.delete_image(name).await
    }

    async fn network(&self, instance: &InstanceId) -> Result<Network> {
        self.ensure_network(instance).await
    }

    async fn networks(&self) -> Result<Vec<Network>> {
        self.list_networks().await
    }

    async fn remove_network(&self, instance: &InstanceId) -> Result<()> {
        self.delete_network(instance).await
    }

    async fn about(&self) -> Result<About> {
        self.describe().await
    }

    async fn probe(&self, probe: &Probe) -> Result<String> {
        self.run_probe(probe).await
    }

    async fn start(&self, spec: &ContainerSpec) -> Result<Option<Ipv4Addr>> {
        self.start_container(spec).await
    }

    async fn kill(&self, instance: &InstanceId, replica: &ReplicaId) -> Result<()> {
        self.kill_container(instance, replica).await
    }

    async fn remove(&self, instance: &InstanceId, replica: &ReplicaId) -> Result<()> {
        self.remove_container(instance, replica).await
    }

    async fn exit(
        &self,
        instance: &InstanceId,
        replica: &ReplicaId,
        within: Duration,
    ) -> Result<Option<Exit>> {
        self.await_exit(instance, replica, within).await
    }

    async fn output(
        &self,
        instance: &InstanceId,
        replica: &ReplicaId,
        query: &OutputQuery,
    ) -> Result<Output> {
        self.read_output(instance, replica, query).await
    }

    fn follow_output(
        &self,
        instance: &InstanceId,
        replica: &ReplicaId,
        query: &OutputQuery,
    ) -> Result<BoxStream<'static, Result<OutputLine>>> {
        self.stream_output(instance, replica, query)
    }

    async fn containers(
        &self,
        instance: &InstanceId,
        service: Option<ServiceId>,
    ) -> Result<Vec<Container>> {
        self.list_containers(instance, service).await
    }

    async fn invocations(&self, instance: &InstanceId) -> Result<Vec<ReplicaId>> {
        self.list_invocations(instance).await
    }

    async fn events(&self, instance: &InstanceId) -> Result<BoxStream<'static, EngineEvent>> {
        self.subscribe(instance).await
    }
}

/// Runs one call under its bound and turns the client's error into ours.
async fn call<T>(
    operation: &'static str,
    subject: &str,
    bound: Duration,
    future: impl Future<Output = Result<T, ClientError>>,
) -> Result<T> {
    match tokio::time::timeout(bound, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failure(operation, subject, error)),
        Err(_) => Err(Error::EngineAway {
            operation,
            reason: format!("no answer about {subject} within {} s", bound.as_secs()),
        }),
    }
}

/// Same, for calls to which "it is gone already" is a good answer.
async fn call_unless_gone<T>(
    operation: &'static str,
    subject: &str,
    future: impl Future<Output = Result<T, ClientError>>,
) -> Result<Option<T>> {
    let outcome = async {
        match future.await {
            Ok(value) => Ok(Some(value)),
            Err(ClientError::DockerResponseServerError { status_code, message })
                if is_gone(status_code, &message) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    };
    call(operation, subject, limits::ENGINE_CALL, outcome).await
}

/// Whether the engine says that there is no such thing, or no more. To whom comes while another removes
/// it, it does not say so with its status.
fn is_gone(status_code: u16, message: &str) -> bool {
    const SIGNS: [&str; 2] = ["unrecognized image ID ", "container is marked for removal"];
    status_code == 404 || SIGNS.iter().any(|sign| message.starts_with(sign))
}

fn failure(operation: &'static str, subject: &str, error: ClientError) -> Error {
    match error {
        ClientError::DockerResponseServerError { status_code, message: reason }
            if status_code == 503 || is_passing(&reason) =>
        {
            Error::EngineUnsettled { operation, subject: subject.to_owned(), reason }
        }
        ClientError::DockerStreamError { error: reason } if is_passing(&reason) => {
            Error::EngineUnsettled { operation, subject: subject.to_owned(), reason }
        }
        ClientError::DockerResponseServerError { message: reason, .. }
        | ClientError::DockerStreamError { error: reason } => {
            Error::Engine { operation, subject: subject.to_owned(), reason }
        }
        other => Error::EngineAway { operation, reason: chain(&other) },
    }
}

/// Whether the engine's own words say that something it stands on is away, or that it is ending. Its
/// status is 500 for that as for everything else.
fn is_passing(message: &str) -> bool {
    const SIGNS: [&str; 6] = [
        "transport: Error while dialing", // containerd is away
        "transport is closing",           // it has just gone
        "error reading from server",      // the same, of newer engines
        "ttrpc: closed",                  // the container's shim has
        "context canceled",               // the engine ends
        // It ends while it builds a runner layer. A function's image runs nothing.
        "returned a non-zero code: 137",
    ];
    SIGNS.iter().any(|sign| message.contains(sign))
}

/// An error with its causes: hyper's own text alone says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

fn of_instance(instance: &InstanceId, service: Option<ServiceId>) -> HashMap<String, Vec<String>> {
    let mut labels = vec![format!("{}={instance}", label::INSTANCE)];
    if let Some(service) = service {
        labels.push(format!("{}={service}", label::SERVICE));
    }
    HashMap::from([("label".to_owned(), labels)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// What Docker Engine 20.10 really said, of the other of two at a time.
    #[tokio::test]
    async fn what_another_has_removed_is_gone() {
        let outcome = |status_code: u16, message: &str| {
            let message = message.to_owned();
            let error = ClientError::DockerResponseServerError { status_code, message };
            call_unless_gone("remove image", "x", async { Err::<(), _>(error) })
        };
        let late = "unrecognized image ID \
            sha256:7747736da919136157395c39488bfeecbe36e41e3579ac2e32ff2374b632f0ac";
        assert!(outcome(500, late).await.expect("no failure").is_none());
        assert!(outcome(404, "No such image: x:latest").await.expect("no failure").is_none());
        let marked = "container is marked for removal and cannot be started";
        assert!(outcome(409, marked).await.expect("no failure").is_none());
        assert!(outcome(500, "no space left on device").await.is_err());
    }

    /// What Docker Engine 20.10 really said.
    #[test]
    fn what_passes_is_told_from_what_does_not() {
        let away = "connection error: desc = \"transport: Error while dialing dial unix \
            /run/containerd/containerd.sock: connect: connection refused\": unavailable";
        let kind = |status_code: u16, message: &str| {
            let message = message.to_owned();
            let error = ClientError::DockerResponseServerError { status_code, message };
            failure("start container", "x", error).kind()
        };
        assert_eq!(kind(500, away), Kind::Unavailable);
        assert_eq!(kind(503, "whatever"), Kind::Unavailable);
        let build = |error: &str| {
            let error = ClientError::DockerStreamError { error: error.to_owned() };
            failure("build image", "x", error).kind()
        };
        assert_eq!(build(away), Kind::Unavailable);
        assert_eq!(build("The command '/s' returned a non-zero code: 137"), Kind::Unavailable);
        assert_eq!(build("The command '/s' returned a non-zero code: 1"), Kind::Failed);
        let full = "Error processing tar file(exit status 1): write /function/index.js: no space left on device";
        assert_eq!(build(full), Kind::Failed);
        assert_eq!(kind(500, full), Kind::Failed);
        assert_eq!(kind(400, "Unknown runtime specified x"), Kind::Failed);
    }
}
