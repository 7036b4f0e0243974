//! Where a request over HTTP is sent when HTTPS is wanted (`GRID_HTTPS_REDIRECT`).

use http::{Method, StatusCode};

use super::names;

/// The status and the Location for a request to this host and target (path and query), with the
/// port that HTTPS has. None when there is nothing to send it to: a host that is no name and no
/// address, or a target that does not begin with a slash.
pub(crate) fn to_https(
    method: &Method,
    host: &str,
    target: &str,
    port: u16,
) -> Option<(StatusCode, String)> {
    let name = without_port(host)?;
    let clean = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    if !target.starts_with('/') || !target.bytes().all(clean) {
        return None;
    }
    // 301 lets clients turn other methods into GET.
    let status = if [Method::GET, Method::HEAD].contains(method) {
        StatusCode::MOVED_PERMANENTLY
    } else {
        StatusCode::PERMANENT_REDIRECT
    };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    Some((status, format!("https://{name}{port}{target}")))
}

/// A Host header's host, when it is a name or an address and its port is a number.
fn without_port(host: &str) -> Option<&str> {
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if host.starts_with('[') {
        let end = host.find(']')?;
        let (address, rest) = host.split_at(end + 1);
        let good = address[1..end].parse::<std::net::Ipv6Addr>().is_ok();
        let port = rest.strip_prefix(':').unwrap_or(rest);
        return (good && is_port(port)).then_some(address);
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let good = names::Pattern::parse(name).is_some() && !name.starts_with('*');
    let good = good || name.parse::<std::net::Ipv4Addr>().is_ok();
    (good && is_port(port)).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_address_stays_and_the_port_is_that_of_https() {
        let get = |host, target, port| {
            to_https(&Method::GET, host, target, port).map(|(_, location)| location)
        };
        for (host, port, expected) in [
            ("a.example", 443, "https://a.example/fn/x?a=b"),
            ("a.example:80", 443, "https://a.example/fn/x?a=b"),
            ("a.example:8080", 8443, "https://a.example:8443/fn/x?a=b"),
            ("a.example.", 443, "https://a.example./fn/x?a=b"),
            ("127.0.0.1:8080", 8443, "https://127.0.0.1:8443/fn/x?a=b"),
            ("[::1]:8080", 8443, "https://[::1]:8443/fn/x?a=b"),
            ("[::1]", 443, "https://[::1]/fn/x?a=b"),
        ] {
            assert_eq!(get(host, "/fn/x?a=b", port).as_deref(), Some(expected), "{host}");
        }
        for host in
            ["", ":80", "a b", "a@b", "a.example:x", "a/b", "[::1", "[a]", "[::1]x", "*.a", "a:1:2"]
        {
            assert_eq!(get(host, "/", 443), None, "{host}");
        }
        for target in ["", "*", "fn", "http://b/", "/a b", "/\r\nx: y", "/ü"] {
            assert_eq!(get("a.example", target, 443), None, "{target:?}");
        }
    }

    #[test]
    fn only_get_and_head_may_change_their_method() {
        for (method, status) in [
            (Method::GET, 301),
            (Method::HEAD, 301),
            (Method::POST, 308),
            (Method::PUT, 308),
            (Method::OPTIONS, 308),
        ] {
            let (answer, _) = to_https(&method, "a.example", "/", 443).expect("a redirect");
            assert_eq!(answer.as_u16(), status, "{method}");
        }
    }

    proptest! {
        #[test]
        fn a_location_leads_to_the_host_that_was_asked(host in ".{0,40}", target in ".{0,40}") {
            if let Some((_, location)) = to_https(&Method::GET, &host, &target, 443) {
                let uri: http::Uri = location.parse().expect("a URI");
                prop_assert_eq!(uri.scheme_str(), Some("https"));
                prop_assert!(host.starts_with(uri.host().expect("a host")));
                prop_assert!(location.is_ascii());
            }
        }
    }
}
