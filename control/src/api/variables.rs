//! Environment variables in requests and answers: how they are read, put together with what is kept,
//! and shown. No error repeats a value.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    error::{FieldErrors, NON_FIELD_ERRORS, at},
    fields::Fields,
};
use crate::{
    environment::{EnvVar, MASK},
    limits::{ENV_BYTES, ENV_VARS},
    name::EnvKey,
    secret::Keyring,
    service::Service,
};

/// The field that holds all of them.
pub(super) const FIELD: &str = "env_vars";

/// One variable, as far as a request describes it.
#[derive(Debug)]
pub(super) struct VarInput {
    pub(super) key: Option<EnvKey>,
    /// None for the one that is there, which is what the mask stands for.
    value: Option<String>,
    /// None for what it was; a new one is none.
    is_secret: Option<bool>,
}

/// All variables of a function.
#[derive(Debug)]
pub(super) struct VarsInput(Vec<(EnvKey, VarInput)>);

/// A variable as it is shown: `{"key": "API_URL", "value": "https://…", "is_secret": false}`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EnvVar)]
pub(super) struct VarRecord {
    key: EnvKey,
    /// `********` for a secret; null when no key of the platform opens it.
    value: Option<String>,
    is_secret: bool,
}

/// How the variables of a service are shown, those of its earlier deployments too.
pub(super) struct Shown<'a> {
    keyring: &'a Keyring,
    /// Became secret at the latest now.
    secrets: BTreeSet<&'a EnvKey>,
}

impl VarInput {
    /// Reads one variable; these fields must be there.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(super) fn read(
        object: Map<String, Value>,
        required: &[&str],
        ignored: &[&str],
    ) -> Result<Self, FieldErrors> {
        let mut fields = Fields::of(object);
        fields.require(required);
        let input = Self {
            key: fields.name("key"),
            value: fields.any_text("value", ENV_BYTES.0).filter(|value| value != MASK),
            is_secret: fields.boolean("is_secret"),
        };
        fields.finish(ignored)?;
        Ok(input)
    }

    /// What it makes of the variable that is there. A value that is the same stays as it is sealed, so
    /// that nothing has changed.
    ///
    /// # Errors
    /// At `value`, when one is missing.
    pub(super) fn merge(
        &self,
        key: &EnvKey,
        known: Option<&EnvVar>,
        keyring: &Keyring,
    ) -> Result<EnvVar, FieldErrors> {
        let was_secret = known.is_some_and(|known| known.is_secret);
        let is_secret = self.is_secret.unwrap_or(was_secret);
        let same = |known: &&EnvVar| keyring.open(&known.value).ok() == self.value;
        let value = match (&self.value, known) {
            (Some(value), known) => match known.filter(same) {
                Some(known) => known.value.clone(),
                None => keyring.seal(value),
            },
            (None, Some(_)) if was_secret && !is_secret => {
                let message = "A secret is not shown again: give a new value with it.";
                return Err(at("value", message));
            }
            (None, Some(known)) => known.value.clone(),
            (None, None) => {
                let message =
                    format!("{MASK} stands for a value that is there; this key has none.");
                return Err(at("value", message));
            }
        };
        Ok(EnvVar { key: key.clone(), value, is_secret })
    }

    fn size(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |key| key.as_str().len());
        key + self.value.as_ref().map_or(0, String::len)
    }
}

impl VarsInput {
    /// Reads the whole set from its field.
    pub(super) fn read(fields: &mut Fields) -> Option<Self> {
        let entry = |object| VarInput::read(object, &["key", "value"], &[]);
        let entries = fields.objects(FIELD, ENV_VARS, entry)?;
        if let Err(message) = check_size(entries.iter().map(VarInput::size).sum()) {
            fields.refuse_as_a_whole(FIELD, message);
            return None;
        }
        let keyed = |entry: VarInput| Some((entry.key.clone()?, entry));
        Some(Self(entries.into_iter().filter_map(keyed).collect()))
    }

    /// The set that takes the place of `current`, in the order of its keys.
    ///
    /// # Errors
    /// Entries that do not go together, with each other or with what is there.
    pub(super) fn apply(
        &self,
        current: &[EnvVar],
        keyring: &Keyring,
    ) -> Result<Vec<EnvVar>, FieldErrors> {
        let mut seen = BTreeSet::new();
        let merge = |(key, entry): &(EnvKey, VarInput)| {
            if !seen.insert(key.clone()) {
                return Err(at("key", "Another entry has this key."));
            }
            entry.merge(key, find(current, key), keyring)
        };
        let merged: Vec<_> = self.0.iter().map(merge).collect();
        if merged.iter().any(Result::is_err) {
            let wrong = merged.into_iter().map(|entry| entry.err().unwrap_or_default());
            return Err([(FIELD.to_owned(), wrong.map(|errors| json!(errors)).collect())].into());
        }
        let mut vars: Vec<_> = merged.into_iter().filter_map(Result::ok).collect();
        vars.sort_by(|a, b| a.key.cmp(&b.key));
        let whole = |errors| FieldErrors::from([(FIELD.to_owned(), json!(errors))]);
        check_all(&vars, keyring).map_err(whole)?;
        Ok(vars)
    }
}

