//! Where the public finds a function.

use crate::name::{FunctionName, PublicDomain};

/// Scheme and port of the public edge, as clients see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicUrl {
    scheme: &'static str,
    /// None where the scheme implies it.
    port: Option<u16>,
}

impl PublicUrl {
    /// Plain HTTP on `port`: `http://hello.localhost:8080/fn/hello`.
    pub fn http(port: u16) -> Self {
        Self { scheme: "http", port: Some(port).filter(|port| *port != 80) }
    }

    /// HTTPS on `port`: `https://hello.example.com/fn/hello` for 443.
    pub fn https(port: u16) -> Self {
        Self { scheme: "https", port: Some(port).filter(|port| *port != 443) }
    }

    /// The address of one function.
    pub fn of(&self, domain: &PublicDomain, function: &FunctionName) -> String {
        let scheme = self.scheme;
        match self.port {
            Some(port) => format!("{scheme}://{domain}:{port}/fn/{function}"),
            None => format!("{scheme}://{domain}/fn/{function}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_the_scheme_implies_is_left_out() {
        let domain = PublicDomain::parse("a.example.com").expect("a domain");
        let function = FunctionName::parse("f").expect("a name");
        let of = |url: PublicUrl| url.of(&domain, &function);
        assert_eq!(of(PublicUrl::http(8080)), "http://a.example.com:8080/fn/f");
        assert_eq!(of(PublicUrl::http(80)), "http://a.example.com/fn/f");
        assert_eq!(of(PublicUrl::https(443)), "https://a.example.com/fn/f");
        assert_eq!(of(PublicUrl::https(80)), "https://a.example.com:80/fn/f");
    }
}
