//! What a process has of the one that it replaces: listeners, and a channel to it. systemd hands over
//! listeners in the same way, without the channel.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    sync::Arc,
};

use control::{service::Seen, store::Store};
use listenfd::ListenFd;
use tokio::io::{AsyncBufReadExt, BufReader as AsyncBufReader};

use super::{
    READY_WITHIN,
    message::{self, FromNew, FromOld},
};

/// The variable with the names of the descriptors, with colons between them.
pub(super) const NAMES: &str = "LISTEN_FDNAMES";
/// What the channel is called there. It is the last one.
pub(super) const CHANNEL: &str = "grid-upgrade";
/// What listeners are called there.
pub(super) const LISTENER: &str = "grid-listener";

/// What came with this process.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) predecessor: Option<Predecessor>,
}

/// The process that this one replaces.
#[derive(Debug, Clone)]
pub(crate) struct Predecessor(Arc<UnixStream>);

impl Inherited {
    /// Takes it, before there are threads and programs that could have a part in it.
    ///
    /// # Errors
    /// A descriptor is not what it is said to be.
    pub(crate) fn take() -> Result<Self, String> {
        let names = std::env::var(NAMES).unwrap_or_default();
        let mut given = ListenFd::from_env();
        let mut inherited = Self::default();
        let count = given.len();
        let has_channel = count > 0 && names.split(':').nth(count - 1) == Some(CHANNEL);
        for index in 0..count {
            let odd = |error: io::Error| {
                format!("LISTEN_FDS: {error}; only TCP listeners can be handed to Grid")
            };
            if has_channel && index == count - 1 {
                // The crate has no name for a stream that does not listen, but checks its kind.
                let channel = given.take_unix_listener(index).map_err(odd)?;
                let channel = channel.map(|channel| UnixStream::from(OwnedFd::from(channel)));
                inherited.predecessor = channel.map(|channel| Predecessor(Arc::new(channel)));
            } else if let Some(listener) = given.take_tcp_listener(index).map_err(odd)? {
                inherited.listeners.push(listener);
            }
        }
        Ok(inherited)
    }
}

impl Predecessor {
    /// Asks for the store, and waits until it is free. Blocks.
    ///
    /// # Errors
    /// It does not give it. One that has died has given it up, too.
    pub(crate) fn take_over(&self, data_dir: &Path) -> Result<(), String> {
        let data_dir = data_dir.to_owned();
        let lost = |e: io::Error| {
            format!("the process that is to be replaced did not give up the store: {e}")
        };
        if self.say(&FromNew::Give { data_dir }).is_err() {
            return Ok(());
        }
        self.0.set_read_timeout(Some(READY_WITHIN)).map_err(lost)?;
        let mut lines = BufReader::new(&*self.0);
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).map_err(lost)? == 0 {
                return Ok(());
            }
            // It says nothing more before it hears that this one serves.
            if message::read(&line) == Some(FromOld::Take) {
                return Ok(());
            }
        }
    }

    /// Says that this process ends, and why.
    pub(crate) fn fail(&self, reason: &str) {
        let _ = self.say(&FromNew::Failed { reason: reason.to_owned() }); // it sees the end anyway
    }

    /// Says that this process serves; then takes over what the old one says of replicas that it still
    /// uses, until its end.
    pub(crate) async fn follow(self, store: Arc<dyn Store>) {
        if let Err(error) = self.say(&FromNew::Serving) {
            tracing::warn!(%error, "the process that was replaced has ended before its time");
            return;
        }
        let stream = self.0.try_clone().and_then(|stream| {
            stream.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(stream)
        });
        let mut lines = match stream {
            Ok(stream) => AsyncBufReader::new(stream).lines(),
            Err(error) => {
                tracing::warn!(%error, "the process that was replaced is not heard");
                return;
            }
        };
        while let Ok(Some(line)) = lines.next_line().await {
            let Some(FromOld::Lost { service, replica, cause }) = message::read(&line) else {
                continue;
            };
            tracing::debug!(%service, %replica, ?cause, "the process that was replaced gave it up");
            let told = async {
                let demand = store.view(service).await?.demand;
                store.report_replica(service, &replica, Seen::Gone { cause }, demand).await
            };
            if let Err(error) = told.await {
                tracing::warn!(%service, %replica, %error, "a lost replica is not known as such");
            }
        }
        tracing::info!("the process that was replaced has ended");
    }

    fn say(&self, message: &FromNew) -> io::Result<()> {
        (&*self.0).write_all(message::line(message).as_bytes())
    }
}
