//! How far this process is on its way: which part of it serves, and which one is to end. Each step is
//! taken once; whoever has to do with it watches.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use control::{
    name::{ReplicaId, ServiceId},
    service::GoneCause,
};
use pingora_core::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::sync::{mpsc, watch};

/// A step: taken or not.
#[derive(Debug, Default)]
pub(crate) struct Step(watch::Sender<bool>);

impl Step {
    /// Takes it.
    pub(crate) fn take(&self) {
        self.0.send_replace(true);
    }

    /// Turns true when it is taken.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    /// Waits until it is taken.
    pub(crate) async fn taken(&self) {
        // The sender is `self`, so the channel cannot be closed while this waits.
        let _ = self.0.subscribe().wait_for(|taken| *taken).await;
    }
}

/// All steps, in the order in which they are taken.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    /// The public is served.
    pub(crate) serving: Step,
    /// No connections are accepted any more.
    pub(crate) closed: Step,
    /// The control plane, the firewall's keeper and the admin API are to end.
    pub(crate) control_ends: Step,
    /// They have.
    pub(crate) control_ended: Step,
    /// Replicas are given up as soon as they are free, and call the next process.
    pub(crate) released: Step,
    /// Where losses are told when the store is not ours any more.
    heir: OnceLock<mpsc::UnboundedSender<Loss>>,
}

/// A service that ends with the control plane: what it looks after is the next process's then.
pub(crate) struct UntilControlEnds<S> {
    pub(crate) service: Arc<S>,
    pub(crate) stages: Arc<Stages>,
}

#[async_trait]
impl<S: BackgroundService + Send + Sync> BackgroundService for UntilControlEnds<S> {
    async fn start(&self, _: ShutdownWatch) {
        self.service.start(self.stages.control_ends.watch()).await;
    }
}

/// A replica that was given up, for whoever looks after it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) service: ServiceId,
    pub(crate) replica: ReplicaId,
    pub(crate) cause: GoneCause,
}

impl Stages {
    /// From now on losses come out here. Once.
    pub(crate) fn inherit(&self) -> mpsc::UnboundedReceiver<Loss> {
        let (sender, receiver) = mpsc::unbounded_channel(); // one for each replica at most
        let _ = self.heir.set(sender);
        receiver
    }

    /// Tells the loss of a replica. False when the store is the place to tell it.
    pub(crate) fn bequeath(&self, loss: Loss) -> bool {
        self.heir.get().is_some_and(|heir| heir.send(loss).is_ok())
    }
}
