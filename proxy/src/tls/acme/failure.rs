//! Why an attempt to get a certificate failed, and whose fault it is.

use std::time::Duration;

/// A failed attempt.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    /// What happened, for the operator.
    pub(crate) reason: String,
    /// Whether the authority does not know our account (any more).
    pub(crate) account_unknown: bool,
}

/// Whose fault it is, with the pause that the authority asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The authority does not want to give a certificate for this domain.
    Domain,
    /// The authority is asked too much.
    Limit(Option<Duration>),
    /// The authority is away, or does not do what it should.
    Authority(Option<Duration>),
}

/// An answer of the authority that `instant_acme` does not give in full: its status is that of a
/// server in trouble or of a limit, and Retry-After may come with it.
#[derive(Debug, thiserror::Error)]
#[error("HTTP status {status}: {detail}")]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) detail: String,
}

impl Failure {
    pub(crate) fn domain(reason: impl Into<String>) -> Self {
        Self { fault: Fault::Domain, reason: reason.into(), account_unknown: false }
    }

    pub(crate) fn authority(reason: impl Into<String>) -> Self {
        Self { fault: Fault::Authority(None), reason: reason.into(), account_unknown: false }
    }

    /// What went wrong while `operation` was done.
    pub(crate) fn of(operation: &str, error: instant_acme::Error) -> Self {
        let mut account_unknown = false;
        let fault = match &error {
            instant_acme::Error::Api(problem) => {
                let kind = problem.r#type.as_deref().unwrap_or_default();
                let kind = kind.rsplit(':').next().unwrap_or_default();
                account_unknown = kind == "accountDoesNotExist";
                match kind {
                    "rateLimited" => Fault::Limit(None),
                    "accountDoesNotExist"
                    | "badNonce"
                    | "externalAccountRequired"
                    | "invalidContact"
                    | "serverInternal"
                    | "unsupportedContact"
                    | "userActionRequired" => Fault::Authority(None),
                    _ => Fault::Domain,
                }
            }
            instant_acme::Error::Other(other) => match other.downcast_ref::<Refused>() {
                Some(refused) if refused.status == 429 => Fault::Limit(refused.retry_after),
                Some(refused) => Fault::Authority(refused.retry_after),
                None => Fault::Authority(None),
            },
            instant_acme::Error::Timeout(_) => Fault::Domain,
            _ => Fault::Authority(None),
        };
        Self { fault, reason: format!("{operation}: {}", chain(&error)), account_unknown }
    }
}

/// An error with its causes, on one line of bounded length.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}
