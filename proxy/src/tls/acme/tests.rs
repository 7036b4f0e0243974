//! End to end against a small certificate authority of our own, over loopback: it checks signatures
//! and nonces, really fetches the challenges, and can misbehave.

mod authority;

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt};

use control::name::ServiceId;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

use self::authority::{Counts, Mischief, TestAuthority};
use super::*;
use crate::tls::testing::{development, named};

/// An [`Acme`] that runs, beside its authority.
struct Place {
    dir: TempDir,
    authority: TestAuthority,
    certificates: Arc<Certificates>,
    acme: Arc<Acme>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    services: Mutex<BTreeMap<String, ServiceId>>,
}

fn pace() -> Pace {
    let short = (Duration::from_millis(20), Duration::from_millis(100));
    Pace { domain: short, authority: short, poll: Duration::from_millis(5), ..Pace::default() }
}

fn domain(name: &str) -> PublicDomain {
    PublicDomain::parse(name).expect("valid")
}

impl Place {
    async fn new(mischief: Mischief) -> Self {
        Self::with_pace(mischief, pace()).await
    }

    async fn with_pace(mischief: Mischief, pace: Pace) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let authority = TestAuthority::start(mischief).await;
        fs::write(dir.path().join("root.pem"), authority.tls_root()).expect("writes");
        let certificates = Arc::new(Certificates::new(development()));
        let acme = open(&dir, &authority, certificates.clone(), pace, Some("ops@example.com"));
        authority.check_with(acme.challenges());
        let services = Mutex::default();
        let mut place = Self { dir, authority, certificates, acme, running: None, services };
        place.run();
        place
    }

    fn run(&mut self) {
        let (stop, stopped) = oneshot::channel::<()>();
        let acme = self.acme.clone();
        let task = tokio::spawn(async move { acme.run(async { drop(stopped.await) }).await });
        self.running = Some((stop, task));
    }

    /// As after a restart of the process.
    async fn restart(&mut self, email: Option<&str>) {
        let (stop, task) = self.running.take().expect("it runs");
        stop.send(()).expect("it runs");
        task.await.expect("it ends by itself");
        self.certificates = Arc::new(Certificates::new(development()));
        self.acme = open(&self.dir, &self.authority, self.certificates.clone(), pace(), email);
        self.authority.check_with(self.acme.challenges());
        let services: Vec<_> = self.services.lock().keys().cloned().collect();
        self.services.lock().clear();
        self.run();
        for name in services {
            self.add(&name);
        }
    }

    /// A service with this domain exists from now on.
    fn add(&self, name: &str) {
        let service = ServiceId::new();
        self.services.lock().insert(name.to_owned(), service);
        self.acme.domains().set(service, Some(&domain(name)));
    }

    fn remove(&self, name: &str) {
        let service = self.services.lock().remove(name).expect("was added");
        self.acme.domains().set(service, None);
    }

    /// The certificate that a client gets.
    fn served(&self, host: &str) -> Vec<CertificateDer<'static>> {
        self.certificates.choose(Some(host), |_| true).expect("one").cert.clone()
    }

    fn has(&self, host: &str) -> bool {
        self.certificates.list().iter().any(|listed| listed.name == host)
    }

    fn status(&self, name: &str) -> Option<Status> {
        self.acme.status().into_iter().find(|status| status.domain.as_str() == name)
    }

    fn last_error(&self, name: &str) -> Option<String> {
        self.status(name)?.last_error
    }

    fn counts(&self) -> Counts {
        self.authority.counts()
    }
}

fn open(
    dir: &TempDir,
    authority: &TestAuthority,
    certificates: Arc<Certificates>,
    pace: Pace,
    email: Option<&str>,
) -> Arc<Acme> {
    let asked = Authority {
        directory: authority.directory(),
        email: email.map(str::to_owned),
        ca_file: Some(dir.path().join("root.pem")),
    };
    let data = dir.path().join("data");
    let acme = Acme::open(asked, &data, certificates, pace, Timestamp::now()).expect("opens");
    Arc::new(acme)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, wait).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).expect("reads") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

