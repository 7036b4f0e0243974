//! Host names as certificates are found by them: the name itself, or a wildcard for its first label.

use std::{borrow::Cow, collections::HashMap, fmt};

/// A name in a certificate, in lower case: `a.example.com` or `*.example.com`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pattern(String);

/// Values by the names that they are good for. Several for one name keep their order.
#[derive(Debug)]
pub(crate) struct ByName<T> {
    exact: HashMap<String, Vec<T>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Vec<T>>,
}

impl Pattern {
    /// Takes a name as certificates have it; a `*` stands for the whole first label or is refused.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let name = folded(text)?;
        let rest = name.strip_prefix("*.").unwrap_or(&name);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        (rest.len() <= 253 && rest.split('.').all(label)).then(|| Self(name.into_owned()))
    }

    /// Whether a certificate with this name is good for `host`.
    pub(crate) fn matches(&self, host: &str) -> bool {
        let Some(host) = folded(host) else { return false };
        match self.0.strip_prefix("*.") {
            Some(parent) => host
                .split_once('.')
                .is_some_and(|(first, rest)| !first.is_empty() && rest == parent),
            None => host == self.0,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new() }
    }
}

impl<T> ByName<T> {
    /// Adds a value after those that are there already.
    pub(crate) fn insert(&mut self, pattern: &Pattern, value: T) {
        let (map, name) = match pattern.0.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcard, parent),
            None => (&mut self.exact, pattern.0.as_str()),
        };
        map.entry(name.to_owned()).or_default().push(value);
    }

    /// Those for exactly this host, then those whose wildcard covers it.
    pub(crate) fn find(&self, host: &str) -> impl Iterator<Item = &T> {
        let host = folded(host);
        let host = host.as_deref();
        let exact = host.and_then(|host| self.exact.get(host));
        let wildcard = host
            .and_then(|host| host.split_once('.'))
            .filter(|(first, _)| !first.is_empty())
            .and_then(|(_, parent)| self.wildcard.get(parent));
        [exact, wildcard].into_iter().flatten().flatten()
    }
}

/// A host in lower case and without its trailing dot; None for an address or nothing.
pub(crate) fn folded(host: &str) -> Option<Cow<'_, str>> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || is_address(host) {
        return None;
    }
    Some(if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

/// Whether a host is an IP address instead of a name.
pub(crate) fn is_address(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_ok()
}

/// Whether a folded name is this machine by definition.
pub(crate) fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(patterns: &[&'static str]) -> ByName<&'static str> {
        let mut table = ByName::default();
        for pattern in patterns {
            table.insert(&Pattern::parse(pattern).expect("valid"), *pattern);
        }
        table
    }

    #[test]
    fn the_exact_name_comes_before_the_wildcard_and_a_wildcard_is_one_label() {
        let table = table(&["*.example.com", "a.example.com", "example.com"]);
        let found = |host| table.find(host).copied().collect::<Vec<_>>();
        assert_eq!(found("a.example.com"), ["a.example.com", "*.example.com"]);
        assert_eq!(found("A.Example.COM."), ["a.example.com", "*.example.com"]);
        assert_eq!(found("b.example.com"), ["*.example.com"]);
        assert_eq!(found("example.com"), ["example.com"]);
        for none in ["x.a.example.com", ".example.com", "com", "example.org", "", ".", "10.0.0.1"] {
            assert!(found(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn wildcards_elsewhere_addresses_and_odd_labels_are_no_names() {
        for bad in
            ["", "*", "a.*.com", "f*.example.com", "*.*.com", "10.0.0.1", "::1", "a..b", "ü.de"]
        {
            assert!(Pattern::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(Pattern::parse("*.EXAMPLE.com.").expect("valid").to_string(), "*.example.com");
    }

    proptest! {
        #[test]
        fn the_table_finds_what_matches(
            patterns in prop::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,2}", 0..6),
            host in "[abAB](\\.[ab]){0,3}\\.?",
        ) {
            let patterns: Vec<_> = patterns.iter().filter_map(|p| Pattern::parse(p)).collect();
            let mut table = ByName::default();
            for pattern in &patterns {
                table.insert(pattern, pattern.clone());
            }
            let mut found: Vec<_> = table.find(&host).cloned().collect();
            let mut matching: Vec<_> =
                patterns.iter().filter(|pattern| pattern.matches(&host)).cloned().collect();
            found.sort();
            matching.sort();
            prop_assert_eq!(found, matching);
        }

        #[test]
        fn nothing_that_a_client_or_file_says_panics(text in ".{0,80}") {
            let _ = Pattern::parse(&text).map(|pattern| pattern.matches(&text));
            let _ = ByName::<()>::default().find(&text).count();
        }
    }
}
