//! Text without the values of secrets: for whatever a function's code made and somebody else reads.
//! It protects from mishaps, not from code that means to tell a value: that can spell it differently.

use crate::environment::{Environment, MASK};

/// Shorter values are found everywhere by chance.
const LEAST_CHARS: usize = 4;
/// A line of a longer value, such as a key in PEM.
const LEAST_LINE_CHARS: usize = 16;

/// Hides values.
#[derive(Default)]
pub struct Mask {
    /// The longest first: one may be part of another.
    values: Vec<String>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask(…)")
    }
}

impl Mask {
    /// Hides the secrets among these variables: values of 4 characters or more, as they are and as
    /// they stand in JSON, and long lines of them.
    pub fn of(environment: &Environment) -> Self {
        let mut values = Vec::new();
        for (_, value, is_secret) in &environment.variables {
            if !is_secret {
                continue;
            }
            let lines = value.lines().map(str::trim);
            let long = lines.filter(|line| line.chars().count() >= LEAST_LINE_CHARS);
            values.extend(long.map(str::to_owned));
            if value.chars().count() >= LEAST_CHARS {
                let quoted = serde_json::Value::from(value.as_str()).to_string();
                values.extend([value.clone(), quoted[1..quoted.len() - 1].to_owned()]);
            }
        }
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        Self { values }
    }

    /// The text without the values.
    pub fn text(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for value in &self.values {
            if clean.contains(value.as_str()) {
                clean = clean.replace(value.as_str(), MASK);
            }
        }
        clean
    }

    /// The bytes without those of the values.
    pub fn bytes(&self, bytes: Vec<u8>) -> Vec<u8> {
        match String::from_utf8(bytes) {
            Ok(text) => self.text(&text).into_bytes(),
            // One character for each byte, so that text can be searched.
            Err(error) if !self.values.is_empty() => {
                let values = self.values.iter().map(|value| widened(value.as_bytes()));
                let clean = Self { values: values.collect() }.text(&widened(error.as_bytes()));
                clean.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect()
            }
            Err(error) => error.into_bytes(),
        }
    }
}

fn widened(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::EnvKey;

    fn mask(secrets: &[&str]) -> Mask {
        let secret = |(at, value): (usize, &&str)| {
            (EnvKey::parse(format!("KEY_{at}")).expect("valid"), (*value).to_owned(), true)
        };
        let mut variables: Vec<_> = secrets.iter().enumerate().map(secret).collect();
        variables.push((EnvKey::parse("COLOUR").expect("valid"), "blue".to_owned(), false));
        Mask::of(&Environment { variables })
    }

    #[test]
    fn secrets_go_and_everything_else_stays() {
        let mask = mask(&["s3cret", "long-s3cret-value", "abc", "s\u{fc}\u{df}"]);
        for (text, clean) in [
            ("nothing blue abc", "nothing blue abc"),
            ("a s3crets3cret b", "a **************** b"),
            ("long-s3cret-value", "********"),
            ("s\u{fc}\u{df}", "s\u{fc}\u{df}"), // three characters, though five bytes
            ("", ""),
        ] {
            assert_eq!(mask.text(text), clean);
            assert_eq!(mask.bytes(text.into()), clean.as_bytes());
        }
        assert_eq!(Mask::default().text("s3cret"), "s3cret");
        assert_eq!(format!("{mask:?}"), "Mask(…)");
    }

    #[test]
    fn bytes_that_are_no_text_are_searched_too() {
        let mask = mask(&["gr\u{fc}n"]);
        let bytes = [b"\xff", "gr\u{fc}n\u{fc}".as_bytes(), b"\xfe"].concat();
        let clean = [b"\xff********", "\u{fc}".as_bytes(), b"\xfe"].concat();
        assert_eq!(mask.bytes(bytes.clone()), clean);
        assert_eq!(Mask::default().bytes(bytes.clone()), bytes);
    }

    #[test]
    fn a_value_is_found_as_it_stands_in_json_and_line_by_line() {
        let value = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n\"end\"";
        let mask = mask(&[value]);
        let json = serde_json::json!({ "key": value }).to_string();
        assert_eq!(mask.text(&json), r#"{"key":"********"}"#);
        assert_eq!(mask.text("1: MIIEvQIBADANBgkqhkiG\n2: \"end\""), "1: ********\n2: \"end\"");
    }
}
