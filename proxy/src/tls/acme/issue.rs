//! One attempt to get one certificate: order, prove, fetch (RFC 8555).

use std::sync::Arc;

use control::name::PublicDomain;
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use jiff::Timestamp;

use super::{
    challenges::{Challenges, Offer},
    failure::Failure,
    schedule::Pace,
};
use crate::tls::pair::Pair;

/// A certificate that has come, with its PEM texts.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) pair: Pair,
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// Gets a certificate for one domain.
///
/// # Errors
/// The step that failed, why, and whose fault it is.
pub(crate) async fn issue(
    account: &Account,
    challenges: &Arc<Challenges>,
    domain: &PublicDomain,
    pace: &Pace,
) -> Result<Issued, Failure> {
    let during = |operation: &'static str| move |error| Failure::of(operation, error);
    let identifiers = [Identifier::Dns(domain.to_string())];
    let mut order = account
        .new_order(&NewOrder::new(&identifiers))
        .await
        .map_err(during("ordering the certificate"))?;
    let retries = RetryPolicy::new().initial_delay(pace.poll).timeout(pace.attempt);

    let offers = prove(&mut order, challenges).await?;
    if !offers.is_empty() {
        let status = order.poll_ready(&retries).await;
        if !matches!(status, Ok(OrderStatus::Ready)) {
            let reason = refusal(&mut order).await;
            return Err(match (reason, status) {
                (Some(reason), _) => Failure::domain(reason),
                (None, Err(error)) => Failure::of("waiting for the domain's check", error),
                (None, Ok(status)) => Failure::domain(format!("the order is {status:?}")),
            });
        }
    }
    drop(offers);

    let key = order.finalize().await.map_err(during("handing in the request"))?;
    let chain =
        order.poll_certificate(&retries).await.map_err(during("waiting for the certificate"))?;
    let pair = Pair::from_pem(chain.as_bytes(), key.as_bytes())
        .map_err(|error| Failure::authority(format!("the certificate that came {error}")))?;
    if !pair.covers(domain.as_str()) || Timestamp::now() > pair.validity.not_after {
        return Err(Failure::authority("the certificate that came is for another name or time"));
    }
    Ok(Issued { pair, chain, key })
}

/// Offers the answers to the challenges, and says that they are there.
async fn prove(order: &mut Order, challenges: &Arc<Challenges>) -> Result<Vec<Offer>, Failure> {
    let mut offers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization =
            authorization.map_err(|e| Failure::of("reading the authorization", e))?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue, // from an earlier order
            status => return Err(Failure::domain(format!("the authorization is {status:?}"))),
        }
        let mut challenge = authorization.challenge(ChallengeType::Http01).ok_or_else(|| {
            Failure::domain("the certificate authority does not offer the challenge http-01")
        })?;
        let answer = challenge.key_authorization();
        let offer = challenges.offer(&challenge.token, answer.as_str()).ok_or_else(|| {
            Failure::authority("the challenge's token is not one, or there are too many challenges")
        })?;
        offers.push(offer);
        challenge.set_ready().await.map_err(|e| Failure::of("starting the domain's check", e))?;
    }
    Ok(offers)
}

/// What the authority says was wrong with the domain, when it says it.
async fn refusal(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let problem = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = problem {
            let text: String = problem.to_string().chars().take(400).collect();
            return Some(format!(
                "the certificate authority could not check the domain over HTTP on port 80: {text}"
            ));
        }
    }
    None
}
