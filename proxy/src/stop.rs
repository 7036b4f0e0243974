//! Stopping: after the first signal new requests are refused and those that run are waited for; a
//! second signal ends at once.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};

use crate::gateway::Traffic;

/// Pause between looks at what still runs.
const LOOK: Duration = Duration::from_millis(20);

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
        self.traffic.stopping.store(true, Ordering::Release);
        let running = || self.traffic.running.load(Ordering::Acquire);
        if running() > 0 {
            tracing::info!(
                requests = running(),
                "stopping when these requests have ended; a second signal ends them"
            );
        }
        while running() > 0 {
            tokio::time::sleep(LOOK).await;
        }
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
