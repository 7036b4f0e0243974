//! The life of one container, as a pure machine: events in, actions out, no clock and no calls.
//!
//! ```text
//!   Launching ──Launched──→ Waiting ──Seen(Ready)──→ Serving ──Retire──→ Draining
//!       │  └──Retire──→ Doomed  │                       │                   │
//!       │                 │     │ too late, unloadable  │ gone, exited      │ drained, too late
//!       └──LaunchFailed───┴─────┴───────────────────────┴───────────────────┘
//!                                       ↓
//!                                   Removing ──Removed──→ Gone
//! ```
//!
//! `Found` is `Waiting` for a container that another process may still be using, see
//! [`Machine::handed_over`]. It is not ended before it calls.
//!
//! A container whose state is in doubt goes to `Removing` and never back. `Doomed` waits for the
//! engine's answer to the start, because what is not there yet cannot be removed.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    limits,
    service::{GoneCause, Seen},
};

/// Pause before a removal that failed is tried again.
const REMOVE_AGAIN: Duration = Duration::from_secs(1);
/// How long the edge may take to say what the engine has said already. It sees it at once, too.
const HEARSAY: Duration = Duration::from_secs(1);

/// One container.
#[derive(Debug, Clone)]
pub struct Machine {
    state: State,
    drain_within: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Launching,
    Doomed,
    Waiting {
        until: Instant,
    },
    Found {
        until: Instant,
        unwanted: bool,
    },
    Serving,
    Draining {
        until: Instant,
    },
    /// Its process has ended, and the edge has not said yet how much there is to do without it. Until
    /// then it counts: the demand that is known may be of requests that ended with it.
    Ended {
        until: Instant,
    },
    Removing {
        again: Option<Instant>,
    },
    Gone,
}

/// What happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The engine started it.
    Launched,
    /// The engine did not.
    LaunchFailed(String),
    /// What the edge saw of it.
    Seen(Seen),
    /// The engine says that its process ended.
    Exited,
    /// It is not needed any more.
    Retire,
    /// Time has passed.
    Tick,
    /// The engine removed it.
    Removed,
    /// The engine did not.
    RemoveFailed,
}

/// What has to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tell whoever waits for it that its container runs.
    TellLaunched,
    /// Tell whoever waits for it that it can serve.
    TellReady,
    /// Tell whoever waits for it why it never will.
    TellFailed(String),
    /// Ask the edge to give it no more requests.
    Drain,
    /// Keep its output, end it and remove it.
    Remove(Removal),
    /// Forget it: nothing of it is left.
    Forget,
}

/// Why a container is removed: what the function's log says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is not needed any more: nothing.
    Ordinary,
    /// Its process ended, or is ending: how it did, else this text.
    Ended(String),
    /// It has to be killed: this text.
    Killed(String),
}

impl Machine {
    /// A container that is about to be started. A retired one has `drain_within` to finish its
    /// request.
    pub fn launching(drain_within: Duration) -> Self {
        Self { state: State::Launching, drain_within }
    }

    /// A container that was found running; it has `limits::START` to call.
    pub fn found(now: Instant, drain_within: Duration) -> Self {
        Self { state: State::Waiting { until: now + limits::START }, drain_within }
    }

    /// A container that was found running while the process before us finishes its last requests.
    /// It calls when it has no more to do for that one, `drain_within` from now at the latest; until
    /// then it is left alone, wanted or not.
    pub fn handed_over(now: Instant, drain_within: Duration) -> Self {
        let until = now + drain_within + limits::START;
        Self { state: State::Found { until, unwanted: false }, drain_within }
    }

    /// A container that was found and is of no use.
    pub fn useless(drain_within: Duration) -> Self {
        Self { state: State::Removing { again: None }, drain_within }
    }

    /// Whether it serves, or will when it is ready: it counts as capacity.
    pub fn counts(&self) -> bool {
        matches!(
            self.state,
            State::Launching
                | State::Waiting { .. }
                | State::Found { unwanted: false, .. }
                | State::Serving
                | State::Ended { .. }
        )
    }

