//! The durable verbs, written once for every store: what each one does is in the parts, over
//! [`super::tables`]; here each gets its transaction.
//!
//! A transaction may run its verb more than once, so what is asked for is shared, not consumed.

mod attempts;
pub(super) mod audit;
mod deployments;
mod services;
mod tokens;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use self::deployments::Progress;
use super::{
    Attempt, Creation, Durable, Page, Resealed, ServiceQuery,
    tables::{Backend, Done, Effect, Survival, Tables},
};
use crate::{
    account::AccessToken,
    audit::{AuditEntry, AuditQuery},
    environment::EnvVar,
    error::Result,
    limits,
    name::{DeploymentId, ServiceId, TokenId, UserName},
    secret::Keyring,
    service::{Deployment, LogLine, Phase, Service},
};

#[async_trait]
impl<B: Backend> Durable for B {
    async fn create_service(
        &self,
        service: &Service,
        first: &Deployment,
        attempt: Option<&Attempt>,
    ) -> Result<Creation> {
        let asked = Arc::new((service.clone(), first.clone(), attempt.cloned()));
        self.write("create service", Survival::Crash, move |tables| {
            let asked = asked.clone();
            Box::pin(async move {
                let (service, first, attempt) = &*asked;
                services::create(tables, service, first, attempt.as_ref()).await
            })
        })
        .await
    }

    async fn update_service(
        &self,
        service: &Service,
        deployment: Option<&Deployment>,
    ) -> Result<Service> {
        let asked = Arc::new((service.clone(), deployment.cloned()));
        self.write("update service", Survival::Crash, move |tables| {
            let asked = asked.clone();
            Box::pin(
                async move { services::update(tables, asked.0.clone(), asked.1.as_ref()).await },
            )
        })
        .await
    }

    async fn delete_service(&self, id: ServiceId, version: Option<u64>) -> Result<bool> {
        self.write("delete service", Survival::Crash, move |tables| {
            Box::pin(services::delete(tables, id, version))
        })
        .await
    }

    async fn service(&self, id: ServiceId) -> Result<Option<Service>> {
        self.read("read service", move |tables| Box::pin(services::get(tables, id))).await
    }

    async fn services(
        &self,
        query: &ServiceQuery,
        offset: usize,
        limit: usize,
    ) -> Result<Page<Service>> {
        let Page { count, items } = self.select(query, offset, limit).await?;
        let ids: Arc<[ServiceId]> = items.into();
        let read = self.read("list services", move |tables| {
            let ids = ids.clone();
            Box::pin(async move { services::with_ids(tables, &ids).await })
        });
        Ok(Page { count, items: read.await? })
    }

    async fn service_ids(&self) -> Result<Vec<ServiceId>> {
        Ok(self.select(&ServiceQuery::all(), 0, usize::MAX).await?.items)
    }

    async fn deployment(&self, service: ServiceId, id: DeploymentId) -> Result<Option<Deployment>> {
        self.read("read deployment", move |tables| Box::pin(deployments::get(tables, service, id)))
            .await
    }

    async fn deployment_before(
        &self,
        service: ServiceId,
        id: DeploymentId,
    ) -> Result<Option<Deployment>> {
        self.read("read deployment", move |tables| {
            Box::pin(deployments::before(tables, service, id))
        })
        .await
    }

    async fn deployments(
        &self,
        service: ServiceId,
        offset: usize,
        limit: usize,
    ) -> Result<Page<Deployment>> {
        self.read("list deployments", move |tables| {
            Box::pin(deployments::page(tables, service, offset, limit))
        })
        .await
    }

    async fn claim_deployment(
        &self,
        service: ServiceId,
        now: Timestamp,
    ) -> Result<Option<Deployment>> {
        self.write("claim deployment", Survival::Crash, move |tables| {
            Box::pin(deployments::claim(tables, service, now))
        })
        .await
    }

    async fn record_phase(
        &self,
        service: ServiceId,
        id: DeploymentId,
        phase: Phase,
        at: Timestamp,
        lines: Vec<LogLine>,
        error: Option<String>,
    ) -> Result<()> {
        // A deployment that a crash interrupts starts again, so its way there may be lost with it.
        let survival = if phase.is_settled() { Survival::Crash } else { Survival::Process };
        let progress = Progress { phase, at, lines, error };
        self.write("record phase", survival, move |tables| {
            Box::pin(deployments::record(tables, service, id, progress.clone()))
        })
        .await
    }

