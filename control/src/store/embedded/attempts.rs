//! Attempts to create a service that a client may repeat, remembered for a day.

use jiff::{SignedDuration, Timestamp};
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::schema::{ATTEMPT_ORDER, ATTEMPTS, Fault};
use crate::{
    error::Error, limits::ATTEMPTS_REMEMBERED, name::ServiceId, service::Service, store::Attempt,
};

#[derive(Serialize, Deserialize)]
struct Remembered {
    fingerprint: [u8; 32],
    service: ServiceId,
    at: Timestamp,
}

/// The service that this attempt made before; else it is remembered as making `service` now.
pub(super) fn remember(
    transaction: &WriteTransaction,
    service: &Service,
    attempt: &Attempt,
) -> Result<Option<ServiceId>, Fault> {
    let now = service.created_at;
    let mut attempts = transaction.open_table(ATTEMPTS)?;
    let mut order = transaction.open_table(ATTEMPT_ORDER)?;
    let name = format!("{}\0{}", service.owner, attempt.key);
    let known = match attempts.get(name.as_str())? {
        Some(json) => Some(serde_json::from_slice::<Remembered>(json.value())?),
        None => None,
    };
    match known {
        Some(known) if !has_expired(&known, now) => {
            return if known.fingerprint == attempt.fingerprint {
                Ok(Some(known.service))
            } else {
                Err(Fault::Refused(Error::Conflict {
                    field: None,
                    message: "This Idempotency-Key was used for another request.".to_owned(),
                }))
            };
        }
        _ => {}
    }
    let remembered = Remembered { fingerprint: attempt.fingerprint, service: service.id, at: now };
    attempts.insert(name.as_str(), serde_json::to_vec(&remembered)?.as_slice())?;
    let place = order.last()?.map_or(0, |(place, _)| place.value() + 1);
    order.insert(place, name.as_str())?;

    // An entry of the order may be that of an attempt that was remembered anew since.
    loop {
        let first = order.first()?.map(|(place, name)| (place.value(), name.value().to_owned()));
        let Some((place, name)) = first else { break };
        let stale = match attempts.get(name.as_str())? {
            Some(json) => has_expired(&serde_json::from_slice(json.value())?, now),
            None => true,
        };
        let crowded = usize::try_from(order.len()?).unwrap_or(usize::MAX) > ATTEMPTS_REMEMBERED.1;
        if !stale && !crowded {
            break;
        }
        attempts.remove(name.as_str())?;
        order.remove(place)?;
    }
    Ok(None)
}

fn has_expired(remembered: &Remembered, now: Timestamp) -> bool {
    SignedDuration::try_from(ATTEMPTS_REMEMBERED.0)
        .is_ok_and(|most| now.duration_since(remembered.at) > most)
}
