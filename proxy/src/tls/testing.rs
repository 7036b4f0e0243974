//! Certificates for tests, made on the spot.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{CertificateParams, KeyPair};

use super::{certificates::Named, development::Development, pair::Pair};

/// A self-signed certificate with its key, both PEM.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// Issues one for names and addresses, good from and to so many days from now.
pub(crate) fn issue(names: &[&str], from: i64, to: i64) -> Issued {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    set_validity(&mut params, from, to);
    let key = KeyPair::generate().expect("a key");
    let chain = params.self_signed(&key).expect("a certificate").pem();
    Issued { chain, key: key.serialize_pem() }
}

/// Makes a certificate good from and to so many days from now.
pub(crate) fn set_validity(params: &mut CertificateParams, from: i64, to: i64) {
    let day = |days: i64| {
        let date = Timestamp::now().to_zoned(TimeZone::UTC).date() + days.days();
        let number = |number: i8| u8::try_from(number).expect("positive");
        rcgen::date_time_ymd(date.year().into(), number(date.month()), number(date.day()))
    };
    (params.not_before, params.not_after) = (day(from), day(to));
}

/// As [`issue`], ready to be served.
pub(crate) fn named(name: &str, names: &[&str], from: i64, to: i64) -> Named {
    let Issued { chain, key } = issue(names, from, to);
    let pair = Pair::from_pem(chain.as_bytes(), key.as_bytes()).expect("good");
    Named { name: name.to_owned(), pair: Arc::new(pair) }
}

pub(crate) fn development() -> Development {
    let dir = tempfile::tempdir().expect("temporary directory");
    Development::open(dir.path(), Timestamp::now()).expect("makes one")
}
