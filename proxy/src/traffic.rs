//! What runs at this moment, and how it comes to its end. Who leaves and who ends last must see each
//! other: the orderings are sequentially consistent.

use std::{
    path::{Path, PathBuf},
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::bound::Alarm;

/// The public's connections and requests.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    leaving: AtomicBool,
    /// The same for those who wait for it: how long a connection may rest from now on.
    told: watch::Sender<Option<Duration>>,
    /// Who answers from now on.
    next: OnceLock<PathBuf>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    /// Woken when the last one of either ends while leaving.
    ended: Notify,
}

/// A request that runs.
pub(crate) struct Running(Arc<Traffic>);

/// A connection that is open.
pub(crate) struct Open(Arc<Traffic>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.less(&self.0.requests);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.less(&self.0.connections);
    }
}

impl Traffic {
    /// A request begins.
    pub(crate) fn enter(self: &Arc<Self>) -> Running {
        self.requests.fetch_add(1, Ordering::SeqCst);
        Running(self.clone())
    }

    /// A client has connected.
    pub(crate) fn connect(self: &Arc<Self>) -> Open {
        self.connections.fetch_add(1, Ordering::SeqCst);
        Open(self.clone())
    }

    /// Whether connections end with their next answer.
    pub(crate) fn leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// The socket of the process that answers in place of this one, when there is one.
    pub(crate) fn next(&self) -> Option<&Path> {
        self.next.get().map(PathBuf::as_path)
    }

    /// Requests that run now.
    pub(crate) fn running(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// From now on another process answers.
    pub(crate) fn pass_on_to(&self, socket: PathBuf) {
        let _ = self.next.set(socket); // there is only ever one
    }

    /// From now on each connection ends with its next answer, and one that rests for so long ends
    /// without: clients that use theirs all the time see it end only where it does no harm.
    pub(crate) fn leave(&self, rest: Duration) {
        self.leaving.store(true, Ordering::SeqCst);
        self.told.send_replace(Some(rest));
    }

    /// Waits until nothing runs and nobody is connected. For those who leave.
    pub(crate) async fn finish(&self) {
        while self.running() > 0 || self.connections.load(Ordering::SeqCst) > 0 {
            self.ended.notified().await;
        }
    }

    /// What a connection waits with.
    pub(crate) fn patience(&self) -> Patience {
        let mut told = self.told.subscribe();
        let told = async move {
            let told = told.wait_for(Option::is_some).await.map(|rest| *rest);
            match told {
                Ok(Some(rest)) => rest,
                // Whoever could tell is gone, and so is the connection.
                _ => std::future::pending().await,
            }
        };
        Patience { told: Box::pin(told), rest: None }
    }

    fn less(&self, count: &AtomicUsize) {
        if count.fetch_sub(1, Ordering::SeqCst) == 1 && self.leaving() {
            self.ended.notify_one();
        }
    }
}

/// How long one connection is waited for. Made once for it, so that a request costs next to nothing.
pub(crate) struct Patience {
    told: Pin<Box<dyn Future<Output = Duration> + Send>>,
    /// Set when this process leaves.
    rest: Option<Duration>,
}

impl Patience {
    /// Waits so long, or less when this process leaves meanwhile; none when it was in vain.
    pub(crate) async fn wait<T>(
        &mut self,
        alarm: &mut Alarm,
        within: Duration,
        wait: impl Future<Output = T>,
    ) -> Option<T> {
        let began = Instant::now();
        let mut wait = pin!(wait);
        let Self { told, rest } = self;
        std::future::poll_fn(|context| {
            if let Poll::Ready(outcome) = wait.as_mut().poll(context) {
                return Poll::Ready(Some(outcome));
            }
            if rest.is_none()
                && let Poll::Ready(told) = told.as_mut().poll(context)
            {
                *rest = Some(told);
            }
            alarm.poll(began + rest.unwrap_or(within).min(within), context).map(|()| None)
        })
        .await
    }

    /// Ends when this process leaves. Only once.
    pub(crate) async fn left(&mut self) {
        match self.rest {
            Some(_) => std::future::pending().await,
            None => self.rest = Some((&mut self.told).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const REST: Duration = Duration::from_secs(10);

    /// After how many seconds a wait for nothing ends when this process leaves `after` its begin.
    async fn rests(after: u64) -> u64 {
        let traffic = Arc::new(Traffic::default());
        let mut patience = traffic.patience();
        let began = Instant::now();
        let wait = tokio::spawn(async move {
            patience.wait(&mut Alarm::default(), HOUR, std::future::pending::<()>()).await;
        });
        tokio::time::sleep(Duration::from_secs(after)).await;
        traffic.leave(REST);
        wait.await.expect("ends");
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_rests_long_enough_ends_at_once() {
        assert_eq!(rests(30).await, 30);
        assert_eq!(rests(4).await, REST.as_secs());
        assert_eq!(rests(0).await, REST.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_come_is_read_however_late_it_is() {
        let traffic = Arc::new(Traffic::default());
        let mut patience = traffic.patience();
        assert_eq!(patience.wait(&mut Alarm::default(), HOUR, async { 1 }).await, Some(1));
        traffic.leave(Duration::ZERO);
        assert_eq!(patience.wait(&mut Alarm::default(), HOUR, async { 2 }).await, Some(2));
        assert_eq!(
            patience.wait(&mut Alarm::default(), HOUR, std::future::pending::<()>()).await,
            None
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_waits_for_the_last_request_and_the_last_connection() {
        let traffic = Arc::new(Traffic::default());
        let (request, connection) = (traffic.enter(), traffic.connect());
        traffic.leave(REST);
        let finish = traffic.clone();
        let mut finished = tokio::spawn(async move { finish.finish().await });
        drop(request);
        assert!(timeout(HOUR, &mut finished).await.is_err(), "somebody is connected");
        drop(connection);
        finished.await.expect("ends");
    }
}
