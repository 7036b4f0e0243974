//! What checked fields do to the stored records: a new service, or a change of one, and the
//! deployment that comes with it.

use jiff::Timestamp;

use super::{
    error::{FieldErrors, at},
    input::Input,
};
use crate::{
    name::{ServiceId, UserName},
    secret::Keyring,
    service::{Cause, Deployment, FunctionSpec, Origin, Service},
};

/// Defaults of a new service.
const MEMORY_MB: u32 = 128;
const CPU_SHARES: u32 = 1024;
const MIN_REPLICAS: u32 = 0;
const MAX_REPLICAS: u32 = 4;

/// What an update does to the stored records.
#[derive(Debug)]
pub(super) struct Update {
    /// The service as it shall be.
    pub(super) service: Service,
    /// There when something changed that ends in a container.
    pub(super) deployment: Option<Deployment>,
}

impl Input {
    /// A new service with its first deployment.
    ///
    /// # Errors
    /// Fields that do not go together, or that are missing.
    pub(super) fn create(
        self,
        owner: UserName,
        by: UserName,
        keyring: &Keyring,
        now: Timestamp,
    ) -> Result<(Service, Deployment), FieldErrors> {
        let (Some(name), Some(runtime), Some(code)) = (self.name, self.runtime, self.code) else {
            let missing = |field| at(field, "This field is required.");
            return Err(Self::REQUIRED.into_iter().flat_map(missing).collect());
        };
        let function = FunctionSpec {
            runtime,
            handler: or_parse(self.handler, "function_handler", || "handler".to_owned())?,
            code,
            event_format: self.event_format.unwrap_or_default(),
            memory_mb: self.memory_mb.unwrap_or(MEMORY_MB),
            cpu_shares: self.cpu_shares.unwrap_or(CPU_SHARES),
            egress: self.egress.unwrap_or_default(),
            oci_runtime: self.oci_runtime.unwrap_or_default(),
            env_vars: match &self.env_vars {
                Some(vars) => vars.apply(&[], keyring)?,
                None => Vec::new(),
            },
        };
        let id = ServiceId::new();
        let origin = Origin { by, cause: Cause::Created };
        let deployment = Deployment::queued(id, function.clone(), origin, now);
        let service = Service {
            id,
            owner,
            function_name: or_parse(self.function_name, "function_name", || name.to_string())?,
            public_domain: or_parse(self.public_domain, "public_domain", || {
                format!("{name}.localhost")
            })?,
            name,
            function,
            min_replicas: self.min_replicas.unwrap_or(MIN_REPLICAS),
            max_replicas: self.max_replicas.unwrap_or(MAX_REPLICAS),
            rate_limit: self.rate_limit.unwrap_or_default(),
            rate_burst: self.rate_burst.unwrap_or_default(),
            live_deployment: None,
            latest_deployment: deployment.id,
            version: 0,
            created_at: now,
            updated_at: now,
        };
        check_replicas(&service, self.min_replicas.is_some())?;
        Ok((service, deployment))
    }

    /// The named fields put into `current`; none when that changes nothing. The deployment is made
    /// anew by each call: its id tells its place among the service's deployments, so it must not be
    /// older than the version that it is added to.
    ///
    /// # Errors
    /// Fields that do not go together, with what is there already.
    pub(super) fn apply(
        &self,
        current: &Service,
        by: &UserName,
        keyring: &Keyring,
        now: Timestamp,
    ) -> Result<Option<Update>, FieldErrors> {
        let mut service = current.clone();
        put(&mut service.name, &self.name);
        put(&mut service.function_name, &self.function_name);
        put(&mut service.public_domain, &self.public_domain);
        put(&mut service.function.runtime, &self.runtime);
        put(&mut service.function.handler, &self.handler);
        put(&mut service.function.code, &self.code);
        put(&mut service.function.event_format, &self.event_format);
        put(&mut service.function.memory_mb, &self.memory_mb);
        put(&mut service.function.cpu_shares, &self.cpu_shares);
        put(&mut service.function.egress, &self.egress);
        put(&mut service.function.oci_runtime, &self.oci_runtime);
        if let Some(vars) = &self.env_vars {
            service.function.env_vars = vars.apply(&current.function.env_vars, keyring)?;
        }
        put(&mut service.min_replicas, &self.min_replicas);
        put(&mut service.max_replicas, &self.max_replicas);
        put(&mut service.rate_limit, &self.rate_limit);
        put(&mut service.rate_burst, &self.rate_burst);
        check_replicas(&service, self.min_replicas.is_some())?;
        if service == *current {
            return Ok(None);
        }
        let changed = service.function != current.function;
        let origin = Origin { by: by.clone(), cause: Cause::Changed };
        Ok(Some(if changed { redeploy(service, origin, now) } else { touch(service, now) }))
    }
}

