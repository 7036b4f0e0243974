//! Text without the values of secrets: for whatever a function's code made and somebody else reads.
//! It protects from mishaps, not from code that means to tell a value: that can spell it differently.

use std::ops::Range;

use crate::environment::{Environment, MASK};

/// Characters that a value has at least: a shorter one is found in any text.
const LEAST: usize = 4;

/// The secret values that one version of a function has been given. It never shows them.
#[derive(Clone, Default)]
pub struct Mask {
    values: Vec<String>,
    /// The values are not known: nothing that a function wrote may be shown.
    unknown: bool,
}

/// What stands for a line that may hold values which nobody can look for.
const WITHHELD: &str =
    "(withheld: it may hold secrets that none of the keys in GRID_FERNET_KEYS opens)";

/// Which ends of a text may be in the middle of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cuts {
    pub(crate) start: bool,
    pub(crate) end: bool,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({})", self.values.len())
    }
}

impl Mask {
    /// Masks the secrets among these variables.
    pub fn of(environment: &Environment) -> Self {
        let secrets = environment.variables.iter().filter(|(.., is_secret)| *is_secret);
        Self::new(secrets.map(|(_, value, _)| value))
    }

    /// Masks these values wherever they stand, also as JSON and most programs write them, and each
    /// line of one that has several. Values and lines of less than 4 characters are left alone.
    ///
    /// ```
    /// let mask = control::mask::Mask::new(["hunter2"]);
    /// assert_eq!(mask.text("password=hunter2"), "password=********");
    /// ```
    pub fn new<T: AsRef<str>>(secrets: impl IntoIterator<Item = T>) -> Self {
        let mut values = Vec::new();
        for secret in secrets {
            let secret = secret.as_ref();
            values.push(secret.to_owned());
            values.extend(secret.lines().map(|line| line.trim().to_owned()));
        }
        let escaped = |value: &String| {
            let json = serde_json::to_string(value).ok()?;
            Some(json.strip_prefix('"')?.strip_suffix('"')?.to_owned())
        };
        values.extend(values.iter().filter_map(escaped).collect::<Vec<_>>());
        values.retain(|value| value.chars().count() >= LEAST);
        values.sort();
        values.dedup();
        Self { values, unknown: false }
    }

    /// For a function whose values cannot be opened: what it wrote is withheld, line by line.
    pub(crate) fn unknown() -> Self {
        Self { values: Vec::new(), unknown: true }
    }

    /// The text without the values.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        self.replace_in(&mut text, Cuts::default());
        text
    }

    /// The bytes without those of the values.
    pub fn bytes(&self, bytes: Vec<u8>) -> Vec<u8> {
        match String::from_utf8(bytes) {
            Ok(text) => self.text(&text).into_bytes(),
            // One character for each byte, so that text can be searched.
            Err(error) if !self.values.is_empty() => {
                let values = self.values.iter().map(|value| widened(value.as_bytes()));
                let clean = Self { values: values.collect(), unknown: false }
                    .text(&widened(error.as_bytes()));
                clean.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect()
            }
            Err(error) => error.into_bytes(),
        }
    }

    /// Takes the values out of a line that a function wrote; where it is cut, also the part of a value that was left.
    pub(crate) fn hide(&self, text: &mut String, cuts: Cuts) {
        if self.unknown {
            WITHHELD.clone_into(text);
        } else {
            self.replace_in(text, cuts);
        }
    }

    fn replace_in(&self, text: &mut String, cuts: Cuts) {
        let mut found = Vec::new();
        for value in &self.values {
            found_in(text, value, &mut found);
            if cuts.start {
                let rests = value.char_indices().map(|(at, _)| &value[at..]).skip(1);
                let rest = rests.filter(|rest| rest.chars().nth(LEAST - 1).is_some());
                let rest = rest.into_iter().find(|rest| text.starts_with(rest));
                found.extend(rest.map(|rest| 0..rest.len()));
            }
            if cuts.end {
                let beginnings = value.char_indices().rev().map(|(at, _)| &value[..at]);
                let mut long = beginnings.filter(|part| part.chars().nth(LEAST - 1).is_some());
                let beginning = long.find(|part| text.ends_with(part));
                found.extend(beginning.map(|part| text.len() - part.len()..text.len()));
            }
        }
        if !found.is_empty() {
            *text = replaced(text, found);
        }
    }
}

fn widened(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Where a value stands in a text, also where it overlaps itself.
fn found_in(text: &str, value: &str, found: &mut Vec<Range<usize>>) {
    let step = value.chars().next().map_or(1, char::len_utf8);
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find(value)) {
        found.push(from + at..from + at + value.len());
        from += at + step;
    }
}