/// The variable with this key.
pub(super) fn find<'a>(vars: &'a [EnvVar], key: &EnvKey) -> Option<&'a EnvVar> {
    vars.iter().find(|var| var.key == *key)
}

/// Whether a function may have all of these.
///
/// # Errors
/// At the set as a whole.
pub(super) fn check_all(vars: &[EnvVar], keyring: &Keyring) -> Result<(), FieldErrors> {
    if vars.len() > ENV_VARS {
        let message = format!("A function may have no more than {ENV_VARS} variables.");
        return Err(at(NON_FIELD_ERRORS, message));
    }
    let value = |var: &EnvVar| keyring.open(&var.value).map_or(0, |value| value.len());
    let size = vars.iter().map(|var| var.key.as_str().len() + value(var)).sum();
    check_size(size).map_err(|message| at(NON_FIELD_ERRORS, message))
}

fn check_size(size: usize) -> Result<(), String> {
    let most = ENV_BYTES.1;
    if size <= most {
        return Ok(());
    }
    let kib = most / 1024;
    Err(format!("Ensure all names and values together have no more than {most} bytes ({kib} KB)."))
}

impl<'a> Shown<'a> {
    /// Those of this service.
    pub(super) fn of(keyring: &'a Keyring, service: &'a Service) -> Self {
        let secrets = service.function.env_vars.iter().filter(|var| var.is_secret);
        Self { keyring, secrets: secrets.map(|var| &var.key).collect() }
    }

    /// The variables as they are shown.
    pub(super) fn all(&self, vars: &[EnvVar]) -> Vec<VarRecord> {
        vars.iter().map(|var| self.one(var)).collect()
    }

    /// One of them.
    pub(super) fn one(&self, var: &EnvVar) -> VarRecord {
        let secret = var.is_secret || self.secrets.contains(&var.key);
        let value = if secret { Some(MASK.to_owned()) } else { self.open(var) };
        VarRecord { key: var.key.clone(), value, is_secret: var.is_secret }
    }

