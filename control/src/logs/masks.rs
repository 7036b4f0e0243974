//! The masks of deployments: opened once, and remembered.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::{
    environment::Environment,
    error::Result,
    mask::Mask,
    name::{DeploymentId, ServiceId},
    secret::Keyring,
    store::Store,
};

/// Deployments that are remembered; what runs at one time is less.
const REMEMBERED: usize = 1024;

/// Knows what each deployment must not show. A deployment's environment never changes.
pub(super) struct Masks {
    store: Arc<dyn Store>,
    keyring: Keyring,
    known: Mutex<HashMap<DeploymentId, Arc<Mask>>>,
}

impl Masks {
    pub(super) fn new(store: Arc<dyn Store>, keyring: Keyring) -> Self {
        Self { store, keyring, known: Mutex::default() }
    }

    /// Values that the keys do not open are looked for in vain: then nothing of the function's is shown.
    ///
    /// # Errors
    /// `Store` when it does not answer.
    pub(super) async fn of(&self, service: ServiceId, id: DeploymentId) -> Result<Arc<Mask>> {
        if let Some(mask) = self.known.lock().get(&id) {
            return Ok(Arc::clone(mask));
        }
        let opened = Environment::of_deployment(&*self.store, &self.keyring, service, id).await?;
        let mask = match opened {
            // Not remembered: a deployment that the store does not have is no other than one without.
            Ok(environment) if environment.variables.is_empty() => return Ok(Arc::default()),
            Ok(environment) => Arc::new(Mask::of(&environment)),
            // Not remembered: the key may come back.
            Err(error) => {
                tracing::warn!(%service, deployment = %id, %error, "output is withheld");
                return Ok(Arc::new(Mask::unknown()));
            }
        };
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(id, Arc::clone(&mask));
        Ok(mask)
    }
}
