//! Bounds of waits that most requests do not wait: the clock is asked, and a timer set, only when
//! something is not there yet.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// What a future comes to; none when that takes longer.
pub(crate) async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let at_once = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
    match at_once.await {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => timeout(time, future).await.ok(),
    }
}

/// A timer for one wait after the other, each of which ends later than the one before. It is left as it
/// is when a wait ends, and looks at its time when it goes off.
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    at: Instant,
}

impl Alarm {
    pub(crate) fn at(time: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(time)), at: time }
    }

    /// From now on it goes off at this time.
    pub(crate) fn set(&mut self, at: Instant) {
        self.at = at;
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
        }
    }

    /// Ready when it has gone off.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(context));
            if self.sleep.deadline() >= self.at {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_is_had_and_nothing_is_waited_for_longer() {
        let late = |time| async move {
            tokio::time::sleep(time).await;
            time
        };
        let began = Instant::now();
        assert_eq!(within(Duration::ZERO, async { 1 }).await, Some(1));
        assert_eq!(within(SECOND, late(SECOND / 2)).await, Some(SECOND / 2));
        assert_eq!(began.elapsed(), SECOND / 2);
        assert_eq!(within(SECOND, late(SECOND * 2)).await, None);
        assert_eq!(began.elapsed(), SECOND * 3 / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_goes_off_at_the_time_that_was_set_last() {
        let began = Instant::now();
        let mut alarm = Alarm::at(began + SECOND);
        for (set, goes_off) in
            [(None, 1), (Some(3), 3), (Some(10), 10), (Some(4), 10), (Some(12), 12)]
        {
            if let Some(set) = set {
                alarm.set(began + SECOND * set);
            }
            std::future::poll_fn(|context| alarm.poll(context)).await;
            assert_eq!(began.elapsed(), SECOND * goes_off, "{set:?}");
        }
        // An earlier time counts as well.
        alarm.set(began + SECOND * 100);
        alarm.set(began + SECOND * 20);
        std::future::poll_fn(|context| alarm.poll(context)).await;
        assert_eq!(began.elapsed(), SECOND * 20);
    }
}
