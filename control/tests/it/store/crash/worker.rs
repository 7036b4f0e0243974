//! The process that is killed: workers that change the store as fast as they can, and say what they
//! are about to do, and what was acknowledged.

use std::io::Write;

use control::{
    audit::AuditEntry,
    error::Result,
    name::{DeploymentId, IdempotencyKey, ServiceId, TokenId},
    service::{Cause, Deployment, Phase, Service},
    store::{Attempt, Durable, embedded::Embedded},
};
use serde_json::{Map, Value};

use super::{
    super::{at, line, origin, spec},
    Random,
    part::{Kept, Part, Step, code, made, user},
};

/// Services of a worker.
const SERVICES: u64 = 3;
/// More are not kept, and a model of what is forgotten would be another store.
const DEPLOYMENTS: usize = 30;
const TOKENS: usize = 20;

/// Tells the parent; false when it does not listen any more.
pub(super) fn say(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    // A line that is written at once is not cut by a kill.
    out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// One step after the other, until the parent does not listen.
pub(super) async fn work(store: Embedded, worker: usize, mut part: Part, mut random: Random) {
    loop {
        let step = choose(&part, worker, &mut random);
        if !say(&format!("try {worker} {}", serde_json::to_string(&step).expect("is JSON"))) {
            return;
        }
        if let Err(error) = perform(&store, &part, worker, &step).await {
            say(&format!("bad {worker} {error}"));
            return;
        }
        if !say(&format!("ok {worker}")) {
            return;
        }
        part = part.after(&step);
    }
}

fn choose(part: &Part, worker: usize, random: &mut Random) -> Step {
    match random.below(12) {
        0 if part.tokens.len() < TOKENS => return Step::Add { token: TokenId::new() },
        1 if !part.tokens.is_empty() => return Step::Revoke { token: random.one_of(&part.tokens) },
        2 if !part.tokens.is_empty() => return Step::Use { token: random.one_of(&part.tokens) },
        3 => return Step::Note,
        _ => {}
    }
    let name = format!("w{worker}-{}", random.below(SERVICES));
    let number = random.below(100_000);
    let Some(kept) = part.services.get(&name) else {
        let (id, first) = (ServiceId::new(), DeploymentId::new());
        return Step::Create { name, id, first, code: number };
    };
    if kept.deployments.len() >= DEPLOYMENTS {
        return Step::Delete { name };
    }
    let waiting = kept.waiting();
    let some = |random: &mut Random| random.one_of(&waiting);
    match random.below(14) {
        0 => Step::Delete { name },
        1 => Step::Update { name, deployment: None },
        2 | 3 if !waiting.is_empty() => Step::Claim { name },
        4 | 5 if !waiting.is_empty() => Step::Build { name, deployment: some(random) },
        6 | 7 if !waiting.is_empty() => Step::Fail { name, deployment: some(random) },
        8..=10 if waiting.last() > kept.live.as_ref() => {
            Step::Activate { name, deployment: waiting[waiting.len() - 1] }
        }
        _ => Step::Update { name, deployment: Some((DeploymentId::new(), number)) },
    }
}

async fn perform(store: &Embedded, part: &Part, worker: usize, step: &Step) -> Result<()> {
    let id = |name: &str| part.services[name].id;
    match step {
        Step::Create { name, .. } => {
            let (record, first, attempt) = creation(worker, step, name);
            store.create_service(&record, &first, Some(&attempt)).await?;
        }
        Step::Update { name, deployment } => {
            let mut record = part.services[name].record(worker, name);
            record.max_replicas += 1;
            let new = deployment.map(|(id, number)| {
                record.function.code = code(number);
                queued(record.id, id, number)
            });
            store.update_service(&record, new.as_ref()).await?;
        }
        Step::Delete { name } => assert!(store.delete_service(id(name), None).await?),
        Step::Claim { name } => drop(store.claim_deployment(id(name), at(5)).await?),
        Step::Build { name, deployment } => {
            let lines = vec![line("building")];
            let phase = Phase::Building;
            store.record_phase(id(name), *deployment, phase, at(6), lines, None).await?;
        }
        Step::Fail { name, deployment } => {
            let (lines, why) = (vec![line("failed")], Some("no".to_owned()));
            store.record_phase(id(name), *deployment, Phase::Failed, at(7), lines, why).await?;
        }
        Step::Activate { name, deployment } => {
            let before = store.activate_deployment(id(name), *deployment, at(8)).await?;
            assert_eq!(before, part.services[name].live);
        }
        Step::Add { token } => store.add_token(&made(&user(worker), *token)).await?,
        Step::Revoke { token } => {
            assert!(store.remove_token(None, *token).await?.is_some());
        }
        Step::Use { token } => store.note_token_use(*token, at(9)).await?,
        Step::Note => store.append_audit(&entry(worker, part.notes + 1)).await?,
    }
    Ok(())
}

/// What a step that creates a service asks for.
pub(super) fn creation(worker: usize, step: &Step, name: &str) -> (Service, Deployment, Attempt) {
    let Step::Create { id, first, code: number, .. } = step else { panic!("another step") };
    let deployments = [(*first, (*number, None))].into();
    let kept = Kept { id: *id, version: 1, live: None, deployments };
    let key = IdempotencyKey::parse(id.to_string()).expect("valid");
    let attempt = Attempt { key, fingerprint: [7; 32] };
    (kept.record(worker, name), queued(*id, *first, *number), attempt)
}

fn queued(service: ServiceId, id: DeploymentId, number: u64) -> Deployment {
    let deployment =
        Deployment::queued(service, spec(&code(number)), origin(Cause::Changed), at(2));
    Deployment { id, ..deployment }
}

fn entry(worker: usize, number: u64) -> AuditEntry {
    AuditEntry {
        id: 0,
        at: at(1),
        user: user(worker),
        token: None,
        address: None,
        action: "service.update".to_owned(),
        owner: user(worker),
        service: None,
        status: 200,
        detail: Map::from_iter([("number".to_owned(), Value::from(number))]),
    }
}
