//! What each user has a share of, whatever others do: so that one who asks for much keeps nobody else
//! from getting anything.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::name::UserName;

/// Gives each user so many places of their own. Takes memory only for those who have one, or wait.
#[derive(Debug)]
pub(crate) struct Shares {
    each: usize,
    users: Mutex<HashMap<UserName, Weak<Semaphore>>>,
}

impl Shares {
    pub(crate) fn new(each: usize) -> Self {
        Self { each, users: Mutex::default() }
    }

    /// A user's places. They are the same ones as long as somebody holds this, or one of them.
    pub(crate) fn of(&self, user: &UserName) -> Arc<Semaphore> {
        let mut users = self.users.lock();
        if let Some(places) = users.get(user).and_then(Weak::upgrade) {
            return places;
        }
        users.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.each));
        users.insert(user.clone(), Arc::downgrade(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        UserName::parse(name).expect("valid")
    }

    #[test]
    fn each_user_has_places_and_leaves_nothing_behind() {
        let shares = Shares::new(2);
        let take = |name: &str| shares.of(&user(name)).try_acquire_owned();
        let [first, _second] = [take("ada"), take("ada")].map(|place| place.expect("a place"));
        assert!(take("ada").is_err());
        assert!(take("bob").is_ok());
        drop(first);
        assert!(take("ada").is_ok());
        assert!(take("cleo").is_ok());
        drop(shares.of(&user("dan")));
        assert_eq!(shares.users.lock().len(), 2, "ada, who has a place, and who came last");
    }
}
