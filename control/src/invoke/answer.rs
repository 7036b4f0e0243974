//! What a sandbox says about its run, checked: the code that ran there could have said anything.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::report::{Failure, FailureKind};
use crate::{limits, logs::truncate};

/// Bytes of a failure's message and of its stack.
const MESSAGE_BYTES: usize = 4 * 1024;
const STACK_BYTES: usize = 64 * 1024;
/// What a whole answer may have beyond the body: head, message, stack.
const SLACK: usize = 1024 * 1024;

/// What is known of a run, of which nothing has been hidden yet.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Outcome {
    /// What the handler answered; none when it failed.
    pub(super) response: Option<Response>,
    pub(super) failure: Option<Failure>,
    pub(super) init_ms: Option<f64>,
    pub(super) duration_ms: Option<f64>,
    pub(super) max_memory_mb: Option<u32>,
}

/// A handler's answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, Vec<String>>,
    pub(super) body: Vec<u8>,
}

/// What an answer may be at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of the response's body.
    pub(super) body: usize,
    /// MiB of the container's memory.
    pub(super) memory_mb: u32,
}

/// As runners/PROTOCOL.md has it; whatever else there is, is nothing.
#[derive(Deserialize)]
struct Said {
    ok: bool,
    #[serde(rename = "statusCode")]
    status: Option<u16>,
    #[serde(rename = "multiValueHeaders", default)]
    headers: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    body: String,
    #[serde(rename = "isBase64Encoded", default)]
    is_base64: bool,
    error: Option<SaidError>,
    init_ms: Option<f64>,
    duration_ms: Option<f64>,
    max_memory_mb: Option<u32>,
}

#[derive(Deserialize)]
struct SaidError {
    #[serde(rename = "type")]
    kind: FailureKind,
    message: String,
    stack: Option<String>,
}

impl Outcome {
    /// One that failed for a reason that the sandbox did not tell.
    pub(super) fn failed(kind: FailureKind, message: impl Into<String>) -> Self {
        let failure = Failure { kind, message: message.into(), stack: None };
        Self { failure: Some(failure), ..Self::default() }
    }
}

impl Bounds {
    /// Bytes of a whole answer. In JSON the body takes twice its bytes at most, see
    /// runners/PROTOCOL.md.
    pub(super) fn answer(self) -> usize {
        self.body.saturating_mul(2).saturating_add(SLACK)
    }

    /// What an answer to `POST /invoke` says; what is wrong with it makes it a failure.
    pub(super) fn read(self, answer: &[u8]) -> Outcome {
        let said = serde_json::from_slice::<Said>(answer).map_err(|error| error.to_string());
        match said.and_then(|said| self.check(said)) {
            Ok(outcome) => outcome,
            Err(reason) => Outcome::failed(
                FailureKind::BrokenAnswer,
                format!("The function's answer is none of its runner: {reason}"),
            ),
        }
    }

    fn check(self, said: Said) -> Result<Outcome, String> {
        let mut outcome = Outcome {
            response: None,
            failure: None,
            init_ms: milliseconds(said.init_ms),
            duration_ms: milliseconds(said.duration_ms),
            max_memory_mb: said.max_memory_mb.map(|mib| mib.min(self.memory_mb)),
        };
        match (said.ok, said.error) {
            (true, None) => {}
            (false, Some(error)) => {
                outcome.failure = Some(error.check()?);
                return Ok(outcome);
            }
            _ => return Err("it is neither a success nor a failure".to_owned()),
        }
        let status = said.status.filter(|status| (200..=599).contains(status));
        let status = status.ok_or("statusCode is none")?;
        let headers = check_headers(said.headers)?;
        let body = match said.is_base64 {
            true => STANDARD.decode(said.body).map_err(|_| "body is not base64")?,
            false => said.body.into_bytes(),
        };
        if body.len() > self.body {
            outcome.failure = Some(Failure {
                kind: FailureKind::ResponseTooLarge,
                message: format!("the response body has more than {} bytes", self.body),
                stack: None,
            });
            return Ok(outcome);
        }
        outcome.response = Some(Response { status, headers, body });
        Ok(outcome)
    }
}

impl SaidError {
    fn check(self) -> Result<Failure, String> {
        let Self { kind, mut message, mut stack } = self;
        if !kind.is_told_by_runner() {
            return Err("error.type is none of a runner's".to_owned());
        }
        message = message.replace(char::is_control, " ");
        truncate(&mut message, MESSAGE_BYTES);
        if let Some(stack) = &mut stack {
            truncate(stack, STACK_BYTES);
        }
        Ok(Failure { kind, message, stack })
    }
}

fn milliseconds(said: Option<f64>) -> Option<f64> {
    said.filter(|ms| ms.is_finite() && *ms >= 0.0)
}

