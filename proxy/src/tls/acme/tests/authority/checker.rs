//! HTTP-01 from both sides: the server that stands for every domain and answers out of
//! [`Challenges`], and the request that the authority makes to it.

use std::{collections::HashSet, io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::tls::challenges::{self, Challenges};

pub(super) struct Checker {
    pub(super) addr: SocketAddr,
    served: Arc<Served>,
}

#[derive(Default)]
struct Served {
    challenges: Mutex<Arc<Challenges>>,
    elsewhere: Mutex<HashSet<String>>,
}

impl Checker {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let served = Arc::new(Served::default());
        let app = Router::new().fallback(answer).with_state(served.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { addr, served }
    }

    pub(super) fn serve(&self, challenges: Arc<Challenges>) {
        *self.served.challenges.lock() = challenges;
    }

    pub(super) fn misdirect(&self, domain: &str, elsewhere: bool) {
        let mut set = self.served.elsewhere.lock();
        if elsewhere {
            set.insert(domain.to_owned())
        } else {
            set.remove(domain)
        };
    }
}

async fn answer(
    State(served): State<Arc<Served>>,
    headers: HeaderMap,
    uri: Uri,
) -> (StatusCode, String) {
    let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    if served.elsewhere.lock().contains(host) {
        return (StatusCode::OK, "somebody else's page".to_owned());
    }
    let challenges = served.challenges.lock().clone();
    match challenges::token(uri.path()).and_then(|token| challenges.answer(token)) {
        Some(answer) => (StatusCode::OK, answer),
        None => (StatusCode::NOT_FOUND, "not found".to_owned()),
    }
}

/// Asks for the answer to a token, as if the domain led to this address.
pub(super) async fn fetch(addr: SocketAddr, domain: &str, token: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let path = format!("{}{token}", challenges::PREFIX);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::other(answer.lines().next().unwrap_or_default().to_owned())),
    }
}
