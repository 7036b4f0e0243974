//! What two processes say to each other while one replaces the other: a line of JSON each. They may
//! be of different versions, so what one does not know it passes over.

use std::path::PathBuf;

use control::{
    name::{ReplicaId, ServiceId},
    service::GoneCause,
};
use serde::{Deserialize, Serialize};

use crate::stages::Loss;

/// What the new process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromNew {
    /// It can start but for the store of this directory: it should be given up.
    Give { data_dir: PathBuf },
    /// It ends, and why.
    Failed { reason: String },
    /// It answers the public.
    Serving,
    #[serde(other)]
    Unknown,
}

/// What the old process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromOld {
    /// The store is free.
    Take,
    /// A replica did something after which it is not used again.
    Lost { service: ServiceId, replica: ReplicaId, cause: GoneCause },
    #[serde(other)]
    Unknown,
}

impl From<Loss> for FromOld {
    fn from(loss: Loss) -> Self {
        let Loss { service, replica, cause } = loss;
        Self::Lost { service, replica, cause }
    }
}

/// A message as a line.
pub(super) fn line<M: Serialize>(message: &M) -> String {
    // Maps with odd keys could fail, and there are none.
    serde_json::to_string(message).unwrap_or_default() + "\n"
}

/// The message of a line; none when this version does not know it.
pub(super) fn read<'a, M: Deserialize<'a>>(line: &'a str) -> Option<M> {
    serde_json::from_str(line)
        .inspect_err(
            |error| tracing::warn!(line, %error, "what the other process says is not understood"),
        )
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let loss = Loss {
            service: ServiceId::new(),
            replica: ReplicaId::random(),
            cause: GoneCause::TimedOut,
        };
        for message in [FromOld::Take, loss.into()] {
            let line = line(&message);
            assert!(line.ends_with("}\n") || line.ends_with("\"\n"), "{line}");
            assert_eq!(read(&line), Some(message));
        }
        for message in [
            FromNew::Give { data_dir: "/a b".into() },
            FromNew::Failed { reason: "two\nlines".to_owned() },
            FromNew::Serving,
        ] {
            let line = line(&message);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert_eq!(read(&line), Some(message));
        }
        assert_eq!(read::<FromNew>("\"later\""), Some(FromNew::Unknown));
        assert_eq!(read::<FromNew>("{\"later\": {}}"), None);
        assert_eq!(read::<FromOld>("no JSON"), None);
    }
}
