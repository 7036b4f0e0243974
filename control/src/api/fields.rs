//! Reads the fields of a JSON object one by one and collects what is wrong with each, so that one
//! answer tells all of it.

use std::{ops::RangeInclusive, str::FromStr};

use http::Uri;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    error::{FieldErrors, NON_FIELD_ERRORS, at},
    parameters::given_parameter,
};
use crate::name::InvalidName;

/// Characters of a refused value that an error repeats.
const ECHO_CHARS: usize = 100;

/// An object that is being read. Each reader gives `None` for a field that is absent or wrong; what
/// is wrong is in [`Fields::finish`].
pub(super) struct Fields {
    object: Map<String, Value>,
    /// They come from a query, where everything is text.
    all_text: bool,
    errors: FieldErrors,
}

impl Fields {
    /// Starts to read `object`.
    pub(super) fn of(object: Map<String, Value>) -> Self {
        Self { object, all_text: false, errors: FieldErrors::new() }
    }

    /// Starts to read the parameters of a query: the value of each of `names`, when it is not empty.
    pub(super) fn of_query(uri: &Uri, names: &[&str]) -> Self {
        let given = names.iter().filter_map(|name| {
            let value = given_parameter(uri, name)?;
            Some(((*name).to_owned(), value.into()))
        });
        Self { all_text: true, ..Self::of(given.collect()) }
    }

