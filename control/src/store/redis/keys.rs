//! What is kept in Redis, under which keys.
//!
//! All begin with `{<prefix>}:`, so that several Grids share a Redis, and one Grid would have one slot of
//! a cluster. What depends on the schema has its number in the key, too.

use crate::{
    name::ServiceId,
    store::tables::{SCHEMA, Table},
};

/// The keys of one Grid.
pub(super) struct Keys {
    /// Hash: `schema`, `instance`, and `version`, which counts the commits.
    pub(super) meta: String,
    /// Sorted set: service id by the version at which its listing changed last.
    pub(super) changed: String,
    /// Hash: service id → JSON of why its replicas cannot be started.
    pub(super) obstacles: String,
    /// Set: ids of the services that have replicas.
    pub(super) with_replicas: String,
    /// Text: who may commit now, for as long as it keeps saying so.
    pub(super) control: String,
    /// Channel of hints.
    pub(super) channel: String,
    base: String,
}

impl Keys {
    pub(super) fn with(prefix: &str) -> Self {
        let base = format!("{{{prefix}}}:{SCHEMA}:");
        let name = |name: &str| format!("{base}{name}");
        Self {
            meta: format!("{{{prefix}}}:meta"),
            changed: name("changed"),
            obstacles: name("obstacles"),
            with_replicas: name("with-replicas"),
            control: name("control"),
            channel: name("hints"),
            base,
        }
    }

    /// Hash: the entries of a table.
    pub(super) fn table(&self, table: Table) -> String {
        format!("{}{}", self.base, table.name())
    }

    /// Sorted set: the keys of an ordered table, all with score 0, and so in their order.
    pub(super) fn order(&self, table: Table) -> String {
        format!("{}{}:order", self.base, table.name())
    }

    /// Text: the version that a commit made.
    pub(super) fn done(&self, commit: &str) -> String {
        format!("{}done:{commit}", self.base)
    }

    /// Hash: the volatile state of a service, see `volatile.lua`.
    pub(super) fn volatile(&self, service: Option<ServiceId>) -> String {
        match service {
            Some(service) => format!("{}volatile:{service}", self.base),
            None => format!("{}volatile", self.base),
        }
    }
}
