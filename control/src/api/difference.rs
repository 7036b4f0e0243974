//! What a deployment changed, compared to the one before it: fields, names of environment variables,
//! and the code as a unified diff.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use serde_json::{Value, json};
use similar::TextDiff;
use utoipa::ToSchema;

use crate::{
    environment::EnvVar,
    logs::truncate,
    name::DeploymentId,
    secret::Keyring,
    service::{Deployment, FunctionSpec},
};

/// How long the least difference is looked for; after that a larger one will do.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of a difference in code that are shown.
const SHOWN_BYTES: usize = 64 * 1024;
/// Lines that are shown around each change.
const AROUND: usize = 3;

/// What is different: `{"compared_to": "0192…", "fields": {"memory_mb": {"before": 128, "after":
/// 256}}, "function_code": "--- before\n+++ after\n…", "env_vars": {"added": ["A"], …}}`.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Difference {
    /// The deployment before; null when there is none, or none is kept.
    compared_to: Option<DeploymentId>,
    #[schema(value_type = BTreeMap<String, Change>)]
    fields: BTreeMap<&'static str, Change>,
    /// null when the code is the same.
    function_code: Option<String>,
    env_vars: Keys,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ChangedField)]
struct Change {
    before: Value,
    after: Value,
}

/// Names of variables, in their order.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ChangedVariables)]
struct Keys {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
}

impl Difference {
    /// Compares a deployment to the one before it.
    pub(super) fn of(
        deployment: &Deployment,
        before: Option<&Deployment>,
        keyring: &Keyring,
    ) -> Self {
        let Some(before) = before else {
            return Self {
                compared_to: None,
                fields: BTreeMap::new(),
                function_code: None,
                env_vars: Keys::default(),
            };
        };
        let (old, new) = (&before.function, &deployment.function);
        let changed = (old.code != new.code).then(|| code(&old.code, &new.code));
        Self {
            compared_to: Some(before.id),
            fields: fields(old, new),
            function_code: changed,
            env_vars: keys(&old.env_vars, &new.env_vars, keyring),
        }
    }
}

fn fields(old: &FunctionSpec, new: &FunctionSpec) -> BTreeMap<&'static str, Change> {
    let shown = |function: &FunctionSpec| {
        [
            ("function_runtime", json!(function.runtime)),
            ("function_handler", json!(function.handler)),
            ("event_format", json!(function.event_format)),
            ("memory_mb", json!(function.memory_mb)),
            ("cpu_shares", json!(function.cpu_shares)),
            ("egress", json!(function.egress)),
            ("oci_runtime", json!(super::record::oci_runtime(function.oci_runtime.clone()))),
        ]
    };
    let pairs = shown(old).into_iter().zip(shown(new));
    let changed = pairs.filter(|((_, before), (_, after))| before != after);
    changed.map(|((name, before), (_, after))| (name, Change { before, after })).collect()
}

fn code(old: &str, new: &str) -> String {
    let difference = TextDiff::configure().timeout(LOOK).diff_lines(old, new);
    let mut unified = difference.unified_diff();
    let mut text = unified.context_radius(AROUND).header("before", "after").to_string();
    if text.len() > SHOWN_BYTES {
        truncate(&mut text, SHOWN_BYTES);
        text.push_str("\n… the rest is not shown\n");
    }
    text
}

fn keys(old: &[EnvVar], new: &[EnvVar], keyring: &Keyring) -> Keys {
    // The sealed texts say nothing, unless no key opens them: each sealing makes another one of the
    // same value.
    let open = |var: &EnvVar| {
        let value = keyring.open(&var.value).map_err(|_| var.value.clone());
        (var.key.to_string(), (value, var.is_secret))
    };
    let opened = |vars: &[EnvVar]| vars.iter().map(open).collect::<BTreeMap<_, _>>();
    let (old, new) = (opened(old), opened(new));
    let names = |these: &BTreeMap<String, _>, wanted: &dyn Fn(&String) -> bool| {
        these.keys().filter(|key| wanted(key)).cloned().collect()
    };
    Keys {
        added: names(&new, &|key| !old.contains_key(key)),
        removed: names(&old, &|key| !new.contains_key(key)),
        changed: names(&new, &|key| old.get(key).is_some_and(|value| *value != new[key])),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        name::{EnvKey, ServiceId},
        secret::FernetKeys,
        service::{Origin, example},
    };

    fn deployment(code: &str, env_vars: Vec<EnvVar>) -> Deployment {
        let function = example::function(code, env_vars);
        let origin = Origin::default();
        Deployment::queued(ServiceId::new(), function, origin, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn fields_and_code_and_names_of_variables_are_compared() {
        let keyring = Keyring::new(&FernetKeys::generate());
        let var = |key: &str, value: &str| EnvVar {
            key: EnvKey::parse(key).expect("valid"),
            value: keyring.seal(value),
            is_secret: true,
        };
        let before =
            deployment("a\nb\nc\n", vec![var("SAME", "1"), var("OLD", "1"), var("V", "1")]);
        let mut after =
            deployment("a\nB\nc\n", vec![var("SAME", "1"), var("V", "2"), var("NEW", "")]);
        after.function.memory_mb = 256;
        after.function.oci_runtime = Some("runsc".to_owned());
        let difference = Difference::of(&after, Some(&before), &keyring);
        assert_eq!(
            json!(difference),
            json!({
                "compared_to": before.id,
                "fields": {
                    "memory_mb": {"before": 128, "after": 256},
                    "oci_runtime": {"before": "default", "after": "runsc"},
                },
                "function_code": "--- before\n+++ after\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n",
                "env_vars": {"added": ["NEW"], "removed": ["OLD"], "changed": ["V"]},
            })
        );
        let same = Difference::of(&before, Some(&before), &keyring);
        assert!(same.fields.is_empty() && same.function_code.is_none());
        let first = Difference::of(&before, None, &keyring);
        assert_eq!(first.compared_to, None);
    }

    #[test]
    fn a_difference_is_bounded_in_size() {
        let long = |line: &str| format!("{line}\n").repeat(50_000);
        let text = code(&long("a"), &long("b"));
        assert!(text.len() < SHOWN_BYTES + 100 && text.ends_with("not shown\n"));
    }
}
