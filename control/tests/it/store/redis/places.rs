//! How the store gets to its Redis: by TLS, over Sentinels, with passwords; and what it says when it does
//! not, or when the Redis keeps nothing.

use std::{path::Path, process::Command};

use control::store::{
    Durable, Volatile,
    redis::{Part, Redis},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, UnixListener},
    time::timeout,
};

use super::{SOON, soon, told, until};
use crate::{
    redis::{Server, open_at, own_address},
    store::{edit, service},
};

async fn opened(url: &str, data_dir: &Path) -> Redis {
    open_at(url, "grid", data_dir, Part::Control).await.expect("opens")
}

async fn refusal(url: &str) -> String {
    let dir = tempfile::tempdir().expect("temporary directory");
    match open_at(url, "grid", dir.path(), Part::Control).await {
        Ok(_) => panic!("it is refused"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn passwords_of_the_url_are_used() {
    let address = format!("{}:6379", own_address());
    let server = Server::at(
        6379,
        &["--requirepass", "s@d", "--user", "grid", "on", ">sesame", "~*", "&*", "+@all"],
    );
    let socket = server.socket().display().to_string();
    let dir = tempfile::tempdir().expect("temporary directory");
    let urls = [
        format!("redis://:s%40d@{address}/3"),
        format!("redis://grid:sesame@{address}/3"),
        format!("unix://{socket}?db=3&user=grid&pass=sesame"),
    ];
    let (a, first) = service("a");
    for (number, url) in urls.iter().enumerate() {
        let store = opened(url, dir.path()).await;
        if number == 0 {
            store.create_service(&a, &first, None).await.expect("creates");
        }
        assert_eq!(store.service_ids().await.expect("lists"), [a.id], "{url}");
    }
    for url in [
        format!("redis://:secret@{address}"),
        format!("redis://{address}"),
        format!("redis://grid:secret@{address}"),
        format!("unix://{socket}?user=grid&pass=secret"),
        format!("redis://grid:sesame@{address}/1000"),
    ] {
        // It does not wait for a password to become right.
        let refused = refusal(&url);
        let refused = timeout(SOON, refused).await.expect("it ends");
        assert!(refused.contains("REDIS_URL"), "{refused}");
        assert!(!refused.contains("secret") && !refused.contains("sesame"), "{refused}");
        assert!(!refused.contains("is away"), "{refused}");
    }
}

#[tokio::test]
async fn who_is_no_redis_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let socket = dir.path().join("other.sock");
    let nobody = dir.path().join("nobody.sock");
    let listener = UnixListener::bind(&socket).expect("binds");
    let other = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.expect("accepts");
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let (socket, nobody) = (format!("unix://{}", socket.display()), nobody.display());
    let nobody = format!("unix://{nobody}");
    let (not_one, away) = tokio::join!(refusal(&socket), refusal(&nobody));
    other.abort();
    assert!(not_one.contains("REDIS_URL") && not_one.contains(&socket), "{not_one}");
    assert!(away.contains("REDIS_URL") && away.contains("is away"), "{away}");
}

#[tokio::test]
async fn a_redis_that_starts_later_is_waited_for() {
    let mut server = Server::durable();
    server.kill();
    let dir = tempfile::tempdir().expect("temporary directory");
    let url = format!("unix://{}", server.socket().display());
    let opening =
        tokio::spawn(
            async move { open_at(&url, "grid", dir.path(), Part::Edge).await.map(|_| ()) },
        );
    tokio::task::yield_now().await;
    tokio::task::spawn_blocking(move || {
        server.start_again();
        server
    })
    .await
    .map(|server| (server, opening))
    .expect("starts")
    .1
    .await
    .expect("does not panic")
    .expect("opens");
}

/// Makes a CA, and a certificate of it for [`own_address`].
fn certificates(dir: &Path) {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        let done = command.args(arguments.split(' ')).current_dir(dir).output();
        let done = done.expect("openssl is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=CA"));
    openssl(&format!("req {key} -keyout redis.key -out redis.csr -subj /CN=redis"));
    std::fs::write(dir.join("names"), format!("subjectAltName=IP:{}\n", own_address()))
        .expect("writes");
    openssl(
        "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out redis.pem -days 2 \
         -extfile names",
    );
}

#[tokio::test]
async fn tls_trusts_what_the_system_trusts() {
    let files = tempfile::tempdir().expect("temporary directory");
    certificates(files.path());
    let address = own_address().to_string();
    let file = |name: &str| files.path().join(name).display().to_string();
    let _server = Server::with(&[
        "--bind",
        &address,
        "--tls-port",
        "6379",
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &file("redis.pem"),
        "--tls-key-file",
        &file("redis.key"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
    ]);
    let url = format!("rediss://{address}:6379");
    // What is trusted comes from the environment, which is only set for another process.
    let test = "store::redis::places::a_client_by_tls";
    let client = |trusted: &str| {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.args(["--ignored", "--exact", test]).env(URL, &url).env("SSL_CERT_FILE", trusted);
        let output = command.output().expect("runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (is_done, said) = client(&file("ca.pem"));
    assert!(is_done && said.contains("1 passed"), "{said}");
    let (is_done, said) = client(&file("redis.pem"));
    assert!(!is_done && said.contains("REDIS_URL") && said.contains("ertificate"), "{said}");
}

const URL: &str = "TEST_REDIS_URL";

#[tokio::test]
#[ignore = "a part of tls_trusts_what_the_system_trusts"]
async fn a_client_by_tls() {
    let Ok(url) = std::env::var(URL) else { return };
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = opened(&url, dir.path()).await;
    let (a, first) = service("a");
    store.create_service(&a, &first, None).await.expect("creates");
    assert_eq!(store.service_ids().await.expect("lists"), [a.id]);
}

#[tokio::test]
async fn sentinels_lead_to_the_next_redis() {
    let address = own_address().to_string();
    let _one = Server::at(6379, &["--repl-diskless-sync-delay", "0"]);
    let two = Server::at(6380, &["--replicaof", &address, "6379"]);
    let is_linked = async || two.cli(&["INFO", "replication"]).contains("master_link_status:up");
    until(is_linked).await;
    let sentinel = Server::sentinel(26379, 6379);
    // The first Sentinel does not answer: the next one is asked.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let silent = silent.local_addr().map(|address| (silent, address)).expect("an address");
    let url = format!("redis+sentinel://{},{address}:26379/main", silent.1);

    let dir = tempfile::tempdir().expect("temporary directory");
    let store = opened(&url, dir.path()).await;
    let edge = open_at(&url, "grid", dir.path(), Part::Edge).await.expect("opens");
    let (a, deployment) = service("a");
    store.create_service(&a, &deployment, None).await.expect("creates");
    until(async || sentinel.cli(&["SENTINEL", "FAILOVER", "main"]) == "OK").await;
    let mut kept = a.clone();
    until(async || {
        let (next, _) = edit(&kept, "next");
        if let Some(updated) = told(async || store.update_service(&next, None).await).await {
            kept = updated;
        } else {
            kept = soon(async || store.service(a.id).await).await.expect("is there");
        }
        two.cli(&["ROLE"]).starts_with("master")
    })
    .await;
    let mut hints = edge.watch();
    let hinted = async {
        loop {
            let read = soon(async || store.service(a.id).await).await.expect("is there");
            let (next, _) = edit(&read, "last");
            let _ = store.update_service(&next, None).await;
            let in_two = two.cli(&["HGET", "{grid}:meta", "version"]);
            let hint = timeout(std::time::Duration::from_millis(200), hints.recv()).await;
            if hint.is_ok() && in_two.parse::<u64>().is_ok_and(|version| version > 1) {
                return;
            }
        }
    };
    timeout(SOON, hinted).await.expect("hints come of the new one");
    let view = soon(async || edge.view(a.id).await).await;
    assert_eq!(view.route.expect("is there").service, a.id);
}
