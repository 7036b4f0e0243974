//! What a driver's tasks do outside: start a container, take one away, clean up.

use std::{collections::HashSet, time::Duration};

use crate::{
    context::Context,
    engine::{Attachment, ContainerSpec, Exit, Image},
    error::{Error, Kind, Result},
    limits,
    name::{DeploymentId, ReplicaId, ServiceId},
    replica::Removal,
    sandbox,
    service::{Deployment, Phase, Replica},
};

/// How long the end of a process that has hung up is waited for: how it ended is worth that.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// Starts a replica. The edge is told first, so that it listens before the runner dials.
pub(super) async fn launch(
    context: &Context,
    replica: &ReplicaId,
    deployment: &Deployment,
) -> Result<()> {
    let network = sandbox::network(context, deployment.function.egress).await?;
    let _turn = context.starts.acquire().await;
    context.run_dir.create(replica).await?;
    let known = Replica::new(replica.clone(), deployment.service, deployment.id);
    context.store.put_replica(known).await?;
    let spec = container_spec(context, replica, deployment, network);
    let started = match context.start(&spec).await {
        // Somebody removed the image behind our back.
        Err(Error::NotFound { what: "image", .. }) => {
            tracing::warn!(image = %spec.sandbox.image, "the image is gone; it is built again");
            context.build(deployment, &mut |_| {}).await?;
            context.engine.remove(&context.instance, replica).await?;
            context.start(&spec).await
        }
        outcome => outcome,
    };
    if matches!(started, Ok(_) | Err(Error::StartUnknown { .. })) {
        context.logs.started(deployment.service, deployment.id, replica);
    }
    if let Some(address) = started? {
        context.denied.assign(address, deployment.service, replica.clone());
    }
    Ok(())
}

fn container_spec(
    context: &Context,
    replica: &ReplicaId,
    deployment: &Deployment,
    network: Option<Attachment>,
) -> ContainerSpec {
    let image = context.images.tag(deployment);
    let mut sandbox = sandbox::of_function(context, &deployment.function, image, network);
    sandbox.env.push(format!("GRID_DEPLOYMENT={}", deployment.id));
    ContainerSpec {
        instance: context.instance.clone(),
        service: deployment.service,
        deployment: deployment.id,
        replica: replica.clone(),
        invocation: false,
        run_dir: context.run_dir.replica(replica),
        sandbox,
    }
}

/// How the process of a replica ended. None when it has hung up and has not.
pub(super) async fn ending(context: &Context, replica: &ReplicaId) -> Result<Option<Exit>> {
    context.engine.exit(&context.instance, replica, EXIT_GRACE).await
}

/// Ends a container and keeps what it wrote.
pub(super) async fn remove(
    context: &Context,
    service: ServiceId,
    deployment: DeploymentId,
    replica: &ReplicaId,
    removal: Removal,
) -> Result<()> {
    let (engine, instance) = (&context.engine, &context.instance);
    let line = match removal {
        Removal::Ordinary => None,
        Removal::Killed(why) => Some(format!("replica {replica} was killed: {why}")),
        Removal::Ended(why) => {
            let exit = ending(context, replica).await?;
            Some(format!("replica {replica} ended: {}", exit.map_or(why, |exit| exit.meaning())))
        }
    };
    engine.kill(instance, replica).await?;
    if let Err(error) = context.logs.keep(service, deployment, replica, line).await {
        tracing::warn!(%service, %replica, %error, "the container's output was not kept");
    }
    // The container goes last: while it is there, whoever comes after a crash finds it and does the rest.
    context.store.remove_replica(service, replica).await?;
    engine.remove(instance, replica).await?;
    context.run_dir.remove(replica).await
}

/// Removes the images that no deployment needs, see [`needed_images`].
pub(crate) async fn prune(context: &Context, service: ServiceId) {
    let outcome = async {
        // Images first: one that is built while we look is then not among them.
        let images = context.engine.images(&context.instance, Some(service)).await?;
        let deployments =
            context.store.deployments(service, 0, limits::DEPLOYMENTS_KEPT + 1).await?.items;
        let needed = needed_images(&deployments, context.settings.images_kept);
        // One that cannot be removed is no reason to leave the others.
        let mut outcome = Ok(());
        for image in spare_images(&images, &needed) {
            match context.engine.remove_image(&image.name).await {
                Err(error) if error.kind() == Kind::Unavailable => return Err(error),
                Err(error) => outcome = Err(error),
                Ok(()) => {}
            }
        }
        outcome
    };
    if let Err(error) = outcome.await {
        tracing::warn!(%service, %error, "old images were not removed; the next deployment tries again");
    }
}

