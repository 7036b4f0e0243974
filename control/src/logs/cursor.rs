//! How far a container's output was read: which lines were seen, and in which request it stands. What
//! comes next, from whatever reading, then adds each line once and to its request.

use jiff::Timestamp;

use super::{LogEntry, LogStream, truncate};
use crate::{
    engine::{LineStart, Output, OutputLine},
    limits,
    mask::{Cuts, Mask},
    name::ReplicaId,
};

/// The runner's marks around a request's output (runners/PROTOCOL.md).
const START_MARK: &str = "\u{1e}GRID START ";
const END_MARK: &str = "\u{1e}GRID END ";

/// Whether a line is one of the runner's marks, and not a function's output.
pub(crate) fn is_mark(line: &str) -> bool {
    line.starts_with(START_MARK) || line.starts_with(END_MARK)
}

/// The time of the last line that was seen of each stream. The engine gives each line of a stream a
/// time of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position([Option<Timestamp>; 3]);

impl Position {
    /// Whether the line was seen.
    pub(super) fn has(&self, stream: LogStream, at: Timestamp) -> bool {
        self.0[stream as usize].is_some_and(|seen| at <= seen)
    }

    /// Notes that the line was seen, and with it all before it.
    pub(super) fn see(&mut self, stream: LogStream, at: Timestamp) {
        let seen = &mut self.0[stream as usize];
        *seen = (*seen).max(Some(at));
    }

    /// What is new is not older than this; none when nothing was seen.
    pub(super) fn since(&self) -> Option<Timestamp> {
        let [stdout, stderr, _] = self.0;
        stdout.into_iter().chain(stderr).min()
    }
}

/// In which request a stream is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Standing {
    /// No mark was seen.
    #[default]
    Unknown,
    Between,
    Within(String),
}

/// A reading of one container's output. The two streams are read by the engine independently, so each
/// has marks of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    position: Position,
    streams: [Standing; 2],
}

/// What a reading brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Lines that were not seen before, in the engine's order.
    pub(super) entries: Vec<LogEntry>,
    /// Lines and marks that were not.
    pub(super) new: usize,
    /// There are lines among the entries of which it is not known whether they belong to a request: no mark
    /// of their stream was seen.
    pub(super) unsure: bool,
}

