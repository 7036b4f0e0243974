//! Calls that change something run to their end whatever becomes of their clients, so that what they
//! did is known; whoever ends the API waits for them.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// How many run at one time; more wait.
const MOST: u32 = 1024;

/// The calls that run. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Calls(Arc<Semaphore>);

impl Default for Calls {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST as usize)))
    }
}

impl Calls {
    /// Runs a call, which has to end by itself. When the caller goes away it still does; before it
    /// began, it does not begin. None when it panicked, or the runtime ends.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let permit = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let task = tokio::spawn(async move {
            let _permit = permit;
            call.await
        });
        task.await.ok()
    }

    /// Waits until none runs.
    pub async fn ended(&self) {
        let _all = self.0.acquire_many(MOST).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_goes_on_without_its_caller_and_is_waited_for() {
        let calls = Calls::default();
        let ((begin, begun), (end, ended)) = (oneshot::channel(), oneshot::channel());
        let call = calls.run(async move {
            begin.send(()).expect("somebody waits");
            ended.await
        });
        tokio::select! {
            _ = call => panic!("nobody ended it"),
            began = begun => began.expect("it began"),
        }
        let wait = tokio::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, calls.ended()).await.is_err());
        end.send(()).expect("it runs");
        assert!(tokio::time::timeout(wait, calls.ended()).await.is_ok());
        assert_eq!(calls.run(async { 7 }).await, Some(7));
    }
}
