//! Every bound in one place: sizes, times, counts. Settings may move the ones that `config` names;
//! the others are part of the contract.

use std::{ops::RangeInclusive, time::Duration};

/// Bytes of a function's source when no setting says otherwise (256 KiB).
pub const CODE_BYTES: usize = 256 * 1024;
/// Bytes of a public request's body when no setting says otherwise (1 MiB).
pub const BODY_BYTES: usize = 1024 * 1024;
/// Bytes of a function's answer when no setting says otherwise (6 MiB).
pub const RESPONSE_BYTES: usize = 6 * 1024 * 1024;
/// What `FUNCTION_TIMEOUT_SECONDS` may be, in seconds.
pub const TIMEOUT_SECONDS: RangeInclusive<u64> = 1..=300;

/// `memory_mb` of a service, in MiB. Below 64 neither runtime starts reliably.
pub const MEMORY_MB: RangeInclusive<u32> = 64..=8192;
/// `cpu_shares` of a service: relative weight, 1024 is one share of a core.
pub const CPU_SHARES: RangeInclusive<u32> = 2..=262_144;
/// `min_replicas` and `max_replicas` of a service.
pub const REPLICAS: RangeInclusive<u32> = 0..=100;

/// Requests per second, or at once, that a rate limit may allow; 0 is no limit.
pub const RATE: RangeInclusive<u32> = 0..=1_000_000;

/// Processes and threads in one container.
pub const PIDS: i64 = 128;
/// Open files of one process in a container.
pub const OPEN_FILES: i64 = 1024;
/// Signals that wait for processes of the functions' user, who is one to the kernel whatever
/// container he is in: the user of that number on the host keeps the rest.
pub const PENDING_SIGNALS: i64 = 1024;
/// Options of the container's `/tmp`.
pub const TMPFS: &str = "rw,noexec,nosuid,nodev,size=64m,nr_inodes=16k,mode=1777";
/// Container output that the engine keeps per container: two files of this many bytes.
pub const LOG_FILE_BYTES: &str = "2m";

/// Headers of one public request.
pub const REQUEST_HEADERS: usize = 100;
/// Bytes of names and values of one public request's headers.
pub const REQUEST_HEADER_BYTES: usize = 32 * 1024;
/// Bytes of a public request's target (path and query).
pub const REQUEST_TARGET_BYTES: usize = 8 * 1024;
/// Headers of one function answer.
pub const RESPONSE_HEADERS: usize = 100;
/// Bytes of names and values of one function answer's headers.
pub const RESPONSE_HEADER_BYTES: usize = 64 * 1024;

/// How long a client has for the head of a request, from its first byte on.
pub const REQUEST_HEAD: Duration = Duration::from_secs(10);
/// How long a proxy has to say in the PROXY protocol for whom it connects.
pub const PROXY_HEADER: Duration = Duration::from_secs(5);
/// Bytes of a PROXY protocol header, version 2.
pub const PROXY_HEADER_BYTES: usize = 4 * 1024;
/// Client addresses whose rate is known at one time.
pub const RATED_CLIENTS: usize = 128 * 1024;
/// Open files that are set aside when connections are counted: for Grid itself, and for each replica.
pub const FILES_SET_ASIDE: (u64, u64) = (256, 4);
/// How long a client's connection may rest between two requests.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long the rest of a refused request is read, so that the client sees the answer.
pub const LINGER: Duration = Duration::from_secs(1);
/// Requests that one HTTP/2 connection may have open at a time.
pub const HTTP2_STREAMS: u32 = 100;
/// Bytes of long answers that wait for their clients, of all requests together. The answer that would
/// exceed it is cut off.
pub const FLOWING_BYTES: usize = 256 * 1024 * 1024;
/// Slowest reader that is waited for, in bytes per second.
pub const SLOWEST_READER: u64 = 16 * 1024;

/// How long a client may take to receive so many bytes.
pub fn send_within(bytes: usize) -> Duration {
    Duration::from_secs(30 + bytes as u64 / SLOWEST_READER)
}

