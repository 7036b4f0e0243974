//! W3C trace context, level 1: the trace that a request belongs to. A client's `traceparent` is
//! passed on with this request as the new parent; without a valid one a new trace begins.

use crate::fields::Fields;

/// The part that a request has in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) id: TraceId,
    /// Who called, in the client's words; none when the trace begins here.
    pub(crate) parent: Option<SpanId>,
    /// This request.
    pub(crate) span: SpanId,
    flags: u8,
}

/// A trace's id; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId(u128);

/// The id of one part of a trace; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanId(u64);

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parent {
    id: TraceId,
    span: SpanId,
    flags: u8,
}

/// A share of all requests, as a bound of random numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share(f64);

/// Bytes of a `traceparent`: `00-<32 digits>-<16 digits>-<2 digits>`.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;
/// The flags whose meaning is known and that are passed on: sampled, random.
const KNOWN: u8 = 0b11;

impl Trace {
    /// The trace of a request; a new one is sampled with the given share.
    pub(crate) fn of(fields: &Fields, sampled: Share) -> Self {
        let span = SpanId::random();
        match given(fields) {
            Some(Parent { id, span: parent, flags }) => {
                Self { id, parent: Some(parent), span, flags: flags & KNOWN }
            }
            None => {
                let flags = if sampled.takes(span) { SAMPLED } else { 0 };
                Self { id: TraceId::random(), parent: None, span, flags }
            }
        }
    }

    /// Whether whoever began the trace wants it to be recorded.
    pub(crate) fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The `traceparent` for whom this request calls.
    pub(crate) fn traceparent(&self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&self.id.hex());
        text[36..52].copy_from_slice(&self.span.hex());
        write_hex(&mut text[53..], &[self.flags]);
        text
    }

    /// Whether a client's field, its name in lower case, does not reach the function: its
    /// `traceparent` is replaced, and a `tracestate` means nothing without it.
    pub(crate) fn replaces(&self, name: &[u8]) -> bool {
        name.starts_with(b"trace")
            && (name == b"traceparent" || (name == b"tracestate" && self.parent.is_none()))
    }
}

impl TraceId {
    fn random() -> Self {
        Self(uuid::Uuid::new_v4().as_u128())
    }

    /// 32 digits.
    pub(crate) fn hex(self) -> [u8; 32] {
        let mut text = [0; 32];
        write_hex(&mut text, &self.0.to_be_bytes());
        text
    }
}

impl SpanId {
    fn random() -> Self {
        // Of a random UUID's two halves only a few bits are not random, and not the same in both.
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        Self((high ^ low).max(1))
    }

    /// 16 digits.
    pub(crate) fn hex(self) -> [u8; 16] {
        let mut text = [0; 16];
        write_hex(&mut text, &self.0.to_be_bytes());
        text
    }
}

impl std::fmt::Display for TraceId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

impl std::fmt::Display for SpanId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

impl Share {
    /// A share from 0.0 to 1.0.
    pub(crate) fn new(share: f64) -> Self {
        Self(share)
    }

    /// Whether a request belongs to the share. Its span is random, and no client chooses it.
    pub(crate) fn takes(self, SpanId(random): SpanId) -> bool {
        // The upper 53 bits are as many as a float can tell apart.
        ((random >> 11) as f64) < self.0 * (1_u64 << 53) as f64
    }
}

/// The one valid `traceparent` of a request.
fn given(fields: &Fields) -> Option<Parent> {
    let mut all = fields.all("traceparent");
    match (all.next(), all.next()) {
        (Some(text), None) => parse(text),
        _ => None,
    }
}

fn parse(text: &[u8]) -> Option<Parent> {
    let (known, rest) = text.split_at_checked(LENGTH)?;
    let version = hex(&known[..2])?;
    let bars = [known[2], known[35], known[52]] == *b"---";
    // A later version may have more behind another bar.
    let ends = rest.is_empty() || (version != 0 && rest[0] == b'-');
    if version == 0xff || !bars || !ends {
        return None;
    }
    let (id, span) = (hex(&known[3..35])?, hex(&known[36..52])?);
    let flags = u8::try_from(hex(&known[53..])?).ok()?;
    let span = u64::try_from(span).ok()?;
    (id != 0 && span != 0).then_some(Parent { id: TraceId(id), span: SpanId(span), flags })
}

