use super::*;
use crate::{engine::LineStart, logs::LogStream};

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

fn refused(feeds: &Feeds, service: ServiceId) -> Option<Refusal> {
    feeds.enter(service, later(9)).err()
}

#[tokio::test(start_paused = true)]
async fn seats_are_bounded_in_all_and_of_each_service() {
    let (all, of_one) = limits::LOG_FOLLOWERS;
    let feeds = Feeds::default();
    let service = ServiceId::new();
    let mut taken = Vec::new();
    for nth in 0..of_one {
        let (feed, seat, is_new) = feeds.enter(service, later(9)).expect("a seat");
        assert_eq!(is_new, nth == 0);
        taken.push((feed, seat));
    }
    assert_eq!(refused(&feeds, service), Some(Refusal::ServiceFull(of_one)));
    while taken.len() < all {
        let (feed, seat, _) = feeds.enter(ServiceId::new(), later(9)).expect("a seat");
        taken.push((feed, seat));
    }
    assert_eq!(refused(&feeds, ServiceId::new()), Some(Refusal::Full(all)));
    // One who leaves makes room, and so does one who has ended but does not look.
    let (feed, seat) = taken.remove(0);
    feed.leave(seat);
    let again = feeds.enter(service, later(5)).expect("a seat");
    assert_eq!(refused(&feeds, service), Some(Refusal::Full(all)));
    let (now, end) = later(5);
    assert_eq!(feed.expire(now), Some(now + Duration::from_secs(4)));
    assert_eq!(again.0.read(again.1, 1), Err(end));
    assert!(feeds.enter(service, later(9)).is_ok());
    feeds.close();
    assert_eq!(refused(&feeds, service), Some(Refusal::Ending));
    assert_eq!(taken[0].0.read(taken[0].1, 1), Err(Ending::Stopping));
}

#[tokio::test(start_paused = true)]
async fn a_feed_is_there_as_long_as_somebody_follows() {
    let feeds = Feeds::default();
    let service = ServiceId::new();
    let (feed, first, _) = feeds.enter(service, later(9)).expect("a seat");
    let (_, second, is_new) = feeds.enter(service, later(9)).expect("a seat");
    assert!(!is_new);
    feed.leave(first);
    assert!(!feeds.leave(&feed) && feeds.of(service).is_some());
    feed.leave(second);
    assert!(feeds.leave(&feed) && feeds.of(service).is_none());

    // One that has ended is replaced, whoever still reads from it.
    let (ended, seat, _) = feeds.enter(service, later(9)).expect("a seat");
    ended.tell(entry(0, 1));
    feeds.end(service, Ending::Deleted);
    let (new, _, is_new) = feeds.enter(service, later(9)).expect("a seat");
    assert!(is_new && feeds.leave(&ended) && !feeds.leave(&new) && feeds.of(service).is_some());
    assert_eq!(ended.read(seat, 100).map(|lines| lines.len()), Ok(1), "what came before");
    assert_eq!(ended.read(seat, 100), Err(Ending::Deleted));
}

#[tokio::test(start_paused = true)]
async fn who_reads_too_slowly_is_dropped_and_keeps_nobody_waiting() {
    let feeds = Feeds::default();
    let service = ServiceId::new();
    let (feed, slow, _) = feeds.enter(service, later(9)).expect("a seat");
    let (_, fast, _) = feeds.enter(service, later(9)).expect("a seat");
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

#[test]
fn a_flood_is_given_out_at_a_pace() {
    let start = Instant::now();
    let mut pace = Pace { spent: 0, at: start };
    assert_eq!(pace.spend(BURST, start), Duration::ZERO);
    assert_eq!(pace.spend(PACE, start), Duration::from_secs(1));
    let (mut now, mut sent) = (start + Duration::from_secs(1), 0);
    while now < start + Duration::from_secs(11) {
        now += pace.spend(64 * 1024, now).max(Duration::from_millis(1));
        sent += 64 * 1024;
    }
    assert!((PACE * 9..PACE * 11).contains(&sent), "{sent} bytes in ten seconds");
    assert_eq!(pace.spend(BURST, now + Duration::from_secs(60)), Duration::ZERO, "after a rest");
}

#[tokio::test(start_paused = true)]
async fn what_a_removed_container_wrote_last_is_bounded() {
    let feeds = Feeds::default();
    let (feed, seat, _) = feeds.enter(ServiceId::new(), later(9)).expect("a seat");
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
