//! Bodies in chunks, read piece by piece as they come. From a client everything is taken that HTTP/1.1
//! asks for, within bounds; from a runner only what runners write.

use bytes::{Buf, BytesMut};

use crate::fields::{self, Fields, Malformed};

/// Bytes of a chunk's size line with its extensions.
const SIZE_LINE: usize = 256;
/// Hexadecimal digits of a chunk's size.
const DIGITS: usize = 8;
/// Bytes of all extensions and trailers of a body.
const EXTRAS: usize = 8 * 1024;

/// A body that is being read.
#[derive(Debug)]
pub(crate) struct Chunked {
    expected: Expected,
    /// So many bytes of extensions and trailers may still come: they are dropped, and reading them costs.
    extras: usize,
}

#[derive(Debug, Clone, Copy)]
enum Expected {
    Size,
    /// So many bytes of a chunk.
    Data(usize),
    /// The end of a chunk's line.
    DataEnd,
    /// A trailer, or the last empty line.
    Trailer,
    Nothing,
}

impl Chunked {
    /// A client's body: extensions and trailers are dropped.
    pub(crate) fn of_client() -> Self {
        Self { expected: Expected::Size, extras: EXTRAS }
    }

    /// A runner's body: there are none of them.
    pub(crate) fn of_runner() -> Self {
        Self { expected: Expected::Size, extras: 0 }
    }

    /// Moves what has come from `input` into `body`. True when the body has ended; what follows it
    /// stays in `input`.
    pub(crate) fn decode(
        &mut self,
        input: &mut BytesMut,
        body: &mut BytesMut,
    ) -> Result<bool, Malformed> {
        loop {
            self.expected = match self.expected {
                Expected::Size => match take_line(input, SIZE_LINE)? {
                    None => return Ok(false),
                    Some(line) => match self.size(&line)? {
                        0 => Expected::Trailer,
                        size => Expected::Data(size),
                    },
                },
                Expected::Data(left) => {
                    let here = left.min(input.len());
                    // All that came is one piece of a chunk: it need not be copied.
                    if body.is_empty() && here == input.len() {
                        std::mem::swap(body, input);
                    } else {
                        body.extend_from_slice(&input[..here]);
                        input.advance(here);
                    }
                    if here < left {
                        self.expected = Expected::Data(left - here);
                        return Ok(false);
                    }
                    Expected::DataEnd
                }
                Expected::DataEnd => match take_line(input, 0)? {
                    None => return Ok(false),
                    Some(_) => Expected::Size,
                },
                Expected::Trailer => match take_line(input, self.extras)? {
                    None => return Ok(false),
                    Some(line) if line.is_empty() => Expected::Nothing,
                    Some(line) => {
                        Fields::default().push_line(&line)?;
                        self.spend(line.len() + 2)?;
                        Expected::Trailer
                    }
                },
                Expected::Nothing => return Ok(true),
            }
        }
    }

    fn size(&mut self, line: &[u8]) -> Result<usize, Malformed> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = line.split_at(digits);
        let extended = fields::trim(extension).first() == Some(&b';');
        if !(extension.is_empty() || (extended && fields::is_value(extension))) {
            return Err(Malformed("a chunk's size that is not one"));
        }
        self.spend(extension.len())?;
        let text = std::str::from_utf8(digits).ok().filter(|d| (1..=DIGITS).contains(&d.len()));
        let size = text.and_then(|digits| usize::from_str_radix(digits, 16).ok());
        size.ok_or(Malformed("a chunk's size that is not one"))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Malformed> {
        let left = self.extras.checked_sub(bytes);
        self.extras = left.ok_or(Malformed("too much beside the chunks of a body"))?;
        Ok(())
    }
}

/// A line without its end, when it is there: at most so many bytes.
fn take_line(input: &mut BytesMut, most: usize) -> Result<Option<BytesMut>, Malformed> {
    let seen = &input[..input.len().min(most + 2)];
    let Some(end) = memchr::memchr(b'\n', seen) else {
        let hopeless = seen.len() == most + 2 || (most == 0 && !b"\r".starts_with(seen));
        return if hopeless {
            Err(Malformed("a line of a chunk that is too long"))
        } else {
            Ok(None)
        };
    };
    let mut line = input.split_to(end + 1);
    if line.len() < 2 || line[end - 1] != b'\r' {
        return Err(Malformed("a line of a chunk that does not end in CR LF"));
    }
    line.truncate(end - 1);
    Ok(Some(line))
}

