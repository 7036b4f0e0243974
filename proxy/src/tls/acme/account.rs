//! Our account with an authority: read, or made when it is first needed.

use std::sync::Arc;

use instant_acme::{Account, NewAccount};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{
    Authority,
    client::Client,
    failure::{self, Failure},
    storage::{Storage, StoredAccount},
};

/// The account of this Grid.
pub(super) struct OurAccount {
    authority: Authority,
    client: Client,
    storage: Storage,
    known: Mutex<Arc<OnceCell<Account>>>,
}

impl OurAccount {
    pub(super) fn new(authority: Authority, client: Client, storage: Storage) -> Self {
        Self { authority, client, storage, known: Mutex::default() }
    }

    /// Forgets an account that the authority does not know.
    pub(super) fn forget(&self) {
        self.storage.remove_account();
        *self.known.lock() = Arc::default();
    }

    /// Our account: the one we know, the one that is stored, or a new one.
    pub(super) async fn get(&self) -> Result<Account, Failure> {
        let cell = self.known.lock().clone();
        cell.get_or_try_init(|| async {
            match self.storage.account() {
                Some(stored) => self.restore(stored).await,
                None => self.register().await,
            }
        })
        .await
        .cloned()
    }

    async fn restore(&self, stored: StoredAccount) -> Result<Account, Failure> {
        let StoredAccount { email, credentials } = stored;
        // The credentials are taken by the library, and cannot be copied but through their text.
        let text = serde_json::to_string(&credentials)
            .map_err(|e| Failure::authority(format!("reading the ACME account: {e}")))?;
        let account = Account::builder_with_http(Box::new(self.client.clone()))
            .from_credentials(credentials)
            .await
            .map_err(|e| Failure::of("reaching the certificate authority", e))?;
        if email != self.authority.email {
            let contact = self.contact();
            let contact: Vec<_> = contact.iter().map(String::as_str).collect();
            account
                .update_contacts(&contact)
                .await
                .map_err(|e| Failure::of("changing the ACME account's e-mail address", e))?;
            let credentials = serde_json::from_str(&text)
                .map_err(|e| Failure::authority(format!("reading the ACME account: {e}")))?;
            self.keep(credentials);
        }
        Ok(account)
    }

    async fn register(&self) -> Result<Account, Failure> {
        let contact = self.contact();
        let contact: Vec<_> = contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let (account, credentials) = Account::builder_with_http(Box::new(self.client.clone()))
            .create(&new, self.authority.directory.clone(), None)
            .await
            .map_err(|error| {
                let failure = Failure::of("making an ACME account", error);
                // Whatever is wrong with it, it is not one domain's fault.
                match failure.fault {
                    failure::Fault::Domain => Failure::authority(failure.reason),
                    _ => failure,
                }
            })?;
        self.keep(credentials);
        tracing::info!("made an ACME account with {}", self.authority.directory);
        Ok(account)
    }

    fn keep(&self, credentials: instant_acme::AccountCredentials) {
        let account = StoredAccount { email: self.authority.email.clone(), credentials };
        if let Err(error) = self.storage.put_account(&account) {
            tracing::error!("keeping the ACME account: {error}; a restart will make another one");
        }
    }

    fn contact(&self) -> Vec<String> {
        self.authority.email.iter().map(|email| format!("mailto:{email}")).collect()
    }
}
