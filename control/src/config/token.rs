//! The command line of `grid token`.

use clap::{Command, Subcommand};

use super::Config;
use crate::{
    limits,
    name::{TokenId, UserName},
};

/// Settings that its help shows: the others do nothing here.
const SHOWN: [&str; 3] = ["GRID_CONFIG", "GRID_DATA_DIR", "GRID_ADMIN_ADDR"];

/// `grid token` with all that follows.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) config: Config,
    #[command(subcommand)]
    pub(super) verb: TokenCommand,
}

/// What is to be done with tokens.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum TokenCommand {
    /// Make a token. It is printed on standard output, alone, and can never be shown again.
    Create {
        /// For whom it speaks. A user is there when there is a token for it.
        #[arg(long, value_name = "NAME")]
        user: UserName,
        /// Whether it may act for all users, and make tokens for them.
        #[arg(long)]
        admin: bool,
        /// What it is for.
        #[arg(long, value_name = "TEXT", default_value = "grid token create")]
        name: String,
        /// After how many days it is refused (1 to 36500); by default never.
        #[arg(long, value_name = "DAYS", value_parser = days())]
        expires_in_days: Option<u32>,
    },
    /// List tokens, newest first, without what is secret.
    List {
        /// Those of this user only.
        #[arg(long, value_name = "NAME")]
        user: Option<UserName>,
        /// As JSON, in the form of the admin API.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token: it is refused from now on.
    Revoke {
        /// Its id, as listed.
        id: TokenId,
    },
}

/// Takes the settings behind its verb, too.
pub(super) fn settings_anywhere(command: Command) -> Command {
    command.mut_args(|arg| {
        let shown = SHOWN.contains(&arg.get_id().as_str());
        arg.global(true).hide(!shown)
    })
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    let (first, last) = limits::TOKEN_DAYS.into_inner();
    clap::value_parser!(u32).range(i64::from(first)..=i64::from(last))
}
