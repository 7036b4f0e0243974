//! What is answered over plain HTTP before any function is looked for: challenges of a certificate
//! authority, and the way to HTTPS.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::{challenges, challenges::Challenges, to_https};
use crate::{
    client::{Body, Peer},
    fields::Fields,
    request::Request,
    respond::Answer,
};

/// What HTTPS asks of plain HTTP.
#[derive(Default)]
pub(crate) struct Plain {
    /// When ACME is on.
    pub(crate) challenges: Option<Arc<Challenges>>,
    /// The port that plain requests are sent to, when they are.
    pub(crate) redirect: Option<u16>,
}

impl Plain {
    /// The answer to a request that no function has to see.
    pub(crate) fn answer(&self, request: &Request, peer: &Peer) -> Option<Answer> {
        if peer.scheme == "https" {
            return None;
        }
        self.challenge(request).or_else(|| self.redirect(request))
    }

    fn challenge(&self, request: &Request) -> Option<Answer> {
        let token = challenges::token(request.path())?;
        let text = self.challenges.as_ref()?.answer(token)?;
        let mut fields = Fields::default();
        fields.push("content-type", b"application/octet-stream");
        let body = match request.method {
            Method::GET => Body::Whole(Bytes::from(text)),
            Method::HEAD => Body::Absent(Some(text.len() as u64)),
            _ => return None,
        };
        Some(Answer { status: StatusCode::OK, fields, body })
    }

    fn redirect(&self, request: &Request) -> Option<Answer> {
        let port = self.redirect?;
        let (status, location) = to_https(&request.method, &request.host, &request.target, port)?;
        let mut fields = Fields::default();
        fields.push("location", location.as_bytes());
        let body = match request.method {
            Method::HEAD => Body::Absent(Some(0)),
            _ => Body::Whole(Bytes::new()),
        };
        Some(Answer { status, fields, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(plain: &Plain, scheme: &'static str, method: Method, target: &str) -> Option<Answer> {
        let request = Request {
            method,
            host: "a.example:8080".to_owned(),
            target: target.to_owned(),
            ..Request::default()
        };
        let peer = Peer { scheme, ..Peer::default() };
        plain.answer(&request, &peer)
    }

    #[test]
    fn challenges_come_before_the_way_to_https() {
        let challenges = Arc::new(Challenges::default());
        let _offer = challenges.offer("token-1", "token-1.thumb").expect("room");
        let plain = Plain { challenges: Some(challenges), redirect: Some(8443) };
        let target = "/.well-known/acme-challenge/token-1";
        let answer = ask(&plain, "http", Method::GET, target).expect("an answer");
        let Body::Whole(body) = answer.body else { panic!("no body") };
        assert_eq!((answer.status, body.as_ref()), (StatusCode::OK, &b"token-1.thumb"[..]));
        // An unknown token is an ordinary request.
        for target in ["/.well-known/acme-challenge/other", "/fn/a?b"] {
            let answer = ask(&plain, "http", Method::GET, target).expect("an answer");
            assert_eq!(answer.status, StatusCode::MOVED_PERMANENTLY);
            let location = format!("https://a.example:8443{target}");
            assert_eq!(answer.fields.get("location"), Some(location.as_bytes()));
        }
        let answer = ask(&plain, "http", Method::POST, "/fn/a").expect("an answer");
        assert_eq!(answer.status, StatusCode::PERMANENT_REDIRECT);
        assert!(ask(&plain, "https", Method::GET, "/fn/a").is_none());
        assert!(ask(&Plain::default(), "http", Method::GET, "/fn/a").is_none());
    }
}
