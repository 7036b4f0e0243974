//! The watch over Docker Engine: whether it answers, what happens in it, what exists there, and what is
//! to be done in it beside the daily work.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt, stream::BoxStream};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    advisory,
    context::Context,
    engine::{About, Container, EngineEvent},
    error::{Error, Kind, Result},
    health::Dependency,
    invoke, limits,
    name::ServiceId,
    scaler,
};

/// What the plane hears of the engine.
pub(super) enum News {
    /// The engine answers (again), and these are our containers.
    EngineUp(Vec<Container>, Instant),
    /// These are our containers, while the engine goes on to answer.
    Listed(Vec<Container>, Instant),
    EngineDown,
    Engine(EngineEvent),
}

/// Stays with the engine while it answers; then waits for it to answer again. Events are subscribed to
/// before the containers are listed, so that nothing falls between.
pub(super) async fn watch(context: Arc<Context>, news: mpsc::Sender<News>) {
    loop {
        let began = Instant::now();
        let why = match look_at_engine(&context).await {
            Ok((events, containers, listed_at)) => {
                tracing::info!(containers = containers.len(), "Docker Engine answers");
                if news.send(News::EngineUp(containers, listed_at)).await.is_err() {
                    return;
                }
                let Some(lost) = stay(&context, &news, events).await else { return };
                match lost {
                    Lost::Sight => {
                        // One that ends each of them at once is not asked without a pause.
                        tokio::time::sleep_until(began + limits::ENGINE_RETRY).await;
                        continue;
                    }
                    Lost::Answer(error) => error,
                }
            }
            Err(error) => error,
        };
        let problem = match why.kind() {
            Kind::Unavailable => format!(
                "{why}. Is it started, and does DOCKER_HOST name its address? Grid tries again every second."
            ),
            _ => why.to_string(),
        };
        if context.health.set(Dependency::Engine, Some(problem.clone())) {
            tracing::warn!("{problem}");
            if news.send(News::EngineDown).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(limits::ENGINE_RETRY).await;
    }
}

/// How it was noticed that the engine may be away.
enum Lost {
    /// Its events ended, or an answer was lost, which is all that is known.
    Sight,
    /// It does not answer.
    Answer(Error),
}

/// Passes the engine's events on and does what there is to do, while the engine answers. None when
/// nobody listens any more.
async fn stay(
    context: &Context,
    news: &mpsc::Sender<News>,
    mut events: BoxStream<'static, EngineEvent>,
) -> Option<Lost> {
    let pass_on = async {
        while let Some(event) = events.next().await {
            news.send(News::Engine(event)).await.ok()?;
        }
        tracing::warn!("Docker Engine ended the stream of its events");
        Some(Lost::Sight)
    };
    tokio::select! {
        lost = pass_on => lost,
        error = ping(context) => Some(Lost::Answer(error)),
        lost = look_after(context, news) => lost,
    }
}

/// Asks whether the engine is there until it is not.
async fn ping(context: &Context) -> Error {
    let mut missed = 0;
    loop {
        let pause = if missed == 0 { limits::ENGINE_PING_EVERY } else { limits::ENGINE_RETRY };
        tokio::time::sleep(pause).await;
        match context.engine.ping().await {
            Ok(()) => missed = 0,
            Err(error) => {
                missed += 1;
                if missed >= limits::ENGINE_PINGS_MISSED {
                    return error;
                }
            }
        }
    }
}

/// The chores, and a look at what exists, again and again. Ends when the engine gives no list: one that
/// answers pings may well hang there, so it is looked at as a whole.
async fn look_after(context: &Context, news: &mpsc::Sender<News>) -> Option<Lost> {
    loop {
        chores(context).await;
        tokio::time::sleep(limits::ENGINE_LOOK_EVERY).await;
        context.health.forget_failure();
        let listed_at = Instant::now();
        match context.engine.containers(&context.instance, None).await {
            Ok(containers) => news.send(News::Listed(containers, listed_at)).await.ok()?,
            Err(error) => {
                tracing::warn!(%error, "the containers are not known");
                return Some(Lost::Sight);
            }
        }
    }
}

/// What is done beside the daily work while the engine answers: the runner layers are made, and what a
/// crash, an outage or a lost answer kept from being removed is, of invocations and of images.
async fn chores(context: &Context) {
    invoke::sweep(context).await;
    context.images.prepare(&context.health).await;
    let outcome = async {
        let images = context.engine.images(&context.instance, None).await?;
        let services: BTreeSet<ServiceId> = images.iter().map(|image| image.service).collect();
        let kept: HashSet<ServiceId> = context.store.service_ids().await?.into_iter().collect();
        for service in services {
            // The live image and those that are kept beside it are no reason to look closer.
            let most = context.settings.images_kept + 1;
            let of_service = || images.iter().filter(|image| image.service == service);
            let untagged = of_service().any(|image| !image.is_tagged());
            if untagged || of_service().count() > most || !kept.contains(&service) {
                scaler::prune(context, service).await;
            }
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = outcome.await {
        tracing::warn!(%error, "images were not tidied up; it is tried again");
    }
}

/// Whether the engine can do what it will be asked for; says what is known against it.
async fn meet_engine(context: &Context) -> Result<()> {
    let About { mut versions, oci_runtimes, security, no_bound_on } =
        context.engine.about().await?;
    let wanted = &context.settings.oci_runtimes;
    if let Some(unknown) = wanted.iter().find(|name| !oci_runtimes.contains(name)) {
        return Err(Error::Engine {
            operation: "use OCI runtime",
            subject: unknown.clone(),
            reason: format!(
                "GRID_OCI_RUNTIMES names it, but the engine knows only {}",
                oci_runtimes.join(", ")
            ),
        });
    }
    if !security.iter().any(|feature| feature.contains("name=seccomp")) {
        tracing::warn!(
            "Docker Engine runs containers without seccomp: functions have every system call of the kernel"
        );
    }
    if !no_bound_on.is_empty() {
        tracing::warn!(
            "this kernel bounds no {}: one function can take it all",
            no_bound_on.join(", ")
        );
    }
    if !wanted.is_empty() && !wanted.iter().any(|name| name == "runc") {
        versions.runc = None;
    }
    for warning in advisory::warnings(&versions) {
        tracing::warn!("{warning}");
    }
    Ok(())
}

type Look = (BoxStream<'static, EngineEvent>, Vec<Container>, Instant);

async fn look_at_engine(context: &Context) -> Result<Look> {
    context.engine.ping().await?;
    meet_engine(context).await?;
    let events = context.engine.events(&context.instance).await?;
    let listed_at = Instant::now();
    let containers = context.engine.containers(&context.instance, None).await?;
    Ok((events, containers, listed_at))
}
