//! From a question to an answer that a function may have: follows CNAMEs and checks every address
//! of everything that upstream servers say on the way.

use std::net::IpAddr;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{
            HTTPS, SVCB,
            svcb::{SvcParamKey, SvcParamValue},
        },
    },
};
use tokio::time::timeout;

use super::{Resolver, cache::Found, limits, names};
use crate::egress::EgressPolicy;

/// What a question led to.
#[derive(Debug)]
pub(super) enum Outcome {
    Found(Found),
    /// The answer holds this address, which functions may not reach.
    Withheld(IpAddr),
    /// No server answered, or the CNAMEs lead nowhere.
    Failed,
}

impl Resolver {
    /// Answers a question, from here, from the cache or from upstream.
    pub(super) async fn look_up(&self, name: &Name, kind: RecordType) -> Outcome {
        if let Some(found) = names::local(name, kind, self.policy) {
            return Outcome::Found(found);
        }
        if let Some(found) = self.cache.lock().get(name, kind) {
            return Outcome::Found(found);
        }
        let asked = timeout(limits::ANSWER, self.follow(name, kind)).await;
        let outcome = asked.unwrap_or(Outcome::Failed);
        if let Outcome::Found(found) = &outcome {
            self.cache.lock().put(name, kind, found);
        }
        outcome
    }

    async fn follow(&self, name: &Name, kind: RecordType) -> Outcome {
        let mut chain = Chain::new(name);
        // An upstream server should give the whole chain at once, but need not.
        for _ in 0..=limits::ALIASES {
            let Some(reply) = self.upstream.ask(&chain.name, kind).await else {
                return Outcome::Failed;
            };
            if let Some(address) = blocked(&reply, self.policy) {
                return Outcome::Withheld(address);
            }
            let before = chain.records.len();
            while kind != RecordType::CNAME
                && let Some((ttl, target)) = alias(&reply, &chain.name)
            {
                if !chain.extend(ttl, target) {
                    return Outcome::Failed;
                }
                if names::local(&chain.name, kind, self.policy).is_some() {
                    return Outcome::Found(chain.end(ResponseCode::NXDomain, Vec::new(), 0));
                }
            }
            let records = records(&reply, &chain.name, kind);
            let moved = chain.records.len() > before;
            let denial = denial_ttl(&reply);
            if !records.is_empty() {
                return Outcome::Found(chain.end(ResponseCode::NoError, records, limits::TTL));
            }
            if !moved || denial.is_some() || reply.response_code == ResponseCode::NXDomain {
                let ttl = denial.unwrap_or(0).min(limits::NEGATIVE_TTL);
                return Outcome::Found(chain.end(reply.response_code, records, ttl));
            }
        }
        Outcome::Failed
    }
}

/// The CNAMEs that were followed, and where they have led.
struct Chain {
    name: Name,
    records: Vec<Record>,
}

impl Chain {
    fn new(name: &Name) -> Self {
        Self { name: name.clone(), records: Vec::new() }
    }

    /// Goes on to a target; not when it was there before or has gone far enough.
    fn extend(&mut self, ttl: u32, target: &Name) -> bool {
        let seen = self.name == *target || self.records.iter().any(|r| r.name == *target);
        if seen || self.records.len() == limits::ALIASES {
            return false;
        }
        let from = std::mem::replace(&mut self.name, target.clone());
        let data = RData::CNAME(hickory_proto::rr::rdata::CNAME(target.clone()));
        self.records.push(Record::from_rdata(from, ttl, data));
        true
    }

    /// The answer that the chain ends in; it lives as long as its shortest-lived record.
    fn end(self, code: ResponseCode, records: Vec<Record>, ttl: u32) -> Found {
        let mut all = self.records;
        all.extend(records);
        for record in &mut all {
            record.ttl = record.ttl.min(limits::TTL);
        }
        let ttl = all.iter().map(|record| record.ttl).fold(ttl, u32::min);
        Found { code, records: all, ttl }
    }
}

fn alias<'a>(reply: &'a Message, name: &Name) -> Option<(u32, &'a Name)> {
    reply.answers.iter().filter(|record| record.name == *name).find_map(|record| {
        let RData::CNAME(target) = &record.data else { return None };
        Some((record.ttl, &target.0))
    })
}

/// The records that answer the question. What else a reply holds does not go to the client.
fn records(reply: &Message, name: &Name, kind: RecordType) -> Vec<Record> {
    let wanted = |record: &&Record| {
        record.name == *name && record.record_type() == kind && record.dns_class == DNSClass::IN
    };
    let without_hints = |record: &Record| {
        let data = match &record.data {
            RData::SVCB(svcb) => RData::SVCB(strip_hints(svcb)),
            RData::HTTPS(HTTPS(svcb)) => RData::HTTPS(HTTPS(strip_hints(svcb))),
            other => other.clone(),
        };
        Record::from_rdata(name.clone(), record.ttl, data)
    };
    reply.answers.iter().filter(wanted).map(without_hints).collect()
}

/// Without address hints a client has to ask for the address, and that answer is checked.
fn strip_hints(svcb: &SVCB) -> SVCB {
    let hint = |key: &SvcParamKey| matches!(key, SvcParamKey::Ipv4Hint | SvcParamKey::Ipv6Hint);
    let mut params = svcb.svc_params.clone();
    params.retain_mut(|(key, value)| {
        // A parameter that is said to be mandatory and is missing would spoil the record.
        if let SvcParamValue::Mandatory(mandatory) = value {
            mandatory.0.retain(|key| !hint(key));
            return !mandatory.0.is_empty();
        }
        !hint(key)
    });
    SVCB::new(svcb.svc_priority, svcb.target_name.clone(), params)
}

/// The first address anywhere in a reply that functions may not reach.
fn blocked(reply: &Message, policy: &EgressPolicy) -> Option<IpAddr> {
    let hints = |svcb: &SVCB| {
        let addresses = svcb.svc_params.iter().flat_map(|(_, value)| match value {
            SvcParamValue::Ipv4Hint(hint) => hint.0.iter().map(|a| IpAddr::V4(a.0)).collect(),
            SvcParamValue::Ipv6Hint(hint) => hint.0.iter().map(|a| IpAddr::V6(a.0)).collect(),
            _ => Vec::new(),
        });
        addresses.collect::<Vec<_>>()
    };
    let addresses = |record: &Record| match &record.data {
        RData::A(a) => vec![IpAddr::V4(a.0)],
        RData::AAAA(aaaa) => vec![IpAddr::V6(aaaa.0)],
        RData::SVCB(svcb) | RData::HTTPS(HTTPS(svcb)) => hints(svcb),
        _ => Vec::new(),
    };
    reply
        .all_sections()
        .flat_map(addresses)
        .find_map(|address| policy.check(address).err().map(|blocked| blocked.address))
}

/// How long a server lets it be remembered that there is nothing.
fn denial_ttl(reply: &Message) -> Option<u32> {
    reply.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    })
}