fn check_headers(
    said: BTreeMap<String, Vec<String>>,
) -> Result<BTreeMap<String, Vec<String>>, String> {
    let (mut count, mut bytes) = (0, 0);
    for (name, values) in &said {
        // In the form in which a client would see it, which is lower case.
        let valid = HeaderName::from_bytes(name.as_bytes());
        let valid = valid.is_ok_and(|valid| valid.as_str() == name);
        if !valid || values.is_empty() {
            return Err("a header's name is none".to_owned());
        }
        for value in values {
            if HeaderValue::from_bytes(value.as_bytes()).is_err() {
                return Err("a header's value is none".to_owned());
            }
            count += 1;
            bytes += name.len() + value.len();
        }
    }
    if count > limits::RESPONSE_HEADERS || bytes > limits::RESPONSE_HEADER_BYTES {
        return Err("it has too many headers".to_owned());
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const BOUNDS: Bounds = Bounds { body: 10, memory_mb: 128 };

    fn read(answer: &Value) -> Outcome {
        BOUNDS.read(answer.to_string().as_bytes())
    }

    fn good() -> Value {
        json!({
            "ok": true, "statusCode": 201, "headers": {"a": "1, 2"},
            "multiValueHeaders": {"a": ["1", "2"], "b": ["é\t"]}, "body": "made",
            "isBase64Encoded": false, "init_ms": 1.5, "duration_ms": 2, "max_memory_mb": 40, "more": [],
        })
    }

    fn kind(outcome: &Outcome) -> Option<FailureKind> {
        outcome.failure.as_ref().map(|failure| failure.kind)
    }

    #[test]
    fn an_answer_is_taken_as_it_is() {
        let outcome = read(&good());
        let response = outcome.response.expect("a response");
        assert_eq!((response.status, &response.body[..]), (201, &b"made"[..]));
        assert_eq!(response.headers["a"], ["1", "2"]);
        assert_eq!(outcome.failure, None);
        assert_eq!((outcome.init_ms, outcome.duration_ms), (Some(1.5), Some(2.0)));
        assert_eq!(outcome.max_memory_mb, Some(40));

        let failed = json!({
            "ok": false, "statusCode": 502, "init_ms": 0, "duration_ms": 1, "max_memory_mb": null,
            "error": {"type": "handler_error", "message": "a\nb", "stack": "at x\nat y"},
        });
        let failure = read(&failed).failure.expect("a failure");
        assert_eq!((failure.kind, &failure.message[..]), (FailureKind::HandlerError, "a b"));
        assert_eq!(failure.stack.as_deref(), Some("at x\nat y"));
    }

    #[test]
    fn what_no_runner_says_is_not_believed() {
        for (place, value) in [
            ("/ok", json!(false)),
            ("/ok", json!(1)),
            ("/statusCode", json!(199)),
            ("/statusCode", json!(600)),
            ("/statusCode", json!(70000)),
            ("/statusCode", json!("200")),
            ("/statusCode", json!(null)),
            ("/multiValueHeaders", json!({"a b": ["1"]})),
            ("/multiValueHeaders", json!({"A": ["1"]})),
            ("/multiValueHeaders", json!({"": ["1"]})),
            ("/multiValueHeaders", json!({"a": []})),
            ("/multiValueHeaders", json!({"a": ["1\r\nb: 2"]})),
            ("/multiValueHeaders", json!({"a": ["\0"]})),
            ("/multiValueHeaders", json!({"a": vec!["1"; limits::RESPONSE_HEADERS + 1]})),
            ("/multiValueHeaders", json!({"a": ["1".repeat(limits::RESPONSE_HEADER_BYTES)]})),
            ("/multiValueHeaders", json!([])),
            ("/body", json!({})),
            ("/isBase64Encoded", json!(1)),
            ("/init_ms", json!("soon")),
            ("/max_memory_mb", json!(-1)),
            ("/error", json!({"type": "handler_error", "message": "x"})),
        ] {
            let mut answer = good();
            match answer.pointer_mut(place) {
                Some(there) => *there = value.clone(),
                None => answer[&place[1..]] = value.clone(),
            }
            assert_eq!(kind(&read(&answer)), Some(FailureKind::BrokenAnswer), "{place}: {value}");
        }
        let no_base64 =
            json!({"ok": true, "statusCode": 200, "body": "a b", "isBase64Encoded": true});
        assert_eq!(kind(&read(&no_base64)), Some(FailureKind::BrokenAnswer));
        for error in [
            json!(null),
            json!({"type": "timeout", "message": "x"}),
            json!({"type": "other", "message": "x"}),
            json!({"type": "handler_error"}),
            json!({"type": "handler_error", "message": 7}),
        ] {
            let answer = json!({"ok": false, "error": error});
            assert_eq!(kind(&read(&answer)), Some(FailureKind::BrokenAnswer), "{error}");
        }
    }

    #[test]
    fn bounds_hold() {
        let mut answer = good();
        answer["body"] = json!("01234567890");
        assert_eq!(kind(&read(&answer)), Some(FailureKind::ResponseTooLarge));
        answer["body"] = json!("MDEyMzQ1Njc4OQ==");
        answer["isBase64Encoded"] = json!(true);
        answer["max_memory_mb"] = json!(4_000_000_000_u32);
        answer["init_ms"] = json!(-1);
        let outcome = read(&answer);
        assert_eq!(outcome.response.expect("a response").body, b"0123456789");
        assert_eq!((outcome.max_memory_mb, outcome.init_ms), (Some(128), None));
        let long = json!({"ok": false, "error": {
            "type": "load_failed", "message": "é".repeat(5000), "stack": "é".repeat(50_000),
        }});
        let failure = read(&long).failure.expect("a failure");
        assert!(failure.message.len() <= MESSAGE_BYTES);
        assert!(failure.stack.expect("a stack").len() <= STACK_BYTES);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(answer in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(kind(&BOUNDS.read(&answer)), Some(FailureKind::BrokenAnswer));
        }

        #[test]
        fn nor_does_an_answer_with_other_members(
            status in any::<u16>(), name in ".{0,8}", value in ".{0,8}", body in ".{0,12}",
            base64 in any::<bool>(), ms in any::<f64>(),
        ) {
            let outcome = read(&json!({
                "ok": true, "statusCode": status, "multiValueHeaders": {name: [value]},
                "body": body, "isBase64Encoded": base64, "init_ms": ms,
            }));
            prop_assert!(outcome.response.is_some() != outcome.failure.is_some());
            if let Some(response) = outcome.response {
                prop_assert!(response.body.len() <= BOUNDS.body);
                prop_assert!((200..=599).contains(&response.status));
            }
        }
    }
}
