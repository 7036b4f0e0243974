//! What is answered to a certificate authority that checks a domain (HTTP-01).

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// Where they are asked for; the token follows.
pub(crate) const PREFIX: &str = "/.well-known/acme-challenge/";
/// Challenges at one time.
const MOST: usize = 1024;
/// Bytes of a token, and of what is answered to it.
const MOST_BYTES: usize = 512;

/// The challenges that are going on.
#[derive(Debug, Default)]
pub(crate) struct Challenges(Mutex<HashMap<String, String>>);

/// One challenge, for as long as it goes on.
#[derive(Debug)]
pub(crate) struct Offer {
    challenges: Arc<Challenges>,
    token: String,
}

impl Challenges {
    /// What to answer to a token, as `text/plain` (or better `application/octet-stream`) with 200.
    pub(crate) fn answer(&self, token: &str) -> Option<String> {
        self.0.lock().get(token).cloned()
    }

    /// Answers a token as long as the offer lives. None when there are too many, or when the token
    /// is none: it comes from outside, and becomes part of a URL of ours.
    pub(crate) fn offer(self: &Arc<Self>, token: &str, answer: &str) -> Option<Offer> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let mut going_on = self.0.lock();
        if token.is_empty()
            || token.len().max(answer.len()) > MOST_BYTES
            || !token.bytes().all(good)
            || going_on.len() >= MOST
        {
            return None;
        }
        going_on.insert(token.to_owned(), answer.to_owned());
        Some(Offer { challenges: self.clone(), token: token.to_owned() })
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.challenges.0.lock().remove(&self.token);
    }
}

/// The token that a request's path asks for.
pub(crate) fn token(path: &str) -> Option<&str> {
    path.strip_prefix(PREFIX).filter(|token| !token.is_empty() && !token.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_as_long_as_it_is_offered() {
        let challenges = Arc::new(Challenges::default());
        let offer = challenges.offer("a-Token_1", "a-Token_1.thumb").expect("taken");
        assert_eq!(challenges.answer("a-Token_1").as_deref(), Some("a-Token_1.thumb"));
        assert_eq!(challenges.answer("another"), None);
        drop(offer);
        assert_eq!(challenges.answer("a-Token_1"), None);
        for bad in ["", "a/b", "a.b", "a b", "../x", "ü", &"a".repeat(MOST_BYTES + 1)] {
            assert!(challenges.offer(bad, "x").is_none(), "{bad}");
        }
    }

    #[test]
    fn they_are_bounded() {
        let challenges = Arc::new(Challenges::default());
        let offers: Vec<_> =
            (0..MOST + 5).filter_map(|n| challenges.offer(&format!("t{n}"), "x")).collect();
        assert_eq!(offers.len(), MOST);
    }

    #[test]
    fn the_token_is_the_last_part_of_the_path() {
        assert_eq!(token("/.well-known/acme-challenge/abc"), Some("abc"));
        for none in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/a/b", "/fn/x"] {
            assert_eq!(token(none), None, "{none}");
        }
    }
}