    /// Ends the reading: fields that nobody read are unknown, unless they are among `ignored`.
    ///
    /// # Errors
    /// Everything that was wrong with any field.
    pub(super) fn finish(mut self, ignored: &[&str]) -> Result<(), FieldErrors> {
        for name in std::mem::take(&mut self.object).keys() {
            if !ignored.contains(&name.as_str()) {
                self.refuse(name, "Unknown field.");
            }
        }
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors) }
    }

    /// Notes an error at a field.
    pub(super) fn refuse(&mut self, name: &str, message: impl Into<String>) {
        let known = self.errors.entry(name.to_owned()).or_insert_with(|| json!([]));
        if let Value::Array(messages) = known {
            messages.push(message.into().into());
        }
    }

    /// Notes an error at a field that is a list, but at none of its entries.
    pub(super) fn refuse_as_a_whole(&mut self, name: &str, message: impl Into<String>) {
        self.errors.insert(name.to_owned(), json!(at(NON_FIELD_ERRORS, message)));
    }

    /// These fields must be there.
    pub(super) fn require(&mut self, names: &[&str]) {
        for name in names {
            if !self.object.contains_key(*name) {
                self.refuse(name, "This field is required.");
            }
        }
    }

    /// A text as it is; but for queries not blank.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let refusal = match self.take(name)? {
            Value::String(text) if self.all_text => return Some(text),
            Value::String(text) if text.contains('\0') => "Null characters are not allowed.",
            Value::String(text) if text.chars().all(is_blank) => "This field may not be blank.",
            Value::String(text) => return Some(text),
            _ => "Not a valid string.",
        };
        self.refuse(name, refusal);
        None
    }

    /// As [`Fields::text`], of so many characters at most.
    pub(super) fn text_up_to(&mut self, name: &str, most: usize) -> Option<String> {
        let text = self.text(name)?;
        if text.chars().count() <= most {
            return Some(text);
        }
        self.refuse(name, format!("Ensure this field has no more than {most} characters."));
        None
    }

    /// Yes or no.
    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        let known = self.take(name)?.as_bool();
        if known.is_none() {
            self.refuse(name, "Must be a valid boolean.");
        }
        known
    }

    /// A point in time, or null.
    pub(super) fn time_or_null(&mut self, name: &str) -> Option<Option<Timestamp>> {
        let time = match self.object.remove(name)? {
            Value::Null => return Some(None),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        if time.is_none() {
            self.refuse(name, "Must be a time as in RFC 3339, for example 2027-01-31T12:00:00Z.");
        }
        time.map(Some)
    }

    /// A text that keeps the rule of its type.
    pub(super) fn name<T: FromStr<Err = InvalidName>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(name, error.to_string());
                None
            }
        }
    }

    /// A whole number in `range`; `128.0` is one.
    pub(super) fn integer(&mut self, name: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let number = match self.take(name)? {
            Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
            Value::String(text) if self.all_text => text.parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.refuse(name, "A valid integer is required.");
            return None;
        };
        let (least, most) = range.into_inner();
        if number < i64::from(least) {
            let message = format!("Ensure this value is greater than or equal to {least}.");
            self.refuse(name, message);
        } else if number > i64::from(most) {
            self.refuse(name, format!("Ensure this value is less than or equal to {most}."));
        }
        u32::try_from(number).ok().filter(|number| (least..=most).contains(number))
    }

    /// As [`Fields::integer`], or null.
    pub(super) fn integer_or_null(
        &mut self,
        name: &str,
        range: RangeInclusive<u32>,
    ) -> Option<Option<u32>> {
        if self.object.get(name) == Some(&Value::Null) {
            self.object.remove(name);
            return Some(None);
        }
        self.integer(name, range).map(Some)
    }

    /// A text of any kind, also none at all, of so many bytes at most.
    pub(super) fn any_text(&mut self, name: &str, most: usize) -> Option<String> {
        let refusal = match self.take(name)? {
            Value::String(text) if text.contains('\0') => {
                "Null characters are not allowed.".to_owned()
            }
            Value::String(text) if text.len() > most => {
                format!("Ensure this field has no more than {most} bytes.")
            }
            Value::String(text) => return Some(text),
            _ => "Not a valid string.".to_owned(),
        };
        self.refuse(name, refusal);
        None
    }

    /// A list of so many objects at most, each of which `read` reads.
    pub(super) fn objects<T>(
        &mut self,
        name: &str,
        most: usize,
        read: impl Fn(Map<String, Value>) -> Result<T, FieldErrors>,
    ) -> Option<Vec<T>> {
        let refusal = match self.take(name)? {
            Value::Array(list) if list.len() > most => {
                format!("Ensure this field has no more than {most} elements.")
            }
            Value::Array(list) => return self.each(name, list, read),
            other => {
                format!("Expected a list of items but got type \"{}\".", kind_of(&other))
            }
        };
        self.refuse_as_a_whole(name, refusal);
        None
    }

    fn each<T>(
        &mut self,
        name: &str,
        list: Vec<Value>,
        read: impl Fn(Map<String, Value>) -> Result<T, FieldErrors>,
    ) -> Option<Vec<T>> {
        let read = |entry| match entry {
            Value::Object(object) => read(object),
            other => {
                let kind = kind_of(&other);
                let message = format!("Invalid data. Expected a dictionary, but got {kind}.");
                Err(at(NON_FIELD_ERRORS, message))
            }
        };
        let entries: Vec<_> = list.into_iter().map(read).collect();
        if entries.iter().any(Result::is_err) {
            let wrong = entries.into_iter().map(|entry| entry.err().unwrap_or_default());
            self.errors.insert(name.to_owned(), wrong.map(|errors| json!(errors)).collect());
            return None;
        }
        Some(entries.into_iter().filter_map(Result::ok).collect())
    }

    /// One of `choices`.
    pub(super) fn choice(&mut self, name: &str, choices: &[impl AsRef<str>]) -> Option<String> {
        let text = match self.take(name)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        if choices.iter().any(|choice| choice.as_ref() == text) {
            return Some(text);
        }
        let echo: String = text.chars().take(ECHO_CHARS).collect();
        self.refuse(name, format!("\"{echo}\" is not a valid choice."));
        None
    }

    /// The field's value, which may not be null.
    fn take(&mut self, name: &str) -> Option<Value> {
        match self.object.remove(name)? {
            Value::Null => {
                self.refuse(name, "This field may not be null.");
                None
            }
            value => Some(value),
        }
    }
}

/// What nobody can see; the contract names the same characters (`openapi::VISIBLE`).
fn is_blank(character: char) -> bool {
    character.is_whitespace() || character.is_control()
}

