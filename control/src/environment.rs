//! A function's environment variables: what is kept of them, and how they are shown.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    error::Result,
    name::{DeploymentId, EnvKey, ServiceId},
    secret::{Keyring, Sealed},
    store::Store,
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

    /// What a deployment's code finds in its environment. It is read again when it does not open: the
    /// keys may have been changed between the two.
    ///
    /// # Errors
    /// Those of the store. Within, `Store` when none of the keys opens a value.
    pub async fn of_deployment(
        store: &dyn Store,
        keyring: &Keyring,
        service: ServiceId,
        id: DeploymentId,
    ) -> Result<Result<Self>> {
        match Self::open(&store.environment(service, id).await?, keyring) {
            Ok(environment) => Ok(Ok(environment)),
            Err(_) => Ok(Self::open(&store.environment(service, id).await?, keyring)),
        }
    }

    /// The body of `POST /ready`, with which a runner is given the variables (runners/PROTOCOL.md):
    /// `{"env": {"API_KEY": "…"}, "secrets": ["API_KEY"]}`. None when there is nothing to give.
    pub fn hand_over(&self) -> Option<String> {
        if self.variables.is_empty() {
            return None;
        }
        let env: Map<String, Value> = self
            .variables
            .iter()
            .map(|(key, value, _)| (key.to_string(), value.as_str().into()))
            .collect();
        let secrets = self.variables.iter().filter(|(.., is_secret)| *is_secret);
        let secrets: Vec<_> = secrets.map(|(key, ..)| key.as_str()).collect();
        Some(json!({"env": env, "secrets": secrets}).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::FernetKeys;

    fn var(keyring: &Keyring, key: &str, value: &str, is_secret: bool) -> EnvVar {
        let key = EnvKey::parse(key).expect("valid");
        EnvVar { key, value: keyring.seal(value), is_secret }
    }

    #[test]
    fn variables_are_opened_handed_over_and_not_shown() {
        let keyring = Keyring::new(&FernetKeys::generate());
        let kept = [var(&keyring, "A", "\"1\"\n", false), var(&keyring, "B", "s3cret", true)];
        let environment = Environment::open(&kept, &keyring).expect("opens");
        assert_eq!(format!("{environment:?}"), r#"["A", "B"]"#);
        let body: Value =
            serde_json::from_str(&environment.hand_over().expect("some")).expect("JSON");
        assert_eq!(body, json!({"env": {"A": "\"1\"\n", "B": "s3cret"}, "secrets": ["B"]}));
        assert_eq!(Environment::default().hand_over(), None);
        assert!(Environment::open(&kept, &Keyring::new(&FernetKeys::generate())).is_err());
    }

    #[test]
    fn what_became_secret_stays_so() {
        let keyring = Keyring::new(&FernetKeys::generate());
        let mut earlier = [
            var(&keyring, "A", "1", false),
            var(&keyring, "B", "1", false),
            var(&keyring, "C", "1", true),
            var(&keyring, "D", "1", false),
        ];
        let current = [
            var(&keyring, "A", "2", true),
            var(&keyring, "B", "1", false),
            var(&keyring, "C", "1", false),
        ];
        keep_secret(&mut earlier, &current);
        assert_eq!(earlier.map(|var| var.is_secret), [true, false, true, false]);
    }
}
