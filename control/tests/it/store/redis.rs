//! What the store in a Redis promises beyond the suite: about a network and a Redis that fail, about who
//! may commit, and about how it gets to its Redis.

mod authority;
mod crash;
mod faults;
mod life;
mod load;
mod places;
mod warnings;

use std::time::Duration;

use control::error::{Error, Result};
use tokio::time::{sleep, timeout};

/// How long anything may take that comes by itself.
const SOON: Duration = Duration::from_secs(30);

/// The outcome of a verb that may say that the store is away, which it then may or may not have done.
async fn told<T>(verb: impl AsyncFn() -> Result<T>) -> Option<T> {
    match verb().await {
        Ok(value) => Some(value),
        Err(Error::Store { .. }) => None,
        Err(other) => panic!("no fault of the store: {other}"),
    }
}

/// What a verb comes to when the store works again, which it has to do by itself.
async fn soon<T>(verb: impl AsyncFn() -> Result<T>) -> T {
    let work = async {
        loop {
            match told(&verb).await {
                Some(value) => return value,
                None => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(SOON, work).await.expect("the store works again by itself")
}

/// The reason of a verb that the store could not do.
fn reason<T: std::fmt::Debug>(outcome: Result<T>) -> String {
    match outcome {
        Err(error @ Error::Store { .. }) => error.to_string(),
        other => panic!("not the store's error: {other:?}"),
    }
}

/// Waits for what comes by itself.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, wait).await.expect("it is so at last");
}
