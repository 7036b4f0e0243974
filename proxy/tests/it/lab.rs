//! The lab that `scripts/lab` makes: that a test runs in it, and locks for what all tests in it share.

use std::{
    env,
    fs::{self, File, TryLockError},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, Weak},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use crate::process::output_of;

/// The namespace in which the tests, Grid and its engine are.
const NETWORK: &str = "/run/netns/grid-lab";
const DIR: &str = "/run/grid-lab";
/// As long as a test that wants to be alone may run, see .config/nextest.toml.
const PATIENCE: Duration = Duration::from_secs(600);

/// Fails a test that runs where its packets could leave the machine.
#[track_caller]
pub(crate) fn assert_inside() {
    if let Err(why) = inside() {
        panic!("this test runs in the lab: scripts/lab cargo nextest run --offline ({why})");
    }
}

fn inside() -> Result<(), String> {
    if env::var("GRID_TEST_LAB").as_deref() != Ok("1") {
        return Err("GRID_TEST_LAB is not set".to_owned());
    }
    let identity = |path: &str| {
        let found = fs::metadata(path).map_err(|error| format!("{path}: {error}"))?;
        Ok::<_, String>((found.dev(), found.ino()))
    };
    if identity("/proc/self/ns/net")? != identity(NETWORK)? {
        return Err("GRID_TEST_LAB is set, but this is another network".to_owned());
    }
    // Not /sys/class/net, which may be that of another network.
    let table = fs::read_to_string("/proc/net/dev").map_err(|error| error.to_string())?;
    match uplink(&table) {
        Some(name) => Err(format!("it has the interface {name}, which may lead out")),
        None => Ok(()),
    }
}

/// An interface that is neither of the lab nor of its engine nor of Grid.
fn uplink(table: &str) -> Option<&str> {
    let names = table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let ours = |name: &str| {
        ["lo", "internet"].contains(&name)
            || ["docker", "br-", "veth", "grid"].iter().any(|start| name.starts_with(start))
            // What kernels put into every namespace: tunnels without another end.
            || ["tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0"].contains(&name)
    };
    names.into_iter().find(|name| !ours(name))
}

static SHARED: Mutex<Weak<File>> = Mutex::new(Weak::new());
static ALONE: Mutex<Option<ThreadId>> = Mutex::new(None);

/// Held while a Grid runs. Nothing when the test is alone: then it is held already.
pub(crate) fn shared() -> Option<Arc<File>> {
    assert_inside();
    if *ALONE.lock().expect("a lock") == Some(thread::current().id()) {
        return None;
    }
    let mut kept = SHARED.lock().expect("a lock");
    // A test's second Grid must not wait for one who waits for the first.
    if let Some(file) = kept.upgrade() {
        return Some(file);
    }
    let gate = locked("gate.lock", File::try_lock_shared);
    let file = Arc::new(locked("tests.lock", File::try_lock_shared));
    drop(gate);
    *kept = Arc::downgrade(&file);
    Some(file)
}

/// While this lives no other test on this machine has a Grid.
pub(crate) struct Exclusive {
    _gate: File,
    _tests: File,
}

/// For a test that does harm to the whole lab. Its name must contain `alone`, and it must ask
/// before it starts a Grid.
pub(crate) fn exclusive() -> Exclusive {
    assert_inside();
    // Whoever comes now waits at the gate, so that those who are in become fewer.
    let gate = locked("gate.lock", File::try_lock);
    let tests = locked("tests.lock", File::try_lock);
    *ALONE.lock().expect("a lock") = Some(thread::current().id());
    Exclusive { _gate: gate, _tests: tests }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        if let Ok(mut alone) = ALONE.lock() {
            *alone = None;
        }
    }
}

/// Opens a file of the lab and locks it; it is unlocked when it is dropped, or the process ends.
#[track_caller]
pub(crate) fn locked(name: &str, lock: fn(&File) -> Result<(), TryLockError>) -> File {
    let path = Path::new(DIR).join(name);
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let until = Instant::now() + PATIENCE;
    loop {
        match lock(&file) {
            Ok(()) => return file,
            Err(TryLockError::Error(error)) => panic!("lock {}: {error}", path.display()),
            Err(TryLockError::WouldBlock) => {}
        }
        assert!(Instant::now() < until, "another test holds {} all the time", path.display());
        thread::sleep(Duration::from_millis(25));
    }
}

/// Runs `ip`, which must succeed.
#[track_caller]
pub(crate) fn ip(args: &[&str]) -> String {
    output_of("ip", args).unwrap_or_else(|error| panic!("ip {args:?}: {error}"))
}

/// Runs `nft` in the network of the calling thread; it must succeed.
#[track_caller]
pub(crate) fn nft(args: &[&str]) -> String {
    output_of("nft", args).unwrap_or_else(|error| panic!("nft {args:?}: {error}"))
}

/// The routing rules for packets from an interface: their family and the table they lead to, if any.
pub(crate) fn rules_of(interface: &str) -> Vec<(&'static str, Option<String>)> {
    let mut found = Vec::new();
    for family in ["-4", "-6"] {
        let listed = output_of("ip", &[family, "-j", "rule", "show"]).unwrap_or_default();
        let rules: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap_or_default();
        let ours = rules.iter().filter(|rule| rule["iif"] == interface);
        found.extend(ours.map(|rule| (family, rule["table"].as_str().map(str::to_owned))));
    }
    found
}

#[test]
fn an_interface_that_may_lead_out_is_found() {
    let table =
        |name: &str| format!("Inter-| R\n face |bytes\n    lo: 0\ninternet: 1\n{name}: 2\n");
    for name in ["docker0", "br-0123456789ab", "veth01a2b3c", "grid0", "sit0"] {
        assert_eq!(uplink(&table(name)), None, "{name}");
    }
    for name in ["eth0", "wlan0", "enp3s0", "tun0", "wg0", "macvlan0", "internet2"] {
        assert_eq!(uplink(&table(name)), Some(name));
    }
}

#[test]
fn who_asks_to_be_alone_waits_for_the_others_and_keeps_them_out() {
    let first = shared().expect("a share");
    thread::scope(|scope| {
        let alone = scope.spawn(|| {
            let alone = crate::internet::exclusive();
            assert!(shared().is_none(), "its own Grid must not wait for itself");
            alone
        });
        // Its gate is shut as soon as it waits.
        crate::grid::wait_until("somebody at the gate", || {
            let gate = File::open(Path::new(DIR).join("gate.lock")).expect("a gate");
            matches!(gate.try_lock_shared(), Err(TryLockError::WouldBlock))
        });
        assert!(!alone.is_finished());
        assert!(Arc::ptr_eq(&first, &shared().expect("a share")), "as the second Grid of a test");
        drop(first);
        let alone = alone.join().expect("alone");
        let tests = File::open(Path::new(DIR).join("tests.lock")).expect("a lock");
        assert!(matches!(tests.try_lock_shared(), Err(TryLockError::WouldBlock)));
        drop(alone);
    });
    assert!(shared().is_some());
}
