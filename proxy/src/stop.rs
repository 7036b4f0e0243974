//! The life of the process: it says that it serves, and on signals it ends or has itself replaced.
//!
//! SIGINT and SIGTERM: nothing new is accepted, what runs comes to its end, then the process ends; a
//! second one ends it at once. SIGUSR2: see `upgrade`.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use control::{
    health::{Dependency, Health},
    store::Store,
};
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    sockets::Sockets,
    stages::Stages,
    traffic::Traffic,
    upgrade::{
        predecessor::Predecessor,
        successor::{Handover, Heir, Outcome},
    },
};

/// How long a client's connection may rest when this process stops. Enough for one that is in use.
const REST_TO_STOP: Duration = Duration::from_secs(1);
/// The same when another process serves already, and nobody waits for the end of this one.
const REST_TO_HAND_OVER: Duration = Duration::from_secs(10);
/// What became of the last request's replica is on its way for so long to the process that serves.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What the signals steer.
pub(crate) struct Life {
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) stages: Arc<Stages>,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) health: Health,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) handover: Handover,
    pub(crate) predecessor: Option<Predecessor>,
    /// No request runs longer than this.
    pub(crate) longest: Duration,
    /// Set when this is no orderly end.
    pub(crate) lost: Arc<AtomicBool>,
}

/// The signals that end the process.
struct Ending {
    interrupt: Signal,
    terminate: Signal,
}

impl Ending {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Life {
    /// Says that this process serves when it does, and listens to the one before until its end.
    async fn begin(&self) -> Infallible {
        self.stages.serving.taken().await;
        self.health.checked(Dependency::Engine).await;
        if let Err(error) = self.handover.place.claim() {
            tracing::warn!(%error, "the file that names this process was not written: grid upgrade will not find it");
        }
        match &self.predecessor {
            None => notify(&[NotifyState::Ready]),
            Some(predecessor) => {
                notify(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
                predecessor.clone().follow(self.store.clone()).await;
            }
        }
        std::future::pending().await
    }

    /// Serves until it is time to end; the process that serves then, when there is one.
    async fn serve(&self, ending: &mut Ending, upgrade: &mut Signal) -> Option<Heir> {
        let mut life = std::pin::pin!(self.begin());
        loop {
            tokio::select! {
                never = &mut life => match never {},
                () = ending.next() => return None,
                _ = upgrade.recv() => {}
            }
            let outcome = tokio::select! {
                never = &mut life => match never {},
                () = ending.next() => return None,
                outcome = self.handover.run() => outcome,
            };
            match outcome {
                Outcome::Replaced(heir) => return Some(heir),
                Outcome::Unchanged => {}
                Outcome::Lost => {
                    self.lost.store(true, Ordering::SeqCst);
                    return None;
                }
            }
        }
    }

    /// Ends what this process has to do with the public.
    async fn wind_up(&self, heir: Option<Heir>) {
        self.stages.closed.take();
        self.sockets.close();
        if let Some(heir) = heir {
            self.traffic.pass_on_to(self.handover.place.hatch());
            self.stages.released.take();
            self.traffic.leave(REST_TO_HAND_OVER);
            tracing::info!(
                requests = self.traffic.running(),
                "another process serves; this one ends when its last requests have"
            );
            let finished = async {
                self.traffic.finish().await;
                tokio::time::sleep(LAST_WORDS).await;
            };
            tokio::select! {
                () = finished => {}
                () = heir.tell() => {}
            }
            return;
        }
        notify(&[NotifyState::Stopping]);
        self.traffic.leave(REST_TO_STOP);
        let requests = self.traffic.running();
        if requests > 0 {
            tracing::info!(requests, "stopping when these have ended; a second signal ends them");
        }
        self.traffic.finish().await;
    }
}

#[async_trait]
impl ShutdownSignalWatch for Life {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(interrupt), Ok(terminate), Ok(mut upgrade)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
            signal(SignalKind::user_defined2()),
        ) else {
            tracing::error!("signals cannot be received; end this process with SIGKILL");
            return std::future::pending().await;
        };
        let mut ending = Ending { interrupt, terminate };
        let heir = self.serve(&mut ending, &mut upgrade).await;
        let end = async {
            if tokio::time::timeout(self.longest, self.wind_up(heir)).await.is_err() {
                let requests = self.traffic.running();
                tracing::warn!(requests, "these have not ended in time and are cut off");
            }
            // It bounds what it waits for by itself.
            self.stages.control_ends.take();
            self.stages.control_ended.taken().await;
        };
        tokio::select! {
            () = end => {}
            () = ending.next() => tracing::info!("ending at once"),
        }
        self.handover.place.leave();
        ShutdownSignal::GracefulTerminate
    }
}

/// Tells systemd, when it wants to know.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told ({state:?})");
    }
}
