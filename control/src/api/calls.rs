//! Calls that change something run to their end whatever becomes of their clients, so that what they
//! did is known; whoever ends the API waits for them.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use tokio::sync::{Semaphore, watch};

use super::error::ApiError;

/// How many run at one time; more wait.
const MOST: u32 = 1024;

/// The calls that run. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Calls(Arc<Semaphore>);

/// Whether a call's client still waits for its answer, for calls that do nothing for anybody else.
#[derive(Debug, Clone)]
pub(super) struct Client(watch::Receiver<()>);

/// The other end of a [`Client`], which ends with the answer or with its connection.
#[derive(Debug)]
pub(super) struct Presence(#[allow(dead_code)] watch::Sender<()>);

impl Client {
    /// One that waits, as long as there is its presence.
    pub(super) fn present() -> (Presence, Self) {
        let (sender, receiver) = watch::channel(());
        (Presence(sender), Self(receiver))
    }

    /// Waits until it does not wait any more.
    pub(super) async fn left(&mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Every call that may run on is given one by the audit log.
        parts.extensions.get::<Self>().cloned().ok_or(ApiError::Internal)
    }
}

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
