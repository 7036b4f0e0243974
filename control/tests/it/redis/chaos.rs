//! A network that fails at a chosen moment: a proxy between a store and its Redis.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

/// How long an answer is held back, and how long nobody can connect: less than a call is patient.
const SHORT: Duration = Duration::from_millis(150);
/// How long Redis is away: longer than a call is patient.
const LONG: Duration = Duration::from_secs(4);
/// How long the proxy waits for an answer that it swallows.
const ANSWER: Duration = Duration::from_secs(2);

/// What happens to a request. Each happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection ends before the request is sent on.
    CutBefore,
    /// It ends when a part of the request is sent on.
    CutWithin,
    /// It ends when the request is done, before its answer is sent on.
    CutAfter,
    /// The request comes late.
    Delay,
    /// The client is told of an end, Redis is not.
    HalfClose,
    /// The request is lost, and nothing says so.
    Hang,
    /// The answer is lost, and nothing says so.
    Swallow,
    /// The connection ends, and for a moment nobody listens.
    Refuse,
    /// Redis is away for longer than a call is patient, from before the request on.
    AwayBefore,
    /// Redis is away for as long, from after the request on.
    AwayAfter,
}

/// Ends when it is dropped.
pub(crate) struct Chaos {
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    dir: tempfile::TempDir,
    server: PathBuf,
    requests: AtomicU64,
    plan: watch::Sender<Option<(u64, Fault)>>,
    away: watch::Sender<bool>,
}

impl Chaos {
    /// Before the Redis behind a socket.
    pub(crate) fn before(server: &Path) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let shared = Arc::new(Shared {
            dir,
            server: server.to_owned(),
            requests: AtomicU64::new(0),
            plan: watch::Sender::new(None),
            away: watch::Sender::new(false),
        });
        let listener = UnixListener::bind(shared.socket()).expect("binds");
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { shared, accepting }
    }

    /// Where clients connect.
    pub(crate) fn socket(&self) -> PathBuf {
        self.shared.socket()
    }

    /// Lets a fault strike at the `nth` request from now on.
    pub(crate) fn plan(&self, nth: u64, fault: Fault) {
        self.shared.plan.send_replace(Some((self.requests() + nth, fault)));
    }

    /// How many requests there were.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Whether the fault has struck.
    pub(crate) fn has_struck(&self) -> bool {
        self.shared.plan.borrow().is_none()
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("chaos.sock")
    }

    /// Counts a request, and tells what happens to it.
    fn next(&self) -> Option<Fault> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let planned = *self.plan.borrow();
        let (_, fault) = planned.filter(|(nth, _)| *nth <= number)?;
        self.plan.send_replace(None);
        Some(fault)
    }

    async fn refuse(&self) {
        let hidden = self.dir.path().join("hidden.sock");
        fs::rename(self.socket(), &hidden).expect("hides");
        sleep(SHORT).await;
        fs::rename(hidden, self.socket()).expect("shows");
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("accepts");
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let mut away = shared.away.subscribe();
            tokio::select! {
                _ = away.wait_for(|away| *away) => {}
                () = carry(client, &shared) => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Carries requests and answers until one side or a fault ends it.
async fn carry(mut client: UnixStream, shared: &Shared) {
    let Ok(mut server) = UnixStream::connect(&shared.server).await else { return };
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            read = client.read_buf(&mut asked) => {
                if !matches!(read, Ok(1..)) { return }
            }
            read = server.read_buf(&mut answered) => {
                if !matches!(read, Ok(1..)) || client.write_all(&answered).await.is_err() { return }
                answered.clear();
            }
        }
        while let Some(length) = request(&asked) {
            let request: Vec<u8> = asked.drain(..length).collect();
            let fault = shared.next();
            let sent = match fault {
                Some(Fault::CutBefore | Fault::Hang | Fault::Refuse | Fault::AwayBefore) => &[],
                Some(Fault::CutWithin) => &request[..length / 2],
                _ => &request[..],
            };
            if fault == Some(Fault::Delay) {
                sleep(SHORT).await;
            }
            if server.write_all(sent).await.is_err() {
                return;
            }
            let Some(fault) = fault.filter(|fault| *fault != Fault::Delay) else { continue };
            if matches!(fault, Fault::CutAfter | Fault::AwayAfter | Fault::Swallow) {
                let _ = timeout(ANSWER, server.read_buf(&mut answered)).await;
            }
            return strike(fault, client, shared).await;
        }
    }
}

/// What is left of a fault when the request is sent on, or is not.
async fn strike(fault: Fault, mut client: UnixStream, shared: &Shared) {
    match fault {
        Fault::AwayBefore | Fault::AwayAfter => {
            let away = shared.away.clone();
            // This connection, too, ends with that.
            tokio::spawn(async move {
                away.send_replace(true);
                sleep(LONG).await;
                away.send_replace(false);
            });
        }
        Fault::Refuse => {
            drop(client);
            shared.refuse().await;
        }
        Fault::Hang | Fault::Swallow | Fault::HalfClose => {
            if fault == Fault::HalfClose {
                let _ = client.shutdown().await;
            }
            let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
        }
        Fault::CutBefore | Fault::CutWithin | Fault::CutAfter | Fault::Delay => {}
    }
}

/// How long the first request is: `*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`; none while it is not whole.
fn request(bytes: &[u8]) -> Option<usize> {
    let (words, mut end) = number(bytes, b'*')?;
    for _ in 0..words {
        let (length, digits) = number(bytes.get(end..)?, b'$')?;
        end += digits + length + 2;
    }
    (end <= bytes.len()).then_some(end)
}

/// The number on the first line, and how long the line is.
fn number(bytes: &[u8], mark: u8) -> Option<(usize, usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    assert_eq!(bytes[0], mark, "not a request of Redis: {bytes:?}");
    let digits = std::str::from_utf8(&bytes[1..end]).expect("digits");
    Some((digits.parse().expect("a number"), end + 2))
}