/// Characters of a client's `X-Request-Id` that are taken over; a longer one is replaced.
pub const REQUEST_ID_CHARS: usize = 128;
/// Bytes of an admin API request's body beyond the code that it may carry.
pub const ADMIN_BODY_SLACK: usize = 64 * 1024;
/// Lines that a deployment's log keeps; the oldest go first.
pub const DEPLOYMENT_LOG_LINES: usize = 500;
/// Characters of one line in a deployment's log or of a loader's message.
pub const MESSAGE_CHARS: usize = 4096;
/// Finished deployments that a service's history keeps.
pub const DEPLOYMENTS_KEPT: usize = 100;
/// How long an attempt to create a service is remembered under its client's key, and how many are.
pub const ATTEMPTS_REMEMBERED: (Duration, usize) = (Duration::from_secs(24 * 60 * 60), 10_000);
/// Tokens of one user. Expired ones count, but make room for a new one.
pub const TOKENS_PER_USER: usize = 100;
/// Characters of what its owner calls a token.
pub const TOKEN_NAME_CHARS: usize = 100;
/// Days after which a token expires, when they are given.
pub const TOKEN_DAYS: RangeInclusive<u32> = 1..=36_500;
/// How often the time of a token's last use is noted.
pub const TOKEN_USE_NOTED: Duration = Duration::from_secs(60);
/// Entries that the audit log keeps.
pub const AUDIT_KEPT: u64 = 100_000;
/// Environment variables of one function.
pub const ENV_VARS: usize = 100;
/// Bytes of one environment variable's value, and of all names and values of a function together.
pub const ENV_BYTES: (usize, usize) = (16 * 1024, 64 * 1024);
/// Bytes of kept output per service when no setting says otherwise (2 MiB), and what a setting may say.
pub const KEPT_LOG_BYTES: usize = 2 * 1024 * 1024;
/// See [`KEPT_LOG_BYTES`]. Half of it holds any line, however its characters are escaped.
pub const KEPT_LOG_BYTES_RANGE: RangeInclusive<usize> = 256 * 1024..=64 * 1024 * 1024;
/// Bytes of one line of output, which is what Docker Engine cuts longer ones into.
pub const LOG_LINE_BYTES: usize = 16 * 1024;
/// Bytes of the lines in one answer; the newest are in it.
pub const LOG_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Readings of logs at one time, and as many more that keep them; others wait.
pub const LOG_READS: usize = 4;
/// Who follows logs at one time: in all, of one service,
pub const LOG_FOLLOWERS: (usize, usize) = (64, 16);
/// and by one user.
pub const LOG_FOLLOWERS_OF_USER: usize = 32;
/// How long a log may be followed.
pub const LOG_FOLLOW: Duration = Duration::from_secs(60 * 60);
/// How long a follower hears nothing before something is sent that tells whether it is still there.
pub const LOG_FOLLOW_QUIET: Duration = Duration::from_secs(15);
/// Bytes of lines that wait for the followers of one service: who is further behind is dropped.
pub const LOG_FOLLOW_BYTES: usize = 1024 * 1024;
/// Containers whose output the engine streams to us at one time for those who follow; others wait.
pub const LOG_STREAMS: usize = 256;
/// Containers of which the engine tells us when they write; others are asked. Older engines watch 128
/// files at no cost.
pub const LOG_WATCHES: usize = 100;
/// How long a line may be in the engine alone, about.
pub const LOG_KEPT_WITHIN: Duration = Duration::from_secs(15);

/// Pause before the store is read again after it failed.
pub const STORE_RETRY: Duration = Duration::from_secs(1);
/// Getting a connection to Redis.
pub const STORE_CONNECT: Duration = Duration::from_secs(1);
/// One call to Redis, all of which answer at once.
pub const STORE_CALL: Duration = Duration::from_secs(2);
/// How long a call waits for a Redis that has just gone away: a restart or a failover is not seen then.
pub const STORE_PATIENCE: Duration = Duration::from_secs(3);
/// How long a change waits for the changes before it, which come one after the other.
pub const STORE_TURN: Duration = Duration::from_secs(10);
/// How long the start waits for a Redis that is being started beside Grid.
pub const STORE_START: Duration = Duration::from_secs(10);
/// How long an export of the store waits for whoever reads it to take the next portion.
pub const EXPORT_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is tried out whether hints would still come.
pub const HINTS_EVERY: Duration = Duration::from_secs(5);

