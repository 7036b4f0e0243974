//! Validated names and ids. A value of one of these types has passed its rule: the only ways in are
//! `parse`, `FromStr` and serde, and all three check.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Why a name was refused; the text is shown to the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(String);

impl InvalidName {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` when it keeps the rule of this type.
            pub fn parse(text: impl Into<String>) -> Result<Self, InvalidName> {
                let check: fn(String) -> Result<String, InvalidName> = $check;
                check(text.into()).map(|text| Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_name!(
    /// A service's name: a DNS label, because the default public domain is made of it.
    ServiceName,
    |text| dns_label(&text).map(|()| text)
);

text_name!(
    /// The last part of a function's address: `https://<public_domain>/fn/<function_name>`.
    FunctionName,
    |text| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if text.is_empty() || text.len() > 63 {
            return Err(InvalidName::new("Must have 1 to 63 characters."));
        }
        if !text.chars().all(plain) {
            return Err(InvalidName::new(
                "Use lower-case letters a-z, digits, hyphens and underscores only.",
            ));
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(InvalidName::new("Must start with a letter or a digit."));
        }
        Ok(text)
    }
);

text_name!(
    /// A host name, in lower case and without port or trailing dot.
    PublicDomain,
    |text| {
        let host = text.strip_suffix('.').unwrap_or(&text).to_ascii_lowercase();
        if host.is_empty() || host.len() > 253 {
            return Err(InvalidName::new("Must be a host name of 1 to 253 characters."));
        }
        if host.contains(':') || host.contains('/') {
            return Err(InvalidName::new(
                "Must be a host name only, without scheme, port or path.",
            ));
        }
        for label in host.split('.') {
            dns_label(label)
                .map_err(|e| InvalidName::new(format!("Not a host name: in \"{label}\": {e}")))?;
        }
        Ok(host)
    }
);

text_name!(
    /// What is called in the function's file: `handler` or `module.handler`.
    HandlerName,
    |text| {
        let identifier = |part: &str| {
            let mut chars = part.chars();
            chars.next().is_some_and(|c| c.is_alphabetic() || c == '_' || c == '$')
                && chars.all(|c| c.is_alphanumeric() || c == '_' || c == '$')
        };
        if text.len() > 128 {
            return Err(InvalidName::new("Must have at most 128 characters."));
        }
        if text.split('.').count() > 2 || !text.split('.').all(identifier) {
            return Err(InvalidName::new(
                "Must be the handler's name, or module.name, for example \"handler\" or \"index.handler\".",
            ));
        }
        Ok(text)
    }
);

text_name!(
    /// Who owns services and tokens: `alice`, or an address such as `alice@example.com`.
    UserName,
    |text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "@.+-_".contains(c);
        if text.is_empty() || text.len() > 150 {
            return Err(InvalidName::new("Must have 1 to 150 characters."));
        }
        if !text.chars().all(plain) {
            return Err(InvalidName::new(
                "Use letters a-z and A-Z, digits and the characters @ . + - _ only.",
            ));
        }
        Ok(text)
    }
);

impl UserName {
    /// The operator: who calls with the bootstrap token, and owns what was made before there were
    /// users.
    pub fn operator() -> Self {
        Self("admin".into())
    }
}

text_name!(
    /// An environment variable's name: letters, digits and underscores, as shells take it. Names that
    /// Grid, the loader or the language's own start-up read are refused.
    EnvKey,
    env_key
);

text_name!(
    /// What a client calls one attempt to create something, so that a repeated attempt is known:
    /// the value of `Idempotency-Key`.
    IdempotencyKey,
    |text| {
        if text.is_empty() || text.len() > 255 {
            return Err(InvalidName::new("Must have 1 to 255 characters."));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidName::new("Use visible ASCII characters without spaces only."));
        }
        Ok(text)
    }
);

text_name!(
    /// A container's short id, part of its call-home socket's path, which holds 107 bytes.
    ReplicaId,
    short_id
);

