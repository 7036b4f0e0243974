//! What containers write, from Docker Engine: read once, or followed. The engine sends frames, each of
//! a line or of a piece of a long one.

use std::{pin::pin, time::Duration};

use bollard::{
    container::LogOutput,
    errors::Error as ClientError,
    query_parameters::{LogsOptions, LogsOptionsBuilder},
};
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};

use super::{Docker, call, container::container_name, failure};
use crate::{
    engine::{LineStart, Output, OutputLine, OutputQuery},
    error::Result,
    limits,
    name::{InstanceId, ReplicaId},
};

/// Lines that wait for whoever follows.
const WAITING: usize = 64;

impl Docker {
    pub(super) async fn read_output(
        &self,
        instance: &InstanceId,
        replica: &ReplicaId,
        query: &OutputQuery,
    ) -> Result<Output> {
        let name = container_name(instance, replica);
        let frames = self.client()?.logs(&name, Some(options(query, false)));
        let read = async {
            match frames.try_collect::<Vec<_>>().await {
                Err(error) if is_gone(&error) => Ok(Vec::new()),
                outcome => outcome,
            }
        };
        let frames = call("read output of", &name, limits::ENGINE_CALL, read).await?;
        let cut = query.since.is_some() || frames.len() >= query.tail;
        let mut pieces = Pieces::default();
        Ok(Output { lines: frames.into_iter().filter_map(|f| pieces.take(f)).collect(), cut })
    }

    /// The stream owns its client, so that it may outlive the caller's borrow.
    pub(super) fn stream_output(
        &self,
        instance: &InstanceId,
        replica: &ReplicaId,
        query: &OutputQuery,
    ) -> Result<BoxStream<'static, Result<OutputLine>>> {
        let name = container_name(instance, replica);
        let (client, options) = (self.client()?.clone(), options(query, true));
        let (sender, receiver) = tokio::sync::mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut frames = pin!(client.logs(&name, Some(options)));
            let mut pieces = Pieces::default();
            loop {
                let frame = tokio::select! {
                    frame = frames.next() => frame,
                    () = sender.closed() => return,
                };
                let line = match frame {
                    Some(Ok(frame)) => pieces.take(frame).map(Ok),
                    None => return,
                    Some(Err(error)) if is_gone(&error) => return,
                    Some(Err(error)) => Some(Err(failure("follow output of", &name, error))),
                };
                if let Some(line) = line {
                    let broken = line.is_err();
                    if sender.send(line).await.is_err() || broken {
                        return;
                    }
                }
            }
        });
        Ok(futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|line| (line, receiver))
        })
        .boxed())
    }
}

/// Whether the container is gone, or is being removed.
fn is_gone(error: &ClientError) -> bool {
    matches!(error, ClientError::DockerResponseServerError { status_code: 404 | 409, .. })
}

/// The engine takes whole seconds, of which 0 is none; whoever asks leaves out the rest.
fn options(query: &OutputQuery, follow: bool) -> LogsOptions {
    let second = |time: Timestamp| i32::try_from(time.as_second().max(1)).unwrap_or(i32::MAX);
    let mut options = LogsOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .follow(follow)
        .tail(&query.tail.to_string());
    if let Some(since) = query.since {
        options = options.since(second(since));
    }
    if let Some(until) = query.until {
        let until = until.saturating_add(Duration::from_secs(1));
        options = options.until(second(until.unwrap_or(Timestamp::MAX)));
    }
    options.build()
}

/// Knows of each stream whether a line begins with the next frame.
#[derive(Default)]
struct Pieces {
    streams: [Next; 2],
}

#[derive(Default)]
enum Next {
    /// Nothing of this stream was seen.
    #[default]
    Unknown,
    Line,
    /// The rest of one of which so many pieces were seen.
    Rest(i32),
}

impl Pieces {
    /// Takes a frame: `<time> <text>`, with a line break when the line ends there.
    fn take(&mut self, frame: LogOutput) -> Option<OutputLine> {
        let stderr = matches!(frame, LogOutput::StdErr { .. });
        let bytes = frame.into_bytes();
        let split = bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
        let (time, text) = bytes.split_at(split);
        let time = std::str::from_utf8(time).ok()?.parse::<Timestamp>().ok()?;
        let text = text.get(1..).unwrap_or_default();
        let (text, cut_end) = match text.strip_suffix(b"\n") {
            Some(text) => (text, false),
            None => (text, true),
        };
        let next = &mut self.streams[usize::from(stderr)];
        let (start, before) = match next {
            Next::Unknown => (LineStart::Unknown, 0),
            Next::Line => (LineStart::Line, 0),
            Next::Rest(pieces) => (LineStart::Rest, *pieces),
        };
        *next = if cut_end { Next::Rest(before.saturating_add(1)) } else { Next::Line };
        // The pieces of a line have one time; here each has its own, so that each is told apart.
        let apart = SignedDuration::from_nanos(before.into());
        let at = time.checked_add(apart).unwrap_or(time);
        Some(OutputLine { at, stderr, line: text_of(text, start, cut_end), start, cut_end })
    }
}

