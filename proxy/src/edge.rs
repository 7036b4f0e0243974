//! Keeps the edge's picture of the world in step with the store: routes, pools, and one home per
//! replica. A hint means "read that service again", and what is read is applied as a whole, so a
//! hint that is lost or comes twice does no harm.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use control::{
    error::Result,
    health::{Dependency, Health},
    limits,
    name::{ReplicaId, ServiceId},
    run_dir::{self, RunDir},
    secret::Keyring,
    service::{GoneCause, Replica, Seen, ServiceView, Wish},
    store::{Change, Store},
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use crate::{
    home::Home,
    metrics::Metrics,
    pool::{Note, Pool},
    route::Routes,
    stages::{Loss, Stages, Step},
    tls::Domains,
};

/// What the edge is made of.
pub(crate) struct Edge {
    pub(crate) store: Arc<dyn Store>,
    /// Opens what is handed over to replicas.
    pub(crate) keyring: Keyring,
    pub(crate) routes: Arc<Routes>,
    /// Is told the domains, when somebody wants to know.
    pub(crate) domains: Option<Arc<Domains>>,
    pub(crate) run_dir: RunDir,
    pub(crate) health: Health,
    /// Waiting requests per function.
    pub(crate) queue_length: usize,
    /// After so long without a request a replica is idle.
    pub(crate) idle_after: Duration,
    pub(crate) metrics: Arc<Metrics>,
    /// Taken when every route has been read.
    pub(crate) known: Step,
    pub(crate) stages: Arc<Stages>,
}

/// Follows the store until `stop` turns true. When the replicas are for another process, only what
/// becomes of them is still told.
pub(crate) async fn follow(edge: Arc<Edge>, mut stop: watch::Receiver<bool>) {
    let (notes, inbox) = mpsc::unbounded_channel();
    let mut reporter = JoinSet::new();
    reporter.spawn(report(edge.clone(), inbox));
    let mut picture = Picture {
        edge: edge.clone(),
        notes,
        pools: HashMap::new(),
        homes: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let released = tokio::select! {
        () = picture.keep_up() => false,
        () = edge.stages.released.taken() => true,
        _ = stop.wait_for(|stop| *stop) => false,
    };
    if released {
        picture.release();
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

struct Picture {
    edge: Arc<Edge>,
    notes: mpsc::UnboundedSender<Note>,
    pools: HashMap<ServiceId, Arc<Pool>>,
    homes: HashMap<ReplicaId, (ServiceId, AbortHandle)>,
    /// The homes end with the picture.
    tasks: JoinSet<()>,
}

impl Picture {
    async fn keep_up(&mut self) {
        loop {
            let mut hints = self.edge.store.watch();
            // What the store itself knows to be wrong with it; what is read may be well all the same.
            let mut problem = self.edge.store.problem();
            let outcome = self.read_all().await;
            self.note_health(&outcome, &problem);
            if outcome.is_err() {
                tokio::time::sleep(limits::STORE_RETRY).await;
                continue;
            }
            self.edge.known.take();
            loop {
                tokio::select! {
                    hint = hints.recv() => match hint {
                        Ok(Change::Service(service)) => {
                            let outcome = self.read(service).await;
                            self.note_health(&outcome, &problem);
                            if outcome.is_err() {
                                break;
                            }
                        }
                        Ok(Change::Everything) | Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return,
                    },
                    Ok(()) = problem.changed() => self.note_health(&Ok(()), &problem),
                    Some(_) = self.tasks.join_next() => {}
                }
            }
        }
    }

    /// Gives all replicas up. Requests that run keep theirs to their end.
    fn release(&mut self) {
        self.tasks.abort_all();
        for pool in self.pools.values() {
            pool.release();
        }
    }

    fn note_health(&self, outcome: &Result<()>, known: &watch::Receiver<Option<String>>) {
        let problem = outcome.as_ref().err().map(ToString::to_string);
        let problem = problem.or_else(|| known.borrow().clone());
        if self.edge.health.set(Dependency::Store, problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!(
                "{problem}; requests go on with what is known, and the store is asked again every second"
            );
        }
    }

    async fn read_all(&mut self) -> Result<()> {
        let mut services: HashSet<ServiceId> =
            self.edge.store.service_ids().await?.into_iter().collect();
        services.extend(self.pools.keys());
        for service in services {
            self.read(service).await?;
        }
        Ok(())
    }

    async fn read(&mut self, service: ServiceId) -> Result<()> {
        let view = self.edge.store.view(service).await?;
        self.apply(service, &view);
        Ok(())
    }

    fn apply(&mut self, service: ServiceId, view: &ServiceView) {
        if view.route.is_none() && view.replicas.is_empty() && !self.pools.contains_key(&service) {
            return; // an echo of a service that is gone
        }
        let pool = self
            .pools
            .entry(service)
            .or_insert_with(|| Pool::new(service, self.edge.queue_length, self.notes.clone()))
            .clone();
        for replica in &view.replicas {
            self.receive(replica, &pool);
        }
        self.homes.retain(|id, (owner, home)| {
            let stays = *owner != service || view.replicas.iter().any(|r| r.id == *id);
            if !stays {
                home.abort();
            }
            stays
        });
        pool.apply(view);
        self.edge.routes.set(service, view.route.as_ref(), &pool);
        if let Some(domains) = &self.edge.domains {
            domains.set(service, view.route.as_ref().map(|route| &route.public_domain));
        }
        self.edge.metrics.catalog.set(service, view, &pool);
        if view.route.is_none() && view.replicas.is_empty() {
            self.pools.remove(&service);
        }
    }

    /// Opens a home for a replica that has none yet.
    fn receive(&mut self, replica: &Replica, pool: &Arc<Pool>) {
        if self.homes.contains_key(&replica.id) || matches!(replica.seen, Some(Seen::Gone { .. })) {
            return;
        }
        if replica.wish == Wish::Drain {
            return pool.report(&replica.id, Seen::Gone { cause: GoneCause::Drained });
        }
        let path = self.edge.run_dir.socket(&replica.id);
        let listener = match run_dir::listen(&path) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the call-home socket cannot be opened");
                return pool.report(&replica.id, Seen::Gone { cause: GoneCause::Closed });
            }
        };
        let home = Home {
            replica: replica.id.clone(),
            service: replica.service,
            deployment: replica.deployment,
            pool: pool.clone(),
            idle_after: self.edge.idle_after,
            store: self.edge.store.clone(),
            keyring: self.edge.keyring.clone(),
        };
        let task = self.tasks.spawn(home.keep(listener));
        self.homes.insert(replica.id.clone(), (replica.service, task));
    }
}

/// Carries notes to the store, in their order. When it is another process's store, that one learns
/// which replicas not to use again.
async fn report(edge: Arc<Edge>, mut inbox: mpsc::UnboundedReceiver<Note>) {
    let store = &edge.store;
    while let Some(note) = inbox.recv().await {
        if let Note::Seen { service, replica, seen: Seen::Gone { cause }, .. } = &note {
            edge.metrics.gone(*cause);
            let loss = Loss { service: *service, replica: replica.clone(), cause: *cause };
            if edge.stages.bequeath(loss) {
                continue;
            }
        }
        let outcome = match &note {
            Note::Seen { service, replica, seen, demand } => {
                store.report_replica(*service, replica, seen.clone(), *demand).await
            }
            Note::Demand { service, demand } => store.request_capacity(*service, *demand).await,
        };
        if let Err(error) = outcome {
            tracing::error!(?note, %error, "control was not told");
        }
    }
}
