//! Stopping: after the first signal new requests are refused and those that run are waited for; a
//! second signal ends at once.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};

use crate::gateway::Traffic;

/// Waits for SIGINT and SIGTERM.
pub(crate) struct Signals {
    traffic: Arc<Traffic>,
    /// No request runs longer than this.
    longest: Duration,
}

impl Signals {
    pub(crate) fn new(traffic: Arc<Traffic>, longest: Duration) -> Self {
        Self { traffic, longest }
    }

    async fn finish(&self) {
        let requests = self.traffic.running();
        if requests > 0 {
            tracing::info!(requests, "stopping when these have ended; a second signal ends them");
        }
        self.traffic.finish().await;
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            tracing::error!("signals cannot be received; end this process with SIGKILL");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tokio::select! {
            _ = tokio::time::timeout(self.longest, self.finish()) => {}
            _ = interrupt.recv() => tracing::info!("ending at once"),
            _ = terminate.recv() => tracing::info!("ending at once"),
        }
        ShutdownSignal::GracefulTerminate
    }
}
