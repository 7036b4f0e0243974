//! Where a replica calls home: one task per replica owns its socket, introduces it to the pool,
//! notices its end, and asks for its health while it rests.

use std::{
    fs::{File, Permissions},
    io,
    os::{
        fd::AsFd,
        unix::{
            fs::{FileExt, PermissionsExt},
            net,
        },
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use control::{
    environment::Environment,
    error::{Kind, Result},
    limits,
    mask::Mask,
    name::{DeploymentId, ReplicaId, ServiceId},
    rounds::jittered,
    secret::Keyring,
    service::{GoneCause, Seen},
    store::Store,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::{UnixListener, UnixStream, unix::SocketAddr},
    time::Instant,
};

use crate::{
    exchange::{self, Fault, Said},
    link::{self, Link},
    pool::Pool,
};

/// What a deployment is told when its variables cannot be had.
const NO_ENVIRONMENT: &str =
    "The function's environment variables cannot be read or decrypted. The log of Grid says why.";

/// A replica whose call is awaited.
pub(crate) struct Home {
    pub(crate) replica: ReplicaId,
    pub(crate) service: ServiceId,
    pub(crate) deployment: DeploymentId,
    pub(crate) pool: Arc<Pool>,
    /// The file in which the runner finds what was called back.
    pub(crate) recalls: PathBuf,
    /// After so long without a request control is told that the replica is idle.
    pub(crate) idle_after: Duration,
    /// How long its call is waited for, when control does not wait for it because it has called before.
    pub(crate) call_within: Option<Duration>,
    /// Where its environment variables are,
    pub(crate) store: Arc<dyn Store>,
    /// and what opens them.
    pub(crate) keyring: Keyring,
}

impl Home {
    /// Serves one replica from its call to its end.
    pub(crate) async fn keep(self, listener: UnixListener) {
        // What it is to be given is read while its container starts.
        let (call, environment) = tokio::join!(self.call(&listener), self.environment());
        let stream = match call {
            Some(Ok((stream, _))) => stream,
            Some(Err(_)) => return self.pool.report(&self.replica, gone(GoneCause::Closed)),
            None => return self.pool.report(&self.replica, gone(GoneCause::Unresponsive)),
        };
        let hangup = match watch_hangup(&stream) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::error!(replica = %self.replica, %error, "the connection cannot be watched");
                return self.pool.report(&self.replica, gone(GoneCause::Closed));
            }
        };
        // One connection is the lease. Whoever dials again finds nobody and costs nothing.
        drop(listener);
        let Ok(link) = Link::new(stream) else {
            return self.pool.report(&self.replica, gone(GoneCause::Closed));
        };
        match self.introduce(link, environment).await {
            Ok((link, calls_back)) => {
                let recalls = calls_back.then(|| self.recalls()).flatten();
                self.pool.join(self.replica.clone(), self.deployment, link, recalls);
            }
            Err(seen) => {
                tracing::debug!(replica = %self.replica, ?seen, "a replica did not introduce itself");
                return self.pool.report(&self.replica, seen);
            }
        }
        let mut next_look = Instant::now() + self.pace();
        loop {
            tokio::select! {
                _ = hangup.ready(Interest::PRIORITY) => {
                    if self.pool.leave(&self.replica, GoneCause::Closed) {
                        tracing::debug!(replica = %self.replica, "a replica hung up");
                    }
                    return;
                }
                () = tokio::time::sleep_until(next_look) => next_look = self.look().await,
            }
        }
    }

    /// None when it does not come in time.
    async fn call(&self, listener: &UnixListener) -> Option<io::Result<(UnixStream, SocketAddr)>> {
        match self.call_within {
            Some(within) => tokio::time::timeout(within, listener.accept()).await.ok(),
            None => Some(listener.accept().await),
        }
    }

    /// A store that is away is waited for: control ends what takes too long.
    async fn environment(&self) -> Result<Environment> {
        let (service, id) = (self.service, self.deployment);
        loop {
            match Environment::of_deployment(&*self.store, &self.keyring, service, id).await {
                Err(error) if error.kind() == Kind::Unavailable => {
                    tracing::warn!(replica = %self.replica, %error, "its environment is awaited");
                    tokio::time::sleep(jittered(limits::STORE_BACKOFF.0)).await;
                }
                outcome => return outcome?,
            }
        }
    }

    /// Hands a replica its environment over and has it load its code.
    async fn introduce(
        &self,
        link: Link,
        environment: Result<Environment>,
    ) -> Result<(Link, bool), Seen> {
        let environment = environment.map_err(|error| {
            let (service, replica) = (self.service, &self.replica);
            tracing::error!(%service, %replica, %error, "a replica has no environment");
            Seen::Unloadable { message: NO_ENVIRONMENT.to_owned() }
        })?;
        let json = environment.hand_over();
        let answer = exchange::probe(link, "/ready", json.as_deref(), limits::LOAD).await;
        introduction(answer).map_err(|seen| match seen {
            Seen::Unloadable { message } => {
                Seen::Unloadable { message: Mask::of(&environment).text(&message) }
            }
            other => other,
        })
    }

    /// The file for what is called back, empty; without one nothing is sent ahead.
    fn recalls(&self) -> Option<File> {
        let made = File::create(&self.recalls).and_then(|file| {
            file.set_permissions(Permissions::from_mode(0o644))?; // the function's user reads it
            file.write_all_at(&[0; 8], 0)?; // so that later there is room for it, also on a full disk
            Ok(file)
        });
        if let Err(error) = &made {
            let path = self.recalls.display();
            tracing::warn!(%path, %error, "cannot create: the replica gets each request at its turn only");
        }
        made.ok()
    }

    /// Looks after a replica that rests; says when to look again.
    async fn look(&self) -> Instant {
        let now = Instant::now();
        let Some(since) = self.pool.idle_since(&self.replica) else {
            return now + self.pace();
        };
        if now >= since + self.idle_after {
            self.pool.tell_idle(&self.replica);
        }
        if now >= since + self.pace() {
            self.check_health().await;
        }
        let idle_at = since + self.idle_after;
        let check_at = now + limits::HEALTH_EVERY;
        if idle_at > now { idle_at.min(check_at) } else { check_at }
    }

    /// How often a replica is looked after.
    fn pace(&self) -> Duration {
        self.idle_after.min(limits::HEALTH_EVERY)
    }

    async fn check_health(&self) {
        let Some(mut lease) = self.pool.borrow(&self.replica) else { return };
        let Some(link) = lease.start() else { return };
        match exchange::probe(link, "/health", None, limits::HEALTH_ANSWER).await {
            Ok((200, _, Some(link))) => lease.give_back(link),
            outcome => {
                tracing::warn!(replica = %self.replica, ok = outcome.is_ok(), "a replica is not healthy");
                lease.retire(GoneCause::Unresponsive);
            }
        }
    }
}

