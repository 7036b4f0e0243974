//! `grid serve`: opens what is needed, puts the parts together, runs them until a signal.

use std::{
    io::IsTerminal,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use control::{
    api::{self, Api, ApiLimits, PublicUrl, auth::Authenticator},
    config::{Config, LogFormat, Role},
    context::{Context, Settings},
    egress::EgressPolicy,
    engine::{Engine, docker::Docker},
    firewall::Gate,
    health::Health,
    image::Images,
    logs::Logs,
    resolver,
    run_dir::RunDir,
    runtime::Runtimes,
    seccomp::Profile,
    store::embedded::Embedded,
    token,
};
use pingora_core::{
    server::{RunArgs, Server, configuration::ServerConf},
    services::background::background_service,
};
use tokio::sync::Semaphore;

use crate::{
    access_log::AccessLog,
    background::Control,
    gateway::Traffic,
    listen::EdgeService,
    metrics::{self, Metrics},
    observe::Observer,
    spans::Spans,
    stop::Signals,
    tls::{self, Tls, TlsError},
};

/// Names the DNS servers of this machine.
const HOST_DNS: &str = "/etc/resolv.conf";

/// Errors of the start, told to the operator as they are.
type Startup<T> = Result<T, Box<dyn std::error::Error>>;

/// Serves until a signal.
pub(crate) fn run(config: &Config) -> Startup<()> {
    log(config)?;
    if config.role != Role::All {
        return Err("GRID_ROLE: the parts can only be split over a Redis store, which this version does not have yet; use --role all".into());
    }
    let runtimes = Runtimes::load(config.share_dir())?;
    let admin = reserve("GRID_ADMIN_ADDR", config.admin_addr)?;
    let public = reserve("GRID_HTTP_ADDR", config.http_addr)?;
    let public_addr = public.local_addr()?;
    let https = config.https.addr.get().map(|addr| reserve("GRID_HTTPS_ADDR", addr)).transpose()?;
    let https_addr = https.as_ref().map(TcpListener::local_addr).transpose()?;
    // Pingora binds its listeners itself, so that it can hand them over in an upgrade.
    drop((public, https));

    let store = Embedded::open(&config.data_dir)?;
    let token = token::load_or_create(&config.data_dir, config.token.as_ref())?;
    let tls = https_addr
        .map(|addr| Ok::<_, TlsError>((addr, Tls::open(&config.https, &config.data_dir)?)));
    let tls = tls.transpose()?;
    let seccomp = Profile::load(config.share_dir())?.security_opt().into();
    let dns = dns(config)?;
    let engine: Arc<dyn Engine> = Arc::new(Docker::new(&config.docker_host));
    let parts = Parts::new(config, store, engine, runtimes, Protection { seccomp, dns });

    let metrics = Arc::new(Metrics::new(parts.context.clone()));
    let access_log = AccessLog::open(&config.observe, &metrics)?;
    let endpoint = config.observe.otlp_endpoint.as_deref();
    let spans = endpoint.map(|endpoint| Spans::start(endpoint, &metrics)).transpose()?;
    let (spans, sending) = spans.unzip();
    let observer = Observer::new(&config.observe, metrics.clone(), access_log.clone(), spans);

    let traffic = Arc::new(Traffic::default());
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    server.add_service(background_service(
        "control",
        Control {
            context: parts.context.clone(),
            api: api::router(Api {
                store: parts.context.store.clone(),
                logs: parts.context.logs.clone(),
                health: parts.context.health.clone(),
                runtimes: parts.runtimes,
                oci_runtimes: config.oci_runtimes.clone(),
                denied: parts.context.denied.clone(),
                auth: Authenticator::new(token),
                limits: ApiLimits { code_bytes: config.code_bytes },
                public_url: PublicUrl::http(public_addr.port()),
            })
            .merge(metrics::router(metrics.clone())),
            admin,
            public_addr,
        },
    ));
    let https = tls.as_ref().map(|(addr, tls)| (*addr, tls));
    server.add_service(EdgeService::new(
        config,
        &parts.context,
        &traffic,
        observer,
        public_addr,
        https,
    )?);
    if let Some((addr, tls)) = tls {
        tracing::info!("HTTPS is served at {addr}");
        let service = background_service("certificates", tls);
        tls::show(service.task(), &metrics);
        server.add_service(service);
    }
    let longest = config.queue_wait + config.function_timeout + Duration::from_secs(5);
    server.run(RunArgs { shutdown_signal: Box::new(Signals::new(traffic, longest)) });
    if let Some(log) = access_log {
        log.flush();
    }
    if let Some(sending) = sending {
        sending.finish();
    }
    tracing::info!("stopped; running replicas are adopted by the next start");
    Ok(())
}

/// What was read at the start to shut functions in.
struct Protection {
    seccomp: Arc<str>,
    dns: resolver::Settings,
}

struct Parts {
    context: Arc<Context>,
    runtimes: Vec<String>,
}

impl Parts {
    fn new(
        config: &Config,
        store: Embedded,
        engine: Arc<dyn Engine>,
        runtimes: Runtimes,
        protection: Protection,
    ) -> Self {
        let instance = store.instance_id().clone();
        let names = runtimes.iter().map(|runtime| runtime.name.clone()).collect();
        let logs = Logs::new(engine.clone(), instance.clone(), config.data_dir.join("logs"));
        let context = Context {
            store: Arc::new(store),
            images: Images::new(engine.clone(), instance.clone(), runtimes),
            logs: Arc::new(logs),
            engine,
            gate: Gate::default(),
            denied: Arc::default(),
            deployments: Arc::default(),
            health: Health::default(),
            instance,
            run_dir: RunDir::of(&config.data_dir),
            settings: Settings {
                function_timeout: config.function_timeout,
                response_bytes: config.response_bytes,
                starts: config.starts,
                replicas: config.max_replicas,
                enforcement: config.egress_enforcement,
                dns: protection.dns,
                oci_runtimes: config.oci_runtimes.clone(),
                seccomp: protection.seccomp,
            },
            starts: Semaphore::new(config.starts),
            replicas: Arc::new(Semaphore::new(config.max_replicas)),
            builds: Semaphore::new(config.starts),
        };
        Self { context: Arc::new(context), runtimes: names }
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

/// Binds an address, so that one that is taken stops the start with a clear line.
fn reserve(setting: &str, address: SocketAddr) -> Startup<TcpListener> {
    TcpListener::bind(address).map_err(|e| {
        format!("{setting}: cannot listen on {address}: {e}; stop what listens there, or set {setting} to another address").into()
    })
}

fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        // A single thread has nobody to steal from, and is cheaper without the precautions for it.
        work_stealing: config.edge_threads > 1,
        // Its own timers have a thread that wakes a hundred times a second; the one wait that they are
        // used for here, that for a handshake, lasts a minute.
        fast_timeout_to_tokio_threshold_seconds: Some(1),
        // `Signals` has waited for the requests already.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

fn log(config: &Config) -> Startup<()> {
    use tracing_subscriber::{EnvFilter, fmt};
    // What Pingora says of its own start, and of each handshake that a scanner broke off, is of no use
    // to an operator; a setting can bring it back.
    let filter = EnvFilter::try_new(format!(
        "pingora_core=warn,pingora_core::services::listening=off,{}",
        config.log
    ))
    .map_err(|e| format!("GRID_LOG: \"{}\" is not a log filter: {e}", config.log))?;
    // Standard output is for the ready line.
    let builder = fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let set = match config.log_format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    set.map_err(|e| format!("the log cannot be set up: {e}").into())
}
