//! What a request is addressed to: hosts and paths in the forms that every reader understands alike.

/// The name in `name`, `name:port` or `[address]:port`. None for what is no host at all; a client that
/// has none to name sends an empty one.
pub(crate) fn host_name(host: &str) -> Option<&str> {
    let end = match host.strip_prefix('[') {
        Some(literal) => literal.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let plain = match name.strip_prefix('[') {
        Some(literal) => literal.bytes().all(|b| b.is_ascii_hexdigit() || b":.]".contains(&b)),
        None => name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    (plain && is_port(port) && (!name.is_empty() || host.is_empty())).then_some(name)
}

/// Nothing, or a colon and perhaps a number.
fn is_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        None => text.is_empty(),
        Some(number) => {
            number.is_empty()
                || (number.bytes().all(|b| b.is_ascii_digit()) && number.parse::<u16>().is_ok())
        }
    }
}

/// Whether a path has a segment `.` or `..`. Clients resolve them before they ask; whoever sends one
/// hopes that somebody on the way reads another path than the rest. A dot and a slash may be
/// percent-encoded, and some take a backslash for a slash.
pub(crate) fn has_dot_segment(path: &str) -> bool {
    let mut rest = path.as_bytes();
    // How many dots a segment has that consists of nothing else.
    let mut dots = Some(0_u32);
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match rest {
            [b'%', b'2', b'e' | b'E', tail @ ..] => (b'.', tail),
            [b'%', b'2', b'f' | b'F', tail @ ..] | [b'%', b'5', b'c' | b'C', tail @ ..] => {
                (b'/', tail)
            }
            [b'\\', tail @ ..] => (b'/', tail),
            _ => (*first, tail),
        };
        dots = match byte {
            b'/' if matches!(dots, Some(1 | 2)) => return true,
            b'/' => Some(0),
            b'.' => dots.map(|dots| dots.saturating_add(1)),
            _ => None,
        };
        rest = tail;
    }
    matches!(dots, Some(1 | 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_with_and_without_ports() {
        for (host, name) in [
            ("", ""),
            ("a.example", "a.example"),
            ("A_b-1.example.", "A_b-1.example."),
            ("a.example:", "a.example"),
            ("a.example:0", "a.example"),
            ("a.example:65535", "a.example"),
            ("127.0.0.1:8080", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]"),
        ] {
            assert_eq!(host_name(host), Some(name), "{host}");
        }
        for host in [
            ":80",
            "a.example:65536",
            "a.example:x",
            "a.example:+1",
            "a.example:80:80",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]]",
            "[a.example]",
            "u@a.example",
            "a b",
            "a,b",
            "a/b",
            "a%2eexample",
            "\u{e4}.example",
            "a\0b",
        ] {
            assert_eq!(host_name(host), None, "{host}");
        }
    }

    #[test]
    fn dot_segments_in_every_spelling() {
        for path in [
            "/fn/a/.",
            "/fn/a/..",
            "/fn/a/./b",
            "/fn/a/../b",
            "/../fn/a",
            "/fn/a/%2e",
            "/fn/a/%2E%2e/b",
            "/fn/a/.%2e",
            "/fn/a/..%2fb",
            "/fn/a%2F..%2Fb",
            "/fn/a/..\\b",
            "/fn/a/%5c..%5Cb",
            "..",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in [
            "",
            "/",
            "*",
            "/fn/a",
            "/fn/a//b",
            "/fn/a/...",
            "/fn/a/.well-known/x",
            "/fn/a/x.json",
            "/fn/a/b..",
            "/fn/a/..b",
            "/fn/a/%2e%2e%2e",
            "/fn/a/%252e%252e/b",
            "/fn/a/%",
            "/fn/a/%2",
            "/fn/a%2fb",
        ] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_panics(text in "([.%2eEfF5cC/\\\\:\\[\\]]|.){0,40}") {
            let _ = (host_name(&text), has_dot_segment(&text));
        }

        /// Whoever resolves a path that passed finds it as it is.
        #[test]
        fn a_path_that_passes_resolves_to_itself(path in "(/|\\.|a|%2e|%2F){0,12}") {
            let decoded = path.replace("%2e", ".").replace("%2F", "/");
            let dotted = decoded.split('/').any(|segment| segment == "." || segment == "..");
            prop_assert_eq!(has_dot_segment(&path), dotted);
        }
    }
}
