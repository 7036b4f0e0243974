//! The public listener as a Pingora service.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::IntoRawFd,
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use control::{
    config::Config,
    health::{Dependency, Health},
    limits,
    run_dir::RunDir,
    secret::Keyring,
    store::Store,
};
use pingora_core::{
    apps::ServerApp,
    listeners::{L4BufferSettings, ListenerConfig},
    protocols::{ALPN, Stream},
    server::{ListenFds, ShutdownWatch},
    services::{Service as ServiceTrait, listening::Service},
};

use crate::{
    client::Peer,
    door::Door,
    edge::{self, Edge},
    flow::Stock,
    gateway::{Bounds, Gateway},
    http1, http2,
    metrics::Speaks,
    observe::Observer,
    origin::Proxies,
    rate::{ClientRates, Rate},
    route::Routes,
    stages::{Stages, Step},
    tls::Tls,
    traffic::Traffic,
    upgrade::hatch,
};

/// A listener and where it listens.
pub(crate) type Bound = (SocketAddr, TcpListener);

/// The public listener together with the tasks that feed it. They share one runtime, because the
/// replicas' connections belong to the runtime that accepted them.
pub(crate) struct EdgeService {
    edge: Arc<Edge>,
    gateway: Arc<Gateway>,
    stages: Arc<Stages>,
    inner: Service<Front>,
    /// Each with the address that `inner` knows it by.
    listeners: Vec<(String, TcpListener)>,
    closed: ShutdownWatch,
    hatch: PathBuf,
    /// Another process serves until this one does.
    relieves: bool,
}

/// What the edge has of the world behind it.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keyring: Keyring,
    pub(crate) health: Health,
    pub(crate) run_dir: RunDir,
    /// Another process serves until this one does.
    pub(crate) relieves: bool,
}

/// Where the edge is reached.
pub(crate) struct Doors<'a> {
    pub(crate) public: Bound,
    pub(crate) https: Option<(Bound, &'a Tls)>,
    /// For the process that this one relieves.
    pub(crate) hatch: PathBuf,
}

impl EdgeService {
    pub(crate) fn new(
        config: &Config,
        world: World,
        traffic: &Arc<Traffic>,
        stages: &Arc<Stages>,
        observer: Observer,
        doors: Doors<'_>,
    ) -> pingora_core::Result<Self> {
        let Doors { public: (public_addr, public), https, hatch } = doors;
        let routes = Arc::new(Routes::new(Rate::new(config.service_rate, config.service_burst)));
        let proxies = Arc::new(Proxies::new(&config.trusted_proxies));
        let door = Arc::new(Door::new(config, proxies.clone()));
        let observer = Arc::new(observer);
        let tls = https.as_ref().map(|((addr, _), tls)| (addr, *tls));
        let gateway = Arc::new(Gateway {
            observer: observer.clone(),
            routes: routes.clone(),
            traffic: traffic.clone(),
            stock: Stock::new(control::limits::FLOWING_BYTES),
            plain: tls.map(|(addr, tls)| tls.plain(&config.https, addr.port())).unwrap_or_default(),
            rates: ClientRates::new(Rate::new(config.client_rate, config.client_burst)),
            proxies,
            bounds: Bounds {
                body_bytes: config.body_bytes,
                body_within: config.body_wait,
                response_bytes: config.response_bytes,
                function_timeout: config.function_timeout,
                queue_within: config.queue_wait,
            },
        });
        let domains = tls.and_then(|(_, tls)| tls.domains());
        let mut inner =
            Service::new("edge".to_owned(), Front { gateway: gateway.clone(), door: door.clone() });
        inner.endpoints().set_pre_tls_callback(door);
        // Requests are read into buffers of their own: another copy on the way would be for nothing.
        let listener = ListenerConfig::tcp(public_addr.to_string());
        inner.add_listener(listener.l4_buffer(L4BufferSettings::unbuffered()));
        inner.threads = Some(config.edge_threads);
        let mut listeners = vec![(public_addr.to_string(), public)];
        if let Some(((addr, listener), tls)) = https {
            inner.add_tls_with_settings(&addr.to_string(), None, tls.listener()?);
            listeners.push((addr.to_string(), listener));
        }
        let edge = Edge {
            store: world.store,
            keyring: world.keyring,
            routes,
            domains,
            run_dir: world.run_dir,
            health: world.health,
            queue_length: config.queue_length,
            idle_after: config.idle,
            call_within: config.function_timeout + limits::START,
            metrics: observer.metrics.clone(),
            known: Step::default(),
            stages: stages.clone(),
        };
        Ok(Self {
            edge: Arc::new(edge),
            gateway,
            stages: stages.clone(),
            inner,
            listeners,
            closed: stages.closed.watch(),
            hatch,
            relieves: world.relieves,
        })
    }
}

/// Every connection of the public goes one of two ways.
struct Front {
    gateway: Arc<Gateway>,
    door: Arc<Door>,
}

#[async_trait]
impl ServerApp for Front {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let _connection = self.gateway.traffic.connect();
        let stream = self.door.admit(stream).await?;
        let peer = Peer::of(&stream, &self.gateway.proxies);
        let metrics = &self.gateway.observer.metrics;
        match stream.selected_alpn_proto() {
            Some(ALPN::H2) => {
                let _open = metrics.connection(Speaks::Http2);
                http2::serve(stream, &self.gateway, peer).await;
            }
            _ => {
                let _open = metrics.connection(Speaks::Http1);
                http1::serve(stream, &self.gateway, &peer).await;
            }
        }
        None
    }
}

impl EdgeService {
    /// Accepts, when it is known who is called how, until this process accepts no more.
    async fn serve(&mut self, fds: Option<ListenFds>, mut stop: ShutdownWatch, per_fd: usize) {
        let mut closed = self.closed.clone();
        let ready = async {
            self.edge.known.taken().await;
            if self.relieves {
                // The other process has the replicas: there is no hurry.
                self.edge.health.checked(Dependency::Engine).await;
            }
        };
        tokio::select! {
            () = ready => {}
            _ = closed.wait_for(|closed| *closed) => return,
        }
        if let Some(fds) = &fds {
            // Pingora binds what it does not find here.
            for (address, listener) in self.listeners.drain(..) {
                match listener.set_nonblocking(true) {
                    Ok(()) => fds.lock().add(address, listener.into_raw_fd()),
                    Err(error) => tracing::error!(address, %error, "this listener is not used"),
                }
            }
        }
        let passed_on = async {
            match hatch::open(&self.hatch) {
                Ok(hatch) => {
                    tokio::select! {
                        () = hatch::serve(hatch, self.gateway.clone()) => {}
                        _ = stop.wait_for(|stop| *stop) => {}
                    }
                }
                Err(error) => {
                    let path = self.hatch.display();
                    tracing::error!(%path, %error, "the private socket cannot be opened: grid upgrade will not work");
                }
            }
        };
        tokio::join!(
            passed_on,
            self.inner.start_service(fds, self.closed.clone(), per_fd),
            async { self.stages.serving.take() },
        );
    }
}

#[async_trait]
impl ServiceTrait for EdgeService {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        stop: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        tokio::join!(
            edge::follow(self.edge.clone(), stop.clone()),
            self.serve(fds, stop, listeners_per_fd),
        );
    }

    fn name(&self) -> &str {
        "edge"
    }

    fn threads(&self) -> Option<usize> {
        self.inner.threads
    }
}
