//! An answer that goes on while there are lines: the body of `?follow=true`.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use tokio::time::Instant;

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
    /// When it is asked again whether the caller may read this.
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
    let ask_at = Instant::now() + limits::LOG_FOLLOW_QUIET;
    let answer = Answer { api, caller, service, follower, format, ask_at };
    let body = futures_util::stream::unfold(Some(answer), |answer| async {
        let (bytes, answer) = answer?.next().await?;
        Some((Ok::<_, Infallible>(bytes), answer))
    });
    (format.headers(), Body::from_stream(body)).into_response()
}

impl Answer {
    /// What is sent next, and who goes on.
    async fn next(mut self) -> Option<(Bytes, Option<Self>)> {
        let next = self.follower.next().await?;
        if Instant::now() >= self.ask_at {
            self.ask_at = Instant::now() + limits::LOG_FOLLOW_QUIET;
            if !self.may_go_on().await {
                return Some((self.last("This token does not open this log any more."), None));
            }
        }
        let text = match next {
            Followed::Lines(lines) => lines.iter().map(|line| self.format.line(line)).collect(),
            Followed::Quiet => self.format.quiet().to_owned(),
            Followed::Ended(ending) => return Some((self.last(why(ending)?), None)),
        };
        Some((text.into(), Some(self)))
    }

    fn last(&self, why: &str) -> Bytes {
        self.format.last(Timestamp::now(), why).into()
    }

    /// Whether the caller may still read this. A store that does not answer says nothing against it.
    async fn may_go_on(&self) -> bool {
        let service = self.api.service(&self.caller, self.service).await;
        !matches!(service, Err(ApiError::NotFound)) && self.api.knows(&self.caller).await
    }
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
    /// Whether a caller's token still opens the API.
    async fn knows(&self, caller: &Caller) -> bool {
        let Some(id) = caller.token else { return true };
        let Ok(tokens) = self.store.tokens(Some(&caller.user), 0, limits::TOKENS_PER_USER).await
        else {
            return true;
        };
        let now = Timestamp::now();
        tokens.items.iter().any(|token| token.id == id && !token.has_expired(now))
    }
}

impl From<NotFollowed> for ApiError {
    fn from(reason: NotFollowed) -> Self {
        match reason {
            NotFollowed::Failed(error) => error.into(),
            NotFollowed::Refused(Refusal::Full(most)) => {
                Self::Busy(format!("{most} clients follow logs already, which is the most."))
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