/// A new deployment of what the service holds.
pub(super) fn redeploy(service: Service, origin: Origin, now: Timestamp) -> Update {
    let deployment = Deployment::queued(service.id, service.function.clone(), origin, now);
    let Update { service, .. } = touch(service, now);
    let service = Service { latest_deployment: deployment.id, ..service };
    Update { service, deployment: Some(deployment) }
}

fn touch(service: Service, now: Timestamp) -> Update {
    Update { service: Service { updated_at: now, ..service }, deployment: None }
}

/// Seals anew what another key than the newest one sealed: the service may have been read, or sealed,
/// before the keys were changed. For whoever holds the keys until it is stored. False when no key
/// opens one of the values, which then stays as it is.
pub(super) fn renew(
    service: &mut Service,
    deployment: Option<&mut Deployment>,
    keyring: &Keyring,
) -> bool {
    let (mut renewed, mut opens) = (false, true);
    for var in &mut service.function.env_vars {
        match keyring.renew(&mut var.value) {
            Ok(this) => renewed |= this,
            Err(_) => opens = false,
        }
    }
    if let Some(deployment) = deployment.filter(|_| renewed) {
        deployment.function.env_vars.clone_from(&service.function.env_vars);
    }
    opens
}

/// The error goes to the field that the client most likely meant to change.
fn check_replicas(service: &Service, min_is_named: bool) -> Result<(), FieldErrors> {
    let (min, max) = (service.min_replicas, service.max_replicas);
    if min <= max {
        return Ok(());
    }
    let (field, message) = if min_is_named {
        ("min_replicas", format!("Must not be greater than max_replicas, which is {max}."))
    } else {
        ("max_replicas", format!("Must not be less than min_replicas, which is {min}."))
    };
    Err(at(field, message))
}

fn put<T: Clone>(place: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        place.clone_from(value);
    }
}

