//! Another key for everything that is sealed: `grid keys rotate`.
//!
//! A new key is put in front of those that there are, everything is sealed anew with it, and only
//! then are the others dropped. After each of these steps there are keys for all that is kept, so a
//! crash costs nothing; a rotation that was interrupted is made good by the next one.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::{
    error::{Error, Kind, Result},
    secret::Keyring,
    store::{Resealed, Store},
};

/// How often everything is looked through at most, until nothing is found under an old key.
const PASSES: usize = 10;

/// The rotation that runs, or ran last in this process. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Rotations {
    state: Arc<watch::Sender<State>>,
}

/// How a rotation is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum State {
    /// There was none.
    #[default]
    Idle,
    /// It runs.
    Running,
    /// It went well.
    Done(Rotated),
    /// It did not; what was there still opens.
    Failed(Kind, String),
}

/// What a rotation has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rotated {
    /// Values that were sealed anew.
    pub values: u64,
    /// Values that no key opens. They are as they were.
    pub lost: u64,
    /// Keys that nothing is under any more: dropped from the file, or to be removed from the setting.
    pub old_keys: usize,
}

impl Rotations {
    /// Starts a rotation, unless one runs already, and lets its state be followed. It runs to its end
    /// whether anybody does or not.
    pub fn start(&self, store: Arc<dyn Store>, keyring: Keyring) -> watch::Receiver<State> {
        let begins = self.state.send_if_modified(|state| {
            let idle = *state != State::Running;
            *state = State::Running;
            idle
        });
        if begins {
            let state = self.state.clone();
            tokio::spawn(async move {
                let task = tokio::spawn(async move { rotate(&*store, &keyring).await });
                let ended = match task.await {
                    Ok(Ok(rotated)) => {
                        tracing::info!(?rotated, "the keys of environment variables were rotated");
                        State::Done(rotated)
                    }
                    Ok(Err(error)) => {
                        tracing::error!(%error, "the rotation of keys failed; what there is still opens");
                        State::Failed(error.kind(), error.to_string())
                    }
                    Err(error) => State::Failed(Kind::Failed, error.to_string()),
                };
                state.send_replace(ended);
            });
        }
        self.state.subscribe()
    }

    /// How it is.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }
}

/// Seals everything anew: with a new key when the keys are kept in a file, else with the first one of
/// the setting.
///
/// # Errors
/// `Conflict` when the setting has no other key than the one that seals already; `File`; `Store`.
async fn rotate(store: &dyn Store, keyring: &Keyring) -> Result<Rotated> {
    add_key(keyring).await?;
    let Resealed { renewed, lost } = reseal_all(store, keyring).await?;
    let old_keys = keyring.keys().len() - 1;
    drop_old_keys(keyring).await?;
    Ok(Rotated { values: renewed, lost, old_keys })
}

/// From here on everything is sealed with another key.
async fn add_key(keyring: &Keyring) -> Result<()> {
    let keys = keyring.keys();
    if keyring.is_kept_in_file() {
        return keyring.keep(&keys.rotated()).await;
    }
    if keys.len() > 1 {
        return Ok(()); // the setting has been changed for this already
    }
    let message = "GRID_FERNET_KEYS has one key only: put a new one in front of it, start Grid again \
                   (grid upgrade will do), and rotate then.";
    Err(Error::Conflict { field: None, message: message.to_owned() })
}

/// Seals anew what is under older keys, one service at a time.
async fn reseal_all(store: &dyn Store, keyring: &Keyring) -> Result<Resealed> {
    let mut all = Resealed::default();
    for pass in 0..PASSES {
        let mut this = Resealed::default();
        for service in store.service_ids().await? {
            let Resealed { renewed, lost } = store.reseal(service, keyring).await?;
            this.renewed += renewed;
            this.lost += lost;
        }
        all = Resealed { renewed: all.renewed + this.renewed, lost: this.lost };
        // Nobody stores anything under an old key while they hold the keys. Only a request that was
        // given up in the middle may have; its transaction has ended when the first pass has.
        if pass > 0 && this.renewed == 0 {
            return Ok(all);
        }
    }
    Err(Error::Store {
        operation: "reseal environments",
        reason: "again and again something is under an old key; the old keys are kept".to_owned(),
    })
}

