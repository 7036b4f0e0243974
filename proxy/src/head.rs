//! Where the head of an HTTP/1.1 message ends. Both sides of the edge are read by the same rule: lines
//! end in CR LF and nothing else, so that nobody before or behind the edge sees other lines than it.

use crate::fields::{Fields, Malformed};

/// How far the search for a head's end has come.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Where the line that is not complete yet begins.
    line: usize,
    searched: usize,
    /// The first line was given out.
    gave_first: bool,
}

impl Scan {
    /// Goes on with what has come; gives where the head ends, behind its empty line.
    pub(crate) fn look(&mut self, buffer: &[u8]) -> Result<Option<usize>, Malformed> {
        while let Some(found) = memchr::memchr(b'\n', &buffer[self.searched..]) {
            let end = self.searched + found;
            let line = &buffer[self.line..end];
            if line.last() != Some(&b'\r') {
                return Err(Malformed("a line that does not end in CR LF"));
            }
            // A message cannot begin with its empty line: then there is no head at all.
            let empty = line.len() == 1 && self.line > 0;
            (self.line, self.searched) = (end + 1, end + 1);
            if empty {
                return Ok(Some(end + 1));
            }
        }
        self.searched = buffer.len();
        Ok(None)
    }

    /// The first line without its end, once: when it has come. Heads may come byte by byte, and it need
    /// not be looked at for each of them.
    pub(crate) fn first_line<'b>(&mut self, buffer: &'b [u8]) -> Option<&'b [u8]> {
        if !self.has_first_line() || std::mem::replace(&mut self.gave_first, true) {
            return None;
        }
        lines(buffer).next()
    }

    /// Whether the first line has come.
    pub(crate) fn has_first_line(&self) -> bool {
        self.line > 0
    }
}

/// The lines of a complete head without their ends, and without the empty one.
pub(crate) fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = head.strip_suffix(b"\r\n\r\n").unwrap_or(head);
    // Each LF ends a line and has its CR before it: `Scan` saw to that.
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match memchr::memchr(b'\n', text) {
            Some(end) => {
                rest = Some(&text[end + 1..]);
                Some(text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]))
            }
            None => {
                rest = None;
                Some(text)
            }
        }
    })
}

/// Reads all field lines that follow the first line; more than `most` are an error.
pub(crate) fn fields<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    fields: &mut Fields,
    most: usize,
) -> Result<bool, Malformed> {
    for line in lines {
        if fields.len() > most {
            return Ok(false);
        }
        fields.push_line(line)?;
    }
    Ok(fields.len() <= most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(parts: &[&[u8]]) -> Result<Option<usize>, Malformed> {
        let (mut scan, mut buffer) = (Scan::default(), Vec::new());
        let mut found = Ok(None);
        for part in parts {
            buffer.extend_from_slice(part);
            found = scan.look(&buffer);
            if !matches!(found, Ok(None)) {
                break;
            }
        }
        found
    }

    #[test]
    fn the_end_is_the_first_empty_line() {
        assert_eq!(scan(&[b"GET / HTTP/1.1\r\na: b\r\n\r\nGET"]), Ok(Some(24)));
        assert_eq!(scan(&[b"GET / HTTP/1.1\r\n\r\n\r\n"]), Ok(Some(18)));
        assert_eq!(scan(&[b"GET / HTTP/1.1\r\na: b\r\n"]), Ok(None));
        assert!(scan(&[b"GET / HTTP/1.1\n\n"]).is_err());
        assert!(scan(&[b"GET / HTTP/1.1\r\na: b\n\r\n"]).is_err());
        assert_eq!(lines(b"A\r\nb: c\r\n\r\n").collect::<Vec<_>>(), [&b"A"[..], b"b: c"]);
        assert_eq!(lines(b"A\r\n\r\n").collect::<Vec<_>>(), [&b"A"[..]]);
    }

    proptest! {
        /// How the bytes are cut into pieces makes no difference.
        #[test]
        fn pieces_do_not_matter(text in "([A-Z: ]{0,5}\r?\n|\r|x){0,12}", cut in 0usize..40) {
            let cut = cut.min(text.len());
            let halves = scan(&[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
            let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
            prop_assert_eq!(scan(&[text.as_bytes()]), halves);
            prop_assert_eq!(scan(&[text.as_bytes()]), scan(&bytes));
        }
    }
}
