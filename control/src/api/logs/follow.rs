//! An answer that goes on while there are lines: the body of `?follow=true`.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::format::Format;
use crate::{
    api::{Api, auth::Caller, error::ApiError},
    limits,
    logs::{Ending, Followed, Follower, NotFollowed, Refusal},
    name::ServiceId,
};

/// One answer that is being given.
struct Answer {
    api: Arc<Api>,
    caller: Caller,
    service: ServiceId,
    follower: Follower,
    format: Format,
    /// Changes when somebody's token was revoked.
    revoked: watch::Receiver<()>,
    /// When it is asked again whether the caller may read this, in any case.
    ask_at: Instant,
}

/// The answer; it ends with its follower.
pub(super) fn answer(
    api: Arc<Api>,
    caller: Caller,
    service: ServiceId,
    follower: Follower,
    format: Format,
) -> Response {
    // At once for the first time: it may have been revoked since the caller was let in.
    let (revoked, ask_at) = (api.auth.revocations(), Instant::now());
    let answer = Answer { api, caller, service, follower, format, revoked, ask_at };
    let body = futures_util::stream::unfold(Some(answer), |answer| async {
        let (bytes, answer) = answer?.next().await?;
        Some((Ok::<_, Infallible>(bytes), answer))
    });
    (format.headers(), Body::from_stream(body)).into_response()
}

impl Answer {
    /// What is sent next, and who goes on.
    async fn next(mut self) -> Option<(Bytes, Option<Self>)> {
        let Some(next) = self.next_for_caller().await else {
            return Some((self.last("This token does not open this log any more."), None));
        };
        let text = match next? {
            Followed::Lines(lines) => lines.iter().map(|line| self.format.line(line)).collect(),
            Followed::Quiet => self.format.quiet().to_owned(),
            Followed::Ended(ending) => return Some((self.last(why(ending)?), None)),
        };
        Some((text.into(), Some(self)))
    }

    fn last(&self, why: &str) -> Bytes {
        self.format.last(Timestamp::now(), why).into()
    }

    /// What comes next; none as soon as the caller may not read this any more.
    async fn next_for_caller(&mut self) -> Option<Option<Followed>> {
        let mut next = pin!(self.follower.next());
        loop {
            tokio::select! {
                biased;
                _ = self.revoked.changed() => {}
                () = sleep_until(self.ask_at) => {}
                next = &mut next => return Some(next),
            }
            if !self.api.lets_follow(&self.caller, self.service).await {
                return None;
            }
            self.ask_at = ask_again(&self.caller);
        }
    }
}

/// When it is asked again whether this one may go on: then, or when its token expires.
fn ask_again(caller: &Caller) -> Instant {
    let left = caller.expires_at.map(|end| end.duration_since(Timestamp::now()));
    let left = left.map(|left| Duration::try_from(left).unwrap_or_default());
    Instant::now() + left.unwrap_or(Duration::MAX).min(limits::LOG_FOLLOW_QUIET)
}

/// Why there are no more lines; none when it is as it was asked for.
fn why(ending: Ending) -> Option<&'static str> {
    match ending {
        Ending::Until => None,
        Ending::Slow => {
            Some("This client reads too slowly: lines were lost. Ask again, with since.")
        }
        Ending::TooLong => Some("A log is followed for an hour at most. Ask again."),
        Ending::Deleted => Some("The service was deleted."),
        Ending::Stopping => Some("Grid is stopped or replaced. Ask again."),
    }
}

impl Api {
    /// Whether a caller may still follow a service. A store that does not answer says nothing against
    /// it.
    async fn lets_follow(&self, caller: &Caller, service: ServiceId) -> bool {
        if caller.expires_at.is_some_and(|end| end <= Timestamp::now()) {
            return false;
        }
        if matches!(self.service(caller, service).await, Err(ApiError::NotFound)) {
            return false;
        }
        let Some(id) = caller.token else { return true };
        !matches!(self.store.token_with_id(Some(&caller.user), id).await, Ok(None))
    }
}

impl From<NotFollowed> for ApiError {
    fn from(reason: NotFollowed) -> Self {
        match reason {
            NotFollowed::Failed(error) => error.into(),
            NotFollowed::Refused(Refusal::Full(most)) => {
                Self::Busy(format!("{most} clients follow logs already, which is the most."))
            }
            NotFollowed::Refused(Refusal::UserFull(most)) => {
                Self::Busy(format!("You follow {most} logs already, which is the most."))
            }
            NotFollowed::Refused(Refusal::ServiceFull(most)) => Self::Busy(format!(
                "{most} clients follow the log of this service already, which is the most."
            )),
            NotFollowed::Refused(Refusal::Ending) => {
                Self::Busy("Grid is being stopped or replaced. Try again shortly.".to_owned())
            }
        }
    }
}
