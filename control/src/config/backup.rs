//! The command lines of `grid backup`, `grid restore` and `grid store`.

use std::path::PathBuf;

use clap::{Command, Subcommand, builder::PossibleValue};

use super::Config;
use crate::backup::Kind;

/// Settings that their help shows: the others do nothing here.
const SHOWN: [&str; 4] = ["GRID_CONFIG", "GRID_DATA_DIR", "GRID_ADMIN_ADDR", "GRID_REDIS_PREFIX"];

/// `grid backup` and `grid restore` with all that follows.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) config: Config,
    /// The backup.
    #[arg(id = "file", value_name = "FILE")]
    pub(super) path: PathBuf,
}

/// `grid store` with all that follows.
#[derive(Debug, clap::Args)]
pub(super) struct StoreArgs {
    #[command(flatten)]
    pub(super) config: Config,
    #[command(subcommand)]
    pub(super) verb: StoreCommand,
}

/// What is to be done with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum StoreCommand {
    /// Bring everything from the data directory to the Redis of REDIS_URL, or back.
    ///
    /// Only while no Grid runs, and into an empty one. Running containers stay, and Grid finds them
    /// again. After it went to the Redis, the file of the data directory is grid.redb.migrated; after it
    /// came from there, remove REDIS_URL from the settings before Grid is started.
    Migrate {
        /// Where it goes: redis or embedded.
        #[arg(long, value_name = "KIND")]
        to: Kind,
    },
}

impl clap::ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Redis, Self::Embedded]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Redis => "redis",
            Self::Embedded => "embedded",
        }))
    }
}

/// Hides the settings that do nothing here.
pub(super) fn few_settings(command: Command) -> Command {
    command.mut_args(|arg| {
        let id = arg.get_id().as_str();
        let shown = SHOWN.contains(&id) || !id.contains('_');
        arg.hide(!shown)
    })
}