text_name!(
    /// One data directory's id: two Grids on one engine never touch each other's containers.
    InstanceId,
    short_id
);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $make:expr) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id that nothing else has.
            #[allow(clippy::new_without_default)] // an id is never a default
            pub fn new() -> Self {
                Self($make())
            }

            /// The id's bytes: the key under which stores keep it.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| InvalidName::new("Must be a valid UUID."))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id!(
    /// A service, for as long as it exists.
    ServiceId,
    Uuid::new_v4
);
uuid_id!(
    /// One deployment of a service. Later deployments have greater ids.
    DeploymentId,
    Uuid::now_v7
);

uuid_id!(
    /// One token of a user.
    TokenId,
    Uuid::now_v7
);

impl ServiceId {
    /// The id with these bytes; none when there are not 16.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }
}

impl ReplicaId {
    /// A new random id.
    pub fn random() -> Self {
        Self(random_text().into())
    }
}

impl InstanceId {
    /// A new random id.
    pub fn random() -> Self {
        Self(random_text().into())
    }
}

/// What a process reads before the function's code runs, and could be turned against it or Grid.
pub(crate) const RESERVED_KEYS: [&str; 5] = ["PATH", "HOME", "PORT", "HOSTNAME", "NODE_OPTIONS"];
/// Beginnings of names that are likewise reserved.
pub(crate) const RESERVED_PREFIXES: [&str; 3] = ["GRID_", "LD_", "PYTHON"];

fn env_key(text: String) -> Result<String, InvalidName> {
    if text.is_empty() || text.len() > 128 {
        return Err(InvalidName::new("Must have 1 to 128 characters."));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !text.chars().all(plain) || text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(InvalidName::new(
            "Use letters, digits and underscores only, and no digit first.",
        ));
    }
    let upper = text.to_ascii_uppercase();
    if RESERVED_KEYS.contains(&upper.as_str())
        || RESERVED_PREFIXES.iter().any(|prefix| upper.starts_with(prefix))
    {
        return Err(InvalidName::new(format!("\"{text}\" is reserved for the platform.")));
    }
    Ok(text)
}

fn short_id(text: String) -> Result<String, InvalidName> {
    if text.len() == 12 && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        Ok(text)
    } else {
        Err(InvalidName::new("Must be 12 characters of a-z and 0-9."))
    }
}

fn random_text() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    Uuid::new_v4().as_bytes()[..12]
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect()
}

fn dns_label(text: &str) -> Result<(), InvalidName> {
    if text.is_empty() || text.len() > 63 {
        return Err(InvalidName::new("Must have 1 to 63 characters."));
    }
    if !text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Err(InvalidName::new("Use lower-case letters a-z, digits and hyphens only."));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(InvalidName::new("Must not start or end with a hyphen."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_with_slashes_dots_upper_case_or_unicode_are_refused() {
        for bad in ["", "a/b", "a.b", "Hello", "héllo", "-a", "a b", "a\n", &"a".repeat(64)] {
            assert!(FunctionName::parse(bad).is_err(), "{bad:?}");
            assert!(ServiceName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(FunctionName::parse("my_fn-2").is_ok());
        assert!(ServiceName::parse("my_fn").is_err());
    }

    #[test]
    fn domains_are_folded_to_one_spelling() {
        let domain = PublicDomain::parse("Hello.Example.COM.").expect("valid");
        assert_eq!(domain.as_str(), "hello.example.com");
        for bad in ["", ".", "a..b", "http://a", "a:80", "a/b", "*.a", "a_b.c"] {
            assert!(PublicDomain::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn handlers_are_a_name_or_module_and_name() {
        for good in ["handler", "index.handler", "_x.$y", "lambda_function.lambda_handler"] {
            assert!(HandlerName::parse(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "a.", ".b", "a.b.c", "1a", "a b", "a-b", "a/b.c"] {
            assert!(HandlerName::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_what_it_took(text in ".{0,80}") {
            if let Ok(name) = FunctionName::parse(text.clone()) {
                prop_assert_eq!(name.as_str(), text.as_str());
            }
            let _ = PublicDomain::parse(text.clone());
            let _ = HandlerName::parse(text);
        }

        #[test]
        fn random_ids_keep_their_own_rule(_ in 0..100u8) {
            prop_assert!(ReplicaId::parse(ReplicaId::random().as_str()).is_ok());
        }
    }
}
