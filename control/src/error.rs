//! The error of the control plane. Each one says what was being done and to what; `kind` tells the
//! caller how to react, and internal text stays in the log.

/// What went wrong, for whoever has to answer a request because of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The named thing does not exist.
    #[error("{what} {id} does not exist")]
    NotFound {
        /// `service`, `deployment`…
        what: &'static str,
        /// Its id or name.
        id: String,
    },
    /// Somebody else has what was asked for, or changed it in between.
    #[error("{message}")]
    Conflict {
        /// The field at which the conflict is, when there is one.
        field: Option<&'static str>,
        /// For the person who asked.
        message: String,
    },
    /// The store cannot do its work now.
    #[error("store: {operation}: {reason}")]
    Store {
        /// The verb that failed.
        operation: &'static str,
        /// The store's own words.
        reason: String,
    },
    /// Docker Engine does not answer (in time).
    #[error("Docker Engine does not answer: {operation}: {reason}")]
    EngineAway {
        /// The call that failed.
        operation: &'static str,
        /// The client's own words.
        reason: String,
    },
    /// Docker Engine refused or failed a call.
    #[error("Docker Engine: {operation} {subject}: {reason}")]
    Engine {
        /// The call that failed.
        operation: &'static str,
        /// The image or container that it was about.
        subject: String,
        /// The engine's own words.
        reason: String,
    },
    /// Docker Engine answers, but cannot do this now: it is ending, or parts of it are away.
    #[error("Docker Engine, for now: {operation} {subject}: {reason}")]
    EngineUnsettled {
        /// The call that failed.
        operation: &'static str,
        /// The image or container that it was about.
        subject: String,
        /// The engine's own words.
        reason: String,
    },
    /// Docker Engine was asked to start a container, and whether it did cannot be learnt now.
    #[error("Docker Engine does not say whether it started {subject}: {reason}")]
    StartUnknown {
        /// The container.
        subject: String,
        /// Why there is no answer.
        reason: String,
    },
    /// The functions' DNS server cannot do its work.
    #[error("resolver: {operation} {subject}: {reason}")]
    Resolver {
        /// What was tried.
        operation: &'static str,
        /// The address or file that it was about.
        subject: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The firewall is not in place; the text is for the operator.
    #[error("firewall: {0}")]
    Firewall(String),
    /// A program of the system failed.
    #[error("{name}: {reason}")]
    Tool {
        /// The program.
        name: &'static str,
        /// Its own words, and what to do.
        reason: String,
    },
    /// The deployed code or its settings are at fault; the text is for the person who wrote it.
    #[error("{0}")]
    Deployment(String),
    /// Not now; the text is for the person who asked.
    #[error("{0}")]
    Busy(String),
    /// A file or directory of Grid's own.
    #[error("{operation} {path}: {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// The path.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// How a caller reacts to an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 404.
    NotFound,
    /// 409, or a field error.
    Conflict,
    /// 503: something that Grid needs is away; try again.
    Unavailable,
    /// 500, or a failed deployment: trying again will not help.
    Failed,
}

/// Result of the control plane.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// How to react.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NotFound { .. } => Kind::NotFound,
            Error::Conflict { .. } => Kind::Conflict,
            Error::Store { .. }
            | Error::EngineAway { .. }
            | Error::EngineUnsettled { .. }
            | Error::StartUnknown { .. }
            | Error::Busy(_) => Kind::Unavailable,
            Error::Engine { .. }
            | Error::Firewall(_)
            | Error::Resolver { .. }
            | Error::Tool { .. }
            | Error::Deployment(_)
            | Error::File { .. } => Kind::Failed,
        }
    }

    /// Whether Docker Engine failed for want of something that every function needs: room on its disk,
    /// or a part of its own.
    pub fn is_of_machine(&self) -> bool {
        match self {
            Error::EngineUnsettled { .. } => true,
            Error::Engine { reason, .. } => ["no space left on device", "disk quota exceeded"]
                .iter()
                .any(|s| reason.contains(s)),
            _ => false,
        }
    }

    /// A failed file operation.
    pub fn file(
        operation: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.display().to_string();
        move |source| Error::File { operation, path, source }
    }
}
