//! Checked answers, each under the question that it answers and under nothing else. When it is
//! full the oldest goes.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, Record, RecordType},
    serialize::binary::BinEncodable,
};
use tokio::time::Instant;

use super::limits;

type Key = (Name, RecordType);

/// An answer that a function may have.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// NOERROR or NXDOMAIN.
    pub(super) code: ResponseCode,
    /// The CNAMEs from the name that was asked for, and the records.
    pub(super) records: Vec<Record>,
    /// Seconds that it may be kept.
    pub(super) ttl: u32,
}

impl Found {
    /// There is nothing, and nobody needs to remember it.
    pub(super) fn nothing(code: ResponseCode) -> Self {
        Self { code, records: Vec::new(), ttl: 0 }
    }
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Key, (Instant, Found)>,
    /// In the order of `put`. A key that was put twice is here twice and goes with the first.
    order: VecDeque<Key>,
}

impl Cache {
    /// The answer, with the time to live that is left.
    pub(super) fn get(&mut self, name: &Name, kind: RecordType) -> Option<Found> {
        let key = (name.clone(), kind);
        let (since, found) = self.entries.get(&key)?;
        let age = since.elapsed();
        if age >= Duration::from_secs(found.ttl.into()) {
            self.entries.remove(&key);
            return None;
        }
        let mut found = found.clone();
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for record in &mut found.records {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(found)
    }

    /// Keeps an answer, if it may be kept.
    pub(super) fn put(&mut self, name: &Name, kind: RecordType, found: &Found) {
        let length = |record: &Record| record.to_bytes().map_or(usize::MAX, |bytes| bytes.len());
        if found.ttl == 0
            || found.records.len() > limits::CACHED_RECORDS
            || found.records.iter().map(length).sum::<usize>() > limits::CACHED_BYTES
        {
            return;
        }
        let key = (name.clone(), kind);
        if self.order.len() == limits::CACHED
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.entries.insert(key, (Instant::now(), found.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::RData;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn found(owner: &Name, ttl: u32) -> Found {
        let data = RData::A(Ipv4Addr::new(1, 1, 1, 1).into());
        let records = vec![Record::from_rdata(owner.clone(), ttl, data)];
        Found { code: ResponseCode::NoError, records, ttl }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ages_and_ends() {
        let (mut cache, owner) = (Cache::default(), name("a.example."));
        cache.put(&owner, RecordType::A, &found(&owner, 10));
        tokio::time::advance(Duration::from_secs(4)).await;
        let kept = cache.get(&name("A.EXAMPLE."), RecordType::A).expect("kept");
        assert_eq!(kept.records[0].ttl, 6);
        assert_eq!(cache.get(&owner, RecordType::AAAA), None);
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(cache.get(&owner, RecordType::A), None);
        cache.put(&owner, RecordType::A, &found(&owner, 0));
        assert_eq!(cache.get(&owner, RecordType::A), None);
    }

    #[tokio::test]
    async fn it_stays_bounded() {
        let mut cache = Cache::default();
        for n in 0..limits::CACHED + 10 {
            let owner = name(&format!("n{n}.example."));
            cache.put(&owner, RecordType::A, &found(&owner, 60));
            // One that is put again and again must not push the queue past its bound either.
            cache.put(&name("same.example."), RecordType::A, &found(&owner, 60));
        }
        assert!(cache.entries.len() <= limits::CACHED);
        assert_eq!(cache.order.len(), limits::CACHED);
        assert_eq!(cache.get(&name("n0.example."), RecordType::A), None);
        let last = name(&format!("n{}.example.", limits::CACHED + 9));
        assert!(cache.get(&last, RecordType::A).is_some());

        let owner = name("large.example.");
        let mut large = found(&owner, 60);
        large.records = vec![large.records[0].clone(); limits::CACHED_RECORDS + 1];
        cache.put(&owner, RecordType::A, &large);
        assert_eq!(cache.get(&owner, RecordType::A), None);
    }
}
