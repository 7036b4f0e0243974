//! A function's environment variables: what is kept of them, and how they are shown.

use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    name::EnvKey,
    secret::{Keyring, Sealed},
};

/// What stands for a secret value wherever one would be shown.
pub const MASK: &str = "********";

/// One variable, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name; unique in a function.
    pub key: EnvKey,
    /// Its value, encrypted whether it is a secret or not.
    pub value: Sealed,
    /// Whether its value is never shown again.
    pub is_secret: bool,
}

/// Lets what is secret among `current` be so among `vars`, too: those may be from a time when it was
/// not.
pub fn keep_secret(vars: &mut [EnvVar], current: &[EnvVar]) {
    for var in vars {
        let secret = |now: &EnvVar| now.key == var.key && now.is_secret;
        var.is_secret |= current.iter().any(secret);
    }
}

/// Variables that can be given to a function: names and values in the clear. It never shows them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Name, value, and whether that is a secret.
    pub variables: Vec<(EnvKey, String, bool)>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = self.variables.iter().map(|(key, ..)| key.as_str());
        f.debug_list().entries(keys).finish()
    }
}

impl Environment {
    /// Opens what is kept.
    ///
    /// # Errors
    /// `Store` when none of the keys opens a value.
    pub fn open(kept: &[EnvVar], keyring: &Keyring) -> Result<Self> {
        let open = |var: &EnvVar| Ok((var.key.clone(), keyring.open(&var.value)?, var.is_secret));
        Ok(Self { variables: kept.iter().map(open).collect::<Result<_>>()? })
    }
}
