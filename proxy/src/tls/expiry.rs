//! Tells the operator in time that a certificate ends.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::certificates::{Listed, Source};

/// How long before its end a certificate is worth a line in the log, unless it is short-lived.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How long until the same is said again.
const AGAIN: SignedDuration = SignedDuration::from_hours(24);

/// What has been said, by certificate.
#[derive(Debug, Default)]
pub(crate) struct Expiry(BTreeMap<(Source, String), (Left, Timestamp)>);

/// How far a certificate is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// It has not begun.
    NotYet,
    /// Far.
    Enough,
    /// It ends in this many days.
    Days(i64),
    /// It has ended.
    Expired,
}

impl Left {
    /// Judges one certificate. One that is good for less than 56 days in all counts as near its end
    /// in its last quarter.
    pub(crate) fn of(certificate: &Listed, now: Timestamp) -> Self {
        let validity = certificate.validity;
        let left = validity.not_after.duration_since(now);
        let soon = SOON.min(validity.not_after.duration_since(validity.not_before) / 4);
        if left.is_negative() {
            Self::Expired
        } else if now < validity.not_before {
            Self::NotYet
        } else if left < soon {
            Self::Days(left.as_hours() / 24)
        } else {
            Self::Enough
        }
    }
}

impl Expiry {
    /// What is worth saying now.
    pub(crate) fn news<'a>(
        &mut self,
        certificates: &'a [Listed],
        now: Timestamp,
    ) -> Vec<(&'a Listed, Left)> {
        let mut said = BTreeMap::new();
        let mut news = Vec::new();
        for certificate in certificates {
            let left = Left::of(certificate, now);
            if left == Left::Enough {
                continue;
            }
            let key = (certificate.source, certificate.name.clone());
            let same = |old: Left| std::mem::discriminant(&old) == std::mem::discriminant(&left);
            let earlier =
                self.0.get(&key).filter(|(old, at)| same(*old) && now.duration_since(*at) < AGAIN);
            said.insert(key, earlier.copied().unwrap_or((left, now)));
            if earlier.is_none() {
                news.push((certificate, left));
            }
        }
        self.0 = said;
        news
    }

    /// Says it.
    pub(crate) fn report(&mut self, certificates: &[Listed], now: Timestamp) {
        for (certificate, left) in self.news(certificates, now) {
            let Listed { source, name, validity } = certificate;
            let what_to_do = match source {
                Source::Directory => "put a new one in its place",
                Source::Acme => "see the errors of its renewal",
            };
            let end = validity.not_after;
            match left {
                Left::Expired => tracing::error!(
                    "the certificate {name} expired at {end}, clients refuse it: {what_to_do}"
                ),
                Left::Days(days) => tracing::warn!(
                    "the certificate {name} expires in {days} days, at {end}: {what_to_do}"
                ),
                Left::NotYet => tracing::warn!(
                    "the certificate {name} is good only from {}: check the clock of this machine",
                    validity.not_before
                ),
                Left::Enough => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;
    use crate::tls::pair::Validity;

    fn listed(now: Timestamp, from_days: i64, to_days: i64) -> Listed {
        let day = |days: i64| now + (24 * days).hours();
        let validity = Validity { not_before: day(from_days), not_after: day(to_days) };
        Listed { source: Source::Directory, name: "a".to_owned(), validity }
    }

    #[test]
    fn two_weeks_or_the_last_quarter() {
        let now = Timestamp::UNIX_EPOCH + 1_000_000.hours();
        for (from, to, expected) in [
            (-76, 14, Left::Enough),
            (-77, 13, Left::Days(13)),
            (-100, 0, Left::Days(0)),
            (-90, -1, Left::Expired),
            (1, 90, Left::NotYet),
            (-4, 2, Left::Enough), // good for six days in all
            (-5, 1, Left::Days(1)),
        ] {
            assert_eq!(Left::of(&listed(now, from, to), now), expected, "{from} {to}");
        }
    }

    #[test]
    fn it_is_said_once_a_day_and_when_it_changes() {
        let now = Timestamp::UNIX_EPOCH + 1_000_000.hours();
        let certificate = [listed(now, -80, 1)];
        let mut expiry = Expiry::default();
        let mut says = |hours: i64, certificates| {
            expiry
                .news(certificates, now + hours.hours())
                .into_iter()
                .map(|(_, left)| left)
                .collect::<Vec<_>>()
        };
        assert_eq!(says(0, &certificate), [Left::Days(1)]);
        assert_eq!(says(23, &certificate), []);
        assert_eq!(says(25, &certificate), [Left::Expired]);
        assert_eq!(says(26, &certificate), []);
        assert_eq!(says(49, &certificate), [Left::Expired]);
        assert_eq!(says(50, &[]), []);
        assert_eq!(says(51, &certificate), [Left::Expired]); // it was replaced meanwhile
    }
}
