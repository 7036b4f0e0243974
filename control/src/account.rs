//! Users as far as Grid knows them: names that own services, and tokens that speak for them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::name::{TokenId, UserName};

/// A token of a user. The token itself is shown once, when it is made, and only its digest is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// Names it in lists, and for its revocation.
    pub id: TokenId,
    /// For whom it speaks.
    pub user: UserName,
    /// Whether it may act for others and see everything.
    pub is_admin: bool,
    /// What it is for, in its owner's words.
    pub name: String,
    /// SHA-256 of the token.
    pub digest: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused; none for never.
    pub expires_at: Option<Timestamp>,
    /// When it was used last, to the minute.
    pub last_used_at: Option<Timestamp>,
}

impl AccessToken {
    /// Whether it is refused at this time.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}
