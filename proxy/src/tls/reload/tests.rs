//! A real directory, and what its changes do to what is served.

use std::os::unix::fs::symlink;

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::tls::testing::{Issued, development, issue};

const HOST: &str = "a.example";

struct Place {
    dir: TempDir,
    certificates: Arc<Certificates>,
    reader: Reader,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let certs = dir.path().join("certs");
        fs::create_dir(&certs).expect("creates");
        let certificates = Arc::new(Certificates::new(development()));
        let reader = Reader::new(certs, certificates.clone());
        Self { dir, certificates, reader }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("certs").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("writes");
    }

    /// Reads; gives what was said of files since the test began and is still so.
    fn read(&mut self) -> Vec<String> {
        self.reader.read(Timestamp::now());
        self.reader.said.values().map(|(_, line)| line.clone()).collect()
    }

    /// Whether this certificate is served to the host.
    fn serves(&self, issued: &Issued) -> bool {
        serves(&self.certificates, issued)
    }
}

fn serves(certificates: &Certificates, issued: &Issued) -> bool {
    let expected = Pair::from_pem(issued.chain.as_bytes(), issued.key.as_bytes()).expect("good");
    let served = certificates.choose(Some(HOST), |_| true).expect("one");
    served.cert == expected.certified.cert
}

fn good() -> Issued {
    issue(&[HOST], -1, 30)
}

#[test]
fn a_new_certificate_takes_the_place_of_the_old_one() {
    let mut place = Place::new();
    let (one, two) = (good(), good());
    place.write("a.crt", &one.chain);
    place.write("a.key", &one.key);
    assert!(place.read().is_empty() && place.serves(&one));
    place.write("a.crt", &two.chain);
    place.write("a.key", &two.key);
    assert!(place.read().is_empty() && place.serves(&two));
    // Only when both files are gone it is not served any more.
    fs::remove_file(place.path("a.crt")).expect("removes");
    place.read();
    assert!(place.serves(&two));
    fs::remove_file(place.path("a.key")).expect("removes");
    place.read();
    assert!(!place.serves(&two) && place.certificates.list().is_empty());
}

#[test]
fn what_is_bad_never_drops_what_is_good() {
    let mut place = Place::new();
    let (one, two) = (good(), good());
    place.write("a.crt", &one.chain);
    place.write("a.key", &one.key);
    place.read();
    let expired = issue(&[HOST], -90, -1);
    let half = &two.chain[..two.chain.len() / 2];
    for (chain, key, said) in [
        ("garbage", one.key.as_str(), "has no certificate in PEM form"),
        ("", &one.key, "has no certificate in PEM form"),
        (half, &two.key, "is not readable as PEM"),
        (&two.chain, &one.key, "does not belong to the key"),
        (&two.chain, "", "has no private key"),
        (&expired.chain, &expired.key, "which is not now"),
    ] {
        place.write("a.crt", chain);
        place.write("a.key", key);
        let lines = place.read();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(said) && lines[0].contains("served meanwhile"), "{lines:?}");
        assert!(place.serves(&one), "{said}");
    }
    // The key's file is gone, and the chain's holds none.
    place.write("a.crt", &two.chain);
    fs::remove_file(place.path("a.key")).expect("removes");
    assert!(place.read()[0].contains("has no private key"));
    assert!(place.serves(&one));
    // A file that is not there any more to be read, and one that is too large.
    fs::remove_file(place.path("a.crt")).expect("removes");
    symlink("nowhere", place.path("a.crt")).expect("links");
    assert!(place.read()[0].contains("cannot be read"));
    fs::remove_file(place.path("a.crt")).expect("removes");
    place.write("a.crt", &"x".repeat(2 << 20));
    assert!(place.read()[0].contains("is larger than"));
    assert!(place.serves(&one));
    // Good again.
    place.write("a.crt", &two.chain);
    place.write("a.key", &two.key);
    assert!(place.read().is_empty() && place.serves(&two));
}

#[test]
fn a_directory_that_is_away_is_not_an_empty_one() {
    let mut place = Place::new();
    let one = good();
    place.write("a.pem", &format!("{}{}", one.chain, one.key));
    assert!(place.read().is_empty() && place.serves(&one));
    let (here, there) = (place.dir.path().join("certs"), place.dir.path().join("away"));
    fs::rename(&here, &there).expect("moves");
    assert!(place.read()[0].starts_with("cannot be read"));
    assert!(place.serves(&one));
    fs::rename(&there, &here).expect("moves");
    assert!(place.read().is_empty() && place.serves(&one));
}

