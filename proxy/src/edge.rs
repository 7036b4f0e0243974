//! Keeps the edge's picture of the world in step with the store: routes, pools, and one home per
//! replica. A hint means "read that service again", and what is read is applied as a whole, so a
//! hint that comes twice does no harm; one that is lost is made up for by the next round over all
//! services. What the store says of a replica and what was seen of it are compared each time, and what
//! it lacks is reported again.

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
    rounds::Rounds,
    run_dir::{self, RunDir},
    secret::Keyring,
    service::{GoneCause, Replica, Seen, ServiceView, Wish},
    store::{Change, Store},
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
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
    /// How long a replica that has called another edge before is waited for.
    pub(crate) call_within: Duration,
    pub(crate) metrics: Arc<Metrics>,
    /// Taken when every route has been read.
    pub(crate) known: Step,
    pub(crate) stages: Arc<Stages>,
}

/// Follows the store until `stop` turns true. When the replicas are for another process, only what
/// becomes of them is still told.
pub(crate) async fn follow(edge: Arc<Edge>, mut stop: watch::Receiver<bool>) {
    let (notes, inbox) = mpsc::unbounded_channel();
    let (told, arrivals) = mpsc::unbounded_channel();
    let mut reporter = JoinSet::new();
    reporter.spawn(report(edge.clone(), inbox, told));
    let mut picture = Picture {
        edge: edge.clone(),
        notes,
        arrivals,
        unheard: Unheard::default(),
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
    /// What became of the notes.
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    unheard: Unheard,
    pools: HashMap<ServiceId, Arc<Pool>>,
    homes: HashMap<ReplicaId, (ServiceId, AbortHandle)>,
    /// The homes end with the picture.
    tasks: JoinSet<()>,
}

/// A note of this service has reached the store, or has not.
struct Arrival {
    service: ServiceId,
    reached: bool,
}

/// Services of which control was not told something: they are read again, and what is missing is said
/// again.
#[derive(Default)]
struct Unheard {
    services: HashSet<ServiceId>,
    again: Option<Instant>,
}

impl Unheard {
    fn note(&mut self, service: ServiceId) {
        self.services.insert(service);
        self.again.get_or_insert_with(|| Instant::now() + limits::STORE_RETRY);
    }

    async fn due(&self) {
        match self.again {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn take(&mut self) -> HashSet<ServiceId> {
        std::mem::take(self).services
    }
}

impl Picture {
    async fn keep_up(&mut self) {
        let mut rounds = Rounds::default();
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
                let outcome = tokio::select! {
                    Some(arrival) = self.arrivals.recv() => {
                        self.note_arrival(&arrival);
                        continue;
                    }
                    Some(_) = self.tasks.join_next() => continue,
                    hint = hints.recv() => match hint {
                        Ok(Change::Service(service)) => self.read(service).await,
                        Ok(Change::Everything) | Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return,
                    },
                    Ok(()) = problem.changed() => Ok(()),
                    () = self.unheard.due() => {
                        let services = self.unheard.take();
                        self.read_each(services).await
                    }
                    () = rounds.due() => match rounds.next_one() {
                        Some(service) => self.read(service).await,
                        None => self.all_services().await.map(|all| rounds.begin(all)),
                    },
                };
                self.note_health(&outcome, &problem);
                if outcome.is_err() {
                    break;
                }
            }
        }
    }

    fn note_arrival(&mut self, arrival: &Arrival) {
        if let Some(pool) = self.pools.get(&arrival.service) {
            pool.arrived();
        }
        if !arrival.reached {
            self.unheard.note(arrival.service);
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
        let services = self.all_services().await?;
        self.read_each(services).await
    }

    /// Those that the store has, and those that it had.
    async fn all_services(&self) -> Result<HashSet<ServiceId>> {
        let kept = self.edge.store.service_ids().await?;
        Ok(kept.into_iter().chain(self.pools.keys().copied()).collect())
    }

    async fn read_each(&mut self, services: HashSet<ServiceId>) -> Result<()> {
        for service in services {
            self.read(service).await?;
        }
        Ok(())
    }

    async fn read(&mut self, service: ServiceId) -> Result<()> {
        // What has arrived by now is in what is read.
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.note_arrival(&arrival);
        }
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
        pool.apply(view);
        self.homes.retain(|id, (owner, home)| {
            let stays = *owner != service
                || view.replicas.iter().any(|r| r.id == *id)
                || (view.route.is_some() && pool.knows(id));
            if !stays {
                home.abort();
            }
            stays
        });
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
        let called = matches!(replica.seen, Some(Seen::Ready | Seen::Idle));
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
            recalls: self.edge.run_dir.recalls(&replica.id),
            idle_after: self.edge.idle_after,
            call_within: called.then_some(self.edge.call_within),
            store: self.edge.store.clone(),
            keyring: self.edge.keyring.clone(),
        };
        let task = self.tasks.spawn(home.keep(listener));
        self.homes.insert(replica.id.clone(), (replica.service, task));
    }
}

/// Carries notes to the store, in their order. When it is another process's store, that one learns
/// which replicas not to use again.
async fn report(
    edge: Arc<Edge>,
    mut inbox: mpsc::UnboundedReceiver<Note>,
    told: mpsc::UnboundedSender<Arrival>,
) {
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
        if let Err(error) = &outcome {
            tracing::warn!(?note, %error, "control was not told; it will be");
        }
        let (Note::Seen { service, .. } | Note::Demand { service, .. }) = note;
        // The receiver ends with the edge.
        let _ = told.send(Arrival { service, reached: outcome.is_ok() });
    }
}
