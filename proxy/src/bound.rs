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

/// A timer for all waits of one task, one after the other. It is left as it is when a wait ends early, and
/// finds out that it was meant for another one when it goes off: so a request that waits three times sets
/// none, as long as the one before did.
#[derive(Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// What a future comes to; none when that is not before a time.
    pub(crate) async fn before<T>(
        &mut self,
        time: Instant,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut future = pin!(future);
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => self.poll(time, context).map(|()| None),
        })
        .await
    }

    /// Ready when it is that late.
    pub(crate) fn poll(&mut self, time: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(time)));
        if time < sleep.deadline() {
            sleep.as_mut().reset(time);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() >= time {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(time);
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
    async fn an_alarm_goes_off_for_the_wait_that_it_is_asked_for() {
        let began = Instant::now();
        let mut alarm = Alarm::default();
        for (waits, goes_off) in [(1, 1), (3, 3), (2, 3), (100, 100), (90, 100), (101, 101)] {
            let wait = alarm.before(began + SECOND * waits, std::future::pending::<()>());
            assert_eq!(wait.await, None);
            assert_eq!(began.elapsed(), SECOND * goes_off, "{waits}");
        }
        let now = Instant::now();
        // Waits that end early leave it behind, whether the next ones end sooner or later.
        for (waits, comes) in [(1000, 1), (10, 2), (500, 1), (20, 19)] {
            let comes = tokio::time::sleep(SECOND * comes);
            assert_eq!(alarm.before(Instant::now() + SECOND * waits, comes).await, Some(()));
        }
        assert_eq!(now.elapsed(), SECOND * 23);
        assert_eq!(
            alarm.before(Instant::now() + SECOND * 3, std::future::pending::<()>()).await,
            None
        );
        assert_eq!(now.elapsed(), SECOND * 26);
    }
}