/// A default that is made of text keeps the rule of its type like any other value.
fn or_parse<T: TryFrom<String, Error: ToString>>(
    given: Option<T>,
    field: &str,
    default: impl FnOnce() -> String,
) -> Result<T, FieldErrors> {
    match given {
        Some(value) => Ok(value),
        None => T::try_from(default()).map_err(|error| at(field, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use serde_json::{Value, json};

    use super::*;
    use crate::{api::input::tests::read, secret::FernetKeys};

    static KEYRING: LazyLock<Keyring> = LazyLock::new(|| Keyring::new(&FernetKeys::generate()));

    fn service() -> Service {
        let vars =
            json!([{"key": "B", "value": "1", "is_secret": true}, {"key": "A", "value": ""}]);
        let body = json!({
            "name": "a", "function_runtime": "node18", "function_code": "x", "env_vars": vars,
        });
        let input = read(body, &Input::REQUIRED).expect("valid");
        let operator = UserName::operator;
        let created = input.create(operator(), operator(), &KEYRING, Timestamp::UNIX_EPOCH);
        created.expect("consistent").0
    }

    fn update(body: Value) -> Option<Update> {
        let now = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(1);
        read(body, &[])
            .expect("valid")
            .apply(&service(), &UserName::operator(), &KEYRING, now)
            .expect("consistent")
    }

    #[test]
    fn a_change_of_what_runs_is_deployed_and_other_changes_are_not() {
        let deployed = [
            json!({"function_code": "y"}),
            json!({"function_handler": "index.handler"}),
            json!({"event_format": "lambda-v2"}),
            json!({"memory_mb": 256}),
            json!({"cpu_shares": 512}),
            json!({"egress": "none"}),
            json!({"oci_runtime": "runsc"}),
            json!({"env_vars": [{"key": "B", "value": "2"}]}),
            json!({"env_vars": []}),
        ];
        for body in deployed {
            let update = update(body.clone()).expect("a change");
            let deployment = update.deployment.expect("a deployment");
            assert_eq!(deployment.id, update.service.latest_deployment, "{body}");
            assert_eq!(deployment.function, update.service.function, "{body}");
        }
        let at_once = [
            json!({"name": "b"}),
            json!({"function_name": "g"}),
            json!({"public_domain": "b.example.com"}),
            json!({"min_replicas": 1}),
            json!({"max_replicas": 9}),
            json!({"rate_limit": 0}),
            json!({"rate_burst": 10}),
        ];
        for body in at_once {
            let update = update(body.clone()).expect("a change");
            assert!(update.deployment.is_none(), "{body}");
            assert!(update.service.updated_at > update.service.created_at, "{body}");
        }
    }

    #[test]
    fn the_same_values_change_nothing() {
        assert!(update(json!({})).is_none());
        assert!(update(json!({"name": "a", "function_code": "x", "memory_mb": 128})).is_none());
        assert!(update(json!({"egress": "public", "oci_runtime": "default"})).is_none());
        let vars =
            json!([{"key": "A", "value": ""}, {"key": "B", "value": "1", "is_secret": true}]);
        assert!(update(json!({ "env_vars": vars })).is_none());
        assert!(update(json!({"rate_limit": null, "rate_burst": null})).is_none());
        assert!(update(json!({"id": "made up", "status": "live", "url": null})).is_none());
    }

    #[tokio::test]
    async fn what_was_read_before_the_keys_were_changed_is_stored_under_the_newest() {
        let keys = FernetKeys::generate();
        let keyring = Keyring::new(&keys);
        let body = json!({"env_vars": [{"key": "B", "value": "1"}], "memory_mb": 256});
        let input = read(body, &[]).expect("valid");
        let operator = UserName::operator();
        let applied = input.apply(&service(), &operator, &keyring, Timestamp::UNIX_EPOCH);
        let Update { mut service, mut deployment } = applied.expect("fits").expect("a change");
        let sealed = service.clone();
        assert!(renew(&mut service, deployment.as_mut(), &keyring));
        assert_eq!(service, sealed);
        let rotated = keys.rotated();
        keyring.keep(&rotated).await.expect("there is no file");
        assert!(renew(&mut service, deployment.as_mut(), &keyring));
        let newest = Keyring::new(&rotated.newest());
        let value = &service.function.env_vars[0].value;
        assert_eq!(newest.open(value).expect("opens"), "1");
        assert_eq!(deployment.as_ref().expect("made").function, service.function);
        let before = service.clone();
        let foreign = Keyring::new(&FernetKeys::generate());
        assert!(!renew(&mut service, deployment.as_mut(), &foreign));
        assert_eq!(service, before);
    }

    #[test]
    fn replica_bounds_are_checked_with_what_is_there() {
        let apply = |body| {
            let input = read(body, &[]).expect("valid");
            let now = Timestamp::UNIX_EPOCH;
            input.apply(&service(), &UserName::operator(), &KEYRING, now).map(|_| ())
        };
        let errors = apply(json!({"min_replicas": 5})).expect_err("max is 4");
        assert_eq!(
            errors["min_replicas"],
            json!(["Must not be greater than max_replicas, which is 4."])
        );
        assert!(apply(json!({"min_replicas": 5, "max_replicas": 5})).is_ok());
    }
}
