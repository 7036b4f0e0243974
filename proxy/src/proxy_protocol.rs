//! The PROXY protocol, versions 1 and 2: a header before everything else with which a proxy says for
//! whom it connects.

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use control::limits;
use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How version 2 begins.
const SIGNATURE: &[u8] = v2::PROTOCOL_PREFIX;
/// How version 1 begins.
const WORD: &[u8] = b"PROXY ";
/// Longest header of version 1, with its CR LF.
const LINE: usize = 107;
/// Version 2 up to its length, which comes last.
const FIXED: usize = 16;
/// Room for one read.
const READ: usize = 512;

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHeader {
    #[error("it ended before its PROXY header")]
    Ended,
    #[error("it does not begin with a PROXY header")]
    Missing,
    #[error("its PROXY header is not valid")]
    Malformed,
}

/// For whom a proxy connects; itself when there is no address. What came after the header stays in
/// `buffer`.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<Option<SocketAddr>, BadHeader> {
    loop {
        if let Some(end) = end(buffer)? {
            return source(&buffer.split_to(end));
        }
        buffer.reserve(READ);
        if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
            return Err(BadHeader::Ended);
        }
    }
}

/// Where the header ends, once enough of it is there.
fn end(buffer: &[u8]) -> Result<Option<usize>, BadHeader> {
    let begins = |with: &[u8]| buffer.iter().zip(with).all(|(is, wanted)| is == wanted);
    if begins(SIGNATURE) {
        let Some(length) = buffer.get(FIXED - 2..FIXED) else { return Ok(None) };
        let end = FIXED + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if end > limits::PROXY_HEADER_BYTES {
            return Err(BadHeader::Malformed);
        }
        return Ok((buffer.len() >= end).then_some(end));
    }
    if !begins(WORD) {
        return Err(BadHeader::Missing);
    }
    match memchr::memchr(b'\n', &buffer[..buffer.len().min(LINE)]) {
        Some(last) => Ok(Some(last + 1)),
        None if buffer.len() >= LINE => Err(BadHeader::Malformed),
        None => Ok(None),
    }
}

