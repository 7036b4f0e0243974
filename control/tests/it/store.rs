//! What every store promises, as functions over `Arc<dyn Store>`, run on the embedded one and on one in
//! a Redis; and what each promises beyond that.

mod accounts;
mod again;
mod backup;
mod conformance;
mod crash;
mod creation;
mod full;
mod lists;
mod order;
mod redis;
mod survival;

use std::sync::Arc;

use control::{
    name::{
        DeploymentId, FunctionName, HandlerName, PublicDomain, ReplicaId, ServiceId, ServiceName,
        UserName,
    },
    service::{
        Cause, Deployment, Egress, EventFormat, FunctionSpec, LogLine, Origin, Phase, PhaseEntry,
        Replica, Service, Wish,
    },
    store::Store,
};
use jiff::Timestamp;

/// What a promise is checked on: an empty store.
type Subject = Arc<dyn Store>;

/// Runs each named promise of the file on a store of its own, of every kind.
macro_rules! on_every_store {
    ($($promise:ident),* $(,)?) => {
        mod embedded {
            $(
                #[tokio::test]
                async fn $promise() {
                    let dir = tempfile::tempdir().expect("temporary directory");
                    let store = control::store::embedded::Embedded::open(dir.path()).expect("opens");
                    super::$promise(std::sync::Arc::new(store)).await;
                }
            )*
        }
        mod in_redis {
            $(
                #[tokio::test]
                async fn $promise() {
                    let server = crate::redis::Server::start();
                    let dir = tempfile::tempdir().expect("temporary directory");
                    let store = server.store(dir.path()).await;
                    super::$promise(std::sync::Arc::new(store)).await;
                }
            )*
        }
    };
}
use on_every_store;

/// The time `seconds` after the epoch.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a valid time")
}

fn spec(code: &str) -> FunctionSpec {
    FunctionSpec {
        runtime: "node18".to_owned(),
        handler: HandlerName::parse("handler").expect("valid"),
        code: code.to_owned(),
        event_format: EventFormat::Grid,
        memory_mb: 128,
        cpu_shares: 256,
        egress: Egress::Public,
        oci_runtime: None,
        env_vars: Vec::new(),
    }
}

fn origin(cause: Cause) -> Origin {
    Origin { by: UserName::operator(), cause }
}

/// A service that nobody has stored yet, with its first deployment.
fn service(name: &str) -> (Service, Deployment) {
    let id = ServiceId::new();
    let first = Deployment::queued(id, spec("first"), origin(Cause::Created), at(1));
    let service = Service {
        id,
        owner: UserName::operator(),
        name: ServiceName::parse(name).expect("valid"),
        function_name: FunctionName::parse(name).expect("valid"),
        public_domain: PublicDomain::parse(format!("{name}.localhost")).expect("valid"),
        function: first.function.clone(),
        min_replicas: 0,
        max_replicas: 10,
        rate_limit: Some(50),
        rate_burst: None,
        live_deployment: None,
        latest_deployment: first.id,
        version: 1,
        created_at: at(1),
        updated_at: at(1),
    };
    (service, first)
}

/// The next version of a service, with a deployment of `code`.
fn edit(service: &Service, code: &str) -> (Service, Deployment) {
    let mut service = service.clone();
    service.function.code = code.to_owned();
    let origin = origin(Cause::Changed);
    let deployment = Deployment::queued(service.id, service.function.clone(), origin, at(2));
    (service, deployment)
}

fn replica(service: ServiceId, deployment: DeploymentId) -> Replica {
    Replica { id: ReplicaId::random(), service, deployment, wish: Wish::Serve, seen: None }
}

fn line(text: &str) -> LogLine {
    LogLine { at: at(3), line: text.to_owned() }
}

fn phases(deployment: &Deployment) -> Vec<Phase> {
    deployment.phases.iter().map(|PhaseEntry { phase, .. }| *phase).collect()
}
