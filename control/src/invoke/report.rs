//! What the person who invoked a function is told.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::Outcome;
use crate::{engine::OutputLine, limits, logs, mask::Mask};

/// What Node writes when its own heap has no room left; it ends itself then.
const HEAP_FULL: &str = "JavaScript heap out of memory";
/// How it ends: by SIGABRT.
const ABORTED: i64 = 134;

/// How one invocation went. In nothing of it there is the value of a secret.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Report {
    /// The invocation's id, which the function knew as well.
    pub request_id: String,
    /// The status that the public would see.
    #[serde(rename = "statusCode")]
    pub status: u16,
    /// The answer's headers, the values of each joined by `, `.
    pub headers: BTreeMap<String, String>,
    /// The answer's headers, each value by itself.
    #[serde(rename = "multiValueHeaders")]
    pub multi_value_headers: BTreeMap<String, Vec<String>>,
    /// The answer's body, as text or in base64; null when the invocation failed.
    pub body: Option<String>,
    /// Whether `body` is in base64, because it is no text.
    #[serde(rename = "isBase64Encoded")]
    pub is_base64: bool,
    /// What the function wrote, line by line.
    pub logs: String,
    /// Whether it had written more before.
    pub logs_truncated: bool,
    /// How long loading its code took, in milliseconds, as far as it came.
    pub init_ms: Option<f64>,
    /// How long the handler took, in milliseconds, as far as it came.
    pub duration_ms: Option<f64>,
    /// The most memory that its process had at a time, in MiB, when it lived to tell.
    pub max_memory_mb: Option<u32>,
    /// Why there is no answer.
    pub error: Option<Failure>,
}

/// Why an invocation has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Failure {
    /// What kind of failure it is.
    #[serde(rename = "type")]
    pub kind: FailureKind,
    /// For the person who wrote the function, in one line.
    pub message: String,
    /// Where it happened, when the language knows.
    pub stack: Option<String>,
}

/// What can go wrong in an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The code does not load.
    LoadFailed,
    /// It has no handler.
    NoHandler,
    /// The handler threw, or rejected.
    HandlerError,
    /// What it returned is no response.
    InvalidResult,
    /// What it returned is too much.
    ResponseTooLarge,
    /// It did not catch the error of a connection that is not allowed.
    SsrfBlocked,
    /// It took too long.
    Timeout,
    /// It used more memory than it has.
    OutOfMemory,
    /// Its process ended.
    Exited,
    /// What came out of its container is not what a runner says.
    BrokenAnswer,
}

impl FailureKind {
    /// Whether a runner knows of it.
    pub(super) fn is_told_by_runner(self) -> bool {
        !matches!(self, Self::Timeout | Self::OutOfMemory | Self::Exited | Self::BrokenAnswer)
    }

    fn status(self) -> u16 {
        match self {
            Self::SsrfBlocked => 452,
            Self::Timeout => 504,
            _ => 502,
        }
    }
}

impl Report {
    /// Puts together what is known.
    pub(super) fn new(
        request_id: String,
        outcome: Outcome,
        output: Vec<OutputLine>,
        mask: &Mask,
    ) -> Self {
        let Outcome { response, failure, init_ms, duration_ms, max_memory_mb } = outcome;
        let (logs, logs_truncated) = tail(output, mask);
        let mut report = Self {
            request_id,
            status: 502,
            headers: BTreeMap::new(),
            multi_value_headers: BTreeMap::new(),
            body: None,
            is_base64: false,
            logs,
            logs_truncated,
            init_ms,
            duration_ms,
            max_memory_mb,
            error: None,
        };
        if let Some(response) = response {
            report.status = response.status;
            for (name, values) in response.headers {
                let values: Vec<_> = values.iter().map(|value| mask.text(value)).collect();
                report.headers.insert(name.clone(), values.join(", "));
                report.multi_value_headers.insert(name, values);
            }
            let body = String::from_utf8(mask.bytes(response.body));
            report.is_base64 = body.is_err();
            report.body = Some(body.unwrap_or_else(|error| STANDARD.encode(error.as_bytes())));
        }
        if let Some(failure) = failure {
            report.status = failure.kind.status();
            report.error = Some(Failure {
                kind: failure.kind,
                message: mask.text(&failure.message),
                stack: failure.stack.map(|stack| mask.text(&stack)),
            });
        }
        report
    }

    /// Whether Node ended itself for want of memory: that looks like any other end.
    pub(super) fn is_heap_full(code: i64, output: &[OutputLine]) -> bool {
        code == ABORTED && output.iter().any(|line| line.stderr && line.line.contains(HEAP_FULL))
    }
}

