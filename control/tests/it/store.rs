//! What every store promises, as functions over `Arc<dyn Store>`, run on the embedded one; and
//! what the embedded one promises about its file.

mod conformance;
mod order;
mod survival;

use control::{
    name::{
        DeploymentId, FunctionName, HandlerName, PublicDomain, ReplicaId, ServiceId, ServiceName,
    },
    service::{
        Deployment, Egress, EventFormat, FunctionSpec, LogLine, Phase, PhaseEntry, Replica,
        Service, Wish,
    },
};
use jiff::Timestamp;

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
    }
}

/// A service that nobody has stored yet, with its first deployment.
fn service(name: &str) -> (Service, Deployment) {
    let id = ServiceId::new();
    let first = Deployment::queued(id, spec("first"), at(1));
    let service = Service {
        id,
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
    let deployment = Deployment::queued(service.id, service.function.clone(), at(2));
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