/// What the answer to `/ready` says: the connection of a replica that can serve, and whether requests
/// can be called back from it, or why it never will serve.
fn introduction(answer: Result<(u16, Said, Option<Link>), Fault>) -> Result<(Link, bool), Seen> {
    Err(match answer {
        Ok((200, said, Some(link))) => return Ok((link, said.calls_back)),
        Ok((503, said, _)) => Seen::Unloadable { message: told(said.message) },
        Ok(_) | Err(Fault::Garbled(_) | Fault::TooLarge) => gone(GoneCause::Garbled),
        Err(Fault::TimedOut) => gone(GoneCause::Unresponsive),
        Err(Fault::Closed) => gone(GoneCause::Closed),
    })
}

/// The loader's message, which its author reads: never nothing.
fn told(message: String) -> String {
    if message.is_empty() { "The module does not load.".to_owned() } else { message }
}

fn gone(cause: GoneCause) -> Seen {
    Seen::Gone { cause }
}

/// Becomes ready when the other side hangs up, and at nothing else: a second descriptor of the same
/// socket that asks for urgent data, which a Unix socket never has here. So the end of a replica is
/// seen at once, busy or not, and its requests wake nobody but their own task.
fn watch_hangup(stream: &UnixStream) -> io::Result<AsyncFd<net::UnixStream>> {
    let second = stream.as_fd().try_clone_to_owned()?;
    link::watch(second.into(), Interest::PRIORITY)
}
