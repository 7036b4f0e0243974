//! The head of a public request, in one form for every version of HTTP.

use http::Method;

use crate::fields::Fields;

/// What a client asks for. The same value serves one request of a connection after the other.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// Path and query. Begins with `/`, or is `*`.
    pub(crate) target: String,
    /// Host and port as the client wrote them; empty when an old client named none.
    pub(crate) host: String,
    /// All other fields.
    pub(crate) fields: Fields,
    /// Bytes of the body, when the head says so.
    pub(crate) length: Option<u64>,
}

/// How a client speaks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

impl Request {
    /// Forgets the request before and keeps its room.
    pub(crate) fn clear(&mut self) {
        self.method = Method::GET;
        self.version = Version::Http11;
        self.target.clear();
        self.host.clear();
        self.fields.clear();
        self.length = None;
    }

    /// The path without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}