/// What a complete header says.
fn source(header: &[u8]) -> Result<Option<SocketAddr>, BadHeader> {
    let named = |ip: IpAddr, port| Ok(Some(SocketAddr::new(ip.to_canonical(), port)));
    if !header.starts_with(SIGNATURE) {
        // The parser takes a CR for a space.
        if memchr::memchr(b'\r', header) != header.len().checked_sub(2) {
            return Err(BadHeader::Malformed);
        }
        let header = v1::Header::try_from(header).map_err(|_| BadHeader::Malformed)?;
        return match header.addresses {
            v1::Addresses::Tcp4(ip) => named(ip.source_address.into(), ip.source_port),
            v1::Addresses::Tcp6(ip) => named(ip.source_address.into(), ip.source_port),
            v1::Addresses::Unknown => Ok(None),
        };
    }
    let header = v2::Header::try_from(header).map_err(|_| BadHeader::Malformed)?;
    match (header.command, header.protocol, header.addresses) {
        (v2::Command::Local, ..) | (_, _, v2::Addresses::Unspecified) => Ok(None),
        (_, v2::Protocol::Stream, v2::Addresses::IPv4(ip)) => {
            named(ip.source_address.into(), ip.source_port)
        }
        (_, v2::Protocol::Stream, v2::Addresses::IPv6(ip)) => {
            named(ip.source_address.into(), ip.source_port)
        }
        (_, v2::Protocol::Stream, v2::Addresses::Unix(_)) => Ok(None),
        _ => Err(BadHeader::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a header that comes in pieces; gives what was said and what is left.
    async fn read_in(pieces: &[&[u8]]) -> (Result<Option<String>, BadHeader>, Vec<u8>) {
        let mut stream = tokio_test_stream(pieces);
        let mut buffer = BytesMut::new();
        let said = read(&mut stream, &mut buffer).await;
        let mut rest = buffer.to_vec();
        stream.read_to_end(&mut rest).await.expect("reads");
        (said.map(|address| address.map(|address| address.to_string())), rest)
    }

    /// Each piece is one read.
    fn tokio_test_stream(pieces: &[&[u8]]) -> impl AsyncRead + Unpin {
        pieces
            .iter()
            .fold(Box::new(tokio::io::empty()) as Box<dyn AsyncRead + Unpin>, |before, piece| {
                Box::new(before.chain(std::io::Cursor::new(piece.to_vec())))
            })
    }

    /// A header of version 2: command and version, family and protocol, what follows.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];

    fn v6() -> Vec<u8> {
        let ip = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("an address").octets();
        [&ip("2001:db8::7")[..], &ip("2001:db8:1::1"), &[0x12, 0x34, 0, 80]].concat()
    }

    #[tokio::test]
    async fn both_versions_name_the_client() {
        let with_tlv = [&V4[..], &[4, 0, 1, 42]].concat();
        let cases: [(Vec<u8>, Option<&str>); 11] = [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 80\r\n".to_vec(), Some("203.0.113.7:4660")),
            (b"PROXY TCP6 2001:db8::7 ::1 4660 80\r\n".to_vec(), Some("[2001:db8::7]:4660")),
            (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4660 80\r\n".to_vec(), Some("203.0.113.7:4660")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (binary(0x21, 0x11, &V4), Some("203.0.113.7:4660")),
            (binary(0x21, 0x11, &with_tlv), Some("203.0.113.7:4660")),
            (binary(0x21, 0x21, &v6()), Some("[2001:db8::7]:4660")),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, &V4), None), // the proxy itself, such as for a health check
            (binary(0x21, 0x31, &[0; 216]), None),
        ];
        for (header, expected) in cases {
            let request = b"GET / HTTP/1.1\r\n\r\n";
            let whole = [&header[..], request].concat();
            let bytes: Vec<_> = whole.chunks(1).collect();
            for pieces in [&[&whole[..]][..], &[&header, request], &bytes] {
                let (said, rest) = read_in(pieces).await;
                assert_eq!(said, Ok(expected.map(str::to_owned)), "{header:?}");
                assert_eq!(rest, request, "{header:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        let cases: [(&[u8], BadHeader); 18] = [
            (b"", BadHeader::Ended),
            (b"PROXY TCP4 203.0.113.7", BadHeader::Ended),
            (&binary(0x21, 0x11, &V4)[..20], BadHeader::Ended),
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", BadHeader::Missing),
            (b"PROXZ", BadHeader::Missing),
            (b"proxy TCP4 203.0.113.7 10.0.0.1 1 2\r\n", BadHeader::Missing),
            (b"\x16\x03\x01\x02\x00", BadHeader::Missing), // TLS
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\n", BadHeader::Malformed),
            (b"PROXY\rTCP4\r203.0.113.7\r10.0.0.1\r1\r2\r\n", BadHeader::Missing),
            (b"PROXY TCP4\r203.0.113.7 10.0.0.1 1 2\r\n", BadHeader::Malformed),
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 1 65536\r\n", BadHeader::Malformed),
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 1\r\n", BadHeader::Malformed),
            (b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n", BadHeader::Malformed),
            (b"PROXY UDP4 203.0.113.7 10.0.0.1 1 2\r\n", BadHeader::Malformed),
            (long.as_bytes(), BadHeader::Malformed),
            (&binary(0x11, 0x11, &V4), BadHeader::Malformed),
            (&binary(0x21, 0x12, &V4), BadHeader::Malformed), // UDP
            (&binary(0x21, 0x21, &V4), BadHeader::Malformed), // too short for IPv6
        ];
        for (bytes, expected) in cases {
            assert_eq!(read_in(&[bytes]).await.0, Err(expected), "{bytes:?}");
        }
        let endless = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
        assert_eq!(read_in(&[&endless]).await.0, Err(BadHeader::Malformed));
    }

    proptest! {
        /// Nothing panics, and how the bytes are cut makes no difference.
        #[test]
        fn bytes_are_read_alike_in_whatever_pieces(
            start in prop::sample::select(vec![&b""[..], WORD, b"PROXY TCP4 ", SIGNATURE]),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            cut in 0usize..300,
        ) {
            let whole = [start, &bytes].concat();
            let (head, tail) = whole.split_at(cut.min(whole.len()));
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let at_once = runtime.block_on(read_in(&[&whole]));
            let cut = runtime.block_on(read_in(&[head, tail]));
            prop_assert_eq!(at_once, cut);
        }
    }
}
