//! The public listener as a Pingora service.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use control::{config::Config, context::Context, store::Store};
use pingora_core::{
    apps::HttpServerOptions,
    server::{ListenFds, Server, ShutdownWatch},
    services::{Service as ServiceTrait, listening::Service},
};
use pingora_proxy::{HttpProxy, ProxyServiceBuilder};

use crate::{
    edge::{self, Edge},
    gateway::{Bounds, Gateway, Traffic},
    route::Routes,
};

/// The public listener together with the tasks that feed it. They share one runtime, because the
/// replicas' connections belong to the runtime that accepted them.
pub(crate) struct EdgeService {
    edge: Arc<Edge>,
    inner: Service<HttpProxy<Gateway>>,
}

impl EdgeService {
    pub(crate) fn new(
        config: &Config,
        server: &Server,
        context: &Context,
        traffic: &Arc<Traffic>,
        public_addr: SocketAddr,
    ) -> Self {
        let routes = Arc::new(Routes::default());
        let gateway = Gateway {
            routes: routes.clone(),
            traffic: traffic.clone(),
            bounds: Bounds {
                body_bytes: config.body_bytes,
                body_within: config.body_wait,
                response_bytes: config.response_bytes,
                function_timeout: config.function_timeout,
                queue_within: config.queue_wait,
            },
        };
        // CONNECT is refused like any other method, by our own answer.
        let mut options = HttpServerOptions::default();
        options.allow_connect_method_proxying = true;
        let mut inner = ProxyServiceBuilder::new(&server.configuration, gateway)
            .name("edge")
            .server_options(options)
            .build();
        inner.add_tcp(&public_addr.to_string());
        let edge = Edge {
            store: context.store.clone() as Arc<dyn Store>,
            routes,
            run_dir: context.run_dir.clone(),
            health: context.health.clone(),
            queue_length: config.queue_length,
            idle_after: config.idle,
        };
        Self { edge: Arc::new(edge), inner }
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
}
