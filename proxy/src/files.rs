//! How many files the process may have open: every connection is one, and what a shell or systemd
//! allows at first is often 1024.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Takes all that the hard limit allows. What Grid starts itself inherits it; containers do not.
pub(crate) fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok((soft, hard))
    });
    match raised {
        Ok((before, now)) => tracing::debug!(before, now, "the limit of open files"),
        Err(error) => tracing::warn!(
            "the limit of open files stays as it is: {error}; each connection needs one"
        ),
    }
}