/// A character that was cut in two is left out: half of one is nowhere found.
fn text_of(mut bytes: &[u8], start: LineStart, cut_end: bool) -> String {
    if start == LineStart::Rest {
        let halves = bytes.iter().take(3).take_while(|byte| (0x80..0xc0).contains(*byte)).count();
        bytes = bytes.get(halves..).unwrap_or_default();
    }
    if cut_end
        && let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
    {
        bytes = bytes.get(..error.valid_up_to()).unwrap_or(bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    text.strip_suffix('\r').unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(stderr: bool, text: &[u8]) -> LogOutput {
        let message = [b"2026-11-24T09:00:00.123456789Z ", text].concat().into();
        if stderr { LogOutput::StdErr { message } } else { LogOutput::StdOut { message } }
    }

    fn lines(frames: impl IntoIterator<Item = LogOutput>) -> Vec<OutputLine> {
        let mut pieces = Pieces::default();
        frames.into_iter().filter_map(|frame| pieces.take(frame)).collect()
    }

    #[test]
    fn the_engine_is_asked_for_whole_seconds() {
        let time = |text: &str| text.parse::<Timestamp>().expect("a time");
        let asked = |since, until| {
            let query = OutputQuery { tail: 7, since, until };
            let options = options(&query, false);
            (options.since, options.until)
        };
        assert_eq!(asked(None, None), (0, 0));
        let span = (time("2026-11-24T09:00:00.9Z"), time("2026-11-24T09:00:00.9Z"));
        assert_eq!(asked(Some(span.0), Some(span.1)), (1_795_510_800, 1_795_510_801));
        assert_eq!(asked(Some(Timestamp::MIN), Some(Timestamp::MAX)), (1, i32::MAX));
    }

    #[test]
    fn a_frame_is_a_line() {
        let read = lines([frame(false, b"a b\r\n"), frame(true, b"\n"), frame(false, b"c\n")]);
        let seen: Vec<_> = read.iter().map(|l| (l.stderr, l.line.as_str(), l.start)).collect();
        let (line, unknown) = (LineStart::Line, LineStart::Unknown);
        assert_eq!(seen, [(false, "a b", unknown), (true, "", unknown), (false, "c", line)]);
        assert!(read.iter().all(|line| !line.cut_end));
        assert_eq!(read[0].at.to_string(), "2026-11-24T09:00:00.123456789Z");
    }

    #[test]
    fn what_is_no_frame_is_left_out() {
        let message = |text: &'static [u8]| LogOutput::StdOut { message: text.into() };
        assert_eq!(lines([message(b""), message(b"x y\n"), message(b"\xff z\n")]), []);
        assert_eq!(lines([message(b"2026-11-24T09:00:00Z")])[0].line, "");
    }

    #[test]
    fn a_long_line_comes_in_pieces_that_have_an_order() {
        // As the engine cuts it: into pieces of 16 KiB, here in the middle of a character.
        let long = format!("x{}", "\u{e4}".repeat(20_000));
        let bytes = long.as_bytes();
        let read = lines([
            frame(true, b"before\n"),
            frame(true, &bytes[..16_384]),
            frame(false, b"other\n"),
            frame(true, &bytes[16_384..32_768]),
            frame(true, &[&bytes[32_768..], b"\n"].concat()),
            frame(true, b"next\n"),
        ]);
        let of_stream: Vec<_> = read.iter().filter(|line| line.stderr).collect();
        let seen: Vec<_> = of_stream
            .iter()
            .map(|l| (l.line.len(), l.start, l.cut_end, l.at.subsec_nanosecond() % 10))
            .collect();
        let (line, rest) = (LineStart::Line, LineStart::Rest);
        assert_eq!(
            seen,
            [
                (6, LineStart::Unknown, false, 9),
                (16_383, line, true, 9),
                (16_382, rest, true, 0),
                (7_232, rest, false, 1),
                (4, line, false, 9),
            ]
        );
        let joined: String = of_stream[1..4].iter().map(|line| line.line.as_str()).collect();
        assert_eq!(joined.len(), bytes.len() - 4, "two characters were cut");
    }

    proptest! {
        /// However an engine cuts lines: no text is lost, and it is known where lines begin and end.
        #[test]
        fn pieces_add_up_to_lines(
            texts in prop::collection::vec(("[a-z]{0,40}", 1usize..30), 0..20),
        ) {
            let mut frames = Vec::new();
            for (text, size) in &texts {
                let line = format!("{text}\n");
                frames.extend(line.as_bytes().chunks(*size).map(|piece| frame(false, piece)));
            }
            let mut read = Vec::new();
            for OutputLine { line, start, .. } in lines(frames) {
                match read.last_mut() {
                    Some(last) if start == LineStart::Rest => *last = format!("{last}{line}"),
                    _ => read.push(line),
                }
            }
            let texts: Vec<_> = texts.into_iter().map(|(text, _)| text).collect();
            prop_assert_eq!(read, texts);
        }
    }
}
