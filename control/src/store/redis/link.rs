//! The connection to Redis: made when it is needed, given up when it fails, and made again with a
//! pause that grows. Every call has a bound.

use std::{sync::Arc, time::Duration};

use ::redis::{
    ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ScriptInvocation,
    ServerErrorKind, aio::MultiplexedConnection,
};
use tokio::{
    runtime::Handle,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::address::{Dialler, RedisUrl};
use crate::{limits, store::tables::Fault};

/// First and longest pause between attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Shared by all calls: commands of many callers go over one connection, in turns of their own.
pub(super) struct Link {
    url: RedisUrl,
    /// Where connections live: in no runtime of a caller, which may end.
    runtime: Handle,
    line: Mutex<Line>,
}

struct Line {
    dialler: Arc<Mutex<Dialler>>,
    /// The connection, and how many there were before it.
    open: Option<(MultiplexedConnection, u64)>,
    made: u64,
    /// Since when there is none, as far as is known.
    down: Option<Down>,
}

#[derive(Clone)]
struct Down {
    since: Instant,
    /// Not tried again before.
    until: Instant,
    pause: Duration,
    reason: String,
    /// It answers, but not to us: waiting does not help.
    refuses: bool,
}

/// What is sent, as often as it takes: it has to be harmless when it is done twice.
pub(super) enum Request<'r> {
    Commands(&'r Pipeline),
    Script(&'r ScriptInvocation<'r>),
}

/// What came back.
pub(super) struct Answer<T> {
    pub(super) value: T,
    /// It may have been done before this answer, too.
    pub(super) repeated: bool,
    /// Which connection it came over: counts up.
    pub(super) connection: u64,
}

impl Link {
    /// To the Redis at a URL; connections live in the current runtime.
    pub(super) fn to(url: &RedisUrl) -> RedisResult<Self> {
        let dialler = Arc::new(Mutex::new(Dialler::to(url)?));
        let runtime = Handle::current();
        let line = Line { dialler, open: None, made: 0, down: None };
        Ok(Self { url: url.clone(), runtime, line: Mutex::new(line) })
    }

    pub(super) fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// Sends, and sends again over a new connection when the one there was failed, for
    /// [`limits::STORE_PATIENCE`]; not at all that long when Redis has been away for longer already.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        request: Request<'_>,
    ) -> Result<Answer<T>, Fault> {
        let patient_until = Instant::now() + limits::STORE_PATIENCE;
        for attempt in 0.. {
            let problem = match self.connection().await {
                Ok((mut connection, made)) => {
                    let answer = match request {
                        Request::Commands(commands) => {
                            bounded(commands.query_async(&mut connection)).await
                        }
                        Request::Script(script) => {
                            bounded(script.invoke_async(&mut connection)).await
                        }
                    };
                    match answer {
                        Ok(value) => {
                            return Ok(Answer { value, repeated: attempt > 0, connection: made });
                        }
                        Err(error) if !is_away(&error) => {
                            return Err(self.broken(&error.to_string()));
                        }
                        Err(error) => {
                            self.lose(made, &error).await;
                            error.to_string()
                        }
                    }
                }
                Err(Down { refuses: true, reason, .. }) => return Err(self.broken(&reason)),
                Err(down) => down.reason,
            };
            match self.next_attempt(patient_until).await {
                Some(pause) => sleep(pause).await,
                None => return Err(self.away(&problem)),
            }
        }
        Err(self.away("it does not answer"))
    }

    fn away(&self, problem: &str) -> Fault {
        Fault::Broken(format!("Redis at {} is away: {problem}", self.url))
    }

    /// How long to wait for the next attempt, if there is to be one.
    async fn next_attempt(&self, patient_until: Instant) -> Option<Duration> {
        let now = Instant::now();
        let down = self.line.lock().await.down.clone();
        let Some(down) = down else {
            return (now < patient_until).then_some(Duration::ZERO);
        };
        let given_up = down.since + limits::STORE_PATIENCE <= down.until;
        (!given_up && down.until < patient_until).then(|| down.until.saturating_duration_since(now))
    }

    /// Whether there is no connection, and there may be one by itself.
    pub(super) async fn is_down(&self) -> bool {
        self.line.lock().await.down.as_ref().is_some_and(|down| !down.refuses)
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64), Down> {
        let mut line = self.line.lock().await;
        if let Some((connection, made)) = &line.open {
            return Ok((connection.clone(), *made));
        }
        let now = Instant::now();
        if let Some(down) = line.down.as_ref().filter(|down| now < down.until) {
            return Err(down.clone());
        }
        let dialler = line.dialler.clone();
        let connected =
            self.runtime.spawn(async move { bounded(dialler.lock().await.connect()).await });
        let ended = |error| Err(std::io::Error::other(error).into());
        match connected.await.unwrap_or_else(ended) {
            Ok(connection) => {
                line.made += 1;
                if line.down.take().is_some() {
                    tracing::info!("Redis at {} answers again", self.url);
                }
                let made = line.made;
                line.open = Some((connection.clone(), made));
                Ok((connection, made))
            }
            Err(error) => {
                let (since, pause) = match &line.down {
                    Some(down) => (down.since, (down.pause * 2).min(PAUSE.1)),
                    None => (now, PAUSE.0),
                };
                let (reason, refuses) = (error.to_string(), !is_away(&error));
                let until = Instant::now() + pause;
                Err(line.down.insert(Down { since, until, pause, reason, refuses }).clone())
            }
        }
    }

    /// Gives a connection up that failed, unless somebody has replaced it already.
    async fn lose(&self, made: u64, error: &RedisError) {
        let mut line = self.line.lock().await;
        if line.open.as_ref().is_some_and(|(_, open)| *open == made) {
            line.open = None;
            let now = Instant::now();
            let reason = error.to_string();
            // The next attempt is at once: often only the connection is gone.
            let (until, pause, refuses) = (now, PAUSE.0, false);
            line.down = Some(Down { since: now, until, pause, reason, refuses });
        }
    }

    fn broken(&self, reason: &str) -> Fault {
        Fault::Broken(format!("Redis at {}: {reason}", self.url))
    }
}

/// Whether another connection, or a little later, may do better.
fn is_away(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly, TryAgain};
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => false,
        ErrorKind::Io
        | ErrorKind::Parse
        | ErrorKind::MasterNameNotFoundBySentinel
        | ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | ReadOnly | TryAgain) => true,
        _ => error.is_unrecoverable_error() || error.is_timeout(),
    }
}

/// The library bounds each step of its own; this bounds them together.
async fn bounded<T>(call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let most = limits::STORE_CONNECT + limits::STORE_CALL;
    match timeout(most, call).await {
        Ok(answer) => answer,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}
