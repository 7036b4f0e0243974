//! Tells a function why a name was not found. Beneath [`WITHHELD`] each name that is withheld has the
//! blocked address that it is withheld for, so that the guard in the function's process can say
//! what a connection to the name was refused for. It opens nothing: the firewall decides.

use std::{collections::VecDeque, net::IpAddr};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType},
};
use tokio::time::Instant;

use super::{Resolver, cache::Found, limits, lookup::Outcome, names::WITHHELD};

/// The name that a question beneath [`WITHHELD`] is about.
pub(super) fn subject(name: &Name) -> Option<Name> {
    let labels: Vec<&[u8]> = name.iter().collect();
    let suffix: Vec<&str> = WITHHELD.trim_end_matches('.').split('.').collect();
    let (subject, end) = labels.split_at_checked(labels.len().checked_sub(suffix.len())?)?;
    let beneath = end.iter().zip(suffix).all(|(a, b)| a.eq_ignore_ascii_case(b.as_bytes()));
    if beneath { Name::from_labels(subject.iter().copied()).ok() } else { None }
}

/// What was withheld just now. A name whose addresses change with each question would else be
/// public again when the guard asks why.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<(Instant, Name, IpAddr)>);

impl Recent {
    pub(super) fn put(&mut self, name: &Name, address: IpAddr) {
        self.0.retain(|(since, known, which)| {
            since.elapsed() < limits::WHY && !(known == name && *which == address)
        });
        if self.0.len() == limits::WHYS {
            self.0.pop_front();
        }
        self.0.push_back((Instant::now(), name.clone(), address));
    }

    fn of(&self, name: &Name) -> Vec<IpAddr> {
        let of_it = |(since, known, address): &(Instant, Name, IpAddr)| {
            (since.elapsed() < limits::WHY && known == name).then_some(*address)
        };
        self.0.iter().filter_map(of_it).collect()
    }
}

impl Resolver {
    /// The answer to a question about `subject`, asked beneath [`WITHHELD`] by the name `asked`.
    pub(super) async fn tell(&self, asked: &Name, kind: RecordType, subject: &Name) -> Found {
        let mut addresses = self.recent.lock().of(subject);
        if addresses.is_empty() {
            addresses = self.blocked_now(subject).await;
        }
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

    async fn blocked_now(&self, subject: &Name) -> Vec<IpAddr> {
        // That there is no address of one family must not hide the one of the other.
        let (v4, v6) = tokio::join!(
            self.look_up(subject, RecordType::A),
            self.look_up(subject, RecordType::AAAA),
        );
        let blocked = |outcome| match outcome {
            Outcome::Withheld(address) => Some(address),
            Outcome::Found(_) | Outcome::Failed => None,
        };
        [v4, v6].into_iter().filter_map(blocked).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    fn name(n: usize) -> Name {
        Name::from_ascii(format!("n{n}.example.")).expect("a name")
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_withheld_is_forgotten_and_stays_bounded() {
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let mut recent = Recent::default();
        recent.put(&name(0), address);
        tokio::time::advance(limits::WHY - Duration::from_millis(1)).await;
        assert_eq!(recent.of(&Name::from_ascii("N0.EXAMPLE.").expect("a name")), [address]);
        assert_eq!(recent.of(&name(1)), [] as [IpAddr; 0]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(recent.of(&name(0)), [] as [IpAddr; 0]);

        for n in 0..limits::WHYS + 10 {
            recent.put(&name(n), address);
            recent.put(&name(7), address); // again and again, and known once
        }
        assert_eq!(recent.0.len(), limits::WHYS);
        assert_eq!(recent.of(&name(7)), [address]);
        assert_eq!(recent.of(&name(0)), [] as [IpAddr; 0]);
    }
}
