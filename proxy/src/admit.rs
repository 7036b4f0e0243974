//! What a request must be before anything is spent on it.

use std::borrow::Cow;

use control::limits;

use crate::{
    address,
    client::Peer,
    denial::{ALLOW, Denial},
    rate::ClientRates,
    request::Request,
    route::Target,
};

/// Checks the head of a request, whatever it is addressed to.
pub(crate) fn head(request: &Request) -> Result<(), Denial> {
    if !ALLOW.split(", ").any(|method| request.method == method) {
        return Err(Denial::MethodNotAllowed);
    }
    if request.target.len() > limits::REQUEST_TARGET_BYTES {
        return Err(Denial::TargetTooLong);
    }
    if address::has_dot_segment(request.path()) {
        return Err(Denial::BadRequest("The path has segments that are to be resolved first."));
    }
    // Browsers ask for HTTP/2 without TLS in this way, and do without.
    let upgrades = request.fields.all("upgrade").any(|value| !value.eq_ignore_ascii_case(b"h2c"));
    if upgrades {
        return Err(Denial::BadRequest("Functions do not speak upgraded protocols."));
    }
    Ok(())
}

/// Checks how often the client asks, and how often the service is asked. Who is refused as a client
/// does not count for the service.
pub(crate) fn rate(clients: &ClientRates, peer: &Peer, target: &Target) -> Result<(), Denial> {
    clients.check(peer.address)?;
    Ok(target.rate.check()?)
}

/// Checks the length that the head declares.
pub(crate) fn length(request: &Request, most_bytes: usize) -> Result<(), Denial> {
    match request.length {
        Some(length) if length > most_bytes as u64 => Err(Denial::BodyTooLarge(most_bytes)),
        _ => Ok(()),
    }
}

/// The request's id: the client's when it is sane, else a new one. What another process passes on has
/// one already.
pub(crate) fn request_id<'a>(request: &'a Request, peer: &Peer) -> Cow<'a, str> {
    let name = if peer.passes_on { "x-grid-request-id" } else { "x-request-id" };
    let sane = |id: &&str| {
        (1..=limits::REQUEST_ID_CHARS).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:+/=@".contains(&b))
    };
    let given = request.fields.get(name).and_then(|id| std::str::from_utf8(id).ok());
    given.filter(sane).map_or_else(|| uuid::Uuid::new_v4().to_string().into(), Cow::from)
}