/// Nothing is under the older keys any more.
async fn drop_old_keys(keyring: &Keyring) -> Result<()> {
    match keyring.is_kept_in_file() {
        true => keyring.keep(&keyring.keys().newest()).await,
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        environment::{EnvVar, Environment},
        name::{DeploymentId, EnvKey, ServiceId},
        secret::FernetKeys,
        service::{Deployment, Service, example},
        store::{Durable, embedded::Embedded},
    };

    /// A data directory with three services, which have one variable each.
    struct World {
        dir: tempfile::TempDir,
        kept: Vec<(ServiceId, DeploymentId)>,
    }

    impl World {
        async fn make(keyring: impl Fn(&Path) -> Keyring) -> Self {
            let dir = tempfile::tempdir().expect("temporary directory");
            let (store, keyring) = (open(dir.path()), keyring(dir.path()));
            let mut kept = Vec::new();
            for name in ["a", "b", "c"] {
                let (service, first) = service(name, &keyring);
                store.create_service(&service, &first, None).await.expect("creates");
                kept.push((service.id, first.id));
            }
            Self { dir, kept }
        }

        fn keyring(&self) -> Keyring {
            Keyring::load_or_create(self.dir.path(), None).expect("reads the file")
        }

        /// Whether everything that is kept is opened.
        async fn opens(&self, keyring: &Keyring) -> bool {
            let store = open(self.dir.path());
            for (service, deployment) in &self.kept {
                let of_service = store.service(*service).await.expect("reads").expect("is there");
                let deployed = store.environment(*service, *deployment).await.expect("reads");
                for kept in [of_service.function.env_vars, deployed] {
                    match Environment::open(&kept, keyring) {
                        Ok(opened) => assert_eq!(opened.variables[0].1, "s3cret"),
                        Err(_) => return false,
                    }
                }
            }
            true
        }
    }

    fn open(dir: &Path) -> Embedded {
        Embedded::open(dir).expect("opens")
    }

    fn service(name: &str, keyring: &Keyring) -> (Service, Deployment) {
        let key = EnvKey::parse("KEY").expect("valid");
        let vars = vec![EnvVar { key, value: keyring.seal("s3cret"), is_secret: true }];
        example::service(name, example::function("x", vars), Timestamp::UNIX_EPOCH)
    }

    fn of_file(dir: &Path) -> Keyring {
        Keyring::load_or_create(dir, None).expect("makes the file")
    }

    #[tokio::test]
    async fn everything_is_under_a_new_key_and_the_old_one_is_gone() {
        let world = World::make(of_file).await;
        // One with a file would read it again.
        let (before, keyring) = (Keyring::new(&world.keyring().keys()), world.keyring());
        let rotated = rotate(&open(world.dir.path()), &keyring).await.expect("rotates");
        assert_eq!(rotated, Rotated { values: 6, lost: 0, old_keys: 1 });
        assert_eq!((keyring.keys().len(), world.keyring().keys().len()), (1, 1));
        assert!(world.opens(&keyring).await && world.opens(&world.keyring()).await);
        assert!(!world.opens(&before).await);
        let again = rotate(&open(world.dir.path()), &keyring).await.expect("rotates");
        assert_eq!(again.values, 6);
        assert!(world.opens(&world.keyring()).await);
    }

    #[tokio::test]
    async fn whatever_interrupts_it_everything_opens_and_the_next_one_makes_it_good() {
        for steps in 0..=3 {
            let world = World::make(of_file).await;
            let keyring = world.keyring();
            if steps > 0 {
                add_key(&keyring).await.expect("adds");
            }
            if steps == 2 {
                let first = world.kept[0].0;
                open(world.dir.path()).reseal(first, &keyring).await.expect("reseals one of three");
            }
            if steps > 2 {
                reseal_all(&open(world.dir.path()), &keyring).await.expect("reseals");
            }
            // A crash: what is in memory is gone.
            let keyring = world.keyring();
            assert!(world.opens(&keyring).await, "after {steps} steps");
            rotate(&open(world.dir.path()), &keyring).await.expect("rotates");
            assert_eq!(world.keyring().keys().len(), 1);
            assert!(world.opens(&world.keyring()).await, "after {steps} steps");
        }
    }

    #[tokio::test]
    async fn keys_of_a_setting_are_left_to_who_set_them() {
        let old = FernetKeys::generate();
        let world = World::make(|_| Keyring::new(&old)).await;
        let one = rotate(&open(world.dir.path()), &Keyring::new(&old)).await;
        let error = one.expect_err("there is nothing to rotate to");
        assert!(error.to_string().contains("put a new one in front"), "{error}");
        let both = old.rotated();
        let keyring = Keyring::new(&both);
        let rotated = rotate(&open(world.dir.path()), &keyring).await.expect("rotates");
        assert_eq!(rotated, Rotated { values: 6, lost: 0, old_keys: 1 });
        assert_eq!(keyring.keys().len(), 2);
        assert!(world.opens(&Keyring::new(&both.newest())).await);
        assert!(!world.dir.path().join("fernet_keys").exists());
        // What is under none of the keys is told, and in nobody's way.
        let other = Keyring::new(&FernetKeys::generate().rotated());
        let rotated = rotate(&open(world.dir.path()), &other).await.expect("rotates");
        assert_eq!(rotated, Rotated { values: 0, lost: 6, old_keys: 1 });
        assert!(world.opens(&Keyring::new(&both.newest())).await);
    }

    #[tokio::test]
    async fn one_rotation_runs_at_a_time_and_its_end_is_seen() {
        let world = World::make(of_file).await;
        let store: Arc<dyn Store> = Arc::new(open(world.dir.path()));
        let (rotations, keyring) = (Rotations::default(), world.keyring());
        assert_eq!(rotations.state(), State::Idle);
        let mut first = rotations.start(store.clone(), keyring.clone());
        let mut second = rotations.start(store.clone(), keyring.clone());
        let running = |state: &State| *state == State::Running;
        let end = first.wait_for(|state| !running(state)).await.expect("ends").clone();
        assert_eq!(end, State::Done(Rotated { values: 6, lost: 0, old_keys: 1 }));
        assert_eq!(*second.wait_for(|state| !running(state)).await.expect("the same"), end);
        assert_eq!(rotations.state(), end);
        let failing = Keyring::new(&keyring.keys());
        let mut third = rotations.start(store, failing);
        let end = third.wait_for(|state| !running(state)).await.expect("ends").clone();
        assert!(matches!(end, State::Failed(Kind::Conflict, _)), "{end:?}");
    }
}