#[tokio::test]
async fn domains_of_services_get_certificates_that_survive_a_restart() {
    let mut place = Place::new(Mischief::default()).await;
    let names = ["a.example.com", "b.example.com", "c.example.org"];
    for name in names {
        place.add(name);
    }
    for skipped in ["hello.localhost", "10.0.0.1"] {
        place.add(skipped);
    }
    until("all have one", || names.iter().all(|name| place.has(name))).await;
    let certificates = names.map(|name| place.served(name));
    let different: BTreeSet<_> = certificates.iter().map(|chain| chain[0].to_vec()).collect();
    assert_eq!(different.len(), 3);
    assert!(certificates.iter().all(|chain| chain.len() == 2), "with the chain");
    let counts = place.counts();
    assert_eq!((counts.accounts, counts.orders, counts.checks), (1, 3, 3));
    assert_eq!(place.authority.contacts(), serde_json::json!(["mailto:ops@example.com"]));
    until("nothing is left to do", || {
        let status = place.acme.status();
        status.len() == 3 && status.iter().all(|status| status.next_attempt.is_some())
    })
    .await;
    for status in place.acme.status() {
        let validity = status.validity.expect("has one");
        assert_eq!(status.next_attempt, Some(schedule::renewal(validity)));
    }
    for file in files(&place.dir.path().join("data")) {
        let mode = fs::metadata(&file).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }

    place.restart(Some("ops@example.com")).await;
    assert!(names.iter().all(|name| place.has(name)), "served before anybody is asked");
    place.add("d.example.com");
    until("the new one", || place.has("d.example.com")).await;
    let counts = place.counts();
    assert_eq!((counts.accounts, counts.orders), (1, 4));
    assert_eq!(names.map(|name| place.served(name)), certificates);
}

#[tokio::test]
async fn what_the_operator_has_a_certificate_for_is_not_asked_for() {
    let place = Place::new(Mischief::default()).await;
    let own = vec![named("own", &["*.example.com"], -1, 30)];
    place.certificates.set(Source::Directory, own, Timestamp::now());
    place.add("a.example.com");
    place.add("a.example.org");
    until("the other", || place.has("a.example.org")).await;
    assert!(!place.has("a.example.com") && place.status("a.example.com").is_none());
    assert_eq!(place.counts().orders, 1);
}

#[tokio::test]
async fn a_certificate_is_renewed_when_two_thirds_of_its_life_are_over() {
    // Good since 80 days ago, for ten more: what comes next is as old, so it is renewed again.
    let mischief = Mischief { validity_days: (-80, 10), ..Mischief::default() };
    let place = Place::new(mischief).await;
    place.add("a.example.com");
    until("several renewals", || place.counts().orders >= 3).await;
    place.authority.behave(Mischief::default());
    until("a fresh one", || {
        let status = place.status("a.example.com");
        status.is_some_and(|s| s.next_attempt.is_some_and(|at| at > Timestamp::now()))
    })
    .await;
    let listed = place.certificates.list();
    assert_eq!(listed.len(), 1, "the new one is in the old one's place");
    assert!(listed[0].validity.not_after > Timestamp::now() + Duration::from_secs(60 * 86_400));
    assert!(place.counts().checks < place.counts().orders, "a check is good for a while");
}

#[tokio::test]
async fn a_bad_nonce_is_no_failure() {
    let place = Place::new(Mischief { bad_nonces: 2, ..Mischief::default() }).await;
    place.add("a.example.com");
    until("it comes", || place.has("a.example.com")).await;
    assert_eq!(place.counts().bad_nonces, 2);
    assert_eq!(place.counts().orders, 1);
}

#[tokio::test]
async fn a_domain_that_leads_elsewhere_fails_alone_and_says_why() {
    let place = Place::new(Mischief::default()).await;
    place.authority.misdirect("wrong.example.com", true);
    place.add("wrong.example.com");
    place.add("right.example.com");
    until("the right one", || place.has("right.example.com")).await;
    until("the wrong one fails again", || {
        place.status("wrong.example.com").is_some_and(|status| status.failures >= 2)
    })
    .await;
    let error = place.last_error("wrong.example.com").expect("an error");
    assert!(error.contains("could not check the domain"), "{error}");
    assert!(error.contains("incorrectResponse"), "{error}");
    assert!(!place.has("wrong.example.com"));
    // Its address is put right.
    place.authority.misdirect("wrong.example.com", false);
    until("it comes", || place.has("wrong.example.com")).await;
    until("the error is forgotten", || place.last_error("wrong.example.com").is_none()).await;
}