/// Whose images are needed by these deployments of a service, newest first: by the live one, those in
/// progress, and as many others as are kept of those that were live before.
fn needed_images(deployments: &[Deployment], kept: usize) -> HashSet<DeploymentId> {
    let current = deployments.iter().filter(|d| d.phase == Phase::Live || !d.phase.is_settled());
    let mut needed: HashSet<_> = current.map(Deployment::image).collect();
    let most = needed.len() + kept;
    for earlier in deployments.iter().filter(|d| d.phase == Phase::Superseded && d.was_live()) {
        if needed.len() < most {
            needed.insert(earlier.image());
        }
    }
    needed
}

/// Images of deployments that need none, and those without a tag beside a better one of the same
/// deployment: one that has the tag, or is newer and may be about to get it.
fn spare_images<'i>(images: &'i [Image], needed: &HashSet<DeploymentId>) -> Vec<&'i Image> {
    let rank = |image: &Image| (image.is_tagged(), image.created);
    let is_beaten = |image: &Image| {
        let mut same = images.iter().filter(|other| other.deployment == image.deployment);
        !image.is_tagged() && same.any(|other| rank(other) > rank(image))
    };
    let is_spare = |image: &&Image| !needed.contains(&image.deployment) || is_beaten(image);
    images.iter().filter(is_spare).collect()
}

/// Removes what a deleted service leaves.
pub(super) async fn forget(context: &Context, service: ServiceId) {
    prune(context, service).await;
    context.denied.forget(service);
    if let Err(error) = context.logs.forget(service).await {
        tracing::warn!(%service, %error, "the log of a deleted service was not removed");
    }
    tracing::info!(%service, "nothing is left of the deleted service");
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::service::{Origin, PhaseEntry, example};

    /// A deployment that went through these phases.
    fn deployment(phases: &[Phase], image_of: Option<DeploymentId>) -> Deployment {
        let function = example::function("", Vec::new());
        let at = Timestamp::UNIX_EPOCH;
        let queued = Deployment::queued(ServiceId::new(), function, Origin::default(), at);
        Deployment {
            image_of,
            phase: phases.last().copied().unwrap_or(Phase::Queued),
            phases: phases.iter().map(|&phase| PhaseEntry { phase, at }).collect(),
            ..queued
        }
    }

    #[test]
    fn images_of_the_live_the_previous_and_the_coming_deployment_are_needed() {
        use Phase::{Building, Failed, Live, Superseded};
        let oldest = deployment(&[Live, Superseded], None);
        let shared = deployment(&[Failed], None);
        let previous = deployment(&[Live, Superseded], Some(shared.id));
        let overtaken = deployment(&[Superseded], None);
        let live = deployment(&[Building, Live], None);
        let failed = deployment(&[Building, Failed], None);
        let coming = deployment(&[Building], Some(oldest.id));
        let history = [failed, live, overtaken, previous, shared];
        let [_, live, _, _, shared] = &history;
        assert_eq!(needed_images(&history, 1), HashSet::from([live.id, shared.id]));
        assert_eq!(needed_images(&history, 0), HashSet::from([live.id]));
        let of_oldest = needed_images(&history, 9);
        assert!(of_oldest.is_superset(&HashSet::from([live.id, shared.id])));
        let of_coming = coming.image();
        let history = [&[coming][..], &history].concat();
        assert!(needed_images(&history, 1).contains(&of_coming));
        assert_eq!(needed_images(&[], 1), HashSet::new());
    }

    #[test]
    fn one_image_of_each_deployment_that_needs_one_stays() {
        let service = ServiceId::new();
        let [tagged, lost, unneeded] = [(), (), ()].map(|()| DeploymentId::new());
        let image = |name: &str, deployment, created| Image {
            name: name.to_owned(),
            service,
            deployment,
            created,
        };
        let images = [
            image("a:1", tagged, 1),
            image("sha256:2", tagged, 2), // built at the same time, and the tag went to the other
            image("sha256:3", lost, 3),
            image("sha256:4", lost, 4), // the newest of those whose tag somebody has taken away
            image("sha256:5", lost, 2),
            image("a:6", unneeded, 6),
            image("sha256:7", unneeded, 7),
        ];
        let spare = spare_images(&images, &HashSet::from([tagged, lost]));
        let names: Vec<_> = spare.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(names, ["sha256:2", "sha256:3", "sha256:5", "a:6", "sha256:7"]);
    }
}
