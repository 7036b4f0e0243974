//! `grid store migrate`: everything from one kind of store to the other, under the same instance id, so
//! that running containers stay what they are.

use std::path::PathBuf;

use super::restore::in_use;
use crate::{
    config::Config,
    error::{Error, Result},
    store::{
        Opened,
        embedded::Embedded,
        redis::{Part, Redis, RedisSettings},
    },
};

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The file of the data directory.
    Embedded,
    /// The Redis of `REDIS_URL`.
    Redis,
}

/// What a migration has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Entries that were copied.
    pub entries: u64,
    /// Where the file of the data directory is now, when it was put aside.
    pub aside: Option<PathBuf>,
}

/// Copies everything that the other kind of store keeps, and its instance id, into an empty one. What
/// was copied stays; the file of a data directory is put aside, so that it is not taken for what is used.
/// One that was interrupted can be repeated; Grid does not start on what that left.
///
/// # Errors
/// `Store` when `REDIS_URL` is not set, there is nothing to copy, or another Grid has one of them;
/// `Conflict` when there is something where it is to go.
pub async fn migrate(config: &Config, to: Kind) -> Result<Migrated> {
    let settings = RedisSettings::of(config).ok_or_else(|| {
        refused("REDIS_URL is not set: it names the Redis, also when that is what is copied".into())
    })?;
    let dir = &config.data_dir;
    match to {
        Kind::Redis => {
            if !Embedded::exists(dir) {
                return Err(refused(format!("there is no store in {}", dir.display())));
            }
            let from = Opened::Embedded(Embedded::open(dir)?);
            from.expect_finished().await?;
            let to = Redis::open_as(&settings, dir, from.instance_id()).await?;
            let entries = copy(&from, &Opened::Redis(to), config).await?;
            let aside = Some(Embedded::put_aside(dir)?);
            Ok(Migrated { entries, aside })
        }
        Kind::Embedded => {
            let from = Opened::Redis(Redis::open(&settings, dir, Part::Control).await?);
            from.expect_finished().await?;
            let to = Embedded::open_as(dir, from.instance_id())?;
            let mut its = config.clone();
            its.redis_url = None;
            let entries = copy(&from, &Opened::Embedded(to), &its).await?;
            Ok(Migrated { entries, aside: None })
        }
    }
}

/// Copies everything, and closes both.
async fn copy(from: &Opened, to: &Opened, config: &Config) -> Result<u64> {
    to.begin_to_fill().await.map_err(|error| in_use(error, config))?;
    let mut export = from.contents().export().await?;
    let mut entries = 0;
    while let Some(records) = export.next().await {
        let records = records?;
        entries += records.len() as u64;
        to.fill(records).await?;
    }
    to.end_to_fill(entries).await?;
    to.close().await;
    from.close().await;
    Ok(entries)
}

fn refused(reason: String) -> Error {
    Error::Store { operation: "migrate", reason }
}
