//! A client's connection that speaks HTTP/2 (crate `h2`): each request is a task of its own, and they
//! end with the connection's.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};
use control::limits;
use h2::{Reason, RecvStream, SendStream, server, server::SendResponse};
use http::{HeaderName, HeaderValue, Method, Response, header::COOKIE, request::Parts};
use pingora_core::protocols::Stream;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    address,
    bound::Alarm,
    client::{Body, Client, Peer, Reply},
    date,
    denial::Denial,
    flow::Next,
    gateway::Gateway,
    http1,
    request::{Request, Version},
};

/// Bytes of a body that a client may send ahead of being read.
const WINDOW: u32 = 64 * 1024;
/// Bytes that lie ready to be sent for one client.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams that a client may reset before they are served, before its connection is ended.
const RESETS: usize = 50;

/// Serves a connection to its end.
pub(crate) async fn serve(stream: Stream, gateway: &Arc<Gateway>, peer: Peer) {
    let mut settings = server::Builder::new();
    settings
        .max_concurrent_streams(limits::HTTP2_STREAMS)
        .max_header_list_size((limits::REQUEST_HEADER_BYTES + limits::REQUEST_TARGET_BYTES) as u32)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESETS)
        .max_pending_accept_reset_streams(RESETS);
    let Ok(Ok(mut connection)) = timeout(limits::REQUEST_HEAD, settings.handshake(stream)).await
    else {
        return;
    };
    let peer = Arc::new(peer);
    let mut running = JoinSet::new();
    let mut patience = gateway.traffic.patience();
    let mut leaving = false;
    loop {
        let rest = if leaving { limits::LINGER } else { limits::KEEP_ALIVE };
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let (gateway, peer) = (gateway.clone(), peer.clone());
                    running.spawn(async move { one(request, respond, &gateway, &peer).await });
                }
                Some(Err(_)) | None => break,
            },
            Some(_) = running.join_next() => {}
            () = patience.left() => {
                if !std::mem::replace(&mut leaving, true) {
                    connection.graceful_shutdown();
                }
            }
            () = tokio::time::sleep(rest), if running.is_empty() => {
                if std::mem::replace(&mut leaving, true) {
                    break; // the client did not go when it was asked to
                }
                connection.graceful_shutdown();
            }
        }
    }
    // A client that has gone does not end what its functions do; each has its deadline.
    while running.join_next().await.is_some() {}
}

async fn one(
    asked: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
    gateway: &Gateway,
    peer: &Peer,
) {
    let (parts, body) = asked.into_parts();
    let mut exchange = Exchange { body, respond };
    match request(parts) {
        Ok(request) => gateway.answer(&mut exchange, &request, peer, &mut Alarm::default()).await,
        Err(denial) => gateway.refuse(&mut exchange, &Request::default(), peer, denial).await,
    }
}

/// The head as the rest of the edge knows it; `h2` has checked its form.
fn request(parts: Parts) -> Result<Request, Denial> {
    let mut request =
        Request { method: parts.method, version: Version::Http2, ..Request::default() };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if !http1::is_target(target) {
        return Err(Denial::BadRequest("The target has characters that must be percent-encoded."));
    }
    let of_the_server = target == "*" && request.method == Method::OPTIONS;
    if !(of_the_server || target.starts_with('/')) {
        return Err(Denial::BadRequest("The target is no path."));
    }
    request.target.push_str(target);
    for (name, value) in parts.headers.iter().filter(|(name, _)| *name != COOKIE) {
        request.fields.push(name.as_str(), value.as_bytes());
    }
    // Their crumbs are one field everywhere but in HTTP/2.
    let cookies: Vec<_> = parts.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if !cookies.is_empty() {
        request.fields.push(COOKIE.as_str(), &cookies.join(&b"; "[..]));
    }
    if request.fields.len() > limits::REQUEST_HEADERS
        || request.fields.size() > limits::REQUEST_HEADER_BYTES
    {
        return Err(Denial::HeadersTooLarge);
    }
    let mut hosts = parts.headers.get_all(http::header::HOST).iter();
    let host = match (parts.uri.authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => return Err(Denial::BadRequest("The request has several Host headers.")),
        (Some(authority), Some(host), None)
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            return Err(Denial::BadRequest("Host and :authority differ."));
        }
        (Some(authority), _, None) => authority.as_str(),
        (None, Some(host), None) => host.to_str().unwrap_or("\0"),
        (None, None, None) => return Err(Denial::BadRequest("The request has no :authority.")),
    };
    if address::host_name(host).is_none() {
        return Err(Denial::BadRequest("The host is not a host name."));
    }
    request.host.push_str(host);
    let length = parts.headers.get(http::header::CONTENT_LENGTH);
    request.length = length.and_then(|value| crate::fields::length(value.as_bytes()));
    Ok(request)
}

