//! A deployment's whole life, told to a store that may fail at each step, with what has to hold after
//! each: what was acknowledged is done, what failed is done wholly or not at all, nothing is done twice.

use std::{path::Path, time::Duration};

use control::{
    audit::{AuditEntry, AuditQuery},
    error::{Error, Result},
    name::{IdempotencyKey, ServiceId},
    service::{Deployment, Obstacle, Phase, Seen, Service, ServiceView, Wish},
    store::{
        Attempt, Change, Creation, Durable, ServiceQuery, Volatile,
        redis::{Part, Redis},
    },
};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};

use super::{SOON, soon, told};
use crate::{
    redis::{chaos::Chaos, open_at},
    store::{at, edit, line, origin, phases, replica, service},
};

/// Both sides of a store, over one network.
pub(super) struct Life {
    control: Redis,
    edge: Redis,
    hints: Receiver<Change>,
}

impl Life {
    pub(super) async fn begin(chaos: &Chaos, prefix: &str, data_dir: &Path) -> Self {
        let url = format!("unix://{}", chaos.socket().display());
        let open = async |part| open_at(&url, prefix, data_dir, part).await.expect("opens");
        let (control, edge) = (open(Part::Control).await, open(Part::Edge).await);
        let hints = edge.watch();
        Self { control, edge, hints }
    }

    pub(super) async fn live(&mut self) {
        let service = self.create().await;
        self.deploy(service.id, service.latest_deployment).await;
        let second = self.update(&service).await;
        self.note(service.id).await;
        self.replicate(service.id, &second).await;
        self.delete(service.id).await;
    }

    async fn create(&mut self) -> Service {
        let (service, first) = service("a");
        let key = IdempotencyKey::parse("k").expect("valid");
        let attempt = Attempt { key, fingerprint: [1; 32] };
        let create = async || self.control.create_service(&service, &first, Some(&attempt)).await;
        let made = told(create).await;
        let again = soon(create).await;
        match made {
            Some(made) => assert_eq!(made, Creation::New),
            None => assert!(matches!(again, Creation::New | Creation::Repeated(_))),
        }
        assert_eq!(soon(create).await, Creation::Repeated(service.id));
        let listed = soon(async || self.control.services(&ServiceQuery::all(), 0, 9).await).await;
        assert_eq!((listed.count, listed.items.as_slice()), (1, &[service.clone()][..]));
        self.edge_sees(service.id, |view| view.route.is_some()).await;
        service
    }

    async fn deploy(&mut self, id: ServiceId, first: control::name::DeploymentId) {
        let store = &self.control;
        let claim = async || store.claim_deployment(id, at(2)).await;
        let claimed = told(claim).await;
        let again = soon(claim).await.expect("it waits");
        assert!(claimed.is_none_or(|claimed| claimed.is_some_and(|one| one.id == first)));
        assert_eq!(again.id, first);
        let read = async || store.deployment(id, first).await;
        let steps = [Phase::Building, Phase::Deploying, Phase::HealthChecking];
        for phase in steps {
            let lines = || vec![line(phase.as_str())];
            let record = async || store.record_phase(id, first, phase, at(3), lines(), None).await;
            let done = told(record).await.is_some();
            let kept = soon(read).await.expect("is there");
            let is_whole = phases(&kept).contains(&phase);
            assert_eq!(kept.log.contains(&line(phase.as_str())), is_whole, "half is done");
            assert!(is_whole || !done, "what was acknowledged is lost");
            if !is_whole {
                soon(record).await;
            }
        }
        let activate = async || store.activate_deployment(id, first, at(4)).await;
        if told(activate).await.is_none() {
            soon(activate).await;
        }
        let kept = soon(read).await.expect("is there");
        let all = [&[Phase::Queued][..], &steps, &[Phase::Live]].concat();
        assert_eq!(phases(&kept), all, "each once");
        assert_eq!(kept.log, steps.map(|phase| line(phase.as_str())), "each once");
        let is_live = |view: &ServiceView| view.latest_phase == Some(Phase::Live);
        self.edge_sees(id, is_live).await;
    }

