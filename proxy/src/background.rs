//! What runs beside the edge: the control plane, the firewall's keeper with the functions' DNS, and
//! the admin API, in one runtime of their own.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use async_trait::async_trait;
use control::{api::Calls, context::Context, firewall, limits, plane};
use parking_lot::Mutex;
use pingora_core::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::sync::watch;

use crate::stages::Stages;

/// The control plane, the admin API and the ready line.
pub(crate) struct Control {
    pub(crate) context: Arc<Context>,
    pub(crate) stages: Arc<Stages>,
    pub(crate) api: axum::Router,
    pub(crate) calls: Calls,
    /// Taken by the API: it ends with it.
    pub(crate) admin: Mutex<Option<TcpListener>>,
    pub(crate) admin_addr: SocketAddr,
    pub(crate) public_addr: SocketAddr,
}

#[async_trait]
impl BackgroundService for Control {
    async fn start(&self, mut stop: ShutdownWatch) {
        let ends = self.stages.control_ends.watch();
        let (_, _dns, _, _, _) = tokio::join!(
            plane::run(self.context.clone(), ends.clone()),
            firewall::run(self.context.clone(), ends.clone()),
            self.context.logs.run(ends.clone()),
            self.serve_api(ends.clone()),
            self.say_ready(ends),
        );
        self.stages.control_ended.take();
        // Functions have their DNS until the process ends.
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

impl Control {
    async fn serve_api(&self, ends: watch::Receiver<bool>) {
        let Some(admin) = self.admin.lock().take() else { return };
        let ended = |mut ends: watch::Receiver<bool>| async move {
            let _ = ends.wait_for(|ends| *ends).await;
        };
        let served = async {
            admin.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(admin)?;
            let api = self.api.clone();
            axum::serve(listener, api.into_make_service_with_connect_info::<SocketAddr>())
                .with_graceful_shutdown(ended(ends.clone()))
                .await?;
            self.calls.ended().await;
            Ok::<_, std::io::Error>(())
        };
        let bound = async {
            ended(ends.clone()).await;
            tokio::time::sleep(limits::API_END).await;
        };
        tokio::select! {
            outcome = served => {
                if let Err(error) = outcome {
                    tracing::error!(%error, "the admin API ended");
                }
            }
            () = bound => tracing::warn!("requests to the admin API were cut off"),
        }
    }

    /// Prints the one line that scripts wait for, when a request would be served.
    async fn say_ready(&self, mut ends: watch::Receiver<bool>) {
        let ready = async {
            self.stages.serving.taken().await;
            self.context.health.ready().await;
            println!(
                "grid ready public=http://{} admin=http://{}",
                self.public_addr, self.admin_addr
            );
        };
        tokio::select! {
            () = ready => {}
            _ = ends.wait_for(|ends| *ends) => {}
        }
    }
}
