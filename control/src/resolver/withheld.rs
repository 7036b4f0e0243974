//! Tells a function why a name was not found. Beneath [`WITHHELD`] each name that is withheld has the
//! blocked address that it is withheld for, so that the guard in the function's process can say
//! what a connection to the name was refused for. It opens nothing: the firewall decides.

use std::net::IpAddr;

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType},
};

use super::{Resolver, cache::Found, lookup::Outcome, names::WITHHELD};

/// The name that a question beneath [`WITHHELD`] is about.
pub(super) fn subject(name: &Name) -> Option<Name> {
    let labels: Vec<&[u8]> = name.iter().collect();
    let suffix: Vec<&str> = WITHHELD.trim_end_matches('.').split('.').collect();
    let (subject, end) = labels.split_at_checked(labels.len().checked_sub(suffix.len())?)?;
    let beneath = end.iter().zip(suffix).all(|(a, b)| a.eq_ignore_ascii_case(b.as_bytes()));
    if beneath { Name::from_labels(subject.iter().copied()).ok() } else { None }
}

impl Resolver {
    /// The answer to a question about `subject`, asked beneath [`WITHHELD`] by the name `asked`.
    pub(super) async fn tell(&self, asked: &Name, kind: RecordType, subject: &Name) -> Found {
        // That there is no address of one family must not hide the one of the other.
        let (v4, v6) = tokio::join!(
            self.look_up(subject, RecordType::A),
            self.look_up(subject, RecordType::AAAA),
        );
        let blocked = |outcome| match outcome {
            Outcome::Withheld(address) => Some(address),
            Outcome::Found(_) | Outcome::Failed => None,
        };
        let addresses: Vec<IpAddr> = [v4, v6].into_iter().filter_map(blocked).collect();
        if addresses.is_empty() {
            return Found::nothing(ResponseCode::NXDomain);
        }
        let mut found = Found::nothing(ResponseCode::NoError);
        let mut data = addresses.into_iter().map(RData::from);
        // By the address and not by who said it: an AAAA may carry an IPv4 address.
        if let Some(data) = data.find(|data| data.record_type() == kind) {
            found.records.push(Record::from_rdata(asked.clone(), 0, data));
        }
        found
    }
}
