//! Who changed what: one entry per call that changes something or runs code.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::name::{ServiceId, TokenId, UserName};

/// One call, with its outcome. Entries are added and never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its place, given by the store: later entries have greater ones.
    pub id: u64,
    /// When the call was answered.
    pub at: Timestamp,
    /// Who called.
    pub user: UserName,
    /// With which token; none for the bootstrap token.
    pub token: Option<TokenId>,
    /// From which address.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// What was asked for: `service.update`.
    pub action: String,
    /// Whose it is that was touched; differs from `user` when an admin acted for somebody.
    pub owner: UserName,
    /// Which service it was about, if any.
    pub service: Option<ServiceId>,
    /// The answer's status code.
    pub status: u16,
    /// What else is worth knowing, without values: `{"fields": ["function_code"]}`.
    #[schema(value_type = std::collections::BTreeMap<String, Value>)]
    pub detail: Map<String, Value>,
}

impl AuditEntry {
    /// Who may see it, besides admins: the caller, and whose it is that was touched.
    pub fn concerns(&self) -> impl Iterator<Item = &UserName> {
        let owner = Some(&self.owner).filter(|owner| **owner != self.user);
        std::iter::once(&self.user).chain(owner)
    }
}

/// Which entries are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Of what concerns this user: what this one did, and what others did to what this one owns. None
    /// for everything.
    pub of: Option<UserName>,
    /// Of calls that this user made.
    pub user: Option<UserName>,
    /// About this service.
    pub service: Option<ServiceId>,
    /// With this action.
    pub action: Option<String>,
}

impl AuditQuery {
    /// Whether the entry is among them.
    pub fn takes(&self, entry: &AuditEntry) -> bool {
        self.of.as_ref().is_none_or(|of| entry.concerns().any(|user| user == of))
            && self.user.as_ref().is_none_or(|user| *user == entry.user)
            && self.service.is_none_or(|service| Some(service) == entry.service)
            && self.action.as_ref().is_none_or(|action| *action == entry.action)
    }
}
