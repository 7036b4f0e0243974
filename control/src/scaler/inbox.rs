//! What a driver has been told and has not looked at. Unlike a channel it can be closed at the very
//! moment when nothing is in it: so a driver may end because it has nothing to do, and whatever it is
//! told is either taken or refused.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::command::Command;

/// The driver's end. What is left in it when it is dropped is lost.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Arc<Shared>);

/// Where a driver can be told something. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Address(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Not bounded: hints are merged, and of the others there are few.
    waiting: VecDeque<Command>,
    closed: bool,
}

impl Inbox {
    pub(crate) fn address(&self) -> Address {
        Address(self.0.clone())
    }

    /// The next command; waits for one when there is none.
    pub(super) async fn next(&mut self) -> Command {
        loop {
            if let Some(command) = self.0.state.lock().waiting.pop_front() {
                return command;
            }
            self.0.news.notified().await;
        }
    }

    /// Takes nothing any more; only when nothing waits. Whether that is so.
    pub(super) fn close_if_empty(&mut self) -> bool {
        let mut state = self.0.state.lock();
        state.closed = state.waiting.is_empty();
        state.closed
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.waiting);
        drop(state);
        drop(left); // which may tell others something
    }
}

impl Address {
    /// Tells the driver something.
    ///
    /// # Errors
    /// The command, when the driver has ended.
    pub(crate) fn tell(&self, command: Command) -> Result<(), Command> {
        let mut state = self.0.state.lock();
        if state.closed {
            return Err(command);
        }
        // A driver looks after every command, so one that has something waiting will look.
        if !matches!(command, Command::Look) || state.waiting.is_empty() {
            state.waiting.push_back(command);
            drop(state);
            self.0.news.notify_one();
        }
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.state.lock().closed
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::name::ReplicaId;

    fn told(inbox: &mut Inbox) -> Option<String> {
        inbox.next().now_or_never().map(|command| format!("{command:?}"))
    }

    #[tokio::test]
    async fn commands_come_in_their_order_and_hints_are_merged_with_what_waits() {
        let mut inbox = Inbox::default();
        let address = inbox.address();
        assert_eq!(told(&mut inbox), None);
        for command in [Command::Look, Command::Look, Command::EngineDown, Command::Look] {
            assert!(address.tell(command).is_ok());
        }
        assert_eq!(told(&mut inbox).as_deref(), Some("Look"));
        assert_eq!(told(&mut inbox).as_deref(), Some("EngineDown"));
        assert_eq!(told(&mut inbox), None);
        // One that is told while it is waited for is heard.
        let waits = tokio::spawn(async move { (inbox.next().await, inbox) });
        tokio::task::yield_now().await;
        assert!(address.tell(Command::Retry).is_ok());
        let (command, mut inbox) = waits.await.expect("no panic");
        assert!(matches!(command, Command::Retry));
        assert_eq!(told(&mut inbox), None);
    }

    #[test]
    fn whatever_it_is_told_is_taken_or_refused() {
        let mut inbox = Inbox::default();
        let address = inbox.address();
        assert!(address.tell(Command::Look).is_ok());
        assert!(!inbox.close_if_empty() && !address.is_closed());
        assert_eq!(told(&mut inbox).as_deref(), Some("Look"));
        assert!(inbox.close_if_empty() && address.is_closed());
        let replica = ReplicaId::random();
        let refused = address.tell(Command::Died(replica.clone()));
        assert!(matches!(refused, Err(Command::Died(id)) if id == replica));
        // As by one that has panicked.
        let dropped = Inbox::default().address();
        assert!(dropped.is_closed() && dropped.tell(Command::Look).is_err());
    }

    #[test]
    fn nothing_is_lost_between_those_who_tell_and_one_who_closes() {
        for _ in 0..200 {
            let mut inbox = Inbox::default();
            let address = inbox.address();
            let teller = std::thread::spawn(move || {
                let died = || Command::Died(ReplicaId::random());
                (0..50).take_while(|_| address.tell(died()).is_ok()).count()
            });
            let mut heard = 0;
            while heard < 10 || !inbox.close_if_empty() {
                heard += usize::from(told(&mut inbox).is_some());
            }
            assert_eq!(teller.join().expect("no panic"), heard);
        }
    }
}
