//! `grid backup`, `grid restore` and `grid store migrate`: what was done is said on standard output.

use std::path::Path;

use control::{
    backup::{self, Kind, Making},
    config::Config,
};

use crate::admin::{AdminClient, Result};

/// Writes a backup of the Grid that runs, or of the store that it would have.
pub(crate) fn make(config: &Config, path: &Path) -> Result<()> {
    let client = AdminClient::open(config)?;
    let mut making = Making::begin(config, path)?;
    client.lines("/api/v1/backup/", |line| making.line(line))?;
    let entries = making.finish()?;
    println!(
        "{entries} entries are in {}. It has secrets in it: keep it where only you read it.",
        path.display()
    );
    Ok(())
}

/// Restores a backup into the store of these settings.
pub(crate) fn restore(config: &Config, path: &Path) -> Result<()> {
    let restored = runtime()?.block_on(backup::restore(config, path))?;
    println!(
        "{} entries of the backup made at {} are restored into {}. Start Grid now.",
        restored.entries,
        restored.made_at,
        place(config, config.redis_url.is_some())
    );
    if !restored.opens {
        eprintln!(
            "The keys are not here that its environment variables were encrypted with: before you \
             start Grid, set GRID_FERNET_KEYS as it was set where the backup was made."
        );
    }
    Ok(())
}

/// Copies everything from one kind of store to the other.
pub(crate) fn migrate(config: &Config, to: Kind) -> Result<()> {
    let migrated = runtime()?.block_on(backup::migrate(config, to))?;
    let entries = migrated.entries;
    println!("{entries} entries are in {} now.", place(config, to == Kind::Redis));
    match migrated.aside {
        Some(aside) => println!("The file that they come from is {}.", aside.display()),
        None => println!("Remove REDIS_URL from the settings before you start Grid."),
    }
    Ok(())
}

fn place(config: &Config, in_redis: bool) -> String {
    match config.redis_url.as_ref().filter(|_| in_redis) {
        Some(url) => format!("the Redis at {url} (prefix {})", config.redis_prefix),
        None => format!("the data directory {}", config.data_dir.display()),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}
