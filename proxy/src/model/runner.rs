//! What runs in a simulated container: it dials, serves one request after the other over what it
//! dialled, and notes when one edge has it run two at a time, or anybody one request twice.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
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
    /// The requests that have begun, by what they ask for.
    begun: HashSet<String>,
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

    fn begin(self: &Arc<Self>, replica: &ReplicaId, target: &str) -> Run {
        let mut state = self.0.lock().expect("not poisoned");
        if !state.begun.insert(target.to_owned()) {
            state.faults.push(format!("{target} was begun a second time, by {replica}"));
        }
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
    let recalls = socket.with_file_name("recalls");
    loop {
        if let Ok(mut stream) = UnixStream::connect(&socket).await {
            let container = (&replica, &*recalls);
            serve(&mut stream, container, code, &runs, &chance, &turns, &mut handlers).await;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Serves until the other side hangs up.
async fn serve(
    stream: &mut UnixStream,
    (replica, recalls): (&ReplicaId, &Path),
    code: Code,
    runs: &Arc<Runs>,
    chance: &Arc<Chance>,
    turns: &Arc<tokio::sync::Mutex<()>>,
    handlers: &mut JoinSet<()>,
) {
    let mut buffer = Vec::new();
    loop {
        let Some(request) = next(stream, &mut buffer).await else { return };
        let ready = request.target == "/ready";
        let called_back = is_called_back(recalls, request.turn);
        if request.target.starts_with("/call") && !called_back {
            let hangs = code == Code::Hangs && chance.hits(30);
            let quick = chance.hits(70);
            let time = match (hangs, quick) {
                (true, _) => HANG,
                (false, true) => Duration::ZERO,
                (false, false) => chance.within(RUN),
            };
            let running = runs.begin(replica, &request.target);
            let (done, finished) = tokio::sync::oneshot::channel();
            let turns = turns.clone();
            handlers.spawn(async move {
                let _turn = turns.lock().await;
                tokio::time::sleep(time).await;
                drop(running);
                let _ = done.send(()); // perhaps nobody waits
            });
            tokio::select! {
                _ = finished => {}
                () = hangup(stream, &mut buffer) => return,
            }
        }
        let bad = br#"HTTP/1.1 503 Service Unavailable
content-type: application/json
content-length: 36

{"error": "load", "message": "nope"}"#;
        let answer = if ready && code == Code::Unloadable {
            String::from_utf8_lossy(bad).replace('\n', "\r\n").into_bytes()
        } else if ready {
            b"HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{\"calls_back\":true}".to_vec()
        } else if called_back {
            b"HTTP/1.1 200 OK\r\nx-grid-outcome: called-back\r\ncontent-length: 0\r\n\r\n".to_vec()
        } else {
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()
        };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

struct Request {
    target: String,
    /// 0 for one that was not sent ahead.
    turn: u64,
}

/// None when the other side has hung up.
async fn next(stream: &mut UnixStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
            return None;
        }
    };
    let head: Vec<u8> = buffer.drain(..end).collect();
    let head = String::from_utf8_lossy(&head);
    let turn = head.lines().find_map(|line| line.strip_prefix("x-grid-turn: "));
    Some(Request {
        target: head.split(' ').nth(1).unwrap_or_default().to_owned(),
        turn: turn.and_then(|turn| turn.parse().ok()).unwrap_or(0),
    })
}

async fn hangup(stream: &mut UnixStream, buffer: &mut Vec<u8>) {
    while matches!(stream.read_buf(buffer).await, Ok(1..)) {}
}

fn is_called_back(recalls: &Path, turn: u64) -> bool {
    let upto = fs::read(recalls).ok().and_then(|bytes| bytes.try_into().ok());
    turn > 0 && upto.is_some_and(|upto| turn <= u64::from_le_bytes(upto))
}
