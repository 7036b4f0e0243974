//! The client's end of HTTP/2.

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, Request, Response};
use tokio::task::JoinHandle;

use super::world::{Wire, World};

/// A connection and the task that drives it.
pub(super) struct H2 {
    pub(super) open: SendRequest<Bytes>,
    pub(super) driver: JoinHandle<Result<(), h2::Error>>,
    pub(super) served: JoinHandle<()>,
}

/// A complete answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// A stream whose answer is awaited.
pub(super) struct Asking {
    pub(super) body: SendStream<Bytes>,
    pub(super) answer: JoinHandle<Result<Response<RecvStream>, h2::Error>>,
}

impl World {
    pub(super) async fn h2(&self) -> H2 {
        let Wire { stream, served } = self.client_h2();
        // One stream that is not read must not stop the others for want of the connection's window.
        let mut settings = h2::client::Builder::new();
        settings.initial_connection_window_size(1024 * 1024);
        let (open, connection) = settings.handshake(stream).await.expect("a connection");
        H2 { open, driver: tokio::spawn(connection), served }
    }
}

/// `GET`, or another method, of the function.
pub(super) fn request(method: &str, path: &str) -> Request<()> {
    let uri = format!("http://f.example{path}");
    Request::builder().method(method).uri(uri).body(()).expect("a request")
}

impl H2 {
    /// Opens a stream; without a body it ends with its head.
    pub(super) async fn open(&mut self, request: Request<()>, ends: bool) -> Asking {
        self.open = self.open.clone().ready().await.expect("room for a stream");
        let (answer, body) = self.open.send_request(request, ends).expect("a stream");
        Asking { body, answer: tokio::spawn(answer) }
    }

    /// The answer to one request without a body.
    pub(super) async fn ask(&mut self, request: Request<()>) -> Result<Answer, Reason> {
        self.open(request, true).await.answer().await
    }

    /// Whether another request is answered.
    pub(super) async fn is_usable(&mut self) -> bool {
        let answer = self.ask(request("GET", "/fn/f/usable")).await;
        answer.is_ok_and(|answer| answer.body == b"/fn/f/usable")
    }
}

impl Asking {
    /// All of the answer, or why it broke off.
    pub(super) async fn answer(self) -> Result<Answer, Reason> {
        let Self { answer, body: _body } = self;
        let reason = |error: h2::Error| error.reason().unwrap_or(Reason::CONNECT_ERROR);
        let (parts, mut stream) =
            answer.await.expect("it is awaited").map_err(reason)?.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece.map_err(reason)?;
            let _ = stream.flow_control().release_capacity(piece.len());
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status: parts.status.as_u16(), fields: parts.headers, body })
    }
}

impl Answer {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    /// Status and, for a denial, its code.
    pub(super) fn short(&self) -> String {
        let body: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        match body.as_ref().and_then(|body| body["code"].as_str()) {
            None => self.status.to_string(),
            Some(code) => format!("{} {code}", self.status),
        }
    }
}