/// What Python calls the type of a value.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// A number without a fraction; one that is too large for `i64` becomes the largest.
#[allow(clippy::cast_possible_truncation)] // `as` saturates, and whole numbers lose nothing else
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::name::ServiceName;

    fn fields(value: Value) -> Fields {
        let Value::Object(object) = json!({ "f": value }) else { unreachable!() };
        Fields::of(object)
    }

    fn refusal(fields: Fields) -> String {
        match fields.finish(&[]) {
            Ok(()) => "accepted".to_owned(),
            Err(errors) => {
                let messages = errors["f"].as_array().expect("a list").iter();
                messages.map(|text| text.as_str().expect("text")).collect::<Vec<_>>().join("|")
            }
        }
    }

    #[test]
    fn integers_as_clients_send_them() {
        for good in [json!(7), json!(7.0), json!(7e0)] {
            let mut fields = fields(good.clone());
            assert_eq!(fields.integer("f", 1..=9), Some(7), "{good}");
            assert_eq!(refusal(fields), "accepted");
        }
        let cases = [
            (json!(0), "Ensure this value is greater than or equal to 1."),
            (json!(-1), "Ensure this value is greater than or equal to 1."),
            (json!(10), "Ensure this value is less than or equal to 9."),
            (json!(u64::MAX), "Ensure this value is less than or equal to 9."),
            (json!(1e300), "Ensure this value is less than or equal to 9."),
            (json!(1.5), "A valid integer is required."),
            (json!("seven"), "A valid integer is required."),
            (json!(""), "A valid integer is required."),
            (json!(true), "A valid integer is required."),
            (json!([1]), "A valid integer is required."),
            (json!(null), "This field may not be null."),
        ];
        for (bad, message) in cases {
            let mut fields = fields(bad.clone());
            assert_eq!(fields.integer("f", 1..=9), None, "{bad}");
            assert_eq!(refusal(fields), message, "{bad}");
        }
    }

    #[test]
    fn null_is_a_value_where_it_may_be() {
        for (value, read, said) in [
            (json!(null), Some(None), "accepted"),
            (json!(7), Some(Some(7)), "accepted"),
            (json!(10), None, "Ensure this value is less than or equal to 9."),
            (json!("none"), None, "A valid integer is required."),
        ] {
            let mut fields = fields(value.clone());
            assert_eq!(fields.integer_or_null("f", 1..=9), read, "{value}");
            assert_eq!(refusal(fields), said, "{value}");
        }
        assert_eq!(Fields::of(Map::new()).integer_or_null("f", 1..=9), None);
    }

    #[test]
    fn texts_and_names() {
        let cases = [
            (json!(""), "This field may not be blank."),
            (json!(" \n\t"), "This field may not be blank."),
            (json!("a\0b"), "Null characters are not allowed."),
            (json!(null), "This field may not be null."),
            (json!(5), "Not a valid string."),
            (json!({}), "Not a valid string."),
        ];
        for (bad, message) in cases {
            let mut fields = fields(bad.clone());
            assert_eq!(fields.text("f"), None, "{bad}");
            assert_eq!(refusal(fields), message, "{bad}");
        }
        assert_eq!(fields(json!(" a\n")).text("f").as_deref(), Some(" a\n"));
        let name: Option<ServiceName> = fields(json!("a")).name("f");
        assert_eq!(name.map(String::from).as_deref(), Some("a"));
        let name: Option<ServiceName> = fields(json!(" a\n")).name("f");
        assert!(name.is_none());
    }

    #[test]
    fn yes_and_no_are_what_json_has_for_them() {
        for (value, read) in [
            (json!(true), Some(true)),
            (json!(false), Some(false)),
            (json!(1), None),
            (json!("true"), None),
            (json!(null), None),
            (json!([true]), None),
        ] {
            let mut fields = fields(value.clone());
            assert_eq!(fields.boolean("f"), read, "{value}");
            assert_eq!(refusal(fields) == "accepted", read.is_some(), "{value}");
        }
    }

    #[test]
    fn times_have_an_offset() {
        for (value, read) in [
            (json!("2027-01-31T12:00:00Z"), Some(true)),
            (json!("2027-01-31T12:00:00.5+02:00"), Some(true)),
            (json!(null), Some(false)),
            (json!("2027-01-31T12:00:00"), None),
            (json!("2027-01-31"), None),
            (json!("9999999-01-31T12:00:00Z"), None),
            (json!(1_800_000_000), None),
        ] {
            let mut fields = fields(value.clone());
            assert_eq!(fields.time_or_null("f").map(|time| time.is_some()), read, "{value}");
            assert_eq!(refusal(fields) == "accepted", read.is_some(), "{value}");
        }
    }

    #[test]
    fn a_refused_choice_is_repeated_but_not_at_length() {
        let mut long = fields(json!("x".repeat(10_000)));
        assert_eq!(long.choice("f", &["a"]), None);
        assert_eq!(refusal(long), format!("\"{}\" is not a valid choice.", "x".repeat(100)));
        let mut list = fields(json!(["a"]));
        assert_eq!(list.choice("f", &["a"]), None);
        assert_eq!(refusal(list), "\"[\"a\"]\" is not a valid choice.");
    }

    #[test]
    fn what_nobody_reads_is_unknown() {
        assert_eq!(refusal(fields(json!(1))), "Unknown field.");
        assert!(fields(json!(1)).finish(&["f"]).is_ok());
    }
}
