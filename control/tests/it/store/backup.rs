//! A backup has all that a store keeps, and a restore brings it back, or nothing.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path, sync::Arc};

use control::{
    account::AccessToken,
    audit::AuditEntry,
    backup::{self, Kind, Making},
    config::{self, Command, Config},
    environment::EnvVar,
    error::Result,
    name::{IdempotencyKey, ServiceId, TokenId, UserName},
    secret::Keyring,
    service::Phase,
    store::{Attempt, Durable, Opened, Record, ServiceQuery, redis::Part},
};
use futures_util::StreamExt;
use tempfile::TempDir;

use super::{at, edit, line, service};
use crate::redis::Server;

/// A Grid's place: its data directory, and its Redis when it has one.
struct Place {
    dir: TempDir,
    redis: Option<Server>,
}

impl Place {
    fn of(kind: Kind) -> Self {
        let redis = (kind == Kind::Redis).then(Server::start);
        Self { dir: tempfile::tempdir().expect("temporary directory"), redis }
    }

    fn config(&self) -> Config {
        let data = self.dir.path().join("data");
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let data = data.to_str().expect("UTF-8");
        let args = ["grid", "serve", "--data-dir", data, "--share-dir", root].map(OsString::from);
        let redis = self
            .redis
            .as_ref()
            .map(|redis| ("REDIS_URL".to_owned(), format!("unix://{}", redis.socket().display())));
        let environment: BTreeMap<_, _> = redis.into_iter().collect();
        match config::parse(args, &environment, self.dir.path()) {
            Ok(Command::Serve(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    async fn open(&self) -> Opened {
        Opened::open(&self.config(), Part::Control).await.expect("opens")
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.config().data_dir.join(name)
    }
}

/// A store with something in every table; gives a service in it.
async fn fill(opened: &Opened, config: &Config) -> ServiceId {
    let store = opened.store();
    let keyring = Keyring::load_or_create(&config.data_dir, None).expect("keys");
    let attempt =
        Attempt { key: IdempotencyKey::parse("once").expect("valid"), fingerprint: [7; 32] };
    let (mut a, mut first) = service("a");
    let variable = EnvVar {
        key: "KEY".parse().expect("valid"),
        value: keyring.seal("s3cret"),
        is_secret: true,
    };
    a.function.env_vars = vec![variable];
    first.function = a.function.clone();
    store.create_service(&a, &first, Some(&attempt)).await.expect("creates");
    store.activate_deployment(a.id, first.id, at(2)).await.expect("activates");
    let (next, second) = edit(&a, &"x".repeat(300_000));
    store.update_service(&next, Some(&second)).await.expect("updates");
    let lines = vec![line("no")];
    let failed = Some("no".to_owned());
    let recorded = store.record_phase(a.id, second.id, Phase::Failed, at(3), lines, failed).await;
    recorded.expect("records");
    for n in 0..30 {
        let (b, first) = service(&format!("b{n}"));
        store.create_service(&b, &first, None).await.expect("creates");
    }
    let token = AccessToken {
        id: TokenId::new(),
        user: UserName::operator(),
        is_admin: true,
        name: "t".to_owned(),
        digest: [9; 32],
        created_at: at(1),
        expires_at: None,
        last_used_at: None,
    };
    store.add_token(&token).await.expect("adds");
    for n in 0..700 {
        let entry = AuditEntry {
            id: 0,
            at: at(n),
            user: UserName::operator(),
            token: Some(token.id),
            address: None,
            action: "service.create".to_owned(),
            owner: UserName::operator(),
            service: Some(a.id),
            status: 201,
            detail: serde_json::Map::new(),
        };
        store.append_audit(&entry).await.expect("appends");
    }
    a.id
}

/// All entries, in an order that does not depend on the store.
async fn contents(store: &Opened) -> Vec<Record> {
    let mut export = store.store().export().await.expect("begins");
    let mut all = Vec::new();
    while let Some(records) = export.next().await {
        all.extend(records.expect("reads"));
    }
    all.sort();
    all
}

/// What `grid backup` does beside the network.
async fn back_up(store: &Opened, config: &Config, path: &Path) -> Result<u64> {
    let keyring = Keyring::load_or_create(&config.data_dir, None).expect("keys");
    let mut making = Making::begin(config, path)?;
    let mut lines = Box::pin(backup::read(store.store(), &keyring).await?);
    let mut text = Vec::new();
    while let Some(bytes) = lines.next().await {
        text.extend(bytes?);
    }
    for line in text.strip_suffix(b"\n").expect("lines").split(|byte| *byte == b'\n') {
        making.line(line)?;
    }
    making.finish()
}

async fn restores(from: Kind, to: Kind) {
    let source = Place::of(from);
    let store = source.open().await;
    let id = fill(&store, &source.config()).await;
    fs::write(source.file("token"), "0123456789abcdef\n").expect("writes");
    let file = source.dir.path().join("a.backup");
    let count = back_up(&store, &source.config(), &file).await.expect("is written");
    let expected = contents(&store).await;
    assert_eq!(count, expected.len() as u64);
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(&file).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(source.dir.path()).expect("reads").count(), 2, "nothing beside it");

    let target = Place::of(to);
    let restored = backup::restore(&target.config(), &file).await.expect("restores");
    assert!(restored.opens && restored.entries == count, "{restored:?}");
    let again = target.open().await;
    assert_eq!(contents(&again).await, expected);
    assert_eq!(again.instance_id(), store.instance_id());
    for name in ["fernet_keys", "token"] {
        let read = |place: &Place| fs::read(place.file(name)).expect("reads");
        assert_eq!(read(&target), read(&source), "{name}");
    }
    let listed = |store: Arc<dyn control::store::Store>| async move {
        store.services(&ServiceQuery::all(), 0, 100).await.expect("lists")
    };
    assert_eq!(listed(again.store()).await, listed(store.store()).await);
    assert_eq!(again.store().view(id).await.expect("reads").latest_phase, Some(Phase::Failed));
    // It goes on as any other.
    let (late, first) = service("late");
    again.store().create_service(&late, &first, None).await.expect("creates");
    assert_eq!(again.store().service_ids().await.expect("lists").last(), Some(&late.id));
    again.close().await;

    let error = backup::restore(&target.config(), &file).await.expect_err("it is not empty");
    assert!(error.to_string().contains("use another GRID_"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_file_into_a_file() {
    restores(Kind::Embedded, Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_file_into_a_redis() {
    restores(Kind::Embedded, Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_redis_into_a_file() {
    restores(Kind::Redis, Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_redis_into_a_redis() {
    restores(Kind::Redis, Kind::Redis).await;
}

#[tokio::test]
async fn what_is_damaged_cut_newer_or_something_else_is_refused_and_nothing_written() {
    let source = Place::of(Kind::Embedded);
    let store = source.open().await;
    fill(&store, &source.config()).await;
    let file = source.dir.path().join("a.backup");
    back_up(&store, &source.config(), &file).await.expect("is written");
    let whole = fs::read(&file).expect("reads");
    let text = String::from_utf8(whole.clone()).expect("UTF-8");
    let header = text.lines().next().expect("a header").to_owned();
    let last = text.trim_end().rfind('\n').expect("lines") + 1;

    let mut flipped = whole.clone();
    let middle = whole.len() / 2;
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    let newer_form = text.replacen("\"grid_backup\":1", "\"grid_backup\":2", 1);
    let newer_schema = text.replacen("\"schema\":3", "\"schema\":4", 1);
    let foreign_file = text.replacen("\"fernet_keys\",", "\"../fernet_keys\",", 1);
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("flipped", flipped, "it is damaged"),
        ("cut in a line", whole[..middle].to_vec(), "it is cut off"),
        ("cut between lines", whole[..last].to_vec(), "its last line is missing"),
        ("only begun", format!("{header}\n").into_bytes(), "its last line is missing"),
        ("longer", [&whole[..], b"{}\n"].concat(), "more after its last line"),
        ("newer form", newer_form.into_bytes(), "a newer Grid wrote it"),
        ("newer schema", newer_schema.into_bytes(), "a newer Grid wrote it"),
        ("foreign file", foreign_file.into_bytes(), "is no file that a backup brings"),
        ("empty", Vec::new(), "it is empty"),
    ];
    let target = Place::of(Kind::Embedded);
    for (name, bytes, said) in cases {
        fs::write(&file, bytes).expect("writes");
        let error = backup::restore(&target.config(), &file).await.expect_err(name).to_string();
        // A flip may hit the form of a line, too.
        let known = error.contains(said) || name == "flipped" && error.contains("not understood");
        assert!(known && error.contains("a.backup"), "{name}: {error}");
        assert!(!target.config().data_dir.exists(), "{name}");
    }
    fs::write(&file, "something else\n").expect("writes");
    let error = backup::restore(&target.config(), &file).await.expect_err("no backup").to_string();
    assert!(error.contains("no backup of Grid's"), "{error}");

    // A file that would be replaced, and a Grid that runs.
    fs::write(&file, &whole).expect("writes");
    let data = target.config().data_dir;
    Keyring::load_or_create(&data, None).expect("other keys");
    let error = backup::restore(&target.config(), &file).await.expect_err("refused").to_string();
    assert!(error.contains("fernet_keys: it is there, with another content"), "{error}");
    assert!(!data.join("grid.redb").exists());
    fs::remove_file(data.join("fernet_keys")).expect("removes");
    let running = target.open().await;
    let error = backup::restore(&target.config(), &file).await.expect_err("refused").to_string();
    assert!(error.contains("is used by another Grid"), "{error}");
    running.close().await;
    backup::restore(&target.config(), &file).await.expect("restores");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_interrupted_is_repeated() {
    let source = Place::of(Kind::Embedded);
    let store = source.open().await;
    fill(&store, &source.config()).await;
    let file = source.dir.path().join("a.backup");
    back_up(&store, &source.config(), &file).await.expect("is written");
    let expected = contents(&store).await;
    for kind in [Kind::Embedded, Kind::Redis] {
        let target = Place::of(kind);
        let config = target.config();
        {
            // Dropped after some of its transactions, as a kill would end it.
            let mut restore = Box::pin(backup::restore(&config, &file));
            let begun = async {
                while !target.file("fernet_keys").exists() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                done = &mut restore => panic!("{done:?}"),
                () = begun => {}
            }
        }
        // What runs of it comes to its end.
        let until_free = async {
            loop {
                match Opened::open(&config, Part::Control).await {
                    Err(error) if error.to_string().contains("did not come to its end") => break,
                    Err(error) => assert!(error.to_string().contains("another Grid"), "{error}"),
                    Ok(_) => panic!("it opens"),
                }
                tokio::task::yield_now().await;
            }
        };
        until_free.await;
        // Also with another file: here one with less in it.
        let other = Place::of(Kind::Embedded);
        let less = other.open().await;
        fs::copy(source.file("fernet_keys"), other.file("fernet_keys")).expect("copies");
        let small = other.dir.path().join("b.backup");
        back_up(&less, &other.config(), &small).await.expect("is written");
        backup::restore(&config, &small).await.expect("restores");
        let opened = target.open().await;
        assert_eq!(contents(&opened).await, []);
        assert_eq!(opened.instance_id(), less.instance_id());
        opened.close().await;
        drop(opened);
        backup::restore(&config, &file).await.expect("restores");
        assert_eq!(contents(&target.open().await).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_goes_to_a_redis_and_back() {
    let place = Place::of(Kind::Redis);
    let with_redis = place.config();
    let mut without = with_redis.clone();
    without.redis_url = None;
    let error = backup::migrate(&without, Kind::Redis).await.expect_err("refused").to_string();
    assert!(error.contains("REDIS_URL is not set"), "{error}");
    let error = backup::migrate(&with_redis, Kind::Redis).await.expect_err("refused").to_string();
    assert!(error.contains("there is no store in"), "{error}");

    let store = Opened::open(&without, Part::Control).await.expect("opens");
    fill(&store, &without).await;
    let (expected, instance) = (contents(&store).await, store.instance_id().clone());
    let error = backup::migrate(&with_redis, Kind::Redis).await.expect_err("refused").to_string();
    assert!(error.contains("is used by another Grid"), "{error}");
    store.close().await;

    let there = backup::migrate(&with_redis, Kind::Redis).await.expect("goes");
    assert_eq!(there.entries, expected.len() as u64);
    assert!(there.aside.is_some_and(|aside| aside.exists()));
    assert!(!place.file("grid.redb").exists());
    let store = place.open().await;
    assert_eq!((contents(&store).await, store.instance_id()), (expected.clone(), &instance));
    let error = backup::migrate(&with_redis, Kind::Embedded).await.expect_err("refused");
    assert!(error.to_string().contains("is used by another Grid"), "{error}");
    let (late, first) = service("late");
    store.store().create_service(&late, &first, None).await.expect("creates");
    let expected = contents(&store).await;
    store.close().await;
    drop(store);

    backup::migrate(&with_redis, Kind::Embedded).await.expect("comes back");
    let store = Opened::open(&without, Part::Control).await.expect("opens");
    assert_eq!((contents(&store).await, store.instance_id()), (expected, &instance));
    assert_eq!(store.store().service_ids().await.expect("lists").last(), Some(&late.id));
    store.close().await;
    drop(store);
    let error = backup::migrate(&with_redis, Kind::Redis).await.expect_err("it is there still");
    assert!(error.to_string().contains("use another GRID_REDIS_PREFIX"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_breaks_off_or_is_anothers_leaves_no_file() {
    let place = Place::of(Kind::Embedded);
    let store = place.open().await;
    fill(&store, &place.config()).await;
    let file = place.dir.path().join("a.backup");
    let mut export = store.store().export().await.expect("begins");
    assert!(store.store().export().await.is_err(), "one at a time");
    export.next().await.expect("some").expect("reads");
    // It does not hold up whoever gives the store up.
    store.close().await;
    let mut last = Ok(Vec::new());
    while let Some(next) = export.next().await {
        last = next;
    }
    assert!(last.is_err(), "it broke off");

    let store = place.open().await;
    let mut other = place.config();
    other.data_dir = place.dir.path().join("other");
    Keyring::load_or_create(&other.data_dir, None).expect("other keys");
    let keyring = Keyring::load_or_create(&place.config().data_dir, None).expect("keys");
    let mut lines = Box::pin(backup::read(store.store(), &keyring).await.expect("begins"));
    let first = lines.next().await.expect("some").expect("reads");
    let header = first.split(|byte| *byte == b'\n').next().expect("a line");
    let error = Making::begin(&other, &file).expect("begins").line(header).expect_err("refused");
    assert!(error.to_string().contains("has other keys"), "{error}");
    let mut making = Making::begin(&place.config(), &file).expect("begins");
    making.line(header).expect("takes it");
    assert!(making.finish().expect_err("not all").to_string().contains("is cut off"));
    assert!(fs::read_dir(place.dir.path()).expect("reads").all(|entry| {
        !entry.expect("an entry").file_name().to_string_lossy().contains("backup")
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_went_back_to_an_earlier_state_is_listed_as_it_is() {
    let mut server = Server::start();
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = server.store(dir.path()).await;
    let (a, first) = service("a");
    store.create_service(&a, &first, None).await.expect("creates");
    let (b, first) = service("b");
    store.create_service(&b, &first, None).await.expect("creates");
    assert_eq!(server.cli(&["save"]).trim(), "OK");
    assert!(store.delete_service(a.id, None).await.expect("deletes"));
    let (c, first) = service("c");
    store.create_service(&c, &first, None).await.expect("creates");
    assert_eq!(store.service_ids().await.expect("lists"), [b.id, c.id]);
    server.kill();
    server.start_again();
    assert_eq!(store.service_ids().await.expect("lists"), [a.id, b.id]);
}
