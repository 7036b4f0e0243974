//! Every bound of the resolver.

use std::{num::NonZeroU32, time::Duration};

/// Bytes of a question.
pub(super) const QUESTION_BYTES: usize = 1232;
/// Bytes of an answer over UDP, whatever the client says that it takes: passes any path whole.
pub(super) const UDP_BYTES: u16 = 1232;
/// Bytes of an answer of an upstream server.
pub(super) const UPSTREAM_BYTES: usize = 16 * 1024;
/// CNAMEs that are followed from one name.
pub(super) const ALIASES: usize = 8;

/// One attempt at one upstream server.
pub(super) const ATTEMPT: Duration = Duration::from_millis(1400);
/// After this long in one attempt the packet is sent once more.
pub(super) const REPEAT_MILLIS: u64 = 700;
/// Attempts for one name: at least and at most, by the number of servers.
pub(super) const ATTEMPTS: (usize, usize) = (2, 3);
/// After this long a client gets its SERVFAIL. Less than the 5 s after which clients ask again.
pub(super) const ANSWER: Duration = Duration::from_millis(4500);
/// How often the log may say that no upstream server answers.
pub(super) const SILENCE_TOLD_EVERY: Duration = Duration::from_secs(60);

/// Answers in the cache.
pub(super) const CACHED: usize = 4096;
/// Records of an answer that is put in the cache.
pub(super) const CACHED_RECORDS: usize = 32;
/// Bytes of an answer that is put in the cache.
pub(super) const CACHED_BYTES: usize = 4096;
/// Seconds that an answer may be kept, here and by the client.
pub(super) const TTL: u32 = 300;
/// Seconds that it may be kept that there is nothing.
pub(super) const NEGATIVE_TTL: u32 = 30;

/// How long it is known why a name was withheld, and how many of them: the guard asks at once.
pub(super) const WHY: Duration = Duration::from_secs(5);
pub(super) const WHYS: usize = 256;

/// Questions per second of one client.
pub(super) const RATE: NonZeroU32 = NonZeroU32::new(100).expect("not zero");
/// Questions of one client at once, after a pause.
pub(super) const BURST: NonZeroU32 = NonZeroU32::new(200).expect("not zero");
/// Questions that are being answered: of one client, of all.
pub(super) const QUESTIONS: (usize, usize) = (64, 512);
/// TCP connections: of one client, of all.
pub(super) const CONNECTIONS: (usize, usize) = (8, 64);
/// Clients that are remembered. A client is forgotten when its burst is whole again.
pub(super) const CLIENTS: usize = 4096;
/// How long a TCP client may take for its next whole question, or to take its answer.
pub(super) const TCP_IDLE: Duration = Duration::from_secs(10);