/// The text with one mask for each run of values that overlap.
fn replaced(text: &str, mut found: Vec<Range<usize>>) -> String {
    found.sort_by_key(|range| range.start);
    let mut masked = String::with_capacity(text.len());
    let mut after = 0;
    for range in found {
        if range.start >= after {
            masked.push_str(&text[after..range.start]);
            masked.push_str(MASK);
        }
        after = after.max(range.end);
    }
    masked.push_str(&text[after..]);
    masked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::EnvKey;

    #[test]
    fn lines_of_a_function_whose_values_are_unknown_are_withheld() {
        let mut line = "token=hunter2".to_owned();
        Mask::unknown().hide(&mut line, Cuts::default());
        assert!(line.contains("GRID_FERNET_KEYS") && !line.contains("hunter2"), "{line}");
        assert_eq!(Mask::unknown().text("Grid's own line"), "Grid's own line");
    }

    #[test]
    fn values_are_masked_wherever_they_stand() {
        let mask = Mask::new(["hunter2", "abc", "abcd-efgh", "efgh-ijkl", "aaaa"]);
        let cases = [
            ("nothing", "nothing"),
            ("hunter2", "********"),
            ("a hunter2, hunter2!", "a ********, ********!"),
            ("hunter2hunter2", "****************"),
            ("abc", "abc"),
            ("x abcd-efgh-ijkl y", "x ******** y"),
            ("aaaaaa", "********"),
            ("\u{e4}hunter2\u{e4}", "\u{e4}********\u{e4}"),
        ];
        for (text, masked) in cases {
            assert_eq!(mask.text(text), masked);
        }
        assert_eq!(format!("{mask:?}"), "Mask(4)");
    }

    #[test]
    fn only_secrets_are_hidden() {
        let variable = |key: &str, value: &str, is_secret| {
            (EnvKey::parse(key).expect("valid"), value.to_owned(), is_secret)
        };
        let variables = vec![variable("A", "s3cret", true), variable("B", "blue", false)];
        let mask = Mask::of(&Environment { variables });
        assert_eq!(mask.text("s3cret blue"), "******** blue");
        assert_eq!(mask.bytes(b"s3cret blue".to_vec()), b"******** blue");
        assert_eq!(Mask::default().text("s3cret"), "s3cret");
    }

    #[test]
    fn bytes_that_are_no_text_are_searched_too() {
        let mask = Mask::new(["gr\u{fc}n"]);
        let bytes = [b"\xff", "gr\u{fc}n\u{fc}".as_bytes(), b"\xfe"].concat();
        let clean = [b"\xff********", "\u{fc}".as_bytes(), b"\xfe"].concat();
        assert_eq!(mask.bytes(bytes.clone()), clean);
        assert_eq!(Mask::default().bytes(bytes.clone()), bytes);
    }

    #[test]
    fn a_value_of_several_lines_is_masked_line_by_line_and_as_it_is_quoted() {
        let mask = Mask::new(["-----BEGIN\n  MIIE\"x\n}\n"]);
        assert_eq!(mask.text("-----BEGIN"), "********");
        assert_eq!(mask.text("  MIIE\"x"), "  ********");
        assert_eq!(mask.text("}"), "}");
        assert_eq!(mask.text(r#"{"key":"-----BEGIN\n  MIIE\"x\n}\n"}"#), r#"{"key":"********"}"#);
    }

    #[test]
    fn what_a_cut_left_of_a_value_is_masked() {
        let mask = Mask::new(["0123456789"]);
        let hidden = |text: &str, start, end| {
            let mut text = text.to_owned();
            mask.hide(&mut text, Cuts { start, end });
            text
        };
        assert_eq!(hidden("3456789 x 01234567", false, false), "3456789 x 01234567");
        assert_eq!(hidden("3456789 x 01234567", true, false), "******** x 01234567");
        assert_eq!(hidden("3456789 x 01234567", false, true), "3456789 x ********");
        assert_eq!(hidden("789 x 012", true, true), "789 x 012", "too short to tell");
    }

    proptest! {
        /// However a text with secrets is cut, no four characters of one that was cut are left, and
        /// none is left whole.
        #[test]
        fn nothing_of_a_secret_survives_a_cut(
            before in "[a-z ]{0,20}", after in "[a-z ]{0,20}", secret in "[0-9A-Z]{4,12}",
            from in 0usize..60, to in 0usize..60,
        ) {
            let text = format!("{before}{secret}{after}");
            let (from, to) = (from.min(text.len()), to.min(text.len()));
            prop_assume!(from <= to);
            let mut part = text[from..to].to_owned();
            let cuts = Cuts { start: from > 0, end: to < text.len() };
            Mask::new([&secret]).hide(&mut part, cuts);
            for piece in secret.as_bytes().windows(LEAST) {
                let piece = std::str::from_utf8(piece).expect("ASCII");
                let inside = from > before.len() && to < before.len() + secret.len();
                prop_assert!(inside || !part.contains(piece), "{part}");
            }
        }

        /// Whatever the values and the text are, no value is left.
        #[test]
        fn no_value_is_left(text in "[ab\u{e4}]{0,30}", secrets in prop::collection::vec("[ab\u{e4}]{4,6}", 0..4)) {
            let masked = Mask::new(&secrets).text(&text);
            prop_assert!(secrets.iter().all(|secret| !masked.contains(secret.as_str())), "{masked}");
        }
    }
}
