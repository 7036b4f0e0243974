//! What runs in a simulated container: it dials, serves one request after the other over what it
//! dialled, and notes when one edge gives it a second one.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use control::name::ReplicaId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinSet,
};

use super::chance::Chance;

/// What a function's code does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// It answers.
    Good,
    /// It answers most requests, and others never.
    Hangs,
    /// It does not load.
    Unloadable,
    /// Its process ends at once.
    Exits,
}

/// Pause before it dials again.
const AGAIN: Duration = Duration::from_millis(300);
/// Longest run that is no hang.
const RUN: Duration = Duration::from_secs(3);
/// How long a request that hangs is worked on: longer than anybody waits for it.
const HANG: Duration = Duration::from_secs(60);

/// The requests that run, of all containers, also those that were given up.
#[derive(Debug, Default)]
pub(super) struct Runs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// An edge that has ended cannot know what still runs; the containers have the next one wait then.
    edge: usize,
    now: HashMap<(usize, ReplicaId), usize>,
    faults: Vec<String>,
}

impl Runs {
    pub(super) fn faults(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").faults.clone()
    }

    /// Another edge is there.
    pub(super) fn new_edge(&self) {
        self.0.lock().expect("not poisoned").edge += 1;
    }

    fn begin(self: &Arc<Self>, replica: &ReplicaId) -> Run {
        let mut state = self.0.lock().expect("not poisoned");
        let key = (state.edge, replica.clone());
        let now = state.now.entry(key.clone()).or_default();
        *now += 1;
        if *now > 1 {
            state.faults.push(format!("{replica} was given a request while it had another one"));
        }
        Run(self.clone(), key)
    }
}

struct Run(Arc<Runs>, (usize, ReplicaId));

impl Drop for Run {
    fn drop(&mut self) {
        let mut state = self.0.0.lock().expect("not poisoned");
        *state.now.entry(self.1.clone()).or_default() -= 1;
    }
}

/// Runs until it is aborted.
pub(super) async fn run(
    replica: ReplicaId,
    socket: PathBuf,
    code: Code,
    runs: Arc<Runs>,
    chance: Arc<Chance>,
) {
    // A handler goes on when its caller has hung up.
    let mut handlers = JoinSet::new();
    let turns = Arc::new(tokio::sync::Mutex::new(()));
    loop {
        if let Ok(mut stream) = UnixStream::connect(&socket).await {
            serve(&mut stream, &replica, code, &runs, &chance, &turns, &mut handlers).await;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Serves until the other side hangs up.
async fn serve(
    stream: &mut UnixStream,
    replica: &ReplicaId,
    code: Code,
    runs: &Arc<Runs>,
    chance: &Arc<Chance>,
    turns: &Arc<tokio::sync::Mutex<()>>,
    handlers: &mut JoinSet<()>,
) {
    let mut request = Vec::new();
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read_buf(&mut request).await {
                Ok(1..) => {}
                _ => return,
            }
        }
        let call = request.starts_with(b"GET /call ");
        let ready = request.starts_with(b"GET /ready ");
        request.clear();
        if call {
            let hangs = code == Code::Hangs && chance.hits(30);
            let time = if hangs { HANG } else { chance.within(RUN) };
            let running = runs.begin(replica);
            let (done, finished) = tokio::sync::oneshot::channel();
            let turns = turns.clone();
            handlers.spawn(async move {
                let _turn = turns.lock().await;
                tokio::time::sleep(time).await;
                drop(running);
                let _ = done.send(()); // perhaps nobody waits
            });
            let mut more = [0];
            tokio::select! {
                _ = finished => {}
                _ = stream.read(&mut more) => return,
            }
        }
        let bad = br#"HTTP/1.1 503 Service Unavailable
content-type: application/json
content-length: 36

{"error": "load", "message": "nope"}"#;
        let answer = if ready && code == Code::Unloadable {
            String::from_utf8_lossy(bad).replace('\n', "\r\n").into_bytes()
        } else {
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()
        };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}
