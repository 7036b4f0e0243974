//! The parts that only a process with control has: what every driver works with, and the admin API.

use std::sync::Arc;

use control::{
    api::{self, Api, ApiLimits, Calls, Invoker, PublicUrl, auth::Authenticator},
    config::Config,
    context::{Context, Settings},
    egress::EgressPolicy,
    engine::{Engine, docker::Docker},
    firewall::Gate,
    health::Health,
    image::Images,
    invoke::Invocations,
    logs::Logs,
    resolver,
    rotation::Rotations,
    run_dir::RunDir,
    runtime::Runtimes,
    seccomp::Profile,
    secret::Keyring,
    store::Opened,
    token,
};
use tokio::sync::Semaphore;

use super::Startup;

/// Names the DNS servers of this machine.
const HOST_DNS: &str = "/etc/resolv.conf";

/// What is read before anything is bound or opened.
pub(super) struct Beginning {
    runtimes: Runtimes,
    /// What shuts functions in.
    seccomp: Arc<str>,
    dns: resolver::Settings,
}

impl Beginning {
    pub(super) fn read(config: &Config) -> Startup<Self> {
        Ok(Self {
            runtimes: Runtimes::load(config.share_dir())?,
            seccomp: Profile::load(config.share_dir())?.security_opt().into(),
            dns: dns(config)?,
        })
    }
}

/// Control, before it runs.
pub(super) struct Controller {
    pub(super) context: Arc<Context>,
    runtimes: Vec<String>,
}

impl Controller {
    pub(super) fn new(
        config: &Config,
        opened: &Opened,
        keyring: Keyring,
        health: Health,
        beginning: Beginning,
        handed_over: bool,
    ) -> Self {
        let engine: Arc<dyn Engine> = Arc::new(Docker::new(&config.docker_host));
        let instance = opened.instance_id().clone();
        let runtimes = beginning.runtimes.iter().map(|runtime| runtime.name.clone()).collect();
        let store = opened.store();
        let logs = Logs::new(
            engine.clone(),
            store.clone(),
            keyring.clone(),
            instance.clone(),
            config.data_dir.join("logs"),
            config.log_bytes as u64,
        );
        let context = Context {
            store,
            images: Images::new(engine.clone(), instance.clone(), beginning.runtimes),
            logs: Arc::new(logs),
            engine,
            keyring,
            gate: Gate::default(),
            denied: Arc::default(),
            deployments: Arc::default(),
            health,
            instance,
            run_dir: RunDir::of(&config.data_dir),
            settings: Settings {
                function_timeout: config.function_timeout,
                response_bytes: config.response_bytes,
                starts: config.starts,
                images_kept: config.images_kept,
                replicas: config.max_replicas,
                enforcement: config.egress_enforcement,
                dns: beginning.dns,
                handed_over,
                oci_runtimes: config.oci_runtimes.clone(),
                seccomp: beginning.seccomp,
            },
            starts: Semaphore::new(config.starts),
            replicas: Arc::new(Semaphore::new(config.max_replicas)),
            builds: Semaphore::new(config.starts),
            invocations: Invocations::new(config.invoke.invoke_concurrency),
        };
        Self { context: Arc::new(context), runtimes }
    }

    /// The admin API; functions are called at `public_port`.
    pub(super) fn api(
        self,
        config: &Config,
        public_port: u16,
        calls: Calls,
    ) -> Startup<axum::Router> {
        let token = token::load_or_create(&config.data_dir, config.token.as_ref())?;
        let context = self.context;
        Ok(api::router(Api {
            store: context.store.clone(),
            logs: context.logs.clone(),
            health: context.health.clone(),
            runtimes: self.runtimes,
            oci_runtimes: config.oci_runtimes.clone(),
            denied: context.denied.clone(),
            keyring: context.keyring.clone(),
            rotations: Rotations::default(),
            invoker: Invoker::new(Some(context.clone()), config.invoke.invoke_rate),
            auth: Authenticator::new(token.token()),
            calls,
            limits: ApiLimits { code_bytes: config.code_bytes },
            public_url: PublicUrl::http(public_port),
        }))
    }
}

/// Which servers the functions' resolver asks.
fn dns(config: &Config) -> Startup<resolver::Settings> {
    let mut upstreams = config.egress_dns_servers.clone();
    if upstreams.is_empty() {
        let text = std::fs::read_to_string(HOST_DNS).map_err(|e| {
            format!("{HOST_DNS}: {e}; name DNS servers in GRID_EGRESS_DNS_SERVERS instead")
        })?;
        upstreams = resolver::upstreams_of(&text)?;
    }
    Ok(resolver::Settings { upstreams, policy: EgressPolicy::fixed() })
}
