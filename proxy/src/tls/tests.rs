//! Handshakes over loopback with the listener's own settings.

use std::{fs, net::SocketAddr};

use control::config::HttpsAddr;
use pingora_core::{
    protocols::l4::stream::Stream,
    tls::{ClientTlsStream, TlsConnector},
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::tls::testing::{Issued, issue};

/// An open [`Tls`] with a listener that answers one byte on each connection.
struct Place {
    dir: tempfile::TempDir,
    tls: Tls,
    addr: SocketAddr,
}

impl Place {
    async fn new(certificates: &[(&str, &Issued)]) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let certs = dir.path().join("certs");
        fs::create_dir(&certs).expect("creates");
        for (name, issued) in certificates {
            put(&certs, name, issued);
        }
        let config = Https {
            addr: HttpsAddr::Off, // it is not bound here
            redirect: false,
            certs_dir: Some(certs),
            acme_directory: None,
            acme_email: None,
            acme_terms: None,
            acme_ca_file: None,
        };
        let tls = Tls::open(&config, &dir.path().join("data")).expect("opens");
        let acceptor = Arc::new(tls.listener().expect("settings").build());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(mut stream) = acceptor.tls_handshake(Stream::from(stream)).await {
                        let _ = stream.write_all(b"!").await;
                        let _ = stream.shutdown().await;
                    }
                });
            }
        });
        Self { dir, tls, addr }
    }

    fn authority(&self) -> String {
        fs::read_to_string(self.dir.path().join("data/tls/development-ca.pem")).expect("is there")
    }
}

fn put(dir: &Path, name: &str, issued: &Issued) {
    fs::write(dir.join(format!("{name}.crt")), &issued.chain).expect("writes");
    fs::write(dir.join(format!("{name}.key")), &issued.key).expect("writes");
}

/// A client that trusts only this, speaks only this, and prefers this protocol.
fn client(root: &str, version: &'static SupportedProtocolVersion, alpn: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(root.as_bytes()) {
        roots.add(root.expect("PEM")).expect("a certificate");
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn connect(
    addr: SocketAddr,
    client: &TlsConnector,
    host: &str,
) -> io::Result<ClientTlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let mut stream = client.connect(name, TcpStream::connect(addr).await?).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    assert_eq!(answer, b"!");
    Ok(stream)
}

#[tokio::test]
async fn each_name_gets_its_certificate_in_both_versions_and_both_protocols() {
    let (one, wild) = (issue(&["a.example"], -1, 30), issue(&["*.b.example"], -1, 30));
    let place = Place::new(&[("one", &one), ("wild", &wild)]).await;
    for version in [&TLS12, &TLS13] {
        for (host, issued) in [("a.example", &one), ("A.EXAMPLE", &one), ("x.b.example", &wild)] {
            for (offered, chosen) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1")]
            {
                let client = client(&issued.chain, version, offered);
                let stream = connect(place.addr, &client, host).await.expect("trusted");
                let (_, session) = stream.get_ref();
                assert_eq!(session.alpn_protocol(), Some(chosen.as_bytes()));
                assert_eq!(session.protocol_version(), Some(version.version));
            }
        }
        // The other's certificate is not shown.
        let client = client(&one.chain, version, &[]);
        connect(place.addr, &client, "x.b.example").await.expect_err("not trusted");
        connect(place.addr, &client, "unknown.example").await.expect_err("not trusted");
    }
}

