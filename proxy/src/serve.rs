//! `grid serve`: opens what is needed, puts the parts together, runs them until a signal.

use std::{
    io::IsTerminal,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use control::{
    api::{self, Api, ApiLimits, Calls, Invoker, PublicUrl, auth::Authenticator},
    config::{Config, LogFormat, Role},
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
    store::{Store, embedded::Embedded},
    token,
};
use parking_lot::Mutex;
use pingora_core::{
    server::{RunArgs, Server, configuration::ServerConf},
    services::background::background_service,
};
use tokio::sync::Semaphore;

use crate::{
    access_log::AccessLog,
    background::Control,
    listen::{Bound, Doors, EdgeService},
    metrics::{self, Metrics},
    observe::Observer,
    origin::{self, Proxies},
    sockets::Sockets,
    spans::Spans,
    stages::{Stages, UntilControlEnds},
    stop::Life,
    tls::{self, Tls, TlsError},
    traffic::Traffic,
    upgrade::{predecessor::Inherited, successor::Handover},
};

/// What an end may take beyond the bounds of the requests that it waits for.
const SLACK: Duration = Duration::from_secs(15);

/// Names the DNS servers of this machine.
const HOST_DNS: &str = "/etc/resolv.conf";

/// Errors of the start, told to the operator as they are.
type Startup<T> = Result<T, Box<dyn std::error::Error>>;

/// Serves until a signal.
pub(crate) fn run(config: &Config, inherited: Inherited) -> Startup<()> {
    log(config)?;
    if config.role != Role::All {
        return Err("GRID_ROLE: the parts can only be split over a Redis store, which this version does not have yet; use --role all".into());
    }
    let runtimes = Runtimes::load(config.share_dir())?;
    let Inherited { listeners, predecessor } = inherited;
    let sockets = Arc::new(Sockets::with(listeners));
    let listen = |setting: &str, address: SocketAddr| -> Startup<Bound> {
        let listener = sockets.listen(setting, address)?;
        Ok((listener.local_addr()?, listener))
    };
    let admin = listen("GRID_ADMIN_ADDR", config.admin_addr)?;
    let public = listen("GRID_HTTP_ADDR", config.http_addr)?;
    let https = config.https.addr.get().map(|addr| listen("GRID_HTTPS_ADDR", addr)).transpose()?;
    for address in sockets.close_unused() {
        tracing::warn!(%address, "a listener was handed over that no setting names");
    }
    let dir = &config.data_dir;
    std::fs::create_dir_all(dir).map_err(|e| format!("create {}: {e}", dir.display()))?;
    let tls = https.map(|bound| {
        Ok::<_, TlsError>((bound, Arc::new(Tls::open(&config.https, &config.data_dir)?)))
    });
    let tls = tls.transpose()?;
    let seccomp = Profile::load(config.share_dir())?.security_opt().into();
    let dns = dns(config)?;

    // From here on only the store can stop the start.
    if let Some(predecessor) = &predecessor {
        predecessor.take_over(&config.data_dir)?;
    }
    let store = Embedded::open(&config.data_dir)?;
    let token = token::load_or_create(&config.data_dir, config.token.as_ref())?;
    let keyring = Keyring::load_or_create(&config.data_dir, config.fernet_keys.as_ref())?;
    let engine: Arc<dyn Engine> = Arc::new(Docker::new(&config.docker_host));
    let handed_over = predecessor.is_some();
    let protection = Protection { seccomp, dns, keyring };
    let parts = Parts::new(config, store.clone(), engine, runtimes, protection, handed_over);

    let metrics = Arc::new(Metrics::new(parts.context.clone()));
    let access_log = AccessLog::open(&config.observe, &metrics)?;
    let endpoint = config.observe.otlp_endpoint.as_deref();
    let spans = endpoint.map(|endpoint| Spans::start(endpoint, &metrics)).transpose()?;
    let (spans, sending) = spans.unzip();
    let observer = Observer::new(&config.observe, metrics.clone(), access_log.clone(), spans);

    let (traffic, stages) = (Arc::new(Traffic::default()), Arc::new(Stages::default()));
    let handover = Handover::new(&config.data_dir, sockets.clone(), stages.clone(), store);
    let hatch = handover.place.hatch();
    let calls = Calls::default();
    let api = api::router(Api {
        store: parts.context.store.clone(),
        logs: parts.context.logs.clone(),
        health: parts.context.health.clone(),
        runtimes: parts.runtimes,
        oci_runtimes: config.oci_runtimes.clone(),
        denied: parts.context.denied.clone(),
        keyring: parts.context.keyring.clone(),
        rotations: Rotations::default(),
        invoker: Invoker::new(Some(parts.context.clone()), config.invoke.invoke_rate),
        auth: Authenticator::new(token.token()),
        calls: calls.clone(),
        limits: ApiLimits { code_bytes: config.code_bytes },
        public_url: PublicUrl::http(public.0.port()),
    });
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    server.add_service(background_service(
        "control",
        Control {
            context: parts.context.clone(),
            api: origin::behind(Proxies::new(&config.trusted_proxies), api)
                .merge(metrics::router(metrics.clone())),
            calls,
            stages: stages.clone(),
            admin_addr: admin.0,
            admin: Mutex::new(Some(admin.1)),
            public_addr: public.0,
        },
    ));
    if let Some(((addr, _), tls)) = &tls {
        tracing::info!("HTTPS is served at {addr}");
        tls::show(tls.clone(), &metrics);
        let (service, stages) = (tls.clone(), stages.clone());
        let certificates = UntilControlEnds { service, stages };
        server.add_service(background_service("certificates", certificates));
    }
    let (https, tls) = tls.unzip();
    server.add_service(EdgeService::new(
        config,
        &parts.context,
        &traffic,
        &stages,
        observer,
        Doors { public, https: https.zip(tls.as_deref()), hatch },
    )?);
    let lost = Arc::new(AtomicBool::new(false));
    let life = Life {
        traffic,
        stages,
        sockets,
        health: parts.context.health.clone(),
        store: parts.context.store.clone(),
        handover,
        predecessor,
        longest: config.queue_wait + config.function_timeout + SLACK,
        lost: lost.clone(),
    };
    server.run(RunArgs { shutdown_signal: Box::new(life) });
    if let Some(log) = access_log {
        log.flush();
    }
    if let Some(sending) = sending {
        sending.finish();
    }
    if lost.load(Ordering::SeqCst) {
        return Err("an upgrade failed, and so did going back: start Grid again".into());
    }
    tracing::info!("stopped; running replicas are adopted by the next process");
    Ok(())
}

/// What was read at the start to shut functions in, and their secrets up.
struct Protection {
    keyring: Keyring,
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
        handed_over: bool,
    ) -> Self {
        let instance = store.instance_id().clone();
        let names = runtimes.iter().map(|runtime| runtime.name.clone()).collect();
        let store: Arc<dyn Store> = Arc::new(store);
        let logs = Logs::new(
            engine.clone(),
            store.clone(),
            protection.keyring.clone(),
            instance.clone(),
            config.data_dir.join("logs"),
            config.log_bytes as u64,
        );
        let context = Context {
            store,
            images: Images::new(engine.clone(), instance.clone(), runtimes),
            logs: Arc::new(logs),
            engine,
            keyring: protection.keyring,
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
                images_kept: config.images_kept,
                replicas: config.max_replicas,
                enforcement: config.egress_enforcement,
                dns: protection.dns,
                handed_over,
                oci_runtimes: config.oci_runtimes.clone(),
                seccomp: protection.seccomp,
            },
            starts: Semaphore::new(config.starts),
            replicas: Arc::new(Semaphore::new(config.max_replicas)),
            builds: Semaphore::new(config.starts),
            invocations: Invocations::new(config.invoke.invoke_concurrency),
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

fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        // A single thread has nobody to steal from, and is cheaper without the precautions for it.
        work_stealing: config.edge_threads > 1,
        // Its own timers have a thread that wakes a hundred times a second; the one wait that they are
        // used for here, that for a handshake, lasts a minute.
        fast_timeout_to_tokio_threshold_seconds: Some(1),
        // `Life` has waited for the requests already.
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
