//! The store that the settings name, as its process owns it: opened, given up, and handed around as
//! what every store is.

use std::sync::Arc;

use super::{
    Contents, Record, Store, contents,
    embedded::Embedded,
    redis::{Part, Redis, RedisSettings},
};
use crate::{
    config::Config,
    error::{Error, Result},
    name::InstanceId,
};

/// A store of either kind. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub enum Opened {
    /// In the data directory.
    Embedded(Embedded),
    /// In a Redis.
    Redis(Redis),
}

impl Opened {
    /// Opens the Redis of `REDIS_URL`, or else the file of the data directory. What runs for it runs
    /// as long as the runtime in which this is called.
    ///
    /// # Errors
    /// As [`Embedded::open`] and [`Redis::open`]; `Store` when it was not filled to the end.
    pub async fn open(config: &Config, part: Part) -> Result<Self> {
        let opened = Self::open_any(config, part).await?;
        opened.expect_finished().await?;
        Ok(opened)
    }

    /// Opens the same with control, to be filled with what was another one's: see
    /// [`Embedded::open_as`] and [`Redis::open_as`].
    ///
    /// # Errors
    /// Theirs.
    pub async fn open_as(config: &Config, instance: &InstanceId) -> Result<Self> {
        let dir = &config.data_dir;
        match RedisSettings::of(config) {
            Some(settings) => Redis::open_as(&settings, dir, instance).await.map(Self::Redis),
            None => Embedded::open_as(dir, instance).map(Self::Embedded),
        }
    }

    async fn open_any(config: &Config, part: Part) -> Result<Self> {
        let Some(settings) = RedisSettings::of(config) else {
            return Embedded::open(&config.data_dir).map(Self::Embedded);
        };
        if Embedded::exists(&config.data_dir) {
            tracing::warn!(
                "services are kept in the Redis at {}; those in the data directory {} are not used \
                 (grid store migrate brings them there)",
                settings.url,
                config.data_dir.display()
            );
        }
        Redis::open(&settings, &config.data_dir, part).await.map(Self::Redis)
    }

    /// Whose containers are ours.
    pub fn instance_id(&self) -> &InstanceId {
        match self {
            Self::Embedded(store) => store.instance_id(),
            Self::Redis(store) => store.instance_id(),
        }
    }

    /// Gives it up, so that another process can write to it. Volatile verbs and `view` go on.
    pub async fn close(&self) {
        match self {
            Self::Embedded(store) => store.close().await,
            Self::Redis(store) => store.close().await,
        }
    }

    /// The verbs.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => Arc::new(store.clone()),
            Self::Redis(store) => Arc::new(store.clone()),
        }
    }

    /// Refuses a store that is being filled, or was and did not come to the end.
    pub(crate) async fn expect_finished(&self) -> Result<()> {
        match self.is_unfinished().await? {
            false => Ok(()),
            true => Err(Error::Store {
                operation: "open",
                reason:
                    "a restore or a migration into it did not come to its end: repeat that (grid \
                         restore, grid store migrate)"
                        .to_owned(),
            }),
        }
    }

    pub(crate) async fn is_unfinished(&self) -> Result<bool> {
        match self {
            Self::Embedded(store) => contents::is_unfinished(store).await,
            Self::Redis(store) => contents::is_unfinished(store).await,
        }
    }

    /// Begins to fill it; see [`contents`].
    pub(crate) async fn begin_to_fill(&self) -> Result<()> {
        match self {
            Self::Embedded(store) => contents::begin(store).await,
            Self::Redis(store) => contents::begin(store).await,
        }
    }

    /// Adds entries, while it is being filled.
    pub(crate) async fn fill(&self, records: Vec<Record>) -> Result<()> {
        match self {
            Self::Embedded(store) => contents::fill(store, records).await,
            Self::Redis(store) => contents::fill(store, records).await,
        }
    }

    /// Ends to fill it with so many entries.
    pub(crate) async fn end_to_fill(&self, entries: u64) -> Result<()> {
        match self {
            Self::Embedded(store) => contents::end(store, entries).await,
            Self::Redis(store) => contents::end(store, entries).await,
        }
    }

    /// Everything that is kept.
    pub(crate) fn contents(&self) -> &dyn Contents {
        match self {
            Self::Embedded(store) => store,
            Self::Redis(store) => store,
        }
    }
}
