//! The store that the settings name, as its process owns it: opened, given up, and handed around as
//! what every store is.

use std::sync::Arc;

use super::{
    Store,
    embedded::Embedded,
    redis::{Part, Redis, RedisSettings},
};
use crate::{config::Config, error::Result, name::InstanceId};

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
    /// As [`Embedded::open`] and [`Redis::open`].
    pub async fn open(config: &Config, part: Part) -> Result<Self> {
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
}