/// The last of the lines as one text, and whether there were more. Values are looked for before
/// anything is cut off: half of one would not be found.
fn tail(output: Vec<OutputLine>, mask: &Mask) -> (String, bool) {
    let mut text = String::new();
    for OutputLine { line, cut_end, .. } in output {
        if !logs::is_mark(&line) {
            text.push_str(&line);
            text.push_str(if cut_end { "" } else { "\n" });
        }
    }
    let mut text = mask.text(&text);
    let surplus = text.len().saturating_sub(limits::INVOKE_LOG_BYTES);
    if surplus == 0 {
        return (text, false);
    }
    // From the beginning of a line, if one begins.
    let cut = text.ceil_char_boundary(surplus);
    let line = text[cut..].find('\n').map(|end| cut + end + 1).filter(|at| *at < text.len());
    text.drain(..line.unwrap_or(cut));
    (text, true)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        engine::LineStart, environment::Environment, invoke::answer::Response, name::EnvKey,
    };

    fn lines(lines: &[&str]) -> Vec<OutputLine> {
        let line = |line: &&str| OutputLine {
            at: Timestamp::UNIX_EPOCH,
            stderr: true,
            line: (*line).to_owned(),
            start: LineStart::Line,
            cut_end: false,
        };
        lines.iter().map(line).collect()
    }

    fn mask() -> Mask {
        let key = EnvKey::parse("KEY").expect("valid");
        Mask::of(&Environment { variables: vec![(key, "s3cret\nvalue".to_owned(), true)] })
    }

    #[test]
    fn marks_are_left_out_and_secrets_hidden_even_over_lines() {
        let output = lines(&["\u{1e}GRID START r", "a", "s3cret", "value", "\u{1e}GRID END r", ""]);
        assert_eq!(tail(output, &mask()), ("a\n********\n\n".to_owned(), false));
    }

    #[test]
    fn the_last_lines_stay() {
        let long = "x".repeat(limits::INVOKE_LOG_BYTES - 10);
        let (text, truncated) = tail(lines(&["a long first line", &long, "end"]), &mask());
        assert_eq!((text.len(), truncated), (limits::INVOKE_LOG_BYTES - 5, true));
        let endless = "é".repeat(limits::INVOKE_LOG_BYTES);
        let (text, truncated) = tail(lines(&[&endless]), &mask());
        assert!(truncated && text.len() <= limits::INVOKE_LOG_BYTES && text.ends_with("é\n"));
        assert_eq!(tail(Vec::new(), &mask()), (String::new(), false));
    }

    #[test]
    fn nothing_of_a_report_shows_a_secret() {
        let secret = "s3cret\nvalue";
        let response = Response {
            status: 200,
            headers: BTreeMap::from([("a".to_owned(), vec!["s3cret\\nvalue".to_owned(); 2])]),
            body: secret.into(),
        };
        let outcome = Outcome { response: Some(response.clone()), ..Outcome::default() };
        let report = Report::new("r".to_owned(), outcome, lines(&["s3cret", "value"]), &mask());
        assert_eq!(report.headers["a"], "********, ********");
        assert_eq!(report.body.as_deref(), Some("********"));
        let binary = Response { body: [&b"\xff"[..], secret.as_bytes()].concat(), ..response };
        let outcome = Outcome { response: Some(binary), ..Outcome::default() };
        let report = Report::new("r".to_owned(), outcome, Vec::new(), &mask());
        assert_eq!((report.body.as_deref(), report.is_base64), (Some("/yoqKioqKioq"), true));
        let failure = Failure {
            kind: FailureKind::SsrfBlocked,
            message: secret.to_owned(),
            stack: Some(format!("at {secret}")),
        };
        let outcome = Outcome { failure: Some(failure), ..Outcome::default() };
        let report = Report::new("r".to_owned(), outcome, Vec::new(), &mask());
        assert_eq!(report.status, 452);
        assert!(!format!("{report:?}").contains("s3cret"), "{report:?}");
    }

    #[test]
    fn it_is_written_as_users_of_such_apis_expect() {
        let outcome = Outcome::failed(FailureKind::Timeout, "Execution timed out after 30s");
        let report = Report::new("r".to_owned(), outcome, Vec::new(), &Mask::default());
        let expected = serde_json::json!({
            "request_id": "r", "statusCode": 504, "headers": {}, "multiValueHeaders": {}, "body": null,
            "isBase64Encoded": false, "logs": "", "logs_truncated": false, "init_ms": null,
            "duration_ms": null, "max_memory_mb": null,
            "error": {"type": "timeout", "message": "Execution timed out after 30s", "stack": null},
        });
        assert_eq!(serde_json::to_value(report).expect("JSON"), expected);
    }
}