/// The value of at most 32 digits, all of them in lower case.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

/// Two digits for each byte.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn trace(values: &[&str], share: f64) -> Trace {
        let mut fields = Fields::default();
        for value in values {
            fields.push("traceparent", value.as_bytes());
        }
        Trace::of(&fields, Share::new(share))
    }

    fn text(trace: &Trace) -> String {
        String::from_utf8(trace.traceparent().to_vec()).expect("digits")
    }

    #[test]
    fn a_valid_parent_is_passed_on_with_a_span_of_ours() {
        let trace = trace(&[GIVEN], 0.0);
        assert_eq!(trace.id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.parent.expect("given").to_string(), "00f067aa0ba902b7");
        assert!(trace.sampled());
        let ours = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", trace.span);
        assert_eq!(text(&trace), ours);
        assert_ne!(ours, GIVEN);
        assert!(trace.replaces(b"traceparent") && !trace.replaces(b"tracestate"));
    }

    #[test]
    fn flags_that_nobody_knows_are_not_passed_on() {
        for (flags, passed) in [("00", "00"), ("03", "03"), ("ff", "03"), ("fc", "00")] {
            let given = format!("{}{flags}", &GIVEN[..53]);
            assert_eq!(&text(&trace(&[&given], 1.0))[53..], passed);
        }
    }

    #[test]
    fn a_later_version_may_say_more() {
        for given in [
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-else",
        ] {
            let trace = trace(&[given], 0.0);
            assert_eq!(trace.id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736", "{given}");
            assert!(text(&trace).starts_with("00-"));
        }
    }

    #[test]
    fn anything_else_begins_a_new_trace() {
        for given in [
            &[][..],
            &[""],
            &["00"],
            &[GIVEN, GIVEN],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 "],
            &["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what"],
            &["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            &["0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            &["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01"],
            &["00-00000000000000000000000000000000-00f067aa0ba902b7-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
            &["00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g"],
        ] {
            let trace = trace(given, 0.0);
            assert_eq!((trace.parent, trace.sampled()), (None, false), "{given:?}");
            assert_ne!(trace.id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736", "{given:?}");
            assert!(trace.replaces(b"traceparent") && trace.replaces(b"tracestate"));
        }
        assert!(trace(&[], 1.0).sampled());
    }

    #[test]
    fn nothing_else_is_replaced() {
        for name in ["trace", "traceparents", "x-traceparent", "trailer"] {
            assert!(!trace(&[], 1.0).replaces(name.as_bytes()), "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(id in 1_u128.., parent in 1_u64.., flags in 0..4_u8) {
            let given = format!("00-{id:032x}-{parent:016x}-{flags:02x}");
            let first = trace(&[&given], 0.0);
            prop_assert_eq!((first.id, first.parent), (TraceId(id), Some(SpanId(parent))));
            let second = trace(&[&text(&first)], 0.0);
            prop_assert_eq!((second.id, second.parent), (first.id, Some(first.span)));
            prop_assert_eq!(second.flags, flags);
            prop_assert_eq!(first.id.hex().to_vec(), first.id.to_string().into_bytes());
        }

        #[test]
        fn one_changed_byte_is_the_same_form_or_refused(at in 0..LENGTH, byte: u8) {
            let mut given = GIVEN.as_bytes().to_vec();
            given[at] = byte;
            let bar = [2, 35, 52].contains(&at);
            let digit = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let good = if bar { byte == b'-' } else { digit };
            // Neither "ff" nor zeros can come of a single byte.
            prop_assert_eq!(parse(&given).is_some(), good);
        }

        #[test]
        fn nothing_that_a_client_sends_panics(given: Vec<u8>) {
            let _ = parse(&given);
        }

        #[test]
        fn a_share_is_a_share(random in 1_u64.., share in 0.0..=1.0_f64) {
            prop_assert!(Share::new(1.0).takes(SpanId(random)));
            prop_assert!(!Share::new(0.0).takes(SpanId(random)));
            let expected = random as f64 / u64::MAX as f64;
            prop_assume!((expected - share).abs() > 1e-9);
            prop_assert_eq!(Share::new(share).takes(SpanId(random)), expected < share);
        }
    }
}
