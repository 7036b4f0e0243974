//! Which header fields mean anything beyond one connection.

use crate::fields::{self, Fields};

/// Headers between edge and runner start with this; they never pass.
const INTERNAL: &[u8] = b"x-grid-";

/// Whether a field, its name in lower case, passes from one side of the edge to the other.
pub(crate) fn passes(name: &[u8]) -> bool {
    match name.first() {
        Some(b'c') => !matches!(name, b"connection" | b"content-length"),
        Some(b'e') => name != b"expect",
        Some(b'k') => name != b"keep-alive",
        Some(b'p') => !name.starts_with(b"proxy-"),
        Some(b't') => !matches!(name, b"te" | b"trailer" | b"transfer-encoding"),
        Some(b'u') => name != b"upgrade",
        Some(b'x') => !name.starts_with(INTERNAL),
        _ => true,
    }
}

/// The fields that a sender's `Connection` names: they are for this server alone.
pub(crate) struct Named<'a>(Option<&'a Fields>);

impl<'a> Named<'a> {
    pub(crate) fn of(fields: &'a Fields) -> Self {
        let plain =
            |value: &[u8]| matches!(value, b"close" | b"keep-alive" | b"Keep-Alive" | b"Close");
        Self((!fields.all("connection").all(plain)).then_some(fields))
    }

    pub(crate) fn names(&self, name: &[u8]) -> bool {
        self.0.is_some_and(|fields| {
            fields
                .all("connection")
                .flat_map(|value| value.split(|byte| *byte == b','))
                .any(|option| fields::trim(option).eq_ignore_ascii_case(name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_connection_stays_there() {
        for name in ["host", "cookie", "x-forwarded-for", "content-type", "traceparent", "x-grids"]
        {
            assert!(passes(name.as_bytes()), "{name}");
        }
        for name in [
            "connection",
            "content-length",
            "expect",
            "keep-alive",
            "proxy-authorization",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "x-grid-source-ip",
        ] {
            assert!(!passes(name.as_bytes()), "{name}");
        }
        let mut fields = Fields::default();
        fields.push("connection", b"keep-alive");
        assert!(!Named::of(&fields).names(b"keep-alive"));
        fields.push("connection", b"X-Secret ,close");
        assert!(Named::of(&fields).names(b"x-secret"));
        assert!(!Named::of(&fields).names(b"x-other"));
    }
}