impl Cursor {
    /// Goes on behind what was seen earlier.
    pub(super) fn behind(position: Position) -> Self {
        Self { position, ..Self::default() }
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Whether the output goes on where this reading ended: nothing was left out between.
    pub(super) fn joins(&self, output: &Output) -> bool {
        !output.cut || output.lines.iter().any(|line| self.position.has(stream_of(line), line.at))
    }

    /// Takes it that a stream of which no mark was seen is in no request.
    pub(super) fn settle(&mut self) {
        for standing in &mut self.streams {
            if *standing == Standing::Unknown {
                *standing = Standing::Between;
            }
        }
    }

    /// Takes what was read: lines that were seen before, and behind them new ones.
    ///
    /// Lines whose request's beginning was not read belong to the request whose end comes next.
    pub(super) fn read(&mut self, replica: &ReplicaId, mask: &Mask, output: Output) -> Read {
        if !self.joins(&output) {
            self.streams = Default::default();
        }
        let mut read = Read::default();
        let mut open: [Vec<usize>; 2] = Default::default();
        for line in output.lines {
            let at_stream = usize::from(line.stderr);
            let stream = stream_of(&line);
            let new = !self.position.has(stream, line.at);
            let standing = &mut self.streams[at_stream];
            // What was seen tells where it led to only when that is not known.
            if !new && *standing != Standing::Unknown {
                continue;
            }
            self.position.see(stream, line.at);
            read.new += usize::from(new);
            let text = Some(line.line.as_str()).filter(|_| line.start != LineStart::Rest);
            let ended = text.and_then(|text| text.strip_prefix(END_MARK));
            let begun = text.and_then(|text| text.strip_prefix(START_MARK));
            if let Some(id) = ended.or(begun) {
                let known = is_request_id(id).then(|| id.to_owned());
                if ended.is_some() && *standing == Standing::Unknown {
                    for entry in &open[at_stream] {
                        read.entries[*entry].request_id.clone_from(&known);
                    }
                }
                open[at_stream].clear();
                *standing = match known {
                    Some(id) if ended.is_none() => Standing::Within(id),
                    _ => Standing::Between,
                };
            } else if new {
                if *standing == Standing::Unknown {
                    open[at_stream].push(read.entries.len());
                }
                let request_id = match standing {
                    Standing::Within(id) => Some(id.clone()),
                    _ => None,
                };
                read.entries.push(entry(replica, mask, stream, line, request_id));
            }
        }
        read.unsure = open.iter().any(|entries| !entries.is_empty());
        read
    }
}

/// Who wrote a line.
pub(super) fn stream_of(line: &OutputLine) -> LogStream {
    if line.stderr { LogStream::Stderr } else { LogStream::Stdout }
}

fn entry(
    replica: &ReplicaId,
    mask: &Mask,
    stream: LogStream,
    line: OutputLine,
    request_id: Option<String>,
) -> LogEntry {
    let OutputLine { at, line: mut text, start, cut_end, .. } = line;
    mask.hide(&mut text, Cuts { start: start != LineStart::Line, end: cut_end });
    truncate(&mut text, limits::LOG_LINE_BYTES);
    LogEntry { at, stream, replica: replica.clone(), request_id, line: text }
}

/// Whether the edge gives such ids. A function may write marks of its own, and what they say stands
/// with every line that follows: a long id would be kept thousands of times.
fn is_request_id(id: &str) -> bool {
    (1..=limits::REQUEST_ID_CHARS).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The nth line: on `e`rror or `o`ut, and the text.
    fn line(nth: usize, stream: char, text: &str) -> OutputLine {
        OutputLine {
            at: Timestamp::from_second(nth as i64).expect("a time"),
            stderr: stream == 'e',
            line: text.replace('^', "\u{1e}GRID "),
            start: LineStart::Line,
            cut_end: false,
        }
    }

    fn lines(texts: &[(char, &str)]) -> Vec<OutputLine> {
        texts.iter().enumerate().map(|(nth, (stream, text))| line(nth, *stream, text)).collect()
    }

    fn read(cursor: &mut Cursor, lines: &[OutputLine]) -> (Vec<(Option<String>, String)>, bool) {
        let replica = ReplicaId::parse("abcdefghijkl").expect("an id");
        let output = Output { lines: lines.to_vec(), cut: true };
        let read = cursor.read(&replica, &Mask::default(), output);
        let entries = read.entries.into_iter().map(|e| (e.request_id, e.line));
        (entries.collect(), read.unsure)
    }

    fn seen(lines: &[(Option<&str>, &str)]) -> Vec<(Option<String>, String)> {
        let owned = |(id, line): &(Option<&str>, &str)| (id.map(str::to_owned), (*line).to_owned());
        lines.iter().map(owned).collect()
    }

    const OUTPUT: [(char, &str); 9] = [
        ('o', "loading"),
        ('o', "^START r1"),
        ('o', "a"),
        ('e', "late warning"),
        ('e', "^START r1"),
        ('e', "b"),
        ('o', "^END r1"),
        ('e', "c"),
        ('o', "between"),
    ];

    #[test]
    fn lines_belong_to_the_request_whose_marks_surround_them_in_their_stream() {
        let (entries, unsure) = read(&mut Cursor::default(), &lines(&OUTPUT));
        let expected = [
            (None, "loading"),
            (Some("r1"), "a"),
            (None, "late warning"),
            (Some("r1"), "b"),
            (Some("r1"), "c"),
            (None, "between"),
        ];
        assert_eq!((entries, unsure), (seen(&expected), false));
    }

    #[test]
    fn a_line_whose_beginning_was_not_read_belongs_to_the_request_that_ends() {
        let cut =
            lines(&[('o', "a"), ('e', "b"), ('o', "^END r1"), ('o', "c"), ('e', "^START r2")]);
        let (entries, unsure) = read(&mut Cursor::default(), &cut);
        assert_eq!(entries, seen(&[(Some("r1"), "a"), (None, "b"), (None, "c")]));
        assert!(!unsure);
        let (entries, unsure) = read(&mut Cursor::default(), &lines(&[('o', "a")]));
        assert_eq!((entries, unsure), (seen(&[(None, "a")]), true));
    }

    #[test]
    fn a_mark_that_the_edge_would_not_make_marks_nothing() {
        for id in ["", "a b", "\u{1b}[2J", "\u{e4}", &"i".repeat(limits::REQUEST_ID_CHARS + 1)] {
            let lines = lines(&[('o', &format!("^START {id}")), ('o', "line")]);
            assert_eq!(read(&mut Cursor::default(), &lines).0, seen(&[(None, "line")]), "{id:?}");
        }
    }

    #[test]
    fn a_reading_that_was_interrupted_finds_its_request_again() {
        let lines = lines(&OUTPUT);
        let mut first = Cursor::default();
        read(&mut first, &lines[..3]);
        // Of an earlier process only the times of the last lines are known.
        let mut second = Cursor::behind(first.position());
        let (entries, _) = read(&mut second, &lines[1..6]);
        assert_eq!(entries, seen(&[(None, "late warning"), (Some("r1"), "b")]));
    }

    #[test]
    fn a_piece_of_a_line_marks_nothing_and_shows_no_piece_of_a_secret() {
        let mut pieces =
            lines(&[('o', "^START r1"), ('o', "my secret is 0123456"), ('o', "789ab, hush")]);
        pieces.extend(lines(&[('o', ""); 4])[3..].to_vec());
        pieces[3].line = "\u{1e}GRID END r1".to_owned();
        (pieces[1].cut_end, pieces[2].start, pieces[3].start) =
            (true, LineStart::Rest, LineStart::Rest);
        let replica = ReplicaId::parse("abcdefghijkl").expect("an id");
        let output = Output { lines: pieces, cut: false };
        let read = Cursor::default().read(&replica, &Mask::new(["0123456789ab"]), output);
        let seen: Vec<_> =
            read.entries.iter().map(|e| (e.line.as_str(), e.request_id.is_some())).collect();
        let mark = ("\u{1e}GRID END r1", true);
        assert_eq!(seen, [("my secret is ********", true), ("********, hush", true), mark]);
    }

    #[test]
    fn what_was_seen_before_a_gap_says_nothing_about_what_comes_behind_it() {
        let lines = lines(&[('o', "^START r1"), ('o', "a"), ('o', "b"), ('o', "^END r2")]);
        let mut cursor = Cursor::default();
        read(&mut cursor, &lines[..1]);
        assert_eq!(read(&mut cursor.clone(), &lines[2..]).0, seen(&[(Some("r2"), "b")]));
        assert_eq!(read(&mut cursor, &lines).0, seen(&[(Some("r1"), "a"), (Some("r1"), "b")]));
    }

    proptest! {
        /// However often and however far back it is read: each line comes once, in order, with the
        /// request that it has in the whole.
        #[test]
        fn readings_add_up(
            output in prop::collection::vec((prop::sample::select(vec!['o', 'e']), "[a-c]|\\^START r[0-9]|\\^END r[0-9]"), 0..40),
            readings in prop::collection::vec((1usize..12, 0usize..12), 0..12),
        ) {
            let texts: Vec<_> = output.iter().map(|(stream, text)| (*stream, text.as_str())).collect();
            let lines = lines(&texts);
            let (whole, _) = read(&mut Cursor::default(), &lines);
            let mut cursor = Cursor::default();
            let (mut parts, mut to) = (Vec::new(), 0usize);
            for (back, on) in readings.into_iter().chain([(1, 40)]) {
                let from = to.saturating_sub(back);
                to = (to + on).min(lines.len());
                parts.extend(read(&mut cursor, &lines[from..to]).0);
            }
            // A request whose end comes in a later reading is not known in the first one, when its
            // beginning was never read.
            let texts = |entries: &[(Option<String>, String)]| {
                entries.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>()
            };
            prop_assert_eq!(texts(&parts), texts(&whole));
            for ((part, line), (request, _)) in parts.iter().zip(&whole) {
                prop_assert!(part == request || part.is_none(), "{line}: {part:?}, not {request:?}");
            }
        }
    }
}
