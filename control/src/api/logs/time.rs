//! Times as people write them: `2026-11-24T09:00:00Z`, or how long ago: `15m`, `1h30m`.

use std::time::Duration;

use jiff::Timestamp;

/// What is wrong with a time that was not understood.
pub(super) const RULE: &str = "Must be a time such as \"2026-11-24T09:00:00Z\", or how long ago it \
    was, such as \"30s\", \"15m\", \"2h\" or \"1d\".";

/// The time that a text means.
pub(super) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, &'static str> {
    if let Some(ago) = ago(text) {
        return now.checked_sub(ago).map_err(|_| RULE);
    }
    text.parse().or_else(|_| with_plus(text).parse()).map_err(|_| RULE)
}

/// Up to four numbers of up to six digits, each with its unit: no sum of them is out of range.
fn ago(text: &str) -> Option<Duration> {
    let (mut seconds, mut parts, mut rest) = (0, 0, text);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = rest.split_at_checked(digits)?;
        let mut unit = unit.chars();
        let each = match unit.next()? {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            _ => return None,
        };
        if digits > 6 || parts == 4 {
            return None;
        }
        seconds += number.parse::<u64>().ok()? * each;
        (parts, rest) = (parts + 1, unit.as_str());
    }
    (parts > 0).then_some(Duration::from_secs(seconds))
}

/// In a query, the `+` of `+02:00` that was not written `%2B` is a space.
fn with_plus(text: &str) -> String {
    match text.rsplit_once(' ') {
        Some((time, offset)) => format!("{time}+{offset}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T09:00:00.5Z".parse().expect("a time")
    }

    #[test]
    fn times_and_how_long_ago() {
        let cases = [
            ("2026-11-24T08:59:00Z", "2026-11-24T08:59:00Z"),
            ("2026-11-24t08:59:00.123456789z", "2026-11-24T08:59:00.123456789Z"),
            ("2026-11-24T10:59:00+02:00", "2026-11-24T08:59:00Z"),
            ("2026-11-24T10:59:00 02:00", "2026-11-24T08:59:00Z"),
            ("2026-11-24 08:59:00Z", "2026-11-24T08:59:00Z"),
            ("2026-11-23T23:59:00-09:00", "2026-11-24T08:59:00Z"),
            ("30s", "2026-11-24T08:59:30.5Z"),
            ("15m", "2026-11-24T08:45:00.5Z"),
            ("2h", "2026-11-24T07:00:00.5Z"),
            ("1d", "2026-11-23T09:00:00.5Z"),
            ("1h30m", "2026-11-24T07:30:00.5Z"),
            ("0s", "2026-11-24T09:00:00.5Z"),
            ("999999d999999d999999d999999d", "-008925-04-13T09:00:00.5Z"),
        ];
        for (text, time) in cases {
            assert_eq!(parse(text, now()).map(|t| t.to_string()), Ok(time.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        let cases = [
            "",
            "m",
            "15",
            "-5m",
            "1.5h",
            "5 m",
            " 5m",
            "15M",
            "1w",
            "m5",
            "yesterday",
            "2026-11-24",
            "2026-11-24T09:00:00",
            "2026-13-24T09:00:00Z",
            "1000000s",
            "1s1s1s1s1s",
            "18446744073709551616s",
        ];
        for text in cases {
            assert_eq!(parse(text, now()), Err(RULE), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9smhdT:+ Z.-]{0,30}|.{0,20}") {
            let _ = parse(&text, now());
        }

        #[test]
        fn every_time_that_is_shown_is_understood(second in 0i64..4_000_000_000, nano in 0i32..1_000_000_000) {
            let time = Timestamp::new(second, nano).expect("a time");
            prop_assert_eq!(parse(&time.to_string(), now()), Ok(time));
        }
    }
}