/// Writes one piece of a body as a chunk; an empty piece would be the end.
pub(crate) fn write_chunk(out: &mut Vec<u8>, piece: &[u8]) {
    use std::io::Write as _;
    if piece.is_empty() {
        return;
    }
    let _ = write!(out, "{:x}\r\n", piece.len()); // a Vec takes everything
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
}

/// What ends a body in chunks.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Body and rest, or none when the end has not come.
    type Decoded = Result<Option<(Vec<u8>, Vec<u8>)>, Malformed>;

    fn decode(mut chunked: Chunked, parts: &[&[u8]]) -> Decoded {
        let (mut input, mut body) = (BytesMut::new(), BytesMut::new());
        let mut all = Vec::new();
        let mut parts = parts.iter();
        for part in parts.by_ref() {
            input.extend_from_slice(part);
            let ended = chunked.decode(&mut input, &mut body)?;
            all.extend_from_slice(&body.split());
            if ended {
                for part in parts {
                    input.extend_from_slice(part);
                }
                return Ok(Some((all, input.to_vec())));
            }
        }
        Ok(None)
    }

    #[test]
    fn what_is_and_what_is_not_a_body_in_chunks() {
        let client = |text: &str| decode(Chunked::of_client(), &[text.as_bytes()]);
        let runner = |text: &str| decode(Chunked::of_runner(), &[text.as_bytes()]);
        let whole =
            |body: &str, rest: &str| Ok(Some((body.as_bytes().to_vec(), rest.as_bytes().to_vec())));
        for read in [&client as &dyn Fn(&str) -> _, &runner] {
            assert_eq!(read("3\r\nabc\r\n0\r\n\r\nGET"), whole("abc", "GET"));
            assert_eq!(
                read("0003\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"),
                whole("abc0123456789", "")
            );
            assert_eq!(read("0\r\n\r\n"), whole("", ""));
            for open in ["", "3", "3\r\n", "3\r\nab", "3\r\nabc", "3\r\nabc\r", "0\r\n", "0\r\n\r"]
            {
                assert_eq!(read(open), Ok(None), "{open:?}");
            }
            for odd in [
                "\r\n",
                "x\r\n",
                "-1\r\n",
                "+1\r\n",
                "0x1\r\n",
                "123456789\r\n",
                "3\nabc",
                "3\r\nabcd\r\n",
                "3\r\nabc0\r\n",
                "3\r\nabc\n0\r\n",
                "0\r\nno trailer\r\n",
                "0\r\na: b\n",
            ] {
                assert!(read(odd).is_err(), "{odd:?}");
            }
        }
        assert_eq!(client("3;a=\"b\";c\r\nabc\r\n0 ;x\r\nx-a: b\r\n\r\n."), whole("abc", "."));
        assert!(runner("3;a\r\nabc\r\n0\r\n\r\n").is_err());
        assert!(runner("3\r\nabc\r\n0\r\nx-a: b\r\n\r\n").is_err());
        assert!(client(&format!("3;{}\r\n", "x".repeat(SIZE_LINE))).is_err());
        assert!(client(&format!("0\r\n{}", "a: b\r\n".repeat(EXTRAS / 4))).is_err());
        assert!(client(&"1;a=0123456789\r\nx\r\n".repeat(EXTRAS / 10)).is_err());
        for odd in [
            "3 \r\n",
            "3 3\r\n",
            "3 a\r\n",
            "3\t\r\n",
            "3;\x7f\r\n",
            "3;a\rb\r\n",
            ";a\r\n",
            " 3\r\n",
        ] {
            assert!(client(odd).is_err(), "{odd:?}");
        }
    }

    proptest! {
        /// However a body is cut, into chunks and on the wire, it is the same body.
        #[test]
        fn a_body_is_what_was_written(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 1usize..20,
        ) {
            let mut wire = Vec::new();
            for piece in &pieces {
                write_chunk(&mut wire, piece);
            }
            wire.extend_from_slice(LAST_CHUNK);
            wire.extend_from_slice(b"next");
            let parts: Vec<_> = wire.chunks(cut).collect();
            for chunked in [Chunked::of_client(), Chunked::of_runner()] {
                prop_assert_eq!(decode(chunked, &parts), Ok(Some((pieces.concat(), b"next".to_vec()))));
            }
        }

        #[test]
        fn nothing_that_comes_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(Chunked::of_client(), &[&bytes]);
        }
    }
}
