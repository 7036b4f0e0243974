//! A deployment, from its turn to its end: build, start a candidate, let it load the code, switch.
//! Draining the old version is the driver's business: its replicas are not of the live deployment
//! any more.

mod tally;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::{
    context::Context,
    environment::Environment,
    error::{Error, Kind, Result},
    image::Found,
    limits,
    logs::truncate,
    mask::Mask,
    name::DeploymentId,
    scaler::{
        command::{Command, Progress},
        inbox::Address,
    },
    service::{Cause, Deployment, LogLine, Phase},
};

use self::tally::Stage;
pub use self::tally::{Ended, Tally};

/// How a deployment's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is live, failed or gone; the store says which.
    Settled,
    /// Something that it needs is away. It has to run again.
    Interrupted,
}

/// Runs one deployment. `driver` is where its service's driver is told something. In the `last` run it
/// fails even when what it needs is away.
pub(crate) async fn run(
    context: Arc<Context>,
    driver: Address,
    deployment: Deployment,
    last: bool,
) -> Outcome {
    let tally = context.deployments.clone();
    let stage = Stage::new(tally.clone());
    // What nobody can open has nobody been given.
    let vars = &deployment.function.env_vars;
    let mask = Mask::of(&Environment::open(vars, &context.keyring).unwrap_or_default());
    let mut run = Run { context, driver, deployment: Arc::new(deployment), stage, mask };
    let (service, id) = (run.deployment.service, run.deployment.id);
    let outcome = run.go_live().await;
    match outcome {
        Ok(()) => {
            tracing::info!(%service, deployment = %id, "live");
            tally.ended(Ended::Live);
            Outcome::Settled
        }
        Err(error) if error.kind() == Kind::Unavailable && !last => {
            tracing::warn!(%service, deployment = %id, %error, "the deployment is interrupted");
            tally.ended(Ended::Interrupted);
            run.note_interruption(&error).await;
            Outcome::Interrupted
        }
        Err(error) => {
            let reason = run.mask.text(&error.to_string());
            tracing::info!(%service, deployment = %id, error = reason, "the deployment failed");
            tally.ended(Ended::Failed);
            match run.record(Phase::Failed, vec![], Some(reason)).await {
                Ok(()) => Outcome::Settled,
                Err(_) => Outcome::Interrupted,
            }
        }
    }
}

struct Run {
    context: Arc<Context>,
    driver: Address,
    deployment: Arc<Deployment>,
    stage: Stage,
    /// Hides its secrets in what is told of it.
    mask: Mask,
}

impl Run {
    async fn go_live(&mut self) -> Result<()> {
        self.record(Phase::Building, vec![], None).await?;
        let output = match self.shared_image().await? {
            Some(other) => vec![log_line(format!("uses the image of deployment {other}"))],
            None => self.build().await?,
        };

        self.record(Phase::Deploying, output, None).await?;
        let mut candidate = self.start_candidate()?;
        candidate.reaches(Progress::Launched).await?;

        self.record(Phase::HealthChecking, vec![], None).await?;
        candidate.reaches(Progress::Ready).await?;

        // Until here nothing has changed for the public. The candidate is kept alive beyond the
        // switch, which makes it an ordinary replica.
        let (service, id) = (self.deployment.service, self.deployment.id);
        let before = self.context.store.activate_deployment(service, id, Timestamp::now()).await?;
        tracing::debug!(%service, deployment = %id, ?before, "switched");
        drop(candidate);
        Ok(())
    }

    /// The deployment whose image this one can run in as it is, when there is one.
    async fn shared_image(&mut self) -> Result<Option<DeploymentId>> {
        let Some(other) = self.deployment.image_of else { return Ok(None) };
        let rollback = matches!(self.deployment.origin.cause, Cause::RolledBack { .. });
        match self.context.images.find(&self.deployment).await? {
            // Built under the same name, for both.
            Found::Nothing => Ok(None),
            // What once worked is taken up as it was.
            Found::Outdated if rollback => Ok(Some(other)),
            // It may lack what this Grid asks a runner for. The other one keeps its image as it is:
            // nobody has checked a new one with its settings.
            Found::Outdated => {
                let own = Deployment { image_of: None, ..(*self.deployment).clone() };
                self.context.store.record_image(own.service, own.id, None).await?;
                self.deployment = Arc::new(own);
                Ok(None)
            }
            Found::Current => Ok(Some(other)),
        }
    }

    async fn build(&self) -> Result<Vec<LogLine>> {
        let _turn = self.context.builds.acquire().await;
        let mut output = Vec::new();
        let mut keep = |line: String| output.push(log_line(line));
        let built = self.context.build(&self.deployment, &mut keep).await;
        if let Err(error) = built {
            self.record(Phase::Building, output, None).await?;
            return Err(error);
        }
        Ok(output)
    }

    fn start_candidate(&self) -> Result<Candidate> {
        // Launched, then Ready or Failed: there is room for all of them.
        let (progress, receiver) = mpsc::channel(4);
        let command = Command::StartCandidate { deployment: self.deployment.clone(), progress };
        self.driver.tell(command).map_err(|_| gone())?;
        Ok(Candidate { progress: receiver })
    }

    /// Whoever waits for the deployment is told why. When the store is what is away, there is nobody to
    /// tell it to.
    async fn note_interruption(&self, error: &Error) {
        let line = log_line(format!("interrupted, it will be run again: {error}"));
        let _ = self.record(Phase::Building, vec![line], None).await;
    }

    async fn record(&self, phase: Phase, lines: Vec<LogLine>, error: Option<String>) -> Result<()> {
        self.stage.enter(phase);
        let (service, id) = (self.deployment.service, self.deployment.id);
        let hide = |entry: LogLine| LogLine { line: self.mask.text(&entry.line), ..entry };
        let lines = lines.into_iter().map(hide).collect();
        self.context.store.record_phase(service, id, phase, Timestamp::now(), lines, error).await
    }
}

/// A replica that tries the new code. Dropping this gives it up, unless its deployment is live.
struct Candidate {
    progress: mpsc::Receiver<Progress>,
}

impl Candidate {
    /// Waits for a step. The machine of the replica bounds the wait.
    async fn reaches(&mut self, step: Progress) -> Result<()> {
        match self.progress.recv().await {
            Some(Progress::Failed(reason)) => Err(Error::Deployment(reason)),
            Some(Progress::Interrupted(reason)) => Err(Error::Busy(reason)),
            Some(reached) if reached == step => Ok(()),
            Some(_) | None => Err(gone()),
        }
    }
}

fn gone() -> Error {
    Error::EngineAway {
        operation: "start a candidate",
        reason: "it was given up before it was ready".to_owned(),
    }
}

fn log_line(mut line: String) -> LogLine {
    truncate(&mut line, limits::MESSAGE_CHARS);
    LogLine { at: Timestamp::now(), line }
}