#[test]
fn a_bad_file_from_the_start_leaves_the_others_alone_and_is_told_once_for_each_content() {
    let mut place = Place::new();
    let one = good();
    place.write("a.crt", &one.chain);
    place.write("a.key", &one.key);
    place.write("b.crt", "garbage");
    assert!(place.read()[0].contains("no certificate is served from it"));
    assert!(place.serves(&one));
    let said = place.reader.said.clone();
    place.read();
    assert_eq!(place.reader.said, said);
    place.write("b.crt", "other garbage");
    place.read();
    assert_ne!(place.reader.said, said);
    // One that is out of its time is served when there is nothing better: clients see why.
    let expired = issue(&["b.example"], -90, -1);
    place.write("b.crt", &expired.chain);
    place.write("b.key", &expired.key);
    assert!(place.read().is_empty());
    assert_eq!(place.certificates.list().len(), 2);
}

/// Follows a directory with nothing but the kernel's word to go by.
async fn following(change: impl AsyncFnOnce(&Path, &dyn Fn(&Issued) -> bool)) {
    let place = Place::new();
    let certificates = place.certificates.clone();
    let pace = Pace {
        quiet: Duration::from_millis(10),
        longest: Duration::from_millis(100),
        again: Duration::from_secs(3600),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(follow(place.reader, pace, async { drop(stopped.await) }));
    change(place.dir.path(), &|issued| serves(&certificates, issued)).await;
    stop.send(()).expect("it runs");
    task.await.expect("it ends by itself");
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

fn put(dir: &Path, issued: &Issued) {
    fs::create_dir_all(dir).expect("creates");
    fs::write(dir.join("tls.crt"), &issued.chain).expect("writes");
    fs::write(dir.join("tls.key"), &issued.key).expect("writes");
}

#[tokio::test]
async fn changes_are_noticed_in_files_and_in_new_directories() {
    following(async |root, serves| {
        let certs = root.join("certs");
        let [one, two, three] = [(); 3].map(|()| good());
        put(&certs, &one);
        until("the first", || serves(&one)).await;
        put(&certs, &two);
        until("overwritten", || serves(&two)).await;
        fs::write(certs.join("tls.crt"), "garbage").expect("writes");
        fs::write(certs.join("new.key"), &three.key).expect("writes");
        fs::write(certs.join("new.crt"), &three.chain).expect("writes");
        fs::rename(certs.join("new.key"), certs.join("tls.key")).expect("moves");
        fs::rename(certs.join("new.crt"), certs.join("tls.crt")).expect("moves");
        until("moved into place", || serves(&three)).await;
        for file in ["tls.crt", "tls.key"] {
            fs::remove_file(certs.join(file)).expect("removes");
        }
        until("removed", || !serves(&three)).await;
        put(&certs.join("a.example"), &one);
        until("a new directory", || serves(&one)).await;
        put(&certs.join("a.example"), &two);
        until("overwritten in it", || serves(&two)).await;
    })
    .await;
}

#[tokio::test]
async fn swapped_links_are_noticed_wherever_they_lead() {
    following(async |root, serves| {
        let certs = root.join("certs");
        let [one, two, three, four] = [(); 4].map(|()| good());
        let relink = |to: &Path, link: &Path| {
            let beside = link.with_file_name("..new");
            symlink(to, &beside).expect("links");
            fs::rename(&beside, link).expect("swaps");
        };
        // Kubernetes: the files are links through ..data, which is swapped.
        put(&certs.join("..1"), &one);
        put(&certs.join("..2"), &two);
        relink(Path::new("..1"), &certs.join("..data"));
        for file in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(file), certs.join(file)).expect("links");
        }
        until("through two links", || serves(&one)).await;
        relink(Path::new("..2"), &certs.join("..data"));
        until("the link in the middle", || serves(&two)).await;
        // certbot: links to files elsewhere, which may be written in place as well.
        put(&root.join("archive"), &three);
        for file in ["tls.crt", "tls.key"] {
            relink(&root.join("archive").join(file), &certs.join(file));
        }
        until("links to elsewhere", || serves(&three)).await;
        put(&root.join("archive"), &four);
        until("written elsewhere", || serves(&four)).await;
        // The directory itself.
        put(&root.join("other"), &one);
        fs::rename(&certs, root.join("old")).expect("moves");
        symlink(root.join("other"), &certs).expect("links");
        until("the directory became a link", || serves(&one)).await;
        put(&root.join("third"), &two);
        relink(&root.join("third"), &certs);
        until("the directory's link", || serves(&two)).await;
        put(&root.join("third"), &three);
        until("written where it leads", || serves(&three)).await;
    })
    .await;
}
