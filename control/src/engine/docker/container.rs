//! Containers of Docker Engine: the hardened one in which a function runs, and what becomes of it.

use std::{collections::HashMap, net::Ipv4Addr, time::Duration};

use bollard::{
    errors::Error as ClientError,
    models::{
        ContainerCreateBody, ContainerState, ContainerStateStatusEnum, ContainerSummary,
        ContainerSummaryStateEnum, EndpointSettings, HealthConfig, HostConfig,
        HostConfigCgroupnsModeEnum, HostConfigLogConfig, ResourcesUlimits,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptions,
        ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
        WaitContainerOptions,
    },
};
use futures_util::StreamExt;

use super::{Docker, call, call_unless_gone, of_instance};
use crate::{
    engine::{Container, ContainerSpec, Exit, Sandbox, label, labels},
    error::{Error, Result},
    limits,
    name::{InstanceId, ReplicaId, ServiceId},
};

/// How long after the loss of its answer a start may still be waiting for its turn in the engine. While
/// it runs, the engine answers no inspection.
const LATE_START: Duration = Duration::from_millis(500);

impl Docker {
    pub(super) async fn start_container(&self, spec: &ContainerSpec) -> Result<Option<Ipv4Addr>> {
        let name = container_name(&spec.instance, &spec.replica);
        self.create_and_start(&name, create_body(spec)).await?;
        let Some(attachment) = &spec.sandbox.network else { return Ok(None) };
        let inspect = self.client()?.inspect_container(&name, None::<InspectContainerOptions>);
        // One that has ended meanwhile has no address, and needs none.
        let found = match call_unless_gone("inspect container", &name, inspect).await {
            Ok(found) => found,
            // It runs, which is what was asked for. The next list of containers has its address.
            Err(error) => {
                tracing::debug!(container = %name, %error, "the address is not known yet");
                None
            }
        };
        let networks = found.and_then(|found| found.network_settings?.networks);
        Ok(networks.as_ref().and_then(|networks| address(networks.get(&attachment.network)?)))
    }

    /// # Errors
    /// `NotFound` of an `image` when that is missing.
    pub(super) async fn create_and_start(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<()> {
        let image = body.image.clone().unwrap_or_default();
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let create = self.client()?.create_container(Some(options), body);
        call_unless_gone("create container", name, create)
            .await?
            .ok_or(Error::NotFound { what: "image", id: image })?;
        let start = self.client()?.start_container(name, None::<StartContainerOptions>);
        match call_unless_gone("start container", name, start).await {
            Ok(Some(())) => Ok(()),
            // The container, or the network that it was to have: somebody was at work here.
            Ok(None) => Err(Error::Busy(format!(
                "{name} or its network was removed while it was being started"
            ))),
            // It may run by now, and be at work: then to call this a failure would end it in the
            // middle of somebody's request.
            Err(error @ Error::EngineAway { .. }) => match self.runs_after_all(name).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(error),
                Err(_) => {
                    Err(Error::StartUnknown { subject: name.to_owned(), reason: error.to_string() })
                }
            },
            Err(error) => Err(error),
        }
    }

