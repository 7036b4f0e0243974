//! The verbs about tokens, each inside a transaction that the caller owns.

use jiff::Timestamp;

use crate::{
    account::AccessToken,
    error::Error,
    limits::TOKENS_PER_USER,
    name::{TokenId, UserName},
    store::{
        Page,
        tables::{
            Done, Effect, Fault, Range, Reads, Table, Tables, get_json, put_json, range_json,
        },
    },
};

/// Adds a token, in the place of an expired one when its user has too many.
pub(super) async fn add(tables: &mut impl Tables, token: &AccessToken) -> Done<()> {
    let mut known = all(tables).await?;
    known.retain(|known| known.user == token.user);
    if known.len() >= TOKENS_PER_USER {
        let expired = known.iter().filter(|known| known.has_expired(token.created_at));
        let Some(first) = expired.min_by_key(|known| known.expires_at) else {
            return Err(Fault::Refused(Error::Conflict {
                field: Some("user"),
                message: format!(
                    "This user has {TOKENS_PER_USER} tokens, which is the most; revoke one."
                ),
            }));
        };
        forget(tables, first).await?;
    }
    put_json(tables, Table::Tokens, token.id.as_bytes(), token).await?;
    tables.put(Table::TokenDigests, &token.digest, token.id.as_bytes().to_vec()).await?;
    Ok(((), Effect::Kept))
}

/// The token with this digest.
pub(super) async fn with_digest(
    tables: &mut impl Reads,
    digest: &[u8; 32],
) -> Result<Option<AccessToken>, Fault> {
    let Some(id) = tables.get(Table::TokenDigests, digest).await? else { return Ok(None) };
    get_json(tables, Table::Tokens, &id).await
}

/// The token with this id, of one user or of any.
pub(super) async fn with_id(
    tables: &mut impl Reads,
    user: Option<&UserName>,
    id: TokenId,
) -> Result<Option<AccessToken>, Fault> {
    let token: Option<AccessToken> = get_json(tables, Table::Tokens, id.as_bytes()).await?;
    Ok(token.filter(|token| user.is_none_or(|user| token.user == *user)))
}

/// A page of the tokens of one user or of all, newest first.
pub(super) async fn page(
    tables: &mut impl Reads,
    user: Option<&UserName>,
    offset: usize,
    limit: usize,
) -> Result<Page<AccessToken>, Fault> {
    let mut found = all(tables).await?;
    found.retain(|token| user.is_none_or(|user| token.user == *user));
    let count = found.len() as u64;
    Ok(Page { count, items: found.into_iter().rev().skip(offset).take(limit).collect() })
}

/// Forgets a token, of one user or of any.
pub(super) async fn remove(
    tables: &mut impl Tables,
    user: Option<&UserName>,
    id: TokenId,
) -> Done<Option<AccessToken>> {
    let Some(token) = with_id(tables, user, id).await? else {
        return Ok((None, Effect::Nothing));
    };
    forget(tables, &token).await?;
    Ok((Some(token), Effect::Kept))
}

/// Notes when a token was used.
pub(super) async fn note_use(tables: &mut impl Tables, id: TokenId, at: Timestamp) -> Done<()> {
    let Some(token) = with_id(tables, None, id).await? else {
        return Ok(((), Effect::Nothing));
    };
    let token = AccessToken { last_used_at: Some(at), ..token };
    put_json(tables, Table::Tokens, id.as_bytes(), &token).await?;
    Ok(((), Effect::Kept))
}

/// All tokens, oldest first. There are few: people make them by hand.
async fn all(tables: &mut impl Reads) -> Result<Vec<AccessToken>, Fault> {
    range_json(tables, Range::all(Table::Tokens)).await
}

async fn forget(tables: &mut impl Tables, token: &AccessToken) -> Result<(), Fault> {
    tables.remove(Table::Tokens, token.id.as_bytes()).await?;
    tables.remove(Table::TokenDigests, &token.digest).await
}
