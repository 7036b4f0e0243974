//! One run of a function for whoever works on it, in a container of its own, with all that is known
//! about it afterwards. The code need not be deployed, and no image is built: it lies in the
//! directory over which the container calls home.
//!
//! A task owns each container, so that it is removed also when nobody waits for it any more; what a
//! crash left behind, `sweep` removes.

mod answer;
mod line;
mod places;
mod report;

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    fs,
    net::{UnixListener, UnixStream},
    sync::oneshot,
};

use self::{
    answer::{Bounds, Outcome},
    line::{Broken, Line},
    places::Place,
};
pub use self::{
    places::Invocations,
    report::{Failure, FailureKind, Report},
};
use crate::{
    context::Context,
    engine::{ContainerSpec, Exit, OutputQuery},
    environment::Environment,
    error::{Error, Result},
    limits,
    mask::Mask,
    name::{DeploymentId, FunctionName, ReplicaId, ServiceId, UserName},
    run_dir, sandbox,
    service::FunctionSpec,
};

/// Where a container finds the function's code.
const FUNCTION_DIR: &str = "/run/grid/function";
/// Seconds after which a runner ends that Grid does not listen to any more.
const ORPHAN_SECONDS: u32 = 30;
/// How long the end of a process that has hung up is waited for: how it ended is worth that.
const EXIT_GRACE: Duration = Duration::from_secs(2);
/// How long the end of a process that was killed is waited for: then all its output is there.
const KILL_GRACE: Duration = Duration::from_secs(10);
/// Bytes of an answer to `/ready`.
const READY_BYTES: usize = 16 * 1024;
/// How often it is tried to remove a container, and the pause between.
const REMOVALS: (u32, Duration) = (5, Duration::from_secs(1));

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Who wants it.
    pub user: UserName,
    /// Whose function it is.
    pub service: ServiceId,
    /// What the container's label says; the code may be another.
    pub deployment: DeploymentId,
    /// The function's name.
    pub function_name: FunctionName,
    /// Code and settings.
    pub function: FunctionSpec,
    /// What the code finds in its environment.
    pub environment: Environment,
    /// What the handler is called with.
    pub event: Value,
    /// What the function and the report call this run.
    pub request_id: String,
}

/// Runs a function once. What goes wrong in the function is told in the report.
///
/// # Errors
/// `Busy` when too many run already, when there is no network to be had, or when Grid is ending;
/// those of the engine and of the files.
pub async fn run(context: &Arc<Context>, invocation: Invocation) -> Result<Report> {
    let place = context.invocations.enter(&invocation.user).await?;
    let (caller, report) = oneshot::channel();
    tokio::spawn(attend(context.clone(), invocation, place, caller));
    let lost = |_| Error::Deployment("the task of the invocation failed".to_owned());
    report.await.map_err(lost)?
}

/// The longest time that [`run`] takes, when functions may run for `function_timeout`.
pub fn longest(function_timeout: Duration) -> Duration {
    // Create, start, twice whether it started, address; kill, wait, read.
    let calls = limits::ENGINE_CALL * 8;
    let start = limits::INVOKE_TURN + limits::START * 2 + limits::LOAD;
    start + function_timeout + EXIT_GRACE + KILL_GRACE + calls
}

