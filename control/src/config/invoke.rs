//! Settings of `POST …/invoke/`.

use clap::Args;

use super::{one_per_core, rules};

/// How many functions are invoked, and how often.
#[derive(Debug, Clone, Args)]
pub struct Invoke {
    /// Functions that are invoked through the admin API at one time (1 to 256), each in a container
    /// of its own; by default one per core, at least 2.
    #[arg(id = "GRID_INVOKE_CONCURRENCY", long = "invoke-concurrency", value_name = "FUNCTIONS")]
    #[arg(default_value_t = one_per_core(), value_parser = rules::count(1..=256))]
    pub invoke_concurrency: usize,

    /// Invocations through the admin API per minute and user, also at once, or off; more get 429.
    #[arg(id = "GRID_INVOKE_RATE", long = "invoke-rate", value_name = "INVOCATIONS")]
    #[arg(default_value = "60", value_parser = rules::rate)]
    pub invoke_rate: u32,
}
