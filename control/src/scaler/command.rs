//! What a service's driver can be told, and what it tells back about a candidate.

use std::sync::Arc;

use tokio::{sync::mpsc, time::Instant};

use crate::{engine::Container, name::ReplicaId, service::Deployment};

/// What a driver is told.
#[derive(Debug)]
pub enum Command {
    /// Something about the service may have changed.
    Look,
    /// The engine does not answer.
    EngineDown,
    /// The engine answers; these containers of the service exist.
    EngineUp(Listed),
    /// The same, while the engine goes on to answer.
    Listed(Listed),
    /// What kept containers from being started is over.
    Retry,
    /// Nothing more is to be begun; what is on its way comes to its end.
    End,
    /// A container's process ended.
    Died(ReplicaId),
    /// A deployment wants a replica to try its code with.
    StartCandidate {
        /// Which one.
        deployment: Arc<Deployment>,
        /// Told how it goes. The candidate is kept while this is open.
        progress: mpsc::Sender<Progress>,
    },
}

/// The containers of a service.
#[derive(Debug)]
pub struct Listed {
    /// All of them, also those that ended.
    pub containers: Vec<Container>,
    /// What was started later is not among them.
    pub at: Instant,
}

/// How a candidate is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Its container runs.
    Launched,
    /// Its code is loaded.
    Ready,
    /// It never will be.
    Failed(String),
    /// It will not be, through no fault of the code: the engine did not do its part.
    Interrupted(String),
}