    /// Somebody who lost a key must still be able to look at the rest and to put another value.
    fn open(&self, var: &EnvVar) -> Option<String> {
        let opened = self.keyring.open(&var.value);
        opened
            .inspect_err(
                |error| tracing::error!(key = %var.key, %error, "a variable cannot be shown"),
            )
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::FernetKeys;

    fn keyring() -> Keyring {
        Keyring::new(&FernetKeys::generate())
    }

    fn read(value: Value) -> Result<VarsInput, FieldErrors> {
        let Value::Object(object) = json!({ "env_vars": value }) else { unreachable!() };
        let mut fields = Fields::of(object);
        let vars = VarsInput::read(&mut fields);
        fields.finish(&[])?;
        Ok(vars.expect("read"))
    }

    fn apply(value: Value, current: &[EnvVar], keyring: &Keyring) -> Result<Vec<EnvVar>, Value> {
        let mut errors = read(value).expect("valid").apply(current, keyring);
        errors
            .as_mut()
            .map_err(|errors| errors.remove(FIELD).expect("at the field"))
            .cloned()
            .map_err(|error| error.clone())
    }

    fn kept(keyring: &Keyring, key: &str, value: &str, is_secret: bool) -> EnvVar {
        let key = EnvKey::parse(key).expect("valid");
        EnvVar { key, value: keyring.seal(value), is_secret }
    }

    #[test]
    fn what_is_wrong_stands_at_its_entry() {
        let whole = |message: &str| json!({"non_field_errors": [message]});
        let long = "x".repeat(16 * 1024);
        let cases = [
            (json!(null), json!(["This field may not be null."])),
            (json!("A=1"), whole("Expected a list of items but got type \"str\".")),
            (json!({"A": 1}), whole("Expected a list of items but got type \"dict\".")),
            (
                json!([{"key": "A", "value": ""}, ["A"], null]),
                json!([
                    {},
                    whole("Invalid data. Expected a dictionary, but got list."),
                    whole("Invalid data. Expected a dictionary, but got NoneType."),
                ]),
            ),
            (
                json!([{"key": "A", "value": "a\0b", "is_secret": 1, "x": ""}, {"key": "1", "value": 5}, {}]),
                json!([
                    {
                        "value": ["Null characters are not allowed."],
                        "is_secret": ["Must be a valid boolean."],
                        "x": ["Unknown field."],
                    },
                    {
                        "key": ["Use letters, digits and underscores only, and no digit first."],
                        "value": ["Not a valid string."],
                    },
                    {"key": ["This field is required."], "value": ["This field is required."]},
                ]),
            ),
            (
                json!([{"key": "Path", "value": ""}, {"key": "grid_x", "value": format!("{long}x")}]),
                json!([
                    {"key": ["\"Path\" is reserved for the platform."]},
                    {
                        "key": ["\"grid_x\" is reserved for the platform."],
                        "value": ["Ensure this field has no more than 16384 bytes."],
                    },
                ]),
            ),
            (
                json!(vec![json!({"key": "A", "value": ""}); 101]),
                whole("Ensure this field has no more than 100 elements."),
            ),
            (
                json!(["A", "B", "C", "D"].map(|key| json!({"key": key, "value": long}))),
                whole(
                    "Ensure all names and values together have no more than 65536 bytes (64 KB).",
                ),
            ),
        ];
        for (value, expected) in cases {
            let errors = read(value).expect_err("refused");
            assert_eq!(errors["env_vars"], expected);
        }
        let most = json!(["A", "B", "C"].map(|key| json!({"key": key, "value": long})));
        assert!(read(most).is_ok());
    }

    #[test]
    fn the_same_set_is_sealed_as_it_was() {
        let keyring = keyring();
        let current = [kept(&keyring, "A", "plain", false), kept(&keyring, "B", "s3cret", true)];
        let cases = [
            json!([{"key": "B", "value": MASK, "is_secret": true}, {"key": "A", "value": "plain", "is_secret": false}]),
            json!([{"key": "A", "value": "plain"}, {"key": "B", "value": MASK}]),
            json!([{"key": "A", "value": MASK}, {"key": "B", "value": "s3cret"}]),
        ];
        for case in cases {
            assert_eq!(apply(case, &current, &keyring).expect("goes together"), current);
        }
        assert_eq!(apply(json!([]), &current, &keyring), Ok(vec![]));
    }

    #[test]
    fn a_secret_stays_one_until_a_new_value_comes_with_the_change() {
        let keyring = keyring();
        let current = [kept(&keyring, "B", "s3cret", true)];
        let vars = |value| apply(json!([value]), &current, &keyring);
        let open =
            |vars: Vec<EnvVar>| (keyring.open(&vars[0].value).expect("opens"), vars[0].is_secret);
        let changed = vars(json!({"key": "B", "value": "new"})).expect("goes together");
        assert_eq!(open(changed), ("new".to_owned(), true));
        let plain = json!({"key": "B", "value": "new", "is_secret": false});
        assert_eq!(open(vars(plain).expect("goes together")), ("new".to_owned(), false));
        let shown = json!({"key": "B", "value": MASK, "is_secret": false});
        let refusal = "A secret is not shown again: give a new value with it.";
        assert_eq!(vars(shown), Err(json!([{"value": [refusal]}])));
    }

    #[test]
    fn entries_that_do_not_go_together_are_refused() {
        let keyring = keyring();
        let twice = json!([{"key": "A", "value": "1"}, {"key": "A", "value": "2"}]);
        let refusal = json!([{}, {"key": ["Another entry has this key."]}]);
        assert_eq!(apply(twice, &[], &keyring), Err(refusal));
        let nothing = json!([{"key": "A", "value": MASK, "is_secret": true}]);
        let refusal = "******** stands for a value that is there; this key has none.";
        assert_eq!(apply(nothing, &[], &keyring), Err(json!([{"value": [refusal]}])));
        // What the masks stand for counts as well.
        let long = "x".repeat(16 * 1024);
        let current = ["A", "B", "C"].map(|key| kept(&keyring, key, &long, true));
        let mut entries = vec![json!({"key": "D", "value": long})];
        entries.extend(["A", "B", "C"].map(|key| json!({"key": key, "value": MASK})));
        let error = apply(json!(entries), &current, &keyring).expect_err("too much");
        assert!(error["non_field_errors"][0].as_str().expect("text").contains("64 KB"), "{error}");
    }

    #[test]
    fn what_is_shown_says_nothing_of_secrets() {
        let keyring = keyring();
        let foreign = Keyring::new(&FernetKeys::generate());
        let lost = kept(&foreign, "LOST", "x", false);
        let secret = EnvKey::parse("B").expect("valid");
        let shown = Shown { keyring: &keyring, secrets: BTreeSet::from([&secret]) };
        let earlier = [
            kept(&keyring, "A", "plain", false),
            kept(&keyring, "B", "once plain", false),
            kept(&keyring, "C", "s3cret", true),
            lost,
        ];
        assert_eq!(
            json!(shown.all(&earlier)),
            json!([
                {"key": "A", "value": "plain", "is_secret": false},
                {"key": "B", "value": MASK, "is_secret": false},
                {"key": "C", "value": MASK, "is_secret": true},
                {"key": "LOST", "value": null, "is_secret": false},
            ])
        );
    }
}