#[tokio::test]
async fn names_below_localhost_are_trusted_by_who_trusts_the_development_authority() {
    let place = Place::new(&[]).await;
    let client = client(&place.authority(), &TLS13, &["h2"]);
    for host in ["localhost", "hello.localhost", "a.b.localhost", "127.0.0.1", "::1"] {
        connect(place.addr, &client, host).await.unwrap_or_else(|e| panic!("{host}: {e}"));
    }
    // It answers for unknown names as well, but nobody takes it for theirs.
    let error = connect(place.addr, &client, "a.example").await.expect_err("not trusted");
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn the_development_authority_is_good_for_nothing_else() {
    let place = Place::new(&[]).await;
    let authority = place.authority();
    let key = fs::read_to_string(place.dir.path().join("data/tls/development-ca.key"));
    let key = rcgen::KeyPair::from_pem(&key.expect("is there")).expect("a key");
    let issuer = rcgen::Issuer::from_ca_cert_pem(&authority, key).expect("an authority");
    for (name, good) in [("x.localhost", true), ("bank.example", false), ("10.0.0.1", false)] {
        let own = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
        testing::set_validity(&mut params, -1, 30);
        let chain = params.signed_by(&own, &issuer).expect("signs").pem();
        let issued = Issued { chain, key: own.serialize_pem() };
        let other = Place::new(&[("x", &issued)]).await;
        let client = client(&authority, &TLS13, &[]);
        assert_eq!(connect(other.addr, &client, name).await.is_ok(), good, "{name}");
    }
}

#[tokio::test]
async fn a_certificate_is_swapped_between_two_handshakes() {
    let (one, two) = (issue(&["a.example"], -1, 30), issue(&["a.example"], -1, 30));
    let place = Place::new(&[("a", &one)]).await;
    let (first, second) = (client(&one.chain, &TLS13, &[]), client(&two.chain, &TLS13, &[]));
    connect(place.addr, &first, "a.example").await.expect("the first");
    connect(place.addr, &second, "a.example").await.expect_err("not yet");
    let certs = place.dir.path().join("certs");
    put(&certs, "a", &two);
    let mut reader = reload::Reader::new(certs, place.tls.certificates.clone());
    reader.read(Timestamp::now());
    connect(place.addr, &second, "a.example").await.expect("the second");
    let fresh = client(&one.chain, &TLS13, &[]);
    connect(place.addr, &fresh, "a.example").await.expect_err("not any more");
    assert_eq!(place.tls.list().len(), 1);
}

/// The first bytes that come back for a ClientHello of this version (minor 3 is TLS 1.2).
async fn answer_to_hello(addr: SocketAddr, minor: u8) -> Vec<u8> {
    let extensions = [
        &[0, 13, 0, 4, 0, 2, 4, 3][..], // signature_algorithms: ecdsa_secp256r1_sha256
        &[0, 10, 0, 4, 0, 2, 0, 23],    // supported_groups: secp256r1
    ]
    .concat();
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
    let body = [
        &[3, minor][..],              // the newest version that the client knows
        &[7; 32],                     // random
        &[0],                         // no session
        &[0, 4, 0xc0, 0x2b, 0xc0, 9], // ECDHE_ECDSA with AES-128-GCM, and with AES-128-CBC
        &[1, 0],                      // no compression
        &[0, length(&extensions)],
        &extensions,
    ]
    .concat();
    let hello = [&[22, 3, 1, 0, length(&body) + 4, 1, 0, 0, length(&body)][..], &body].concat();
    let mut stream = TcpStream::connect(addr).await.expect("connects");
    stream.write_all(&hello).await.expect("writes");
    let mut answer = vec![0; 7];
    stream.read_exact(&mut answer).await.expect("reads");
    answer
}

#[tokio::test]
async fn versions_before_1_2_are_refused() {
    let place = Place::new(&[]).await;
    for minor in [0, 1, 2] {
        let answer = answer_to_hello(place.addr, minor).await;
        assert_eq!((answer[0], &answer[5..]), (21, &[2, 70][..]), "an alert: protocol_version");
    }
    let answer = answer_to_hello(place.addr, 3).await;
    assert_eq!((answer[0], answer[5]), (22, 2), "a ServerHello");
}

#[tokio::test]
async fn a_client_that_sends_nonsense_is_refused_and_others_are_served() {
    let place = Place::new(&[]).await;
    for nonsense in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[22, 3, 1, 255, 255], &[0; 64]] {
        let mut stream = TcpStream::connect(place.addr).await.expect("connects");
        stream.write_all(nonsense).await.expect("writes");
        stream.shutdown().await.expect("ends");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let client = client(&place.authority(), &TLS13, &[]);
    connect(place.addr, &client, "localhost").await.expect("served");
}