    /// Whether it can serve now.
    pub fn serves(&self) -> bool {
        self.state == State::Serving
    }

    /// Whether it is to finish what it has and go.
    pub fn drains(&self) -> bool {
        matches!(self.state, State::Draining { .. })
    }

    /// Gives a container that has not called yet its whole time again: what it did in the time before
    /// could not be seen.
    pub fn excuse(&mut self, now: Instant) {
        if let State::Waiting { until } | State::Found { until, .. } = &mut self.state {
            *until = (*until).max(now + limits::START);
        }
    }

    /// Whether its container should exist in the engine.
    pub fn is_launched(&self) -> bool {
        matches!(
            self.state,
            State::Waiting { .. } | State::Found { .. } | State::Serving | State::Draining { .. }
        )
    }

    /// When a `Tick` will change something, at the earliest.
    pub fn next_tick(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until }
            | State::Found { until, .. }
            | State::Draining { until }
            | State::Ended { until } => Some(until),
            State::Removing { again } => again,
            State::Launching | State::Doomed | State::Serving | State::Gone => None,
        }
    }

    /// Takes an event and says what has to be done.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match (self.state, event) {
            (State::Launching, Event::Launched) => {
                self.state = State::Waiting { until: now + limits::START };
                vec![Action::TellLaunched]
            }
            (State::Launching, Event::Retire) => {
                self.state = State::Doomed;
                vec![]
            }
            (State::Launching, Event::LaunchFailed(reason)) => self.fail(reason, Removal::Ordinary),
            (State::Doomed, Event::Launched | Event::LaunchFailed(_)) => {
                self.remove(Removal::Ordinary)
            }

            (State::Found { until, .. }, Event::Retire) => {
                self.state = State::Found { until, unwanted: true };
                vec![]
            }
            (State::Found { unwanted: true, .. }, Event::Seen(Seen::Ready | Seen::Idle)) => {
                self.state = State::Draining { until: now + self.drain_within };
                vec![Action::Drain]
            }
            // It has loaded before, so this is no start that failed.
            (State::Found { .. }, Event::Seen(Seen::Unloadable { message })) => {
                self.remove(Removal::Killed(message))
            }
            (State::Found { .. }, Event::Seen(Seen::Gone { cause })) => self.remove(removal(cause)),
            (State::Found { .. }, Event::Exited) => self.remove(removal(GoneCause::Closed)),
            (State::Found { until, .. }, Event::Tick) if now >= until => {
                let reason = "it did not call the process that took it over";
                self.remove(Removal::Killed(reason.to_owned()))
            }

            (
                State::Waiting { .. } | State::Found { .. },
                Event::Seen(Seen::Ready | Seen::Idle),
            ) => {
                self.state = State::Serving;
                vec![Action::TellReady]
            }
            (State::Waiting { .. }, Event::Seen(Seen::Unloadable { message })) => {
                self.fail(message.clone(), Removal::Killed(message))
            }
            (State::Waiting { .. }, Event::Seen(Seen::Gone { cause })) => {
                let reason = match cause {
                    GoneCause::Unresponsive => format!(
                        "The module did not finish loading within {} s.",
                        limits::LOAD.as_secs()
                    ),
                    other => format!(
                        "The function's process ended while it loaded ({}).",
                        other.as_str()
                    ),
                };
                self.fail(reason, removal(cause))
            }
            (State::Waiting { .. }, Event::Exited) => self.fail(
                "The function's process ended while it loaded.".to_owned(),
                removal(GoneCause::Closed),
            ),
            (State::Waiting { until }, Event::Tick) if now >= until => {
                let reason = format!(
                    "The container did not call home within {} s.",
                    limits::START.as_secs()
                );
                self.fail(reason.clone(), Removal::Killed(reason))
            }
            (State::Waiting { .. }, Event::Retire) => self.remove(Removal::Ordinary),

            (State::Serving, Event::Seen(Seen::Gone { cause })) => self.remove(removal(cause)),
            (State::Serving, Event::Exited) => {
                self.state = State::Ended { until: now + HEARSAY };
                vec![]
            }
            (State::Ended { .. }, Event::Seen(Seen::Gone { cause })) => self.remove(removal(cause)),
            (State::Ended { until }, Event::Tick) if now >= until => {
                self.remove(removal(GoneCause::Closed))
            }
            (State::Serving, Event::Retire) => {
                self.state = State::Draining { until: now + self.drain_within };
                vec![Action::Drain]
            }

            (State::Draining { .. }, Event::Seen(Seen::Gone { cause })) => {
                self.remove(removal(cause))
            }
            (State::Draining { .. }, Event::Exited) => self.remove(Removal::Ordinary),
            (State::Draining { until }, Event::Tick) if now >= until => {
                let reason = "it did not finish its last request in time";
                self.remove(Removal::Killed(reason.to_owned()))
            }

            (State::Removing { .. }, Event::Removed) => {
                self.state = State::Gone;
                vec![Action::Forget]
            }
            (State::Removing { .. }, Event::RemoveFailed) => {
                self.state = State::Removing { again: Some(now + REMOVE_AGAIN) };
                vec![]
            }
            (State::Removing { again: Some(again) }, Event::Tick) if now >= again => {
                self.remove(Removal::Ordinary)
            }

            // Everything else is an echo of something that is settled already.
            _ => vec![],
        }
    }

    /// What has to be done first with a container that was found useless.
    pub fn begin(&self) -> Vec<Action> {
        match self.state {
            State::Removing { .. } => vec![Action::Remove(Removal::Ordinary)],
            _ => vec![],
        }
    }

    fn fail(&mut self, reason: String, removal: Removal) -> Vec<Action> {
        let mut actions = vec![Action::TellFailed(reason)];
        actions.extend(self.remove(removal));
        actions
    }

    fn remove(&mut self, removal: Removal) -> Vec<Action> {
        self.state = State::Removing { again: None };
        vec![Action::Remove(removal)]
    }
}

