//! What the head of an HTTP/1.1 request says. Whatever two readers could understand differently is
//! refused: whoever stands before this server may have gone by the other reading.

use control::limits;
use http::Method;

use super::{Framing, NOTHING};
use crate::{
    address,
    chunked::Chunked,
    denial::Denial,
    fields::{self, Fields, Malformed},
    head,
    request::{Request, Version},
};

/// Bytes of a first line. A target that is too long for a function, but not for this, costs its sender
/// no connection.
pub(super) const FIRST_LINE: usize = limits::REQUEST_TARGET_BYTES + 4 * 1024;
/// What is told to those who speak something else.
pub(super) const NO_REQUEST: Malformed = Malformed("this is no request line");

/// What a head says about its connection and its body.
pub(super) struct Meant {
    pub(super) body: Framing,
    pub(super) expects: bool,
    pub(super) keep: bool,
}

/// Whether a request may begin so. Whoever speaks another protocol may be waiting for us to speak.
pub(super) fn may_begin(buffer: &[u8]) -> bool {
    buffer.first().is_none_or(|byte| fields::is_token(&[*byte]))
}

/// Reads a complete head.
pub(super) fn parse(text: &[u8], request: &mut Request) -> Result<Meant, Denial> {
    let mut lines = head::lines(text);
    begin(lines.next().unwrap_or_default(), request)?;
    let all = head::fields(lines, &mut request.fields, limits::REQUEST_HEADERS);
    if !all.map_err(Denial::Malformed)? || request.fields.size() > limits::REQUEST_HEADER_BYTES {
        return Err(Denial::HeadersTooLarge);
    }
    host(request)?;
    let body = framing(request)?;
    let known = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
    if !request.fields.all("expect").all(known) {
        return Err(Denial::Expectation);
    }
    let expects = request.fields.get("expect").is_some()
        && request.version == Version::Http11
        && !matches!(body, Framing::Length(0));
    Ok(Meant { body, expects, keep: keeps(&request.fields, request.version) })
}

/// `GET /path HTTP/1.1`.
pub(super) fn begin(line: &[u8], request: &mut Request) -> Result<(), Denial> {
    request.clear();
    if line.len() > FIRST_LINE {
        return Err(Denial::TargetTooLong);
    }
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Denial::Malformed(NO_REQUEST));
    };
    request.version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(Denial::HttpVersion);
        }
        _ => return Err(Denial::Malformed(NO_REQUEST)),
    };
    if !fields::is_token(method) {
        return Err(Denial::Malformed(NO_REQUEST));
    }
    request.method = Method::from_bytes(method).map_err(|_| Denial::MethodNotAllowed)?;
    let text = std::str::from_utf8(target).ok().filter(|text| is_target(text));
    let text =
        text.ok_or(Denial::BadRequest("The target has characters that must be percent-encoded."))?;
    if request.method == Method::CONNECT {
        return Err(Denial::MethodNotAllowed);
    }
    if text.starts_with('/') || (text == "*" && request.method == Method::OPTIONS) {
        request.target.push_str(text);
        return Ok(());
    }
    let (host, target) =
        absolute(text).ok_or(Denial::Malformed(Malformed("this target is no path")))?;
    request.host.push_str(host);
    if !target.starts_with('/') {
        request.target.push('/');
    }
    request.target.push_str(target);
    Ok(())
}

/// Printable, and without a fragment: some would cut it off and others take it for a part of the path.
pub(crate) fn is_target(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// Host and the rest of `http://host/path`, as proxies are asked.
fn absolute(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    (end > 0).then(|| rest.split_at(end))
}

/// Takes the host out of the fields. One in the target wins, as HTTP has it.
fn host(request: &mut Request) -> Result<(), Denial> {
    let mut hosts = request.fields.all("host");
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Denial::BadRequest("The request has several Host headers."));
    }
    let named = match first {
        None if request.version == Version::Http11 => {
            return Err(Denial::BadRequest("The request has no Host header."));
        }
        None => "",
        Some(host) => std::str::from_utf8(host).unwrap_or("\0"),
    };
    let odd = |host: &str| address::host_name(host).is_none();
    if odd(named) || odd(&request.host) {
        return Err(Denial::BadRequest("The host is not a host name."));
    }
    if request.host.is_empty() {
        request.host.push_str(named);
    }
    Ok(())
}

fn framing(request: &mut Request) -> Result<Framing, Denial> {
    let fields = &request.fields;
    let mut lengths = fields.all("content-length");
    let (length, second) = (lengths.next(), lengths.next());
    let mut codings = fields.all("transfer-encoding");
    match (codings.next(), codings.next()) {
        (None, _) => {}
        (Some(_), _) if length.is_some() => {
            return Err(Denial::BadRequest(
                "Content-Length and Transfer-Encoding exclude each other.",
            ));
        }
        (Some(_), _) if request.version == Version::Http10 => {
            return Err(Denial::BadRequest("HTTP/1.0 has no Transfer-Encoding."));
        }
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => {
            return Ok(Framing::Chunked(Chunked::of_client()));
        }
        _ => return Err(Denial::TransferCoding),
    }
    let Some(length) = length else { return Ok(NOTHING) };
    let number = fields::length(length).filter(|_| second.is_none());
    let number = number.ok_or(Denial::BadRequest("Content-Length is not one plain number."))?;
    request.length = Some(number);
    Ok(Framing::Length(number))
}

/// Whether another request may follow.
fn keeps(fields: &Fields, version: Version) -> bool {
    let options = || fields.all("connection").flat_map(|value| value.split(|byte| *byte == b','));
    let has = |wanted: &[u8]| options().any(|o| fields::trim(o).eq_ignore_ascii_case(wanted));
    !has(b"close") && (version == Version::Http11 || has(b"keep-alive"))
}
