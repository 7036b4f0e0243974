//! What the embedded store promises a process that is killed while it works: what was acknowledged
//! is there, and what was not is there as a whole or not at all.

mod part;
mod worker;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

use control::store::{Creation, Durable, embedded::Embedded};

use self::part::{Part, Step};
use super::again;

const WORKERS: usize = 4;
const KILLS: u64 = 200;
/// A number to start from, in the place of the time.
const SEED: &str = "GRID_TEST_SEED";
const PATIENCE: Duration = Duration::from_secs(30);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).expect("an index")]
    }
}

fn seed() -> u64 {
    let given = std::env::var(SEED).ok().map(|seed| seed.parse().expect("a number"));
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    given.unwrap_or_else(|| u64::try_from(now().as_millis()).expect("small"))
}

/// What is known of a worker: what it had at its last acknowledgement, and what it did then.
struct Known {
    part: Part,
    trying: Option<Step>,
    created: Option<Step>,
}

impl Known {
    fn hear(&mut self, word: &str, rest: &str) {
        match word {
            "try" => self.trying = Some(serde_json::from_str(rest).expect("a step")),
            "ok" => {
                let step = self.trying.take().expect("it was tried before");
                self.part = self.part.after(&step);
                if matches!(step, Step::Create { .. }) {
                    self.created = Some(step);
                }
            }
            _ => panic!("{word} {rest}"),
        }
    }

    /// Compares with what is there.
    async fn check(&mut self, store: &Embedded, worker: usize) {
        let found = Part::load(store, worker).await;
        let maybe = self.trying.take().map(|step| (self.part.after(&step), step));
        match maybe {
            Some((after, _)) if found == after => {}
            maybe => assert_eq!(found, self.part, "acknowledged; or not: {maybe:?}"),
        }
        self.part = found;
        // Whoever saw no answer may ask again.
        let Some(step @ Step::Create { name, id, .. }) = &self.created else { return };
        let (record, first, attempt) = worker::creation(worker, step, name);
        let again = store.create_service(&record, &first, Some(&attempt)).await.expect("answers");
        assert_eq!(again, Creation::Repeated(*id));
    }
}

/// Runs a test of this file as a process until it is killed, and passes on what it said.
fn killed(test: &str, dir: &Path, seed: u64, work: Duration, wait: bool) -> Vec<String> {
    let mut child = again::process(&[], &format!("store::crash::{test}"), dir)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let (begins, begun) = mpsc::channel();
    let reader = thread::spawn(move || {
        let lines = out.lines().map(|line| line.expect("text"));
        let told = lines.inspect(|line| {
            if line == "go" {
                let _ = begins.send(()); // fails when nobody waits for it
            }
        });
        told.collect()
    });
    let begun = !wait || begun.recv_timeout(PATIENCE).is_ok();
    if begun {
        thread::sleep(work);
    }
    child.kill().expect("killed"); // SIGKILL
    child.wait().expect("waited for");
    let said: Vec<String> = reader.join().expect("read to its end");
    assert!(begun, "it did not begin: {said:#?}");
    said
}

#[test]
fn a_process_that_is_killed_loses_nothing_acknowledged() {
    let seed = seed();
    let mut random = Random(seed);
    let dir = tempfile::tempdir().expect("temporary directory");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let empty = || Known { part: Part::default(), trying: None, created: None };
    let mut known: Vec<Known> = (0..WORKERS).map(|_| empty()).collect();
    let mut acknowledged = 0;
    let mut kills = 0;
    while kills < KILLS {
        eprintln!("{SEED}={seed}: after {kills} kills and {acknowledged} acknowledgements");
        let work = Duration::from_micros(random.below(50_000));
        for line in killed("works", dir.path(), random.next(), work, true) {
            let mut words = line.splitn(3, ' ');
            let (word, worker, rest) = (words.next(), words.next(), words.next());
            if let (Some(word @ ("try" | "ok" | "bad")), Some(Ok(worker))) =
                (word, worker.map(str::parse::<usize>))
            {
                known[worker].hear(word, rest.unwrap_or_default());
                acknowledged += u64::from(word == "ok");
            }
        }
        kills += 1;
        // Now and then the process that puts it right is killed, too.
        while random.below(3) == 0 {
            let open = Duration::from_micros(random.below(15_000));
            killed("opens", dir.path(), 0, open, false);
            kills += 1;
        }
        runtime.block_on(async {
            let store = Embedded::open(dir.path()).expect("opens");
            for (worker, known) in known.iter_mut().enumerate() {
                known.check(&store, worker).await;
            }
        });
    }
    assert!(acknowledged > 2 * KILLS, "they were killed before they did anything: {acknowledged}");
}

#[test]
fn a_directory_that_another_process_has_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut child = again::process(&[], "store::crash::opens", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let opened = out.lines().any(|line| line.is_ok_and(|line| line == "go"));
    let refused = Embedded::open(dir.path()).err().map(|error| error.to_string());
    child.kill().expect("killed");
    child.wait().expect("waited for");
    assert!(opened);
    let refused = refused.expect("it is in use");
    let dir = dir.path();
    for part in [&dir.display().to_string(), "is used by another Grid", "GRID_DATA_DIR"] {
        assert!(refused.contains(part), "{refused}");
    }
    Embedded::open(dir).expect("nobody has it any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a_process_that_is_killed_loses_nothing_acknowledged runs and kills it"]
async fn works() {
    let Some(dir) = again::dir() else { return };
    let store = Embedded::open(&dir).expect("opens");
    let mut random = Random(seed());
    let mut workers = tokio::task::JoinSet::new();
    let mut parts = Vec::new();
    for worker in 0..WORKERS {
        parts.push(Part::load(&store, worker).await);
    }
    worker::say("\ngo"); // after what the harness says without a line's end
    for (worker, part) in parts.into_iter().enumerate() {
        workers.spawn(worker::work(store.clone(), worker, part, Random(random.next())));
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("works");
    }
}

#[test]
#[ignore = "a_process_that_is_killed_loses_nothing_acknowledged and another run and kill it"]
fn opens() {
    let Some(dir) = again::dir() else { return };
    let _store = Embedded::open(&dir).expect("opens");
    worker::say("\ngo");
    thread::sleep(PATIENCE);
}
