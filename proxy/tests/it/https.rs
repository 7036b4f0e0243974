//! The HTTPS listener of the real binary.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::json;

use crate::{
    grid::{Grid, PATIENCE, wait_until},
    process::{run_to_end, short_dir},
};

const CODE: &str = "exports.handler = async (event) => event.headers.host ?? 'none'";

/// A self-signed certificate, put into a directory; gives its PEM.
fn put(dir: &Path, host: &str) -> String {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([host.to_owned()]).expect("a name");
    let chain = params.self_signed(&key).expect("signs").pem();
    fs::write(dir.join("a.key"), key.serialize_pem()).expect("writes");
    fs::write(dir.join("a.crt"), &chain).expect("writes");
    chain
}

fn trusting(roots: &[&str]) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM")).expect("a root");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    Arc::new(config)
}

/// One request on a connection of its own; the whole answer, or why there was none.
fn get(
    addr: SocketAddr,
    config: &Arc<ClientConfig>,
    host: &str,
    path: &str,
) -> std::io::Result<String> {
    get_behind("", addr, config, host, path)
}

/// The same behind somebody who speaks first.
fn get_behind(
    first: &str,
    addr: SocketAddr,
    config: &Arc<ClientConfig>,
    host: &str,
    path: &str,
) -> std::io::Result<String> {
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let session = ClientConnection::new(config.clone(), name).expect("a session");
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(first.as_bytes())?;
    let mut stream = StreamOwned::new(session, stream);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Where HTTPS is served, as the log says.
fn https(grid: &Grid) -> SocketAddr {
    let log = grid.log();
    let (_, rest) = log.split_once("HTTPS is served at ").expect("the log says it");
    rest.lines().next().unwrap_or_default().trim().parse().expect("an address")
}

#[test]
fn functions_are_called_over_https_while_the_certificate_is_swapped() {
    let dir = short_dir();
    let certs = dir.path().join("certs");
    fs::create_dir(&certs).expect("creates");
    let first = put(&certs, "a.example");
    let certs_dir = certs.to_str().expect("UTF-8");
    let grid = Grid::with(&[("GRID_HTTPS_ADDR", "127.0.0.1:0"), ("GRID_CERTS_DIR", certs_dir)]);
    let addr = https(&grid);
    grid.create("secure", "node18", CODE, json!({"public_domain": "a.example"}));
    let answer = get(addr, &trusting(&[&first]), "a.example", "/fn/secure").expect("trusted");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    // Below localhost the development certificate is served.
    let authority = fs::read_to_string(grid.data_dir().join("tls/development-ca.pem"));
    let local = trusting(&[&authority.expect("is there")]);
    let answer = get(addr, &local, "other.localhost", "/fn/secure").expect("trusted");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");

    let both = [first, put(&dir.path().join("certs"), "a.example")];
    let all = trusting(&both.each_ref().map(String::as_str));
    let second = trusting(&[&both[1]]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let load: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) && count < 10_000 {
                        let answer = get(addr, &all, "a.example", "/fn/secure");
                        let answer = answer.expect("an answer");
                        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        wait_until("the new certificate", || get(addr, &second, "a.example", "/fn/secure").is_ok());
        fs::write(certs.join("a.crt"), "garbage").expect("writes");
        wait_until("a word about it", || grid.log().contains("a.crt has no certificate"));
        get(addr, &second, "a.example", "/fn/secure").expect("the good one is kept");
        done.store(true, Ordering::Relaxed);
        for load in load {
            assert!(load.join().expect("no failure") > 0);
        }
    });
}

#[test]
fn proxies_say_for_whom_before_the_handshake() {
    let grid = Grid::with(&[
        ("GRID_HTTPS_ADDR", "127.0.0.1:0"),
        ("GRID_TRUSTED_PROXIES", "127.0.0.0/8"),
        ("GRID_PROXY_PROTOCOL", "on"),
    ]);
    let addr = https(&grid);
    let code = "exports.handler = async (event) => [event.requestContext.identity.sourceIp, \
                event.requestContext.scheme]";
    grid.create("secure", "node18", code, json!({}));
    let authority = fs::read_to_string(grid.data_dir().join("tls/development-ca.pem"));
    let local = trusting(&[&authority.expect("is there")]);
    let first = "PROXY TCP4 203.0.113.7 192.0.2.1 1234 443\r\n";
    let answer = get_behind(first, addr, &local, "secure.localhost", "/fn/secure");
    let answer = answer.expect("an answer");
    assert!(answer.ends_with(r#"["203.0.113.7","https"]"#), "{answer}");
    assert!(get(addr, &local, "secure.localhost", "/fn/secure").is_err(), "nobody says for whom");
}

#[test]
fn plain_requests_are_sent_to_https() {
    let grid = Grid::with(&[("GRID_HTTPS_ADDR", "127.0.0.1:0"), ("GRID_HTTPS_REDIRECT", "on")]);
    let addr = https(&grid);
    grid.create("secure", "node18", CODE, json!({}));
    for (method, status) in [("GET", 301), ("POST", 308)] {
        let answer = grid.call("secure", method, "/fn/secure/a?b", &[], "");
        assert_eq!(answer.status, status);
        let there = format!("https://secure.localhost:{}/fn/secure/a?b", addr.port());
        assert_eq!(answer.header("location"), Some(there.as_str()));
    }
    let authority = fs::read_to_string(grid.data_dir().join("tls/development-ca.pem"));
    let local = trusting(&[&authority.expect("is there")]);
    let answer = get(addr, &local, "secure.localhost", "/fn/secure").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_bad_root_for_acme_stops_the_start() {
    let dir = short_dir();
    fs::write(dir.path().join("ca.pem"), "garbage").expect("writes");
    let settings = [
        ("GRID_HTTPS_ADDR", "127.0.0.1:0"),
        ("GRID_ACME_DIRECTORY", "https://127.0.0.1:1/dir"),
        ("GRID_ACME_TERMS", "agreed"),
        ("GRID_ACME_CA_FILE", "ca.pem"),
    ];
    let (status, said) = run_to_end(dir.path(), &settings);
    assert!(!status.success());
    assert!(said.contains("GRID_ACME_CA_FILE") && said.contains("no certificate"), "{said}");
}
