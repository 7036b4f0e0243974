//! What runs beside the edge: the control plane, the firewall's keeper with the functions' DNS, and
//! the admin API, in one runtime of their own.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use control::{context::Context, firewall, plane};
use pingora_core::{server::ShutdownWatch, services::background::BackgroundService};

/// The control plane, the admin API and the ready line.
pub(crate) struct Control {
    pub(crate) context: Arc<Context>,
    pub(crate) api: axum::Router,
    pub(crate) admin: TcpListener,
    pub(crate) public_addr: SocketAddr,
}

#[async_trait]
impl BackgroundService for Control {
    async fn start(&self, stop: ShutdownWatch) {
        tokio::join!(
            plane::run(self.context.clone(), stop.clone()),
            firewall::run(self.context.clone(), stop.clone()),
            self.serve_api(stop.clone()),
            self.say_ready(stop),
        );
    }
}

impl Control {
    async fn serve_api(&self, mut stop: ShutdownWatch) {
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        let served = async {
            self.admin.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(self.admin.try_clone()?)?;
            let api = self.api.clone();
            axum::serve(listener, api.into_make_service_with_connect_info::<SocketAddr>()).await
        };
        tokio::select! {
            outcome = served => {
                if let Err(error) = outcome {
                    tracing::error!(%error, "the admin API ended");
                }
            }
            () = stopped => {}
        }
    }

    /// Prints the one line that scripts wait for, when a request would be served.
    async fn say_ready(&self, mut stop: ShutdownWatch) {
        let ready = async {
            self.context.health.ready().await;
            let mut own = self.public_addr;
            if own.ip().is_unspecified() {
                own.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            while tokio::net::TcpStream::connect(own).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let admin = self.admin.local_addr();
            println!(
                "grid ready public=http://{} admin=http://{}",
                self.public_addr,
                admin.map_or_else(|_| "?".to_owned(), |addr| addr.to_string())
            );
        };
        tokio::select! {
            () = ready => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}