    /// Whether a container runs whose start was not answered.
    async fn runs_after_all(&self, name: &str) -> Result<bool> {
        for pause in [Duration::ZERO, LATE_START] {
            tokio::time::sleep(pause).await;
            let state = self.inspect(name).await?;
            match state {
                Some(state) if state.running == Some(true) => return Ok(true),
                Some(state) if state.status == Some(ContainerStateStatusEnum::CREATED) => {}
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// The state of a container, if there is one.
    async fn inspect(&self, name: &str) -> Result<Option<ContainerState>> {
        let inspect = self.client()?.inspect_container(name, None::<InspectContainerOptions>);
        let found = call_unless_gone("inspect container", name, inspect).await?;
        Ok(found.and_then(|container| container.state))
    }

    pub(super) async fn kill_container(
        &self,
        instance: &InstanceId,
        replica: &ReplicaId,
    ) -> Result<()> {
        let name = container_name(instance, replica);
        let client = self.client()?;
        let kill = async {
            match client.kill_container(&name, None::<KillContainerOptions>).await {
                // It has ended by itself.
                Err(ClientError::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
                other => other,
            }
        };
        call_unless_gone("kill container", &name, kill).await.map(|_| ())
    }

    pub(super) async fn remove_container(
        &self,
        instance: &InstanceId,
        replica: &ReplicaId,
    ) -> Result<()> {
        self.remove_by_name(&container_name(instance, replica)).await
    }

    pub(super) async fn remove_by_name(&self, name: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removal = self.client()?.remove_container(name, Some(options));
        call_unless_gone("remove container", name, removal).await.map(|_| ())
    }

    pub(super) async fn await_exit(
        &self,
        instance: &InstanceId,
        replica: &ReplicaId,
        within: Duration,
    ) -> Result<Option<Exit>> {
        let name = container_name(instance, replica);
        if !within.is_zero() {
            // What it answers, the inspection below says better; it only tells when.
            let mut end = self.client()?.wait_container(&name, None::<WaitContainerOptions>);
            let _ = tokio::time::timeout(within, end.next()).await;
        }
        let Some(state) = self.inspect(&name).await? else {
            return Ok(Some(Exit { out_of_memory: false, code: 137, removed: true }));
        };
        use ContainerStateStatusEnum::{DEAD, REMOVING};
        Ok((state.running != Some(true)).then(|| Exit {
            out_of_memory: state.oom_killed.unwrap_or(false),
            code: state.exit_code.unwrap_or(0),
            // On its way: its process is ended for that.
            removed: matches!(state.status, Some(REMOVING | DEAD)),
        }))
    }

    pub(super) async fn list_containers(
        &self,
        instance: &InstanceId,
        service: Option<ServiceId>,
    ) -> Result<Vec<Container>> {
        let found = self.list_by_labels(of_instance(instance, service)).await?;
        Ok(found.iter().filter_map(replica).collect())
    }

    pub(super) async fn list_invocations(&self, instance: &InstanceId) -> Result<Vec<ReplicaId>> {
        let mut filters = of_instance(instance, None);
        filters.entry("label".to_owned()).or_default().push(label::INVOCATION.to_owned());
        let found = self.list_by_labels(filters).await?;
        let id = |found: &ContainerSummary| {
            found.labels.as_ref()?.get(label::REPLICA)?.parse::<ReplicaId>().ok()
        };
        Ok(found.iter().filter_map(id).collect())
    }

    async fn list_by_labels(
        &self,
        filters: HashMap<String, Vec<String>>,
    ) -> Result<Vec<ContainerSummary>> {
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let list = self.client()?.list_containers(Some(options));
        call("list containers", "of this Grid", limits::ENGINE_CALL, list).await
    }
}

pub(super) fn container_name(instance: &InstanceId, replica: &ReplicaId) -> String {
    format!("grid-{instance}-{replica}")
}

fn create_body(spec: &ContainerSpec) -> ContainerCreateBody {
    let mut body = shut_in(&spec.sandbox);
    let mut labels = labels(&spec.instance, spec.service, spec.deployment, Some(&spec.replica));
    if spec.invocation {
        labels.insert(label::INVOCATION.to_owned(), "true".to_owned());
    }
    body.labels = Some(labels.into_iter().collect());
    if let Some(host) = &mut body.host_config {
        host.binds = Some(vec![format!("{}:/run/grid:ro", spec.run_dir.display())]);
    }
    body
}

/// What the engine is asked for. Everything that untrusted code could use and a function does not
/// need is taken away here.
pub(super) fn shut_in(sandbox: &Sandbox) -> ContainerCreateBody {
    let memory = i64::from(sandbox.memory_mb) * 1024 * 1024;
    let limit = |name: &str, value: i64| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(value),
        hard: Some(value),
    };
    let mut host = HostConfig {
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned(), sandbox.seccomp.to_string()]),
        readonly_rootfs: Some(true),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), limits::TMPFS.to_owned())])),
        pids_limit: Some(limits::PIDS),
        memory: Some(memory),
        memory_swap: Some(memory), // memory and swap together: so no swap
        cpu_shares: Some(i64::from(sandbox.cpu_shares)),
        nano_cpus: Some(cpu_ceiling(sandbox.cpu_shares)),
        ulimits: Some(vec![
            limit("nofile", limits::OPEN_FILES),
            limit("core", 0),
            limit("sigpending", limits::PENDING_SIGNALS),
        ]),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        init: Some(true),
        runtime: sandbox.oci_runtime.clone(),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), limits::LOG_FILE_BYTES.to_owned()),
                ("max-file".to_owned(), "2".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    };
    if let Some(attachment) = &sandbox.network {
        host.network_mode = Some(attachment.network.clone());
        host.dns = attachment.dns.map(|dns| vec![dns.to_string()]);
        // The host's own search domains are nobody's business.
        host.dns_search = Some(vec![".".to_owned()]);
        host.dns_options = Some(vec!["timeout:2".to_owned(), "attempts:2".to_owned()]);
    }
    ContainerCreateBody {
        image: Some(sandbox.image.clone()),
        env: Some(sandbox.env.clone()),
        user: Some("1000:1000".to_owned()),
        // Not even the engine's own `none` network: that would cost a namespace's set-up by it.
        network_disabled: Some(sandbox.network.is_none()),
        // Grid asks over the call-home connection, at no process start per check.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// Billionths of a core. A small share only matters when cores are scarce; the ceiling keeps one
/// replica from taking the whole host when they are not.
fn cpu_ceiling(cpu_shares: u32) -> i64 {
    const CORE: i64 = 1_000_000_000;
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as i64);
    (i64::from(cpu_shares) * CORE / 1024).clamp(CORE, cores * CORE)
}

/// None for one that is no replica's.
fn replica(container: &ContainerSummary) -> Option<Container> {
    let labels = container.labels.as_ref()?;
    if labels.contains_key(label::INVOCATION) {
        return None;
    }
    Some(Container {
        service: labels.get(label::SERVICE)?.parse().ok()?,
        deployment: labels.get(label::DEPLOYMENT)?.parse().ok()?,
        replica: labels.get(label::REPLICA)?.parse().ok()?,
        running: container.state == Some(ContainerSummaryStateEnum::RUNNING),
        address: container
            .network_settings
            .as_ref()
            .and_then(|settings| settings.networks.as_ref()?.values().find_map(address)),
    })
}

/// The IPv4 address of a container in a network.
fn address(endpoint: &EndpointSettings) -> Option<Ipv4Addr> {
    endpoint.ip_address.as_ref()?.parse().ok()
}
