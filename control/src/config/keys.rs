//! The command line of `grid keys`.

use clap::Subcommand;

use super::Config;

/// `grid keys` with all that follows.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) config: Config,
    #[command(subcommand)]
    pub(super) verb: KeysCommand,
}

/// What is to be done with the keys of environment variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum KeysCommand {
    /// Seal every environment variable anew with another key, and drop the keys before it.
    ///
    /// Functions go on running. A new key is made when the keys are in the file fernet_keys of the data
    /// directory. Keys of GRID_FERNET_KEYS are its owner's: put a new one in front, start Grid again
    /// (grid upgrade), and rotate; then the others can be removed from the setting.
    Rotate,
}