fn removal(cause: GoneCause) -> Removal {
    match cause {
        GoneCause::Drained => Removal::Ordinary,
        GoneCause::Closed => Removal::Ended(cause.as_str().to_owned()),
        other => Removal::Killed(other.as_str().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Launched),
            Just(Event::LaunchFailed("no".to_owned())),
            Just(Event::Seen(Seen::Ready)),
            Just(Event::Seen(Seen::Idle)),
            Just(Event::Seen(Seen::Unloadable { message: "bad".to_owned() })),
            Just(Event::Seen(Seen::Gone { cause: GoneCause::Drained })),
            Just(Event::Seen(Seen::Gone { cause: GoneCause::TimedOut })),
            Just(Event::Exited),
            Just(Event::Retire),
            Just(Event::Tick),
            Just(Event::Removed),
            Just(Event::RemoveFailed),
        ]
    }

    fn removals(actions: &[Action]) -> usize {
        actions.iter().filter(|action| matches!(action, Action::Remove(_))).count()
    }

    proptest! {
        /// Whatever happens, in whatever order: a removal is never asked for while the start is
        /// still on its way or while another removal is, a replica that was given up never serves
        /// again, and the waiting side hears exactly one verdict.
        #[test]
        fn any_order_of_events_is_survived(
            events in prop::collection::vec((event(), 0u64..40), 0..60),
        ) {
            let mut now = Instant::now();
            let mut machine = Machine::launching(Duration::from_secs(30));
            let (mut launch_open, mut removal_open, mut given_up) = (true, false, false);
            let mut verdicts = 0;
            for (event, seconds) in events {
                now += Duration::from_secs(seconds);
                if matches!(event, Event::Launched | Event::LaunchFailed(_)) {
                    if !launch_open { continue; } // the engine answers a start once
                    launch_open = false;
                }
                if matches!(event, Event::Removed | Event::RemoveFailed) {
                    if !removal_open { continue; }
                    removal_open = false;
                }
                let actions = machine.on(event, now);
                prop_assert!(removals(&actions) <= 1);
                if removals(&actions) == 1 {
                    prop_assert!(!launch_open, "removed while it was being started");
                    prop_assert!(!removal_open, "removed twice at a time");
                    removal_open = true;
                    given_up = true;
                }
                verdicts += actions.iter()
                    .filter(|a| matches!(a, Action::TellReady | Action::TellFailed(_))).count();
                prop_assert!(verdicts <= 1);
                prop_assert!(!(given_up && machine.serves()));
            }
        }

        /// From any state, retiring a replica and letting the engine and the clock do their part
        /// ends with nothing left.
        #[test]
        fn a_retired_replica_always_ends(
            found in any::<bool>(),
            events in prop::collection::vec(event(), 0..20),
        ) {
            let mut now = Instant::now();
            let mut machine = if found {
                Machine::handed_over(now, Duration::from_secs(30))
            } else {
                Machine::launching(Duration::from_secs(30))
            };
            let mut gone = false;
            let mut pending = Vec::new();
            for event in events {
                let actions = machine.on(event, now);
                gone |= actions.contains(&Action::Forget);
                pending.extend(actions);
            }
            machine.on(Event::Retire, now);
            for _ in 0..8 {
                now += Duration::from_secs(60);
                for event in [Event::Launched, Event::Tick, Event::Removed] {
                    gone |= machine.on(event, now).contains(&Action::Forget);
                }
            }
            prop_assert!(gone);
        }
    }

    #[test]
    fn what_another_process_may_still_use_is_not_ended() {
        let (mut now, run) = (Instant::now(), Duration::from_secs(300));
        let mut machine = Machine::handed_over(now, run);
        assert!(machine.counts() && machine.is_launched() && !machine.serves());
        assert_eq!(machine.on(Event::Retire, now), []);
        assert!(!machine.counts());
        now += run;
        assert_eq!(machine.on(Event::Tick, now), [], "its last request may have just ended");
        assert_eq!(machine.on(Event::Seen(Seen::Ready), now), [Action::Drain]);
        let gone = Event::Seen(Seen::Gone { cause: GoneCause::Drained });
        assert_eq!(machine.on(gone, now), [Action::Remove(Removal::Ordinary)]);

        let mut machine = Machine::handed_over(now, run);
        assert_eq!(machine.on(Event::Seen(Seen::Ready), now), [Action::TellReady]);
        assert!(machine.serves());

        let mut silent = Machine::handed_over(now, run);
        let too_late = silent.next_tick().expect("a bound");
        assert_eq!(too_late, now + run + limits::START);
        assert!(matches!(silent.on(Event::Tick, too_late)[..], [Action::Remove(_)]));
    }

    #[test]
    fn one_that_ended_counts_until_the_edge_has_said_so() {
        let now = Instant::now();
        let serving = || {
            let mut machine = Machine::launching(Duration::ZERO);
            machine.on(Event::Launched, now);
            machine.on(Event::Seen(Seen::Ready), now);
            assert_eq!(machine.on(Event::Exited, now), []);
            assert!(machine.counts() && !machine.serves() && !machine.is_launched());
            machine
        };
        let gone = Event::Seen(Seen::Gone { cause: GoneCause::Closed });
        let ended = [Action::Remove(removal(GoneCause::Closed))];
        let mut machine = serving();
        assert_eq!(machine.on(gone, now), ended);
        assert!(!machine.counts());
        let mut unheard = serving();
        let until = unheard.next_tick().expect("a bound");
        assert_eq!(unheard.on(Event::Tick, until), ended, "the edge may be away");
    }

    #[test]
    fn a_candidate_that_does_not_load_hands_on_the_loaders_message() {
        let now = Instant::now();
        let mut machine = Machine::launching(Duration::ZERO);
        assert_eq!(machine.on(Event::Launched, now), [Action::TellLaunched]);
        let message = "SyntaxError: Unexpected end of input (index.js:1)".to_owned();
        let actions = machine.on(Event::Seen(Seen::Unloadable { message: message.clone() }), now);
        assert_eq!(
            actions,
            [Action::TellFailed(message.clone()), Action::Remove(Removal::Killed(message))]
        );
    }
}
