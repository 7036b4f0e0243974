//! The feeds of all services, and the seats that their followers take.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

use super::feed::{Ending, Feed};
use crate::{
    limits,
    name::{ServiceId, UserName},
    shares::Shares,
};

/// Why a log cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// This many follow already.
    Full(usize),
    /// This user follows this many already.
    UserFull(usize),
    /// This many follow this service already.
    ServiceFull(usize),
    /// Grid is ending.
    Ending,
}

/// All of them; none any more when Grid ends.
pub(super) struct Feeds {
    open: Mutex<Option<HashMap<ServiceId, Arc<Feed>>>>,
    pub(super) seats: Arc<Semaphore>,
    of_users: Shares,
}

impl Default for Feeds {
    fn default() -> Self {
        let seats = Arc::new(Semaphore::new(limits::LOG_FOLLOWERS.0));
        let of_users = Shares::new(limits::LOG_FOLLOWERS_OF_USER);
        Self { open: Mutex::new(Some(HashMap::new())), seats, of_users }
    }
}

impl Feeds {
    /// Gives a new follower a seat: the feed, the seat's number, and whether the feed is new.
    pub(super) fn enter(
        &self,
        service: ServiceId,
        user: &UserName,
        until: (Instant, Ending),
    ) -> Result<(Arc<Feed>, u64, bool), Refusal> {
        let mut open = self.open.lock();
        let open = open.as_mut().ok_or(Refusal::Ending)?;
        let (all, of_one) = limits::LOG_FOLLOWERS;
        let place = Arc::clone(&self.seats).try_acquire_owned().map_err(|_| Refusal::Full(all))?;
        let own = self.of_users.of(user).try_acquire_owned();
        let own = own.map_err(|_| Refusal::UserFull(limits::LOG_FOLLOWERS_OF_USER))?;
        let known = open.get(&service).filter(|feed| !feed.has_ended());
        let (feed, is_new) = match known {
            Some(feed) => (Arc::clone(feed), false),
            None => (Arc::new(Feed::new(service)), true),
        };
        let seat = feed.seat([place, own], until).ok_or(Refusal::ServiceFull(of_one))?;
        if is_new {
            open.insert(service, Arc::clone(&feed));
        }
        Ok((feed, seat, is_new))
    }

    /// The feed of a service that somebody follows.
    pub(super) fn of(&self, service: ServiceId) -> Option<Arc<Feed>> {
        self.open.lock().as_ref()?.get(&service).map(Arc::clone)
    }

    /// Takes a feed away that nobody follows any more, or that has ended. False when somebody does.
    pub(super) fn leave(&self, feed: &Arc<Feed>) -> bool {
        let mut open = self.open.lock();
        if !feed.is_over() {
            return false;
        }
        if let Some(open) = open.as_mut()
            && open.get(&feed.service).is_some_and(|known| Arc::ptr_eq(known, feed))
        {
            open.remove(&feed.service);
        }
        true
    }

    /// Ends a service's feed.
    pub(super) fn end(&self, service: ServiceId, why: Ending) {
        if let Some(feed) = self.of(service) {
            feed.end(why);
        }
    }

    /// Ends them all; there will be no others.
    pub(super) fn close(&self) {
        for feed in self.open.lock().take().into_iter().flatten() {
            feed.1.end(Ending::Stopping);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{logs::platform_line, name::ReplicaId};

    fn later(seconds: u64) -> (Instant, Ending) {
        (Instant::now() + Duration::from_secs(seconds), Ending::TooLong)
    }

    fn user(number: usize) -> UserName {
        UserName::parse(format!("user{number}")).expect("valid")
    }

    fn refused(feeds: &Feeds, service: ServiceId) -> Option<Refusal> {
        feeds.enter(service, &user(0), later(9)).err()
    }

    #[tokio::test(start_paused = true)]
    async fn seats_are_bounded_in_all_and_of_each_service() {
        let (all, of_one) = limits::LOG_FOLLOWERS;
        let feeds = Feeds::default();
        let service = ServiceId::new();
        let mut taken = Vec::new();
        for nth in 0..of_one {
            let (feed, seat, is_new) = feeds.enter(service, &user(0), later(9)).expect("a seat");
            assert_eq!(is_new, nth == 0);
            taken.push((feed, seat));
        }
        assert_eq!(refused(&feeds, service), Some(Refusal::ServiceFull(of_one)));
        while taken.len() < all {
            let one = user(taken.len() / limits::LOG_FOLLOWERS_OF_USER);
            let (feed, seat, _) = feeds.enter(ServiceId::new(), &one, later(9)).expect("a seat");
            taken.push((feed, seat));
            if taken.len() == limits::LOG_FOLLOWERS_OF_USER {
                let many = Refusal::UserFull(limits::LOG_FOLLOWERS_OF_USER);
                assert_eq!(refused(&feeds, ServiceId::new()), Some(many));
            }
        }
        assert_eq!(refused(&feeds, ServiceId::new()), Some(Refusal::Full(all)));
        // One who leaves makes room, and so does one who has ended but does not look.
        let (feed, seat) = taken.remove(0);
        feed.leave(seat);
        let again = feeds.enter(service, &user(0), later(5)).expect("a seat");
        assert_eq!(refused(&feeds, service), Some(Refusal::Full(all)));
        let (now, end) = later(5);
        assert_eq!(feed.expire(now), Some(now + Duration::from_secs(4)));
        assert_eq!(again.0.read(again.1, 1), Err(end));
        assert!(feeds.enter(service, &user(0), later(9)).is_ok());
        feeds.close();
        assert_eq!(refused(&feeds, service), Some(Refusal::Ending));
        assert_eq!(taken[0].0.read(taken[0].1, 1), Err(Ending::Stopping));
    }

    #[tokio::test(start_paused = true)]
    async fn a_feed_is_there_as_long_as_somebody_follows() {
        let feeds = Feeds::default();
        let service = ServiceId::new();
        let (feed, first, _) = feeds.enter(service, &user(0), later(9)).expect("a seat");
        let (_, second, is_new) = feeds.enter(service, &user(0), later(9)).expect("a seat");
        assert!(!is_new);
        feed.leave(first);
        assert!(!feeds.leave(&feed) && feeds.of(service).is_some());
        feed.leave(second);
        assert!(feeds.leave(&feed) && feeds.of(service).is_none());

        // One that has ended is replaced, whoever still reads from it.
        let (ended, seat, _) = feeds.enter(service, &user(0), later(9)).expect("a seat");
        ended.tell(platform_line(&ReplicaId::random(), "a line".to_owned()));
        feeds.end(service, Ending::Deleted);
        let (new, _, is_new) = feeds.enter(service, &user(0), later(9)).expect("a seat");
        assert!(is_new && feeds.leave(&ended) && !feeds.leave(&new) && feeds.of(service).is_some());
        assert_eq!(ended.read(seat, 100).map(|lines| lines.len()), Ok(1), "what came before");
        assert_eq!(ended.read(seat, 100), Err(Ending::Deleted));
    }
}
