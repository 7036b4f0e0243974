//! A relay in front of Docker Engine's socket that can be cut, so that "the engine is away" is
//! tested without stopping the machine's engine.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Where the engine really listens.
fn engine() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").into()
}

/// The relay; it ends with the test's process.
pub(crate) struct Relay {
    path: PathBuf,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: AtomicBool,
    open: Mutex<Vec<UnixStream>>,
}

impl Relay {
    /// Listens at `docker.sock` in `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        let path = dir.join("docker.sock");
        let state = Arc::<State>::default();
        listen(&path, &state);
        Self { path, state }
    }

    /// What `DOCKER_HOST` must be.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Ends all connections and takes the socket away.
    pub(crate) fn cut(&self) {
        std::fs::remove_file(&self.path).expect("the socket");
        self.state.cut.store(true, Ordering::SeqCst);
        for stream in self.state.open.lock().expect("a lock").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Puts the socket back.
    pub(crate) fn mend(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
        listen(&self.path, &self.state);
    }
}

fn listen(path: &Path, state: &Arc<State>) {
    let listener = UnixListener::bind(path).expect("a socket");
    let state = Arc::clone(state);
    // A listener whose file was removed is never reached again.
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            if !state.cut.load(Ordering::SeqCst) {
                drop(join(client, &state));
            }
        }
    });
}

fn join(client: UnixStream, state: &State) -> io::Result<()> {
    let server = UnixStream::connect(engine())?;
    let ends =
        [(client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?)];
    state.open.lock().expect("a lock").extend([client, server]);
    for (from, to) in ends {
        thread::spawn(move || {
            pump(from, &to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}

fn pump(mut from: UnixStream, mut to: &UnixStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
