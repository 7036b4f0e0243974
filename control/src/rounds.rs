//! Rounds over all services, beside the store's notices: a notice is a hint and may get lost, so edge
//! and control look at every service now and then without one. The looks are spread over the round.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{limits, name::ServiceId};

/// Who is looked at next, and when.
#[derive(Debug)]
pub struct Rounds {
    left: VecDeque<ServiceId>,
    pause: Duration,
    at: Instant,
}

impl Default for Rounds {
    /// The first round begins at some time within one, so that two processes do not go together.
    fn default() -> Self {
        let at = Instant::now() + jittered(limits::ROUND);
        Self { left: VecDeque::new(), pause: limits::ROUND, at }
    }
}

impl Rounds {
    /// Waits until somebody has to be looked at.
    pub async fn due(&self) {
        tokio::time::sleep_until(self.at).await;
    }

    /// Who that is; none when another round has to begin.
    pub fn next_one(&mut self) -> Option<ServiceId> {
        let next = self.left.pop_front();
        self.at = Instant::now() + self.pause;
        next
    }

    /// Begins a round over these services. One over very many takes longer.
    pub fn begin(&mut self, services: impl IntoIterator<Item = ServiceId>) {
        self.left = services.into_iter().collect();
        let parts = u32::try_from(self.left.len() + 1).unwrap_or(u32::MAX);
        self.pause = (limits::ROUND / parts).max(limits::ROUND_PAUSE);
        self.at = Instant::now() + self.pause;
    }
}

/// Some time between half of `pause` and all of it: those who wait for the same thing then come one
/// after the other.
pub fn jittered(pause: Duration) -> Duration {
    let mut random = [0];
    // Without the system's random numbers nobody gets far; here they are not worth a failure.
    let _ = getrandom::fill(&mut random);
    pause.mul_f64(0.5 + f64::from(random[0]) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_round_takes_its_time_whatever_the_number_of_services() {
        for count in [0, 1, 3, 1000] {
            let mut rounds = Rounds::default();
            let services: Vec<_> = (0..count).map(|_| ServiceId::new()).collect();
            rounds.begin(services.clone());
            let begun = Instant::now();
            let mut seen = Vec::new();
            loop {
                rounds.due().await;
                match rounds.next_one() {
                    Some(service) => seen.push(service),
                    None => break,
                }
            }
            assert_eq!(seen, services);
            let took = begun.elapsed();
            assert!(took <= limits::ROUND + Duration::from_secs(2), "{count}: {took:?}");
            assert!(took >= limits::ROUND - Duration::from_secs(1), "{count}: {took:?}");
        }
    }

    #[test]
    fn what_is_lost_is_found_before_a_container_is_given_up() {
        assert!(limits::ROUND < limits::START && limits::ROUND + limits::LOAD > limits::START);
        let pause = Duration::from_secs(8);
        for _ in 0..100 {
            assert!((pause / 2..=pause).contains(&jittered(pause)));
        }
    }
}
