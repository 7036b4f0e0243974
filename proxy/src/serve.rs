//! `grid serve`: opens what is needed, puts the parts of its role together, runs them until a signal.

mod control;

use std::{
    io::IsTerminal,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::control::{
    api::{self, Calls},
    config::{Config, LogFormat, Role},
    health::{Dependency, Health},
    run_dir::RunDir,
    secret::Keyring,
    store::{Opened, redis::Part},
};
use parking_lot::Mutex;
use pingora_core::{
    server::{RunArgs, Server, configuration::ServerConf},
    services::background::background_service,
};
use tokio::runtime::Runtime;

use self::control::{Beginning, Controller};
use crate::{
    access_log::AccessLog,
    background::Beside,
    listen::{Bound, Doors, EdgeService, World},
    metrics::{self, Metrics},
    observe::Observer,
    origin::{self, Proxies},
    sockets::Sockets,
    spans::Spans,
    stages::{Stages, UntilControlEnds},
    stop::Life,
    tls::{self, Tls, TlsError},
    traffic::Traffic,
    upgrade::{Place, predecessor::Inherited, successor::Handover},
};

/// What an end may take beyond the bounds of the requests that it waits for.
const SLACK: Duration = Duration::from_secs(15);

/// Errors of the start, told to the operator as they are.
type Startup<T> = Result<T, Box<dyn std::error::Error>>;

/// Serves until a signal.
pub(crate) fn run(config: &Config, inherited: Inherited) -> Startup<()> {
    log(config)?;
    let role = config.role;
    let beginning = role.has_control().then(|| Beginning::read(config)).transpose()?;
    let Inherited { listeners, predecessor } = inherited;
    let sockets = Arc::new(Sockets::with(listeners));
    let listen = |setting: &str, address: SocketAddr| -> Startup<Bound> {
        let listener = sockets.listen(setting, address)?;
        Ok((listener.local_addr()?, listener))
    };
    let admin = listen("GRID_ADMIN_ADDR", config.admin_addr)?;
    let public = role.has_edge().then(|| listen("GRID_HTTP_ADDR", config.http_addr)).transpose()?;
    let https = config.https.addr.get().filter(|_| role.has_edge());
    let https = https.map(|addr| listen("GRID_HTTPS_ADDR", addr)).transpose()?;
    for address in sockets.close_unused() {
        tracing::warn!(%address, "a listener was handed over that no setting names");
    }
    let dir = &config.data_dir;
    std::fs::create_dir_all(dir).map_err(|e| format!("create {}: {e}", dir.display()))?;
    let tls = https.map(|bound| {
        Ok::<_, TlsError>((bound, Arc::new(Tls::open(&config.https, &config.data_dir)?)))
    });
    let tls = tls.transpose()?;

    // From here on only the store can stop the start.
    if let Some(predecessor) = &predecessor {
        predecessor.take_over(&config.data_dir)?;
    }
    let runtime = store_runtime()?;
    let part = if role.has_control() { Part::Control } else { Part::Edge };
    let opened = runtime.block_on(Opened::open(config, part))?;
    let keyring = Keyring::load_or_create(&config.data_dir, config.fernet_keys.as_ref())?;
    let health = health(role);
    let world = World {
        store: opened.store(),
        keyring: keyring.clone(),
        health: health.clone(),
        run_dir: RunDir::of(&config.data_dir),
        relieves: predecessor.is_some(),
    };
    let controller = beginning.map(|beginning| {
        Controller::new(config, &opened, keyring, health.clone(), beginning, world.relieves)
    });
    let context = controller.as_ref().map(|controller| controller.context.clone());

    let metrics = Arc::new(Metrics::new(health.clone(), context.clone()));
    let access_log = AccessLog::open(&config.observe, &metrics)?;
    let endpoint = config.observe.otlp_endpoint.as_deref();
    let spans = endpoint.map(|endpoint| Spans::start(endpoint, &metrics)).transpose()?;
    let (spans, sending) = spans.unzip();
    let observer = Observer::new(&config.observe, metrics.clone(), access_log.clone(), spans);

    let (traffic, stages) = (Arc::new(Traffic::default()), Arc::new(Stages::default()));
    let place = Place::of(&config.data_dir, role);
    let handover = Handover::new(place, sockets.clone(), stages.clone(), opened.clone());
    let public_addr = public.as_ref().map(|(address, _)| *address);
    let calls = Calls::default();
    let admin_routes = match controller {
        Some(controller) => {
            let port = public_addr.unwrap_or(config.http_addr).port();
            let api = controller.api(config, port, calls.clone())?;
            origin::behind(Proxies::new(&config.trusted_proxies), api)
        }
        None => api::probes(health.clone()),
    };
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    server.add_service(background_service(
        "control",
        Beside {
            context,
            health: health.clone(),
            api: admin_routes.merge(metrics::router(metrics.clone())),
            calls,
            stages: stages.clone(),
            admin_addr: admin.0,
            admin: Mutex::new(Some(admin.1)),
            public_addr,
            hatch: handover.place.hatch(),
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
    if let Some(public) = public {
        let hatch = handover.place.hatch();
        let doors = Doors { public, https: https.zip(tls.as_deref()), hatch };
        server.add_service(EdgeService::new(config, world, &traffic, &stages, observer, doors)?);
    }
    let lost = Arc::new(AtomicBool::new(false));
    let life = Life {
        traffic,
        stages,
        sockets,
        health,
        store: opened.store(),
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

/// What a role stands on.
fn health(role: Role) -> Health {
    if role.has_control() { Health::default() } else { Health::of(&[Dependency::Store]) }
}

/// Where connections to a Redis live, and what listens for its hints: in the runtimes of neither edge
/// nor control, which end at different times.
fn store_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("store")
        .enable_all()
        .build()
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