/// Removes what invocations of earlier processes left, or those whose container could not be removed.
pub(crate) async fn sweep(context: &Context) {
    let outcome = async {
        for id in context.engine.invocations(&context.instance).await? {
            if !context.invocations.is_active(&id) {
                tracing::info!(container = %id, "removing what an invocation left");
                remove(context, &id).await?;
            }
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = outcome.await {
        tracing::warn!(%error, "what an invocation left was not removed; it is tried again");
    }
}

async fn remove(context: &Context, id: &ReplicaId) -> Result<()> {
    context.engine.remove(&context.instance, id).await?;
    context.run_dir.remove(id).await
}

/// Owns one container from before its start until it is gone.
async fn attend(
    context: Arc<Context>,
    invocation: Invocation,
    place: Place,
    mut caller: oneshot::Sender<Result<Report>>,
) {
    let run = Run { context: &context, invocation: &invocation, id: place.id() };
    let outcome = run.to_outcome(&place, &mut caller).await;
    let began = outcome.is_ok();
    let report = match outcome {
        Ok(Some(outcome)) => run.report(outcome).await,
        Ok(None) => Err(gone()),
        Err(error) => Err(error),
    };
    let _ = caller.send(report);
    run.clear().await;
    drop(place);
    if !began {
        // A start that the engine gave no answer to may have made a container since.
        sweep(&context).await;
    }
}

struct Run<'a> {
    context: &'a Context,
    invocation: &'a Invocation,
    id: &'a ReplicaId,
}

impl Run<'_> {
    /// Starts the container and has it run the function; none when the caller does not wait any more.
    async fn to_outcome(
        &self,
        place: &Place,
        caller: &mut oneshot::Sender<Result<Report>>,
    ) -> Result<Option<Outcome>> {
        let ended = async {
            tokio::select! {
                () = caller.closed() => Ok(None),
                why = place.revoked() => Err(why),
            }
        };
        let mut ended = std::pin::pin!(ended);
        let _turn;
        let (spec, listener) = tokio::select! {
            prepared = tokio::time::timeout(limits::START, self.prepare()) => {
                let Ok(prepared) = prepared else { return Err(late()) };
                let (turn, spec, listener) = prepared?;
                _turn = turn;
                (spec, listener)
            }
            ended = &mut ended => return ended,
        };
        // Not to be given up in the middle: nobody would know whether there is a container.
        let address = self.context.start(&spec).await.map_err(missing)?;
        if let Some(address) = address {
            self.context.denied.assign(address, self.invocation.service, self.id.clone());
        }
        drop(_turn);
        tokio::select! {
            outcome = self.converse(listener) => outcome.map(Some),
            ended = &mut ended => ended,
        }
    }

    /// All that a start takes, with a turn to start.
    async fn prepare(
        &self,
    ) -> Result<(tokio::sync::SemaphorePermit<'_>, ContainerSpec, UnixListener)> {
        let Run { context, invocation, id } = *self;
        let function = &invocation.function;
        let network = sandbox::network(context, function.egress).await.map_err(no_network)?;
        let runner = context.images.runner_of(function).await;
        let (image, code_files) = runner.map_err(missing)?;
        let turn = context.starts.acquire().await.map_err(|_| late())?;
        context.run_dir.create(id).await?;
        let dir = context.run_dir.replica(id);
        write_code(&dir.join("function"), code_files, &function.code).await?;
        let socket = context.run_dir.socket(id);
        let listener = run_dir::listen(&socket).map_err(Error::file("listen at", &socket))?;
        let mut sandbox = sandbox::of_function(context, function, image, network);
        sandbox.env.extend([
            format!("GRID_FUNCTION_DIR={FUNCTION_DIR}"),
            format!("GRID_FUNCTION_NAME={}", invocation.function_name),
            format!("GRID_ORPHAN_SECONDS={ORPHAN_SECONDS}"),
        ]);
        let spec = ContainerSpec {
            instance: context.instance.clone(),
            service: invocation.service,
            deployment: invocation.deployment,
            replica: id.clone(),
            invocation: true,
            run_dir: dir,
            sandbox,
        };
        Ok((turn, spec, listener))
    }

    /// From the container's call to its answer.
    async fn converse(&self, listener: UnixListener) -> Result<Outcome> {
        let stream = match self.called(&listener).await? {
            Ok(stream) => stream,
            Err(exit) => return Ok(ending(exit)),
        };
        // One connection is all that there is. Whoever dials again finds nobody.
        drop(listener);
        let ready = self.invocation.environment.hand_over();
        let ready = Bytes::from(ready.unwrap_or_else(|| "{}".to_owned()));
        let invoke = self.order();
        let mut line = match Line::open(stream).await {
            Ok(line) => line,
            Err(broken) => return self.broken(broken).await,
        };

        let answer = line.post("/ready", ready, READY_BYTES);
        match tokio::time::timeout(limits::LOAD, answer).await {
            // Why it does not load, the invocation says better.
            Ok(Ok((StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE, _))) => {}
            Ok(Ok(_)) => return self.broken(Broken::Garbled).await,
            Ok(Err(broken)) => return self.broken(broken).await,
            Err(_) => return Ok(timed_out("Loading the code", limits::LOAD)),
        }

        let bounds = self.bounds();
        let (begun, within) = (Instant::now(), self.context.settings.function_timeout);
        let answer = line.post("/invoke", invoke, bounds.answer());
        let mut outcome = match tokio::time::timeout(within, answer).await {
            Ok(Ok((StatusCode::OK, answer))) => bounds.read(&answer),
            Ok(Ok(_)) => self.broken(Broken::Garbled).await?,
            Ok(Err(broken)) => self.broken(broken).await?,
            Err(_) => timed_out("Execution", within),
        };
        // What the function says of its time cannot be more than it had.
        let taken = begun.elapsed().as_secs_f64() * 1000.0;
        outcome.duration_ms = Some(outcome.duration_ms.map_or(taken, |said| said.min(taken)));
        Ok(outcome)
    }

    /// The container's call, or how it ended without one.
    async fn called(&self, listener: &UnixListener) -> Result<Result<UnixStream, Exit>> {
        let Run { context, id, .. } = *self;
        let exit = async {
            match context.engine.exit(&context.instance, id, limits::START).await {
                Ok(Some(exit)) => Ok(Err(exit)),
                Ok(None) => std::future::pending().await,
                Err(error) => Err(error),
            }
        };
        tokio::select! {
            called = tokio::time::timeout(limits::START, listener.accept()) => match called {
                Ok(Ok((stream, _))) => Ok(Ok(stream)),
                Ok(Err(error)) => Err(Error::file("listen at", &context.run_dir.socket(id))(error)),
                Err(_) => Err(Error::Engine {
                    operation: "start container",
                    subject: id.to_string(),
                    reason: format!("it did not call home within {} s", limits::START.as_secs()),
                }),
            },
            exit = exit => exit,
        }
    }

    /// What it means that there is no answer.
    async fn broken(&self, broken: Broken) -> Result<Outcome> {
        let Run { context, id, .. } = *self;
        Ok(match broken {
            Broken::Closed => match context.engine.exit(&context.instance, id, EXIT_GRACE).await? {
                Some(exit) => ending(exit),
                None => Outcome::failed(
                    FailureKind::BrokenAnswer,
                    "The function ended the connection over which its answer was expected",
                ),
            },
            Broken::Garbled => Outcome::failed(
                FailureKind::BrokenAnswer,
                "What came out of the function's process is none of its runner's answers",
            ),
            Broken::TooLarge => Outcome::failed(
                FailureKind::ResponseTooLarge,
                format!("the response body has more than {} bytes", self.bounds().body),
            ),
        })
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            body: self.context.settings.response_bytes,
            memory_mb: self.invocation.function.memory_mb,
        }
    }

    fn order(&self) -> Bytes {
        let Invocation { event, request_id, function_name, .. } = self.invocation;
        let order = json!({
            "event": event,
            "request": {
                "request_id": request_id,
                "function": function_name,
                "deadline_ms": self.context.settings.function_timeout.as_secs() * 1000,
            },
        });
        order.to_string().into()
    }

    /// Ends the container, and puts together what is known.
    async fn report(&self, mut outcome: Outcome) -> Result<Report> {
        let Run { context, invocation, id } = *self;
        let (engine, instance) = (&context.engine, &context.instance);
        engine.kill(instance, id).await?;
        let exit = engine.exit(instance, id, KILL_GRACE).await?;
        let query = OutputQuery { tail: limits::INVOKE_LOG_LINES, since: None, until: None };
        let output = engine.output(instance, id, &query).await?.lines;
        let exited = outcome.failure.as_ref().is_some_and(|f| f.kind == FailureKind::Exited);
        if exited && exit.is_some_and(|exit| Report::is_heap_full(exit.code, &output)) {
            outcome.failure = ending(Exit { out_of_memory: true, code: 0, removed: false }).failure;
        }
        let mask = Mask::of(&invocation.environment);
        Ok(Report::new(invocation.request_id.clone(), outcome, output, &mask))
    }

    /// Removes everything. What cannot be removed now, is when the engine comes back, or at the next
    /// start.
    async fn clear(&self) {
        let (attempts, pause) = REMOVALS;
        for attempt in 1..=attempts {
            match remove(self.context, self.id).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(container = %self.id, attempt, %error, "not removed");
                }
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// Puts the code where its container finds it, for its user to read.
async fn write_code(dir: &Path, names: &[String], code: &str) -> Result<()> {
    fs::create_dir(dir).await.map_err(Error::file("create", dir))?;
    set_mode(dir, 0o755).await?;
    for name in names {
        let path = dir.join(name);
        fs::write(&path, code).await.map_err(Error::file("write", &path))?;
        set_mode(&path, 0o644).await?;
    }
    Ok(())
}

async fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let set = fs::set_permissions(path, Permissions::from_mode(mode)).await;
    set.map_err(Error::file("set mode of", path))
}

fn ending(exit: Exit) -> Outcome {
    let kind = if exit.out_of_memory { FailureKind::OutOfMemory } else { FailureKind::Exited };
    Outcome::failed(kind, format!("There is no answer: {}", exit.meaning()))
}

fn timed_out(what: &str, within: Duration) -> Outcome {
    let seconds = within.as_secs();
    Outcome::failed(FailureKind::Timeout, format!("{what} timed out after {seconds}s"))
}

fn gone() -> Error {
    Error::Busy("nobody waits for the report any more".to_owned())
}

fn late() -> Error {
    Error::Busy("No container could be started in time. Try again shortly.".to_owned())
}

fn no_network(error: Error) -> Error {
    tracing::warn!(%error, "an invocation gets no network");
    Error::Busy(
        "The firewall is not in place, and without it no function has a network. /readyz says more."
            .to_owned(),
    )
}

/// That an image is missing is not what the caller asked about.
fn missing(error: Error) -> Error {
    match error {
        Error::NotFound { what, id } => Error::Engine {
            operation: "start container",
            subject: id,
            reason: format!("the {what} is missing"),
        },
        other => other,
    }
}