#[tokio::test]
async fn a_limit_is_kept_to() {
    let mischief = Mischief { limits: 1, retry_after: 3600, ..Mischief::default() };
    let slow = Pace { authority: (Duration::from_millis(20), Duration::from_secs(1)), ..pace() };
    let place = Place::with_pace(mischief, slow).await;
    place.add("a.example.com");
    until("the refusal", || place.last_error("a.example.com").is_some()).await;
    let error = place.last_error("a.example.com").expect("an error");
    assert!(error.contains("429") && error.contains("too many orders"), "{error}");
    let next = place.status("a.example.com").and_then(|status| status.next_attempt);
    let pause = next.expect("waits").duration_since(Timestamp::now()).as_secs();
    assert!((3500..=3600).contains(&pause), "{pause}");
    // The limit may be that of the one name.
    place.add("b.example.com");
    until("another", || place.has("b.example.com")).await;
    assert!(!place.has("a.example.com"));
}

#[tokio::test]
async fn an_authority_that_is_away_or_in_trouble_is_tried_again() {
    let place = Place::new(Mischief { away: true, ..Mischief::default() }).await;
    place.add("a.example.com");
    until("it fails", || place.last_error("a.example.com").is_some()).await;
    let error = place.last_error("a.example.com").expect("an error");
    assert!(error.contains("making an ACME account"), "{error}");
    for trouble in [
        Mischief { broken: true, ..Mischief::default() },
        Mischief { wrong_certificate: true, ..Mischief::default() },
    ] {
        let reads = if trouble.broken { "503" } else { "the certificate that came" };
        place.authority.behave(trouble);
        until(reads, || {
            place.last_error("a.example.com").is_some_and(|error| error.contains(reads))
        })
        .await;
    }
    assert_eq!(place.status("a.example.com").expect("known").failures, 0, "not its fault");
    place.authority.behave(Mischief::default());
    until("it comes", || place.has("a.example.com")).await;
}

#[tokio::test]
async fn an_account_that_the_authority_forgot_is_made_anew() {
    let mut place = Place::new(Mischief::default()).await;
    place.add("a.example.com");
    until("the first", || place.has("a.example.com")).await;
    place.authority.forget_accounts();
    place.add("b.example.com");
    until("the second", || place.has("b.example.com")).await;
    assert_eq!(place.counts().accounts, 2);
    // The stored one is the new one; its address is changed when the setting is.
    place.restart(Some("new@example.com")).await;
    place.add("c.example.com");
    until("the third", || place.has("c.example.com")).await;
    assert_eq!(place.counts().accounts, 2);
    assert_eq!(place.authority.contacts(), serde_json::json!(["mailto:new@example.com"]));
}

#[tokio::test]
async fn no_more_attempts_than_allowed_in_an_hour() {
    let few = Pace { per_hour: 3, ..pace() };
    let place = Place::with_pace(Mischief::default(), few).await;
    for number in 0..8 {
        place.add(&format!("n{number}.example.com"));
    }
    until("three", || place.certificates.list().len() == 3).await;
    until("the others wait", || {
        let status = place.acme.status();
        status.iter().filter(|status| status.next_attempt.is_some()).count() == 8
    })
    .await;
    assert_eq!(place.counts().orders, 3);
}

#[tokio::test]
async fn a_service_that_goes_takes_its_name_out_of_the_plan() {
    let place = Place::new(Mischief::default()).await;
    place.authority.misdirect("a.example.com", true);
    place.add("a.example.com");
    until("it fails", || place.last_error("a.example.com").is_some()).await;
    place.remove("a.example.com");
    until("it is forgotten", || place.acme.status().is_empty()).await;
    assert!(place.acme.challenges().answer("anything").is_none());
}
