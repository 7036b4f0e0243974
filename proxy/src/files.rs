//! How many files this process may have open, and so how many connections.

use control::limits;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as it may be raised; gives what it is then. The soft limit is low by
/// default for programs that use `select`.
fn raise() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(soft, hard, %error, "the limit of open files cannot be raised");
            soft
        }
    }
}

/// How many connections of clients may be open: as many as wanted, when the process may have so many
/// files open beside those that it needs for itself and its replicas.
pub(crate) fn connections(wanted: usize, replicas: usize) -> usize {
    let files = raise();
    let allowed = left(files, replicas);
    if allowed < wanted {
        tracing::warn!(
            "GRID_MAX_CONNECTIONS is {wanted}, but this process may have {files} files open, which \
             leaves {allowed} connections to clients; raise its limit (ulimit -n, LimitNOFILE=)"
        );
    }
    wanted.min(allowed)
}

fn left(files: u64, replicas: usize) -> usize {
    let (own, per_replica) = limits::FILES_SET_ASIDE;
    let set_aside = own + per_replica * replicas as u64;
    // Something must be left to try with, however low the limit is.
    usize::try_from(files.saturating_sub(set_aside).max(files / 4)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_set_aside_for_replicas() {
        assert_eq!(left(1_048_576, 200), 1_047_520);
        assert_eq!(left(20_000, 200), 18_944);
        assert_eq!(left(1024, 200), 256);
        assert_eq!(left(u64::MAX, 0), usize::MAX - 256);
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let most = raise();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("a limit"), (most, most));
        assert_eq!(connections(16, 0), 16);
    }
}
