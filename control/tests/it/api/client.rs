//! A server on a free port of loopback, and an HTTP client that shows exactly what came back.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use control::{
    api::{Api, ApiLimits, Calls, Invoker, PublicUrl, auth::Authenticator, router},
    engine::{Engine, docker::Docker},
    health::Health,
    logs::Logs,
    rotation::Rotations,
    secret::Keyring,
    store::{Store, embedded::Embedded},
    token::Token,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub(crate) const TOKEN: &str = "test-token-0123456789";

/// Invocations per minute and user.
pub(crate) const INVOKE_RATE: u32 = 3;

/// A running admin API on an empty store.
pub(crate) struct Grid {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<Embedded>,
    pub(crate) health: Health,
    pub(crate) dir: TempDir,
}

/// Who calls with a token of its own.
pub(crate) struct User<'a> {
    pub(crate) grid: &'a Grid,
    pub(crate) token: String,
    /// Of the token's record.
    pub(crate) path: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lower-case names.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Grid {
    pub(crate) async fn start() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let store = Arc::new(Embedded::open(dir.path()).expect("a store"));
        let health = Health::default();
        // Nobody answers there: what these tests need of logs is on the disk.
        let engine: Arc<dyn Engine> = Arc::new(Docker::new("unix:///nowhere.sock"));
        let keyring = Keyring::load_or_create(dir.path(), None).expect("keys");
        let logs = Arc::new(Logs::new(
            engine,
            Arc::clone(&store) as Arc<dyn Store>,
            keyring.clone(),
            store.instance_id().clone(),
            dir.path().join("logs"),
            1024 * 1024,
        ));
        let api = Api {
            store: Arc::clone(&store) as Arc<dyn Store>,
            logs,
            health: health.clone(),
            runtimes: vec!["node18".to_owned(), "python3.9".to_owned()],
            oci_runtimes: vec!["runsc".to_owned()],
            denied: Arc::default(),
            keyring,
            rotations: Rotations::default(),
            invoker: Invoker::new(None, INVOKE_RATE),
            auth: Authenticator::new(Token::presented(TOKEN)),
            calls: Calls::default(),
            limits: ApiLimits::default(),
            public_url: PublicUrl::http(8080),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let service = router(api).into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { address, store, health, dir }
    }

    /// A request with exactly these headers and this body.
    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("head sent");
        stream.write_all(body).await.expect("body sent");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("an answer");
        Answer::parse(&bytes)
    }

    /// A request with the bootstrap token and a JSON body.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send_with(TOKEN, &[], method, path, body).await
    }

    /// A request with a token, a JSON body and other headers.
    pub(crate) async fn send_with(
        &self,
        token: &str,
        headers: &[(&str, &str)],
        method: &str,
        path: &str,
        body: &str,
    ) -> Answer {
        let authorization = format!("Token {token}");
        let mut all =
            vec![("authorization", authorization.as_str()), ("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.raw(method, path, &all, body.as_bytes()).await
    }

    /// A user with a new token; `more` is what else the token is made with.
    pub(crate) async fn user(&self, name: &str, more: &Value) -> User<'_> {
        let mut body = json!({"name": "test", "user": name});
        for (field, value) in more.as_object().into_iter().flatten() {
            body[field] = value.clone();
        }
        let answer = self.post("/api/v1/tokens/", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let token = answer.json()["token"].as_str().expect("a token").to_owned();
        User { grid: self, token, path: answer.headers["location"].clone() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &body.to_string()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, &body.to_string()).await
    }

    /// Creates a service with the least that it takes; returns its path.
    pub(crate) async fn service(&self, name: &str) -> String {
        let body = json!({"name": name, "function_runtime": "node18", "function_code": "x"});
        let answer = self.post("/api/v1/services/", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.headers["location"].clone()
    }
}

impl User<'_> {
    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.grid.send_with(&self.token, &[], method, path, &body.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &json!({})).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, body).await
    }

    /// Creates a service with the least that it takes, at a domain of its own; returns its path.
    pub(crate) async fn service(&self, name: &str, domain: &str) -> String {
        let body = json!({
            "name": name, "public_domain": domain,
            "function_runtime": "node18", "function_code": "x",
        });
        let answer = self.post("/api/v1/services/", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.headers["location"].clone()
    }
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status.parse().expect("a number"),
            headers: headers.map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect(),
            text: body.to_owned(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_str(&self.text).expect("JSON")
    }

    /// The `name` of each entry of a page.
    pub(crate) fn names(&self) -> Vec<String> {
        let page = self.json();
        let entries = page["results"].as_array().expect("a page").iter();
        entries.map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// Asserts status and whole body.
    #[track_caller]
    pub(crate) fn is(&self, status: u16, body: &Value) {
        assert_eq!((self.status, &self.json()), (status, body));
    }
}