    async fn record_image(
        &self,
        service: ServiceId,
        id: DeploymentId,
        image_of: Option<DeploymentId>,
    ) -> Result<()> {
        self.write("record image", Survival::Crash, move |tables| {
            Box::pin(deployments::set_image(tables, service, id, image_of))
        })
        .await
    }

    async fn activate_deployment(
        &self,
        service: ServiceId,
        id: DeploymentId,
        at: Timestamp,
    ) -> Result<Option<DeploymentId>> {
        self.write("activate deployment", Survival::Crash, move |tables| {
            Box::pin(services::activate(tables, service, id, at))
        })
        .await
    }

    async fn environment(&self, service: ServiceId, id: DeploymentId) -> Result<Vec<EnvVar>> {
        self.read("read environment", move |tables| {
            Box::pin(deployments::environment(tables, service, id))
        })
        .await
    }

    async fn reseal(&self, service: ServiceId, keyring: &Keyring) -> Result<Resealed> {
        let keyring = keyring.clone();
        self.write("reseal environment", Survival::Crash, move |tables| {
            Box::pin(reseal(tables, service, keyring.clone()))
        })
        .await
    }

    async fn add_token(&self, token: &AccessToken) -> Result<()> {
        let token = Arc::new(token.clone());
        self.write("add token", Survival::Crash, move |tables| {
            let token = token.clone();
            Box::pin(async move { tokens::add(tables, &token).await })
        })
        .await
    }

    async fn token(&self, digest: &[u8; 32]) -> Result<Option<AccessToken>> {
        let digest = *digest;
        self.read("read token", move |tables| {
            Box::pin(async move { tokens::with_digest(tables, &digest).await })
        })
        .await
    }

    async fn token_with_id(
        &self,
        user: Option<&UserName>,
        id: TokenId,
    ) -> Result<Option<AccessToken>> {
        let user = user.cloned();
        self.read("read token", move |tables| {
            let user = user.clone();
            Box::pin(async move { tokens::with_id(tables, user.as_ref(), id).await })
        })
        .await
    }

    async fn tokens(
        &self,
        user: Option<&UserName>,
        offset: usize,
        limit: usize,
    ) -> Result<Page<AccessToken>> {
        let user = user.cloned();
        self.read("list tokens", move |tables| {
            let user = user.clone();
            Box::pin(async move { tokens::page(tables, user.as_ref(), offset, limit).await })
        })
        .await
    }

    async fn remove_token(
        &self,
        user: Option<&UserName>,
        id: TokenId,
    ) -> Result<Option<AccessToken>> {
        let user = user.cloned();
        self.write("revoke token", Survival::Crash, move |tables| {
            let user = user.clone();
            Box::pin(async move { tokens::remove(tables, user.as_ref(), id).await })
        })
        .await
    }

    async fn note_token_use(&self, id: TokenId, at: Timestamp) -> Result<()> {
        self.write("note use of token", Survival::Process, move |tables| {
            Box::pin(tokens::note_use(tables, id, at))
        })
        .await
    }

    async fn append_audit(&self, entry: &AuditEntry) -> Result<()> {
        let entry = entry.clone();
        self.write("append to audit log", Survival::Crash, move |tables| {
            Box::pin(audit::append(tables, entry.clone(), limits::AUDIT_KEPT))
        })
        .await
    }

    async fn audit(
        &self,
        query: &AuditQuery,
        offset: usize,
        limit: usize,
    ) -> Result<Page<AuditEntry>> {
        let query = Arc::new(query.clone());
        self.read("read audit log", move |tables| {
            let query = query.clone();
            Box::pin(async move { audit::page(tables, &query, offset, limit).await })
        })
        .await
    }
}

/// Seals the values of a service and of its deployments anew.
async fn reseal(tables: &mut impl Tables, service: ServiceId, keyring: Keyring) -> Done<Resealed> {
    let mut resealed = Resealed::default();
    let mut renew = |vars: &mut Vec<EnvVar>| {
        let before = resealed.renewed;
        for var in vars {
            match keyring.renew(&mut var.value) {
                Ok(renewed) => resealed.renewed += u64::from(renewed),
                Err(_) => resealed.lost += 1,
            }
        }
        resealed.renewed > before
    };
    services::set_environment(tables, service, &mut renew).await?;
    deployments::set_environments(tables, service, &mut renew).await?;
    let effect = if resealed.renewed == 0 { Effect::Nothing } else { Effect::Kept };
    Ok((resealed, effect))
}