/// One call to Docker Engine that should answer at once.
pub const ENGINE_CALL: Duration = Duration::from_secs(20);
/// A call that asks the engine nothing but whether it answers. Twice what an engine takes that is
/// merely very slow.
pub const ENGINE_PING: Duration = Duration::from_secs(4);
/// How often it is asked that: an engine that hangs closes no connection, so no event tells.
pub const ENGINE_PING_EVERY: Duration = Duration::from_secs(3);
/// Pings in a row without an answer after which the engine counts as away: one may be lost on a
/// machine that is short of everything. All in all a hung engine is noticed before a call that it
/// was given runs into `ENGINE_CALL`.
pub const ENGINE_PINGS_MISSED: u32 = 2;
/// How often what exists is compared with what is known: containers whose creation was never
/// answered, deaths that no event told of, base images that came or went.
pub const ENGINE_LOOK_EVERY: Duration = Duration::from_secs(20);
/// How far back events are asked for when they are followed anew. Longer than it takes from the
/// question for them to the list of containers (both within `ENGINE_CALL`), so that no death falls
/// between; one that is told twice does no harm.
pub const ENGINE_EVENTS_BACK: Duration = Duration::from_secs(60);
/// How often a deployment is run while the engine answers but fails what it needs, before it fails;
/// and the longest pause between two runs. With pauses that double from `ENGINE_RETRY` that is
/// half a minute at least, and more than parts of the engine need to be started again.
pub const DEPLOYMENT_RUNS: (u32, Duration) = (6, Duration::from_secs(30));
/// How long it is shown that the engine failed to make a container or an image, unless something is made
/// meanwhile. Twice the longest pause between two starts, so that it is shown without a break while
/// somebody still tries.
pub const MAKING_FAILED: Duration = Duration::from_secs(120);
/// One image build.
pub const BUILD: Duration = Duration::from_secs(300);
/// Getting a base image from its registry, before the runtime's next image is tried.
pub const PULL: Duration = Duration::from_secs(120);
/// From a container's start to its call home, and from there to its answer to `/ready`.
pub const START: Duration = Duration::from_secs(30);
/// How long a module may take to load, from the call home on. Less than `START`, so that a module
/// that hangs is told apart from a container that never called.
pub const LOAD: Duration = Duration::from_secs(20);
/// How often the runner of an idle replica is asked for its health.
pub const HEALTH_EVERY: Duration = Duration::from_secs(30);
/// How long an invocation waits for its turn.
pub const INVOKE_TURN: Duration = Duration::from_secs(5);
/// How long a control plane that ends leaves to the invocations that run.
pub const INVOKE_END: Duration = Duration::from_secs(3);
/// Bytes of its output that an invocation's report has: the last ones.
pub const INVOKE_LOG_BYTES: usize = 256 * 1024;
/// Lines of its output that are looked at for that. The engine keeps no more of a container's output.
pub const INVOKE_LOG_LINES: usize = 100_000;
/// How long a control plane that ends waits for the containers that it is just starting or removing.
pub const CONTROL_END: Duration = Duration::from_secs(10);
/// How long an admin API that ends waits for the requests that it is just answering.
pub const API_END: Duration = Duration::from_secs(5);
/// How long an idle replica may take to say that it is healthy.
pub const HEALTH_ANSWER: Duration = Duration::from_secs(5);
/// First and longest pause between attempts to start a replica that does not become ready.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// How long a round over all services takes, in which each is looked at without a notice: one that got
/// lost is made up for within twice this time. Less than `START`, so that it costs no container.
pub const ROUND: Duration = Duration::from_secs(15);
/// Pause between two looks of a round at least: beyond 3,000 services rounds take longer instead of
/// costing more.
pub const ROUND_PAUSE: Duration = Duration::from_millis(5);
/// First and longest pause before a service is looked at again when the store failed.
pub const STORE_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(250), Duration::from_secs(5));
/// A replica gets as many requests ahead of their turn as it did in this time, by its last one; nobody
/// waits for longer behind one request while another replica is free.
pub const QUICK: Duration = Duration::from_millis(5);
/// How long it is remembered which replicas must not be used again, when the store does not know them.
pub const GONE_REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// Pause between attempts to reach Docker Engine.
pub const ENGINE_RETRY: Duration = Duration::from_secs(1);
/// How long the start of a container waits for the firewall.
pub const GATE: Duration = Duration::from_secs(10);
/// Longest pause between attempts to put the firewall in place.
pub const FIREWALL_RETRY: Duration = Duration::from_secs(30);
/// How long a canary's word is good when the rules are put back.
pub const CANARY_EVERY: Duration = Duration::from_secs(60);
/// How often denied connections are read from the firewall at most.
pub const DENIED_EVERY: Duration = Duration::from_secs(1);
/// How long the firewall remembers a denied destination, in seconds.
pub const DENIED_SECONDS: u64 = 600;
/// New connections of one container, per second and at once.
pub const NEW_CONNECTIONS: (u32, u32) = (500, 1000);

/// Path length that a Unix socket's address holds, without its final NUL.
pub const SOCKET_PATH_BYTES: usize = 107;
