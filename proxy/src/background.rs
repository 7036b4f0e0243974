//! What runs beside the edge, or without one: the control plane and the firewall's keeper with the
//! functions' DNS, when this process has control, and what is served on the admin port; in one runtime
//! of their own.

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use control::{
    api::Calls,
    context::Context,
    firewall,
    health::{Dependency, Health},
    limits, plane,
    store::Store,
};
use parking_lot::Mutex;
use pingora_core::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::sync::watch;

use crate::{stages::Stages, upgrade::hatch};

/// The control plane, the admin port and the ready line.
pub(crate) struct Beside {
    /// None when another process has control.
    pub(crate) context: Option<Arc<Context>>,
    pub(crate) health: Health,
    pub(crate) stages: Arc<Stages>,
    pub(crate) api: axum::Router,
    pub(crate) calls: Calls,
    /// Taken by the API: it ends with it.
    pub(crate) admin: Mutex<Option<TcpListener>>,
    pub(crate) admin_addr: SocketAddr,
    /// None when another process answers the public.
    pub(crate) public_addr: Option<SocketAddr>,
    /// By which this process is found.
    pub(crate) hatch: PathBuf,
}

#[async_trait]
impl BackgroundService for Beside {
    async fn start(&self, mut stop: ShutdownWatch) {
        let ends = self.stages.control_ends.watch();
        let (_dns, _, _) = tokio::join!(
            self.control(ends.clone()),
            self.serve_api(ends.clone()),
            self.say_ready(ends),
        );
        self.stages.control_ended.take();
        // Functions have their DNS until the process ends.
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

impl Beside {
    /// Controls, if this process does. Returns what functions use to the end of the process.
    async fn control(&self, ends: watch::Receiver<bool>) -> Option<impl Sized> {
        let context = self.context.as_ref()?;
        let alone = self.public_addr.is_none();
        let (_, dns, _, _) = tokio::join!(
            plane::run(context.clone(), ends.clone()),
            firewall::run(context.clone(), ends.clone()),
            context.logs.run(ends.clone()),
            async {
                if alone {
                    watch_store(&*context.store, &self.health, ends.clone()).await;
                }
            },
        );
        Some(dns)
    }

    async fn serve_api(&self, ends: watch::Receiver<bool>) {
        let Some(admin) = self.admin.lock().take() else { return };
        let _found_by = self.public_addr.is_none().then(|| self.serve_alone());
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

    /// Without an edge, this is what serves; `grid upgrade` finds it as long as this is held.
    fn serve_alone(&self) -> Option<UnixListener> {
        self.stages.serving.take();
        let found = hatch::open(&self.hatch);
        let path = self.hatch.display();
        found.inspect_err(|error| {
            tracing::error!(%path, %error, "the private socket cannot be opened: grid upgrade will not work");
        })
        .ok()
    }

    /// Prints the one line that scripts wait for, when a request would be served.
    async fn say_ready(&self, mut ends: watch::Receiver<bool>) {
        let ready = async {
            self.stages.serving.taken().await;
            self.health.ready().await;
            let public = self.public_addr.map(|address| format!(" public=http://{address}"));
            println!("grid ready{} admin=http://{}", public.unwrap_or_default(), self.admin_addr);
        };
        tokio::select! {
            () = ready => {}
            _ = ends.wait_for(|ends| *ends) => {}
        }
    }
}

/// Says how the store is, where no edge does.
async fn watch_store(store: &dyn Store, health: &Health, mut ends: watch::Receiver<bool>) {
    let mut known = store.problem();
    let watch = async {
        loop {
            let problem = known.borrow_and_update().clone();
            if health.set(Dependency::Store, problem.clone())
                && let Some(problem) = problem
            {
                tracing::error!("{problem}; it is tried again every second");
            }
            if known.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = watch => {}
        _ = ends.wait_for(|ends| *ends) => {}
    }
}
