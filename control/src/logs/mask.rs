//! Secret values of environment variables, and how they are taken out of what functions write.

use std::ops::Range;

use crate::environment::MASK;

/// Characters that a value has at least: a shorter one is found in any text.
const LEAST: usize = 4;

/// The secret values that one version of a function has been given. It never shows them.
#[derive(Clone, Default)]
pub struct Mask {
    values: Vec<String>,
}

/// Which ends of a text may be in the middle of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cuts {
    pub(super) start: bool,
    pub(super) end: bool,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({})", self.values.len())
    }
}

impl Mask {
    /// Masks these values wherever they stand, also as JSON and most programs write them, and each
    /// line of one that has several.
    ///
    /// ```
    /// let mask = control::logs::Mask::new(["hunter2"]);
    /// assert_eq!(mask.apply("password=hunter2"), "password=********");
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
        Self { values }
    }

    /// The text without the values.
    pub fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        self.hide(&mut text, Cuts::default());
        text
    }

    /// Takes the values out of a text; where it is cut, also the part of a value that was left.
    pub(super) fn hide(&self, text: &mut String, cuts: Cuts) {
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
            assert_eq!(mask.apply(text), masked);
        }
        assert_eq!(format!("{mask:?}"), "Mask(4)");
    }

    #[test]
    fn a_value_of_several_lines_is_masked_line_by_line_and_as_it_is_quoted() {
        let mask = Mask::new(["-----BEGIN\n  MIIE\"x\n}\n"]);
        assert_eq!(mask.apply("-----BEGIN"), "********");
        assert_eq!(mask.apply("  MIIE\"x"), "  ********");
        assert_eq!(mask.apply("}"), "}");
        assert_eq!(mask.apply(r#"{"key":"-----BEGIN\n  MIIE\"x\n}\n"}"#), r#"{"key":"********"}"#);
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
            let masked = Mask::new(&secrets).apply(&text);
            prop_assert!(secrets.iter().all(|secret| !masked.contains(secret.as_str())), "{masked}");
        }
    }
}
