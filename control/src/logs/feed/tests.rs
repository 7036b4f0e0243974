use super::*;
use crate::{
    engine::LineStart,
    logs::{LogStream, feeds::Feeds},
    name::UserName,
};

fn entry(nth: usize, length: usize) -> LogEntry {
    LogEntry {
        at: Timestamp::from_second(nth as i64).expect("a time"),
        stream: LogStream::Platform,
        replica: ReplicaId::parse("abcdefghijkl").expect("an id"),
        request_id: None,
        line: "x".repeat(length),
    }
}

fn later(seconds: u64) -> (Instant, Ending) {
    (Instant::now() + Duration::from_secs(seconds), Ending::TooLong)
}

#[tokio::test(start_paused = true)]
async fn who_reads_too_slowly_is_dropped_and_keeps_nobody_waiting() {
    let feeds = Feeds::default();
    let service = ServiceId::new();
    let (feed, slow, _) = feeds.enter(service, &UserName::operator(), later(9)).expect("a seat");
    let (_, fast, _) = feeds.enter(service, &UserName::operator(), later(9)).expect("a seat");
    let mut read = 0;
    for nth in 0..200 {
        feed.tell(entry(nth, limits::LOG_LINE_BYTES));
        read += feed.read(fast, usize::MAX).expect("lines").len();
    }
    assert_eq!(read, 200);
    let (all, _) = limits::LOG_FOLLOWERS;
    assert_eq!(feeds.seats.available_permits(), all - 1, "its place is given back");
    assert_eq!(feed.read(slow, 1), Err(Ending::Slow));
    feed.end(Ending::Stopping);
    assert_eq!(feed.read(slow, 1), Err(Ending::Slow), "whatever comes after it");
}

#[tokio::test(start_paused = true)]
async fn what_a_removed_container_wrote_last_is_bounded() {
    let feeds = Feeds::default();
    let (feed, seat, _) =
        feeds.enter(ServiceId::new(), &UserName::operator(), later(9)).expect("a seat");
    let replica = ReplicaId::parse("abcdefghijkl").expect("an id");
    feed.add(&replica, DeploymentId::new(), Cursor::default());
    let line = |nth: i64| OutputLine {
        at: Timestamp::from_second(nth).expect("a time"),
        stderr: false,
        line: "x".repeat(1000),
        start: LineStart::Line,
        cut_end: false,
    };
    let output = Output { lines: (0..5000).map(line).collect(), cut: true };
    feed.finish(&replica, &Mask::default(), output);
    let lines = feed.read(seat, usize::MAX).expect("not behind");
    let told = lines[0].line.strip_suffix(" lines came too fast to follow and are left out here");
    let left_out: usize = told.and_then(|count| count.parse().ok()).expect("a count");
    assert_eq!(left_out + lines.len() - 1, 5000);
    assert_eq!(lines.last().map(|line| line.at.as_second()), Some(4999));
    assert!(feed.take(&replica, &Mask::default(), vec![line(5000)]).is_none(), "it is gone");
    feed.add(&replica, DeploymentId::new(), Cursor::default());
    assert!(feed.position(&replica).is_none(), "and does not come again");
}
