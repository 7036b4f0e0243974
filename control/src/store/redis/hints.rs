//! Listens for hints of other processes, over a connection of its own, for as long as the store is
//! used. Whenever hints may have been missed, everything has to be read again.

use std::{fmt::Display, sync::Arc, time::Duration};

use ::redis::RedisResult;
use futures_util::StreamExt;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{address::Dialler, server::Server};
use crate::{
    limits,
    store::{Change, tables::Fault},
};

/// First and longest pause between attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

const SILENT: &str = "it does not answer";

/// Runs until it is aborted. `heard` is told when hints come for the first time.
pub(super) async fn listen(server: Arc<Server>, mut dialler: Dialler, heard: oneshot::Sender<()>) {
    let mut pause = PAUSE.0;
    let mut heard = Some(heard);
    loop {
        let began = Instant::now();
        let Err(error) = follow(&server, &mut dialler, &mut heard).await;
        if began.elapsed() > PAUSE.1 {
            pause = PAUSE.0;
        }
        server.tell_problem(Some(error));
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Listens until the connection fails.
async fn follow(
    server: &Server,
    dialler: &mut Dialler,
    heard: &mut Option<oneshot::Sender<()>>,
) -> Result<std::convert::Infallible, String> {
    let most = limits::STORE_CONNECT + limits::STORE_CALL;
    let channel = &server.keys.channel;
    let told = |error: &dyn Display| format!("Redis at {}: {error}", server.link.url());
    let subscribed = async {
        let mut hints = dialler.subscribe().await?;
        hints.subscribe(channel).await?;
        RedisResult::Ok(hints.split())
    };
    let subscribed = timeout(most, subscribed).await.map_err(|_| told(&SILENT))?;
    let (mut commands, mut hints) = subscribed.map_err(|error| told(&error))?;
    server.current().await.map_err(Fault::into_reason)?;
    server.tell_problem(None);
    server.hint_here(Change::Everything);
    if let Some(heard) = heard.take() {
        let _ = heard.send(()); // nobody may wait for it any more
    }
    let mut try_at = Instant::now() + limits::HINTS_EVERY;
    loop {
        match timeout_at(try_at, hints.next()).await {
            Ok(Some(hint)) => {
                let text = String::from_utf8_lossy(hint.get_payload_bytes());
                server.hear(&text);
            }
            Ok(None) => return Err(told(&"the connection ended")),
            // A connection that is dead looks like one over which nothing comes.
            Err(_) => {
                let answer = timeout(limits::STORE_CALL, commands.ping::<::redis::Value>()).await;
                answer.map_err(|_| told(&SILENT))?.map_err(|error| told(&error))?;
                server.current().await.map_err(Fault::into_reason)?;
                try_at = Instant::now() + limits::HINTS_EVERY;
            }
        }
    }
}

impl Server {
    fn tell_problem(&self, problem: Option<String>) {
        self.problem.send_if_modified(|known| {
            let news = *known != problem;
            *known = problem;
            news
        });
    }

    /// Passes a hint on, unless it is this process's own.
    fn hear(&self, text: &str) {
        let Some((sender, service)) = text.split_once(' ') else {
            return self.hint_here(Change::Everything);
        };
        if sender != self.sender {
            // A later Grid may say it in another way.
            let change = service.parse().map_or(Change::Everything, Change::Service);
            self.hint_here(change);
        }
    }
}
