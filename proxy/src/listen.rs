//! The public listener as a Pingora service.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use control::{config::Config, context::Context, store::Store};
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
    gateway::{Bounds, Gateway, Traffic},
    http1, http2,
    metrics::Speaks,
    observe::Observer,
    origin::Proxies,
    rate::{ClientRates, Rate},
    route::Routes,
    tls::Tls,
};

/// The public listener together with the tasks that feed it. They share one runtime, because the
/// replicas' connections belong to the runtime that accepted them.
pub(crate) struct EdgeService {
    edge: Arc<Edge>,
    inner: Service<Front>,
}

impl EdgeService {
    pub(crate) fn new(
        config: &Config,
        context: &Context,
        traffic: &Arc<Traffic>,
        observer: Observer,
        public_addr: SocketAddr,
        https: Option<(SocketAddr, &Tls)>,
    ) -> pingora_core::Result<Self> {
        let routes = Arc::new(Routes::new(Rate::new(config.service_rate, config.service_burst)));
        let proxies = Arc::new(Proxies::new(&config.trusted_proxies));
        let door = Arc::new(Door::new(config, proxies.clone()));
        let observer = Arc::new(observer);
        let gateway = Gateway {
            observer: observer.clone(),
            routes: routes.clone(),
            traffic: traffic.clone(),
            plain: https
                .map(|(addr, tls)| tls.plain(&config.https, addr.port()))
                .unwrap_or_default(),
            rates: ClientRates::new(Rate::new(config.client_rate, config.client_burst)),
            proxies,
            bounds: Bounds {
                body_bytes: config.body_bytes,
                body_within: config.body_wait,
                response_bytes: config.response_bytes,
                function_timeout: config.function_timeout,
                queue_within: config.queue_wait,
            },
        };
        let mut inner = Service::new(
            "edge".to_owned(),
            Front { gateway: Arc::new(gateway), door: door.clone() },
        );
        inner.endpoints().set_pre_tls_callback(door);
        // Requests are read into buffers of their own: another copy on the way would be for nothing.
        let listener = ListenerConfig::tcp(public_addr.to_string());
        inner.add_listener(listener.l4_buffer(L4BufferSettings::unbuffered()));
        inner.threads = Some(config.edge_threads);
        if let Some((addr, tls)) = https {
            inner.add_tls_with_settings(&addr.to_string(), None, tls.listener()?);
        }
        let edge = Edge {
            store: context.store.clone() as Arc<dyn Store>,
            routes,
            domains: https.and_then(|(_, tls)| tls.domains()),
            run_dir: context.run_dir.clone(),
            health: context.health.clone(),
            queue_length: config.queue_length,
            idle_after: config.idle,
            metrics: observer.metrics.clone(),
        };
        Ok(Self { edge: Arc::new(edge), inner })
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
            self.inner.start_service(fds, stop, listeners_per_fd),
        );
    }

    fn name(&self) -> &str {
        "edge"
    }

    fn threads(&self) -> Option<usize> {
        self.inner.threads
    }
}
