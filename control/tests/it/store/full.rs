//! What the embedded store promises on a disk that is full: what was acknowledged stays, reads go
//! on, and so do writes when there is room again, in the same process.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use control::{
    error::{Error, Kind},
    service::{Phase, Service},
    store::{Durable, ServiceQuery, Volatile, embedded::Embedded},
};

use super::{again, at, edit, replica, service};

const SIZE: &str = "size=24m";
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the disk is filled in one process.
const ROUNDS: usize = 6;

#[test]
fn a_full_disk_stops_writes_until_there_is_room() {
    let dir = tempfile::tempdir().expect("temporary directory");
    // The mount ends with the process, however that ends.
    let plain = ["unshare", "--mount", "--propagation", "private"];
    let as_user = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"];
    let may = |words: &[&str]| {
        let tried = Command::new(words[0]).args(&words[1..]).arg("true").output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let words = if may(&plain) { &plain[..] } else { &as_user[..] };
    let output = again::process(words, "store::full::on_a_small_disk", dir.path())
        .output()
        .expect("unshare of util-linux runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// The whole file system but what the store has of it.
struct Filler<'a>(&'a Path);

impl Filler<'_> {
    fn fill(&self, leaving: u64) {
        let mut file = File::create(self.0).expect("made");
        for size in [1 << 20, 4096] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        let length = file.metadata().expect("is there").len();
        file.set_len(length.saturating_sub(leaving)).expect("cut");
    }

    fn make_room(&self) {
        fs::remove_file(self.0).expect("removed");
    }
}

fn reason(error: Error) -> String {
    assert_eq!(error.kind(), Kind::Unavailable);
    match error {
        Error::Store { reason, .. } => reason,
        other => panic!("not a store error: {other}"),
    }
}

/// Updates with much code until one fails: the last one that was acknowledged, and the error.
async fn update_until_it_fails(store: &Embedded, mut acknowledged: Service) -> (Service, Error) {
    let service = acknowledged.id;
    for attempt in 0..500 {
        // Not durable: an update that fails takes it along.
        let latest = acknowledged.latest_deployment;
        let building = store.record_phase(service, latest, Phase::Building, at(4), vec![], None);
        if let Err(error) = building.await {
            return (acknowledged, error);
        }
        let (next, deployment) = edit(&acknowledged, &format!("{attempt} ").repeat(30_000));
        match store.update_service(&next, Some(&deployment)).await {
            Ok(updated) => acknowledged = updated,
            Err(error) => return (acknowledged, error),
        }
        // So that history is forgotten, and the file does not outgrow the disk.
        let failed = store.record_phase(service, latest, Phase::Failed, at(5), vec![], None);
        if let Err(error) = failed.await {
            return (acknowledged, error);
        }
    }
    panic!("the disk was never full");
}

/// What memory knows is what the file says.
async fn agrees(store: &Embedded) {
    let listed = store.services(&ServiceQuery::all(), 0, 100).await.expect("lists");
    let mut ids = store.service_ids().await.expect("lists");
    ids.sort();
    let mut found: Vec<_> = listed.items.iter().map(|service| service.id).collect();
    found.sort();
    assert_eq!(ids, found);
    for service in listed.items {
        let view = store.view(service.id).await.expect("reads");
        assert_eq!(view.route, Some((&service).into()));
        let latest = store.deployment(service.id, service.latest_deployment).await.expect("reads");
        let latest = latest.expect("is there");
        assert_eq!(view.latest_phase, Some(latest.phase));
        assert_eq!(latest.function.code, service.function.code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a_full_disk_stops_writes_until_there_is_room runs it in a process of its own"]
async fn on_a_small_disk() {
    let Some(dir) = again::dir() else { return };
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(&dir);
    assert!(mount.status().expect("mount runs").success());
    fill_again_and_again(&dir).await;
}

async fn fill_again_and_again(dir: &Path) {
    let store = Embedded::open(dir).expect("opens");
    let path = dir.join("filler");
    let filler = Filler(&path);
    let (a, first) = service("a");
    store.create_service(&a, &first, None).await.expect("creates");
    store.activate_deployment(a.id, first.id, at(2)).await.expect("activates");
    store.put_replica(replica(a.id, first.id)).await.expect("puts");
    let mut a = store.service(a.id).await.expect("reads").expect("is there");

    // Whatever happens, who reads gets an answer, and nobody else gets the file.
    let stop = Arc::new(AtomicBool::new(false));
    let mut others = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (store, stop, id) = (store.clone(), stop.clone(), a.id);
        others.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let service = store.service(id).await.expect("reads go on").expect("is there");
                store.deployments(id, 0, 3).await.expect("reads go on");
                assert!(service.live_deployment.is_some());
                assert_eq!(store.view(id).await.expect("reads").replicas.len(), 1);
            }
        });
    }
    let (lock, dir_of_lock) = (stop.clone(), dir.to_owned());
    let intruder = std::thread::spawn(move || {
        while !lock.load(Ordering::Relaxed) {
            let refused = Embedded::open(&dir_of_lock).err().expect("it is in use");
            assert!(refused.to_string().contains("is used by another Grid"), "{refused}");
        }
    });

    let mut problem = store.problem();
    for round in 0..ROUNDS {
        assert_eq!(*problem.borrow_and_update(), None);
        filler.fill(round as u64 % 3 * (1 << 20));
        let (acknowledged, error) = update_until_it_fails(&store, a.clone()).await;
        let told = reason(error);
        for part in ["is full", "grid.redb", &dir.display().to_string()] {
            assert!(told.contains(part), "{told}");
        }
        let known = problem.borrow_and_update().clone().expect("there is a problem");
        assert!(known.contains("is full"), "{known}");
        let (b, first_of_b) = service("b");
        let refused = store.create_service(&b, &first_of_b, None).await.expect_err("refused");
        assert!(reason(refused).contains("is full"));

        // The one that failed is there or not, but nothing else.
        a = store.service(a.id).await.expect("reads").expect("is there");
        assert!((acknowledged.version..=acknowledged.version + 1).contains(&a.version));
        if a.version == acknowledged.version {
            assert_eq!(a, acknowledged);
        }
        agrees(&store).await;

        filler.make_room();
        let well = problem.wait_for(Option::is_none);
        tokio::time::timeout(PATIENCE, well).await.expect("in time").expect("the store is there");
        let (next, deployment) = edit(&a, "after it");
        a = store.update_service(&next, Some(&deployment)).await.expect("there is room again");
        let (c, first_of_c) = service(&format!("c{round}"));
        store.create_service(&c, &first_of_c, None).await.expect("there is room again");
        agrees(&store).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = others.join_next().await {
        ended.expect("reads went on");
    }
    intruder.join().expect("nobody got the file");

    // A start on a full disk.
    let ids = store.service_ids().await.expect("lists");
    assert_eq!(ids.len(), 1 + ROUNDS);
    drop(store);
    filler.fill(0);
    let store = Embedded::open(dir).expect("opens");
    assert_eq!(store.service(a.id).await.expect("reads").as_ref(), Some(&a));
    assert_eq!(store.service_ids().await.expect("lists"), ids);
}
