//! A relay in front of Docker Engine's socket with which the engine goes away, hangs, is slow, or
//! loses answers, without harm to the machine's engine. Each connection carries one call, so that what
//! is done to one is done to no other.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

/// Where the engine really listens.
fn engine() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").into()
}

/// The relay; it ends with the test's process.
pub(crate) struct Relay(Arc<Shared>);

/// What is done to one call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The engine does it, and the answer is lost.
    LoseAnswer,
    /// The same, and the engine is away from then on, as after [`Relay::cut`].
    Vanish,
    /// The caller is hung up on at once, and the engine does it so much later.
    Late(Duration),
    /// The answer breaks off after so many bytes of it.
    Break(usize),
    /// The engine is not asked: this is the answer's status and body.
    Answer(&'static str, &'static str),
}

struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    cut: bool,
    hung: bool,
    delay: Duration,
    /// For the calls whose first line holds all of these words; whether for the next one only.
    faults: Vec<(String, Fault, bool)>,
    /// First lines of all calls.
    calls: Vec<String>,
    open: Vec<UnixStream>,
}

impl Relay {
    /// Listens at `docker.sock` in `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        let path = dir.join("docker.sock");
        let shared = Shared { path, state: Mutex::default(), changed: Condvar::new() };
        let shared = Arc::new(shared);
        listen(&shared);
        Self(shared)
    }

    /// What `DOCKER_HOST` must be.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.0.path.display())
    }

    /// Ends all connections and takes the socket away.
    pub(crate) fn cut(&self) {
        self.0.cut();
    }

    /// Puts the socket back.
    pub(crate) fn mend(&self) {
        self.set(|state| state.cut = false);
        listen(&self.0);
    }

    /// Stops the engine in its tracks, as SIGSTOP does, or lets it go on with whatever it was asked.
    pub(crate) fn hang(&self, hung: bool) {
        self.set(|state| state.hung = hung);
    }

    /// Each call reaches the engine so much later.
    pub(crate) fn slow(&self, delay: Duration) {
        self.set(|state| state.delay = delay);
    }

    /// Does this to the next call whose first line holds the words, such as `/containers/create`.
    pub(crate) fn once(&self, words: &str, fault: Fault) {
        self.set(|state| state.faults.push((words.to_owned(), fault, true)));
    }

    /// Does this to every such call.
    pub(crate) fn always(&self, words: &str, fault: Fault) {
        self.set(|state| state.faults.push((words.to_owned(), fault, false)));
    }

    /// Whether all that was to be done `once` has been done.
    pub(crate) fn is_done(&self) -> bool {
        !self.0.state.lock().expect("a lock").faults.iter().any(|(.., once)| *once)
    }

    /// How many calls there were whose first line holds all of these words.
    pub(crate) fn calls(&self, words: &str) -> usize {
        let state = self.0.state.lock().expect("a lock");
        state.calls.iter().filter(|call| holds(call, words)).count()
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().expect("a lock"));
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn cut(&self) {
        std::fs::remove_file(&self.path).expect("the socket");
        let mut state = self.state.lock().expect("a lock");
        state.cut = true;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Nothing moves while the engine hangs.
    fn pass(&self) {
        let state = self.state.lock().expect("a lock");
        drop(self.changed.wait_while(state, |state| state.hung).expect("a lock"));
    }

    /// Notes a call; what is to be done to it.
    fn noted(&self, call: &str) -> (Duration, Option<Fault>) {
        let mut state = self.state.lock().expect("a lock");
        state.calls.push(call.to_owned());
        let at = state.faults.iter().position(|(words, ..)| holds(call, words));
        let fault = at.map(|at| match state.faults[at] {
            (_, fault, false) => fault,
            (_, _, true) => state.faults.remove(at).1,
        });
        (state.delay, fault)
    }
}

fn holds(call: &str, words: &str) -> bool {
    words.split(' ').all(|word| call.contains(word))
}

fn listen(shared: &Arc<Shared>) {
    let listener = UnixListener::bind(&shared.path).expect("a socket");
    let shared = Arc::clone(shared);
    // A listener whose file was removed is never reached again.
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let shared = Arc::clone(&shared);
            thread::spawn(move || drop(serve(client, &shared)));
        }
    });
}

/// One call.
fn serve(mut client: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    {
        let mut state = shared.state.lock().expect("a lock");
        if state.cut {
            return Ok(());
        }
        state.open.push(client.try_clone()?);
    }
    let mut reader = BufReader::new(client.try_clone()?);
    let mut call = String::new();
    if reader.read_line(&mut call)? == 0 {
        return Ok(());
    }
    let (delay, fault) = shared.noted(call.trim_end());
    shared.pass();
    thread::sleep(delay);
    if let Some(Fault::Answer(status, body)) = fault {
        read_request(&mut reader)?;
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        client.write_all(format!("{head}{body}").as_bytes())?;
        return client.shutdown(Shutdown::Both);
    }
    if let Some(Fault::Late(after)) = fault {
        let rest = read_request(&mut reader)?;
        client.shutdown(Shutdown::Both)?;
        thread::sleep(after);
        let mut server = UnixStream::connect(engine())?;
        server.write_all(&[call.as_bytes(), b"connection: close\r\n", &rest].concat())?;
        return io::copy(&mut server, &mut io::sink()).map(|_| ());
    }
    let mut server = UnixStream::connect(engine())?;
    shared.state.lock().expect("a lock").open.push(server.try_clone()?);
    server.write_all(&[call.as_bytes(), b"connection: close\r\n"].concat())?;
    let (mut to, ours) = (server.try_clone()?, Arc::clone(shared));
    thread::spawn(move || {
        pump(&mut reader, &mut to, usize::MAX, &ours);
        let _ = to.shutdown(Shutdown::Write);
    });
    let most = match fault {
        Some(Fault::Break(bytes)) => bytes,
        Some(_) => 0,
        None => usize::MAX,
    };
    pump(&mut server, &mut client, most, shared);
    if matches!(fault, Some(Fault::Vanish)) {
        shared.cut();
    }
    client.shutdown(Shutdown::Both)
}

/// The rest of a request: its head and, when that has a length, its body. None that is sent in chunks.
fn read_request(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let (mut request, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        request.extend_from_slice(line.as_bytes());
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length: ") {
            length = bytes.parse().map_err(io::Error::other)?;
        }
        if line.is_empty() {
            break;
        }
    }
    let head = request.len();
    request.resize(head + length, 0);
    reader.read_exact(&mut request[head..])?;
    Ok(request)
}

/// Passes on what comes, until its end or until it is more than this.
fn pump(from: &mut impl Read, to: &mut UnixStream, most: usize, shared: &Shared) {
    let (mut buffer, mut left) = ([0; 16 * 1024], most);
    while let Ok(count) = from.read(&mut buffer) {
        shared.pass();
        let passed = count.min(left);
        left -= passed;
        if count == 0 || to.write_all(&buffer[..passed]).is_err() || passed < count {
            return;
        }
    }
}
