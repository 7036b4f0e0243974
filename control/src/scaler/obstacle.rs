//! What stands in the way of a service's requests, told to the edge, so that they are answered at
//! once instead of waiting in vain.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Driver;
use crate::{
    error::Result,
    health::Dependency,
    limits,
    replica::Machine,
    service::{Deployment, Egress, Obstacle, ServiceView},
};

/// What a client of a function without any working deployment is told to wait.
const NO_DEPLOYMENT_RETRY: Duration = Duration::from_secs(10);

impl Driver {
    /// Tells waiting requests why they wait in vain, or that they do not any more.
    pub(super) async fn tell_obstacle(&mut self, view: &ServiceView) -> Result<()> {
        let obstacle = self.obstacle();
        let told = match (&obstacle, &view.obstacle) {
            (Some((message, _)), Some(told)) => {
                *message == told.message && Timestamp::now() < told.retry_at
            }
            (None, None) => true,
            _ => false,
        };
        if told {
            return Ok(());
        }
        let obstacle = obstacle.map(|(message, wait)| Obstacle {
            message,
            retry_at: Timestamp::now() + wait.max(limits::ENGINE_RETRY),
        });
        self.context.store.set_obstacle(self.service, obstacle).await
    }

    /// What stands in the way now, and how long a client should wait.
    fn obstacle(&self) -> Option<(String, Duration)> {
        let machines = || self.replicas.values().map(|owned| &owned.machine);
        // While the engine is away, one that it is to start is no help.
        let helps =
            |machine: &Machine| machine.counts() && (self.engine_up || machine.is_launched());
        if machines().any(helps) {
            return None;
        }
        // Before it has been asked it may well be there.
        if !self.engine_up && !self.context.health.is_checked(Dependency::Engine) {
            return None;
        }
        if !self.engine_up {
            let reason = "The container engine is not available.";
            return Some((reason.to_owned(), limits::ENGINE_RETRY));
        }
        let networked = |d: &Deployment| d.function.egress == Egress::Public;
        if self.wait_until.is_some()
            && self.starting.as_deref().is_some_and(networked)
            && self.context.gate.closed().is_some()
        {
            let reason = "The platform's firewall is not in place: functions with a network are \
                          not started.";
            return Some((reason.to_owned(), limits::ENGINE_RETRY));
        }
        if let Some(until) = self.wait_until {
            // The first failure may be chance: requests wait for the second attempt.
            return (self.failures >= 2).then(|| {
                // Why is in the function's log: it is not for the public.
                let reason = "The function does not start. It will be tried again.";
                (reason.to_owned(), until.saturating_duration_since(Instant::now()))
            });
        }
        (self.live.is_none() && self.deploying.is_none()).then(|| {
            let reason = "No deployment of this function has succeeded yet.";
            (reason.to_owned(), NO_DEPLOYMENT_RETRY)
        })
    }
}