    async fn update(&mut self, service: &Service) -> Deployment {
        let store = &self.control;
        let (mut next, second) = edit(service, "second");
        next.max_replicas = 11;
        let update = async || store.update_service(&next, Some(&second)).await;
        let updated = told(update).await;
        let read = async || store.service(service.id).await;
        let history = async || store.deployments(service.id, 0, 9).await;
        let (kept, count) = (soon(read).await.expect("is there"), soon(history).await.count);
        let is_whole = kept.version == 2;
        assert_eq!((kept.latest_deployment == second.id, count == 2), (is_whole, is_whole));
        match updated {
            Some(updated) => assert_eq!(kept, updated),
            None if is_whole => {}
            None => assert_eq!(soon(update).await.version, 2),
        }
        let again = async || match update().await {
            Err(Error::Conflict { field: None, .. }) => Ok(false),
            other => other.map(|_| true),
        };
        assert!(!soon(again).await, "it is done");
        assert_eq!(
            (soon(read).await.expect("is there").version, soon(history).await.count),
            (2, 2)
        );
        self.edge_sees(service.id, |view| {
            view.route.as_ref().is_some_and(|route| route.max_replicas == 11)
        })
        .await;
        second
    }

    /// An entry of the audit log is another one each time.
    async fn note(&self, id: ServiceId) {
        let origin = origin(control::service::Cause::Changed);
        let entry = AuditEntry {
            id: 0,
            at: at(1),
            user: origin.by.clone(),
            token: None,
            address: None,
            action: "service.update".to_owned(),
            owner: origin.by,
            service: Some(id),
            status: 200,
            detail: serde_json::Map::new(),
        };
        let append = async || self.control.append_audit(&entry).await;
        let done = told(append).await.is_some();
        let count = async || Ok(self.control.audit(&AuditQuery::default(), 0, 9).await?.count);
        let kept = soon(count).await;
        assert!(if done { kept == 1 } else { kept <= 1 }, "{kept} entries");
    }

    async fn replicate(&mut self, id: ServiceId, deployment: &Deployment) {
        let replica = replica(id, deployment.id);
        let (control, edge) = (&self.control, &self.edge);
        let put = async || control.put_replica(replica.clone()).await;
        self.twice(put).await;
        let wish = async || control.wish_replica(id, &replica.id, Wish::Drain).await;
        self.twice(wish).await;
        let report = async || edge.report_replica(id, &replica.id, Seen::Ready, 2).await;
        self.twice(report).await;
        let obstacle = Obstacle { message: "full".to_owned(), retry_at: at(5) };
        let obstruct = async || control.set_obstacle(id, Some(obstacle.clone())).await;
        self.twice(obstruct).await;
        let kept = control::service::Replica {
            wish: Wish::Drain,
            seen: Some(Seen::Ready),
            ..replica.clone()
        };
        self.edge_sees(id, |view| {
            view.replicas == [kept.clone()] && view.demand == 2 && view.obstacle.is_some()
        })
        .await;
        let control = &self.control;
        self.twice(async || control.remove_replica(id, &replica.id).await).await;
        self.edge_sees(id, |view| view.replicas.is_empty()).await;
    }

    /// For what may be told twice.
    async fn twice(&self, verb: impl AsyncFn() -> Result<()>) {
        if told(&verb).await.is_none() {
            soon(verb).await;
        }
    }

    async fn delete(&mut self, id: ServiceId) {
        let delete = async || self.control.delete_service(id, None).await;
        let deleted = told(delete).await;
        assert!(deleted.is_none_or(|was_there| was_there));
        let again = soon(delete).await;
        assert!(!again || deleted.is_none(), "what was deleted came back");
        assert_eq!(soon(async || self.control.service(id).await).await, None);
        assert_eq!(soon(async || self.control.deployments(id, 0, 9).await).await.count, 0);
        let nothing = |view: &ServiceView| {
            (&view.route, view.replicas.len(), view.demand, &view.obstacle) == (&None, 0, 0, &None)
        };
        self.edge_sees(id, nothing).await;
        for store in [&self.control, &self.edge] {
            assert!(soon(async || store.service_ids().await).await.is_empty());
        }
    }

    /// Reads again at each hint, as whoever watches does, until it is as it should be.
    async fn edge_sees(&mut self, id: ServiceId, expected: impl Fn(&ServiceView) -> bool) {
        let (edge, hints) = (&self.edge, &mut self.hints);
        let follow = async {
            loop {
                let view = soon(async || edge.view(id).await).await;
                if expected(&view) {
                    return;
                }
                loop {
                    match hints.recv().await {
                        Ok(change) if !change.may_concern(id) => {}
                        Ok(_) | Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => panic!("the store is there"),
                    }
                }
            }
        };
        timeout(SOON + Duration::from_secs(5), follow).await.expect("a hint comes");
    }
}
