//! One Grid's part of a Redis: where it is, whose it is, and how it is asked.

use std::sync::LazyLock;

use ::redis::{Arg, FromRedisValue, Pipeline, Script, ScriptInvocation, pipe};
use tokio::sync::{broadcast, watch};

use super::{
    keys::Keys,
    link::{Link, Request},
    transaction::{STAMP, Stamp},
};
use crate::{
    name::{InstanceId, ServiceId},
    store::{Change, tables::Fault},
};

/// What a process is told that must not commit.
pub(super) const FENCED: &str = "another Grid controls the services of this Redis and prefix: stop \
    that one, or set GRID_REDIS_PREFIX to another name";

/// ARGV: of each command how many words it has, and these.
static AT_ONCE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local answers, at = {}, 1
         while at <= #ARGV do
           local last = at + tonumber(ARGV[at])
           answers[#answers + 1] = redis.call(unpack(ARGV, at + 1, last))
           at = last + 1
         end
         return answers",
    )
});

/// A few commands that read, each of a few words, as one step. No transaction of Redis: it takes none,
/// not even to read, when its memory is full.
pub(super) fn at_once(commands: &Pipeline) -> ScriptInvocation<'static> {
    let mut script = AT_ONCE.prepare_invoke();
    for command in commands.cmd_iter() {
        script.arg(command.args_iter().len());
        for word in command.args_iter() {
            if let Arg::Simple(word) = word {
                script.arg(word);
            }
        }
    }
    script
}

pub(super) struct Server {
    pub(super) link: Link,
    pub(super) keys: Keys,
    pub(super) instance: InstanceId,
    /// Who commits: the same text for each process that serves one data directory.
    pub(super) holder: String,
    /// Marks the hints of this process, which knows of them already.
    pub(super) sender: String,
    pub(super) changes: broadcast::Sender<Change>,
    /// What is wrong with it, as whoever listens for hints finds out.
    pub(super) problem: watch::Sender<Option<String>>,
}

impl Server {
    /// The answers to a few commands.
    pub(super) async fn ask<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Fault> {
        Ok(self.link.ask(Request::Commands(commands)).await?.value)
    }

    /// The answer of a script.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Fault> {
        Ok(self.link.ask(Request::Script(script)).await?.value)
    }

    /// The version of what was read, if it is still this Grid's.
    pub(super) fn version(&self, (instance, version): &Stamp) -> Result<u64, Fault> {
        match instance.as_deref() {
            Some(instance) if instance == self.instance.as_str() => Ok(version.unwrap_or_default()),
            _ => Err(self.emptied()),
        }
    }

    /// What there was is gone: that must not be taken for "no services".
    pub(super) fn emptied(&self) -> Fault {
        Fault::Broken(format!(
            "Redis at {} has lost the state of this Grid ({}): restore a backup of it, or start \
             Grid again to begin with nothing",
            self.link.url(),
            self.keys.meta
        ))
    }

    /// The version now: it answers, and has what it was told.
    pub(super) async fn current(&self) -> Result<u64, Fault> {
        let mut commands = pipe();
        commands.cmd("HMGET").arg(&self.keys.meta).arg(&STAMP);
        let (stamp,): (Stamp,) = self.ask(&commands).await?;
        self.version(&stamp)
    }

    /// Tells the watchers of this process.
    pub(super) fn hint_here(&self, change: Change) {
        // Fails when nobody watches, which is fine.
        let _ = self.changes.send(change);
    }

    /// What the watchers of other processes are told.
    pub(super) fn hint(&self, service: Option<ServiceId>) -> String {
        service.map(|service| format!("{} {service}", self.sender)).unwrap_or_default()
    }
}
