//! Attempts to create a service that a client may repeat, remembered for a day.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    limits::ATTEMPTS_REMEMBERED,
    name::ServiceId,
    service::Service,
    store::{
        Attempt,
        tables::{Fault, Range, Table, Tables, get_json, number, number_of, put_json},
    },
};

#[derive(Serialize, Deserialize)]
struct Remembered {
    fingerprint: [u8; 32],
    service: ServiceId,
    at: Timestamp,
}

/// The service that this attempt made before; else it is remembered as making `service` now.
pub(super) async fn remember(
    tables: &mut impl Tables,
    service: &Service,
    attempt: &Attempt,
) -> Result<Option<ServiceId>, Fault> {
    let now = service.created_at;
    let name = format!("{}\0{}", service.owner, attempt.key);
    let known: Option<Remembered> = get_json(tables, Table::Attempts, name.as_bytes()).await?;
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
    put_json(tables, Table::Attempts, name.as_bytes(), &remembered).await?;
    let order = Range::all(Table::AttemptOrder);
    let last = tables.range(order.clone().backwards().page(0, 1)).await?;
    let place = last.first().map_or(Ok(0), |(key, _)| number_of(key).map(|last| last + 1))?;
    tables.put(Table::AttemptOrder, &number(place), name.into_bytes()).await?;
    forget_old(tables, order, place, now).await?;
    Ok(None)
}

/// Forgets what has expired, and what is too much.
async fn forget_old(
    tables: &mut impl Tables,
    order: Range,
    newest: u64,
    now: Timestamp,
) -> Result<(), Fault> {
    loop {
        let first = tables.range(order.clone().page(0, 1)).await?.pop();
        let Some((key, name)) = first else { return Ok(()) };
        // An entry of the order may be that of an attempt that was remembered anew since.
        let stale = get_json::<Remembered>(tables, Table::Attempts, &name)
            .await?
            .is_none_or(|remembered| has_expired(&remembered, now));
        // There are no gaps, since only the oldest ever go.
        let many = newest.saturating_sub(number_of(&key)?) >= ATTEMPTS_REMEMBERED.1 as u64;
        if !stale && !many {
            return Ok(());
        }
        tables.remove(Table::Attempts, &name).await?;
        tables.remove(Table::AttemptOrder, &key).await?;
    }
}

fn has_expired(remembered: &Remembered, now: Timestamp) -> bool {
    SignedDuration::try_from(ATTEMPTS_REMEMBERED.0)
        .is_ok_and(|most| now.duration_since(remembered.at) > most)
}