/// One request and its reply.
struct Exchange {
    body: RecvStream,
    respond: SendResponse<Bytes>,
}

impl Client for Exchange {
    async fn body(&mut self, most_bytes: usize) -> Result<Bytes, Denial> {
        let mut body = BytesMut::new();
        while let Some(piece) = self.body.data().await {
            let piece = piece.map_err(|_| Denial::ClientGone)?;
            // Both ends know the same sum; an error here is the connection's, which comes next.
            let _ = self.body.flow_control().release_capacity(piece.len());
            if body.len() + piece.len() > most_bytes {
                return Err(Denial::BodyTooLarge(most_bytes));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    async fn gone(&mut self) {
        let _ = std::future::poll_fn(|context| self.respond.poll_reset(context)).await;
    }

    async fn send(&mut self, reply: Reply<'_>) -> io::Result<()> {
        let length = reply.length();
        let body = match reply.body {
            Body::Absent(_) => None,
            Body::Whole(body) if body.is_empty() => None,
            body => Some(body),
        };
        let mut response = Response::new(());
        *response.status_mut() = reply.status;
        let headers = response.headers_mut();
        for (name, value) in reply.fields.iter() {
            // Fields are checked where they come in; what h2 could not carry is left out.
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                headers.append(name, value);
            }
        }
        if let Some(date) = date::with(|date| HeaderValue::from_bytes(date).ok()) {
            headers.insert(http::header::DATE, date);
        }
        if let Some(length) = length {
            headers.insert(http::header::CONTENT_LENGTH, length.into());
        }
        let mut stream = self.respond.send_response(response, body.is_none()).map_err(broken)?;
        match body {
            Some(Body::Whole(body)) => send_all(&mut stream, body, true).await?,
            Some(Body::Flow(mut flow)) => loop {
                match flow.next().await {
                    Next::Data(piece) => send_all(&mut stream, piece, false).await?,
                    Next::End => break stream.send_data(Bytes::new(), true).map_err(broken)?,
                    Next::Cut => break stream.send_reset(Reason::INTERNAL_ERROR),
                }
            },
            _ => {}
        }
        // What is left of a refused body is not wanted: with the stream's last handle `h2` resets it,
        // after the answer. A reset of ours would overtake the answer.
        Ok(())
    }
}

/// Sends as much at a time as the client has room for.
async fn send_all(stream: &mut SendStream<Bytes>, mut body: Bytes, last: bool) -> io::Result<()> {
    let within = limits::send_within(body.len());
    let sent = timeout(within, async {
        while !body.is_empty() {
            stream.reserve_capacity(body.len());
            let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
            let room = room.ok_or(io::ErrorKind::BrokenPipe)?.map_err(broken)?;
            if room == 0 {
                continue;
            }
            let piece = body.split_to(room.min(body.len()));
            let end = last && body.is_empty();
            stream.send_data(piece, end).map_err(broken)?;
        }
        Ok(())
    });
    match sent.await {
        Ok(sent) => sent,
        Err(_) => {
            stream.send_reset(Reason::CANCEL);
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}
