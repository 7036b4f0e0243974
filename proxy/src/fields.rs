//! Header fields on their way through the edge: their bytes one after the other, and where each name
//! and value lies. A request costs no allocation per field, and a field no parsing twice.

use std::fmt;

/// The fields of one head, in their order. Names are in lower case.
#[derive(Default, Clone)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// A name starts at `name`, its value follows it from `value` to `end`.
#[derive(Clone, Copy)]
struct Span {
    name: u32,
    value: u32,
    end: u32,
}

/// What came is not HTTP as this server reads it, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl Fields {
    /// None, with room for those of a usual answer.
    pub(crate) fn of_answer() -> Self {
        Self { bytes: Vec::with_capacity(384), spans: Vec::with_capacity(12) }
    }

    /// Forgets all fields and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Bytes of all names and values, and of what stands between and behind them on the wire.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() + 4 * self.spans.len()
    }

    /// Adds a field of our own: a name in lower case, a value without line ends.
    pub(crate) fn push(&mut self, name: &str, value: &[u8]) {
        debug_assert!(name.bytes().all(|byte| byte == lower(byte)));
        self.add(name.as_bytes(), value);
    }

    /// Adds a line of a head, without its end, and gives the field back as it is kept. A line that
    /// continues the one before it has no name and is refused.
    pub(crate) fn push_line(&mut self, line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
        let colon = memchr::memchr(b':', line).ok_or(Malformed("a header line without a colon"))?;
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if !is_token(name) {
            return Err(Malformed("a header name that is not one"));
        }
        if !is_value(value) {
            return Err(Malformed("a control character in a header value"));
        }
        self.add(name, value);
        Ok(self.last())
    }

    /// Takes the last field back.
    pub(crate) fn pop(&mut self) {
        if let Some(span) = self.spans.pop() {
            self.bytes.truncate(span.name as usize);
        }
    }

    /// All fields.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.spans.iter().map(|span| self.at(span))
    }

    /// The value of the first field of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The values of all fields of a name.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |field| field.0 == name.as_bytes()).map(|field| field.1)
    }

    /// Writes the fields as HTTP/1.1 has them.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            write_field(out, name, value);
        }
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend(name.iter().copied().map(lower));
        self.bytes.extend_from_slice(value);
        let at = |index: usize| u32::try_from(index).unwrap_or(u32::MAX); // heads are bounded
        self.spans.push(Span {
            name: at(start),
            value: at(start + name.len()),
            end: at(self.bytes.len()),
        });
    }

    fn last(&self) -> (&[u8], &[u8]) {
        self.spans.last().map_or((b"", b""), |span| self.at(span))
    }

    fn at(&self, span: &Span) -> (&[u8], &[u8]) {
        let (name, value, end) = (span.name as usize, span.value as usize, span.end as usize);
        (&self.bytes[name..value], &self.bytes[value..end])
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        out.debug_map().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

/// Writes one field as HTTP/1.1 has it.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes a field whose value is a number.
pub(crate) fn write_number(out: &mut Vec<u8>, name: &[u8], value: u64) {
    write_field(out, name, itoa::Buffer::new().format(value).as_bytes());
}

/// A value without the spaces and tabs around it.
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A length in plain digits; signs, spaces and lists are no lengths.
pub(crate) fn length(value: &[u8]) -> Option<u64> {
    let plain = (1..=15).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    plain.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Whether a text is what HTTP calls a token: a name or a method.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| KINDS[usize::from(*byte)] & TOKEN != 0)
}

/// Whether a text may be a field's value.
pub(crate) fn is_value(text: &[u8]) -> bool {
    text.iter().all(|byte| KINDS[usize::from(*byte)] & VALUE != 0)
}

const fn lower(byte: u8) -> u8 {
    byte.to_ascii_lowercase()
}

const TOKEN: u8 = 1;
const VALUE: u8 = 2;

/// What each byte may be part of.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let c = byte as u8;
        let mark = matches!(
            c,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        );
        if c.is_ascii_alphanumeric() || mark {
            kinds[byte] |= TOKEN;
        }
        // Visible characters, space, tab, and what is beyond ASCII.
        if c == b'\t' || (c >= b' ' && c != 0x7f) {
            kinds[byte] |= VALUE;
        }
        byte += 1;
    }
    kinds
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_read_strictly_and_kept_in_order() {
        let mut fields = Fields::default();
        assert_eq!(fields.push_line(b"Host:a.example"), Ok((&b"host"[..], &b"a.example"[..])));
        assert_eq!(fields.push_line(b"X-A:  \xe4\t b \t"), Ok((&b"x-a"[..], &b"\xe4\t b"[..])));
        assert_eq!(fields.push_line(b"x-empty:"), Ok((&b"x-empty"[..], &b""[..])));
        for line in [
            &b"no colon"[..],
            b": no name",
            b" folded: x",
            b"\tfolded: x",
            b"name : x",
            b"na\0me: x",
            b"n\xe4me: x",
            b"x: a\0",
            b"x: a\rb",
            b"x: a\nb",
            b"x: \x7f",
        ] {
            assert!(fields.push_line(line).is_err(), "{line:?}");
        }
        fields.push("x-a", b"2");
        assert_eq!(fields.len(), 4);
        assert_eq!(fields.get("x-a"), Some(&b"\xe4\t b"[..]));
        assert_eq!(fields.all("x-a").count(), 2);
        fields.pop();
        let mut wire = Vec::new();
        fields.write(&mut wire);
        assert_eq!(wire, b"host: a.example\r\nx-a: \xe4\t b\r\nx-empty: \r\n");
        assert_eq!(fields.size(), wire.len());
    }

    #[test]
    fn lengths_are_plain_digits() {
        for (text, value) in [("0", 0), ("007", 7), ("999999999999999", 999_999_999_999_999)] {
            assert_eq!(length(text.as_bytes()), Some(value));
        }
        for text in ["", "+1", "-1", " 1", "1 ", "1,1", "0x1", "1e3", "9999999999999999"] {
            assert_eq!(length(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        /// What is accepted is written back as the same fields.
        #[test]
        fn what_is_read_is_written_alike(lines in prop::collection::vec("[ -~\t]{0,40}", 0..8)) {
            let mut fields = Fields::default();
            for line in &lines {
                let _ = fields.push_line(line.as_bytes());
            }
            let mut wire = Vec::new();
            fields.write(&mut wire);
            let mut again = Fields::default();
            for line in wire.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                prop_assert!(again.push_line(line.strip_suffix(b"\r").unwrap_or(line)).is_ok());
            }
            prop_assert!(fields.iter().eq(again.iter()));
        }
    }
}
