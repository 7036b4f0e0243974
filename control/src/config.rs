//! Settings: each one is declared once, as a field of [`Config`], and can be given as a flag, an
//! environment variable, a line of `.env` or a key of the file, in this order of precedence.
//!
//! The id of each argument is its variable's name; flag and key follow from it (see `layers`).
//! Everything is checked here, before anything is opened or bound.

mod backup;
mod https;
mod invoke;
mod keys;
mod layers;
mod observe;
mod rules;
mod token;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use ipnet::IpNet;

pub use self::https::{Agreed, Https, HttpsAddr};
pub use self::invoke::Invoke;
use self::layers::Layers;
pub(crate) use self::layers::toml_error;
pub use self::{
    backup::StoreCommand,
    keys::KeysCommand,
    observe::{AccessLog, Observe},
    token::TokenCommand,
};
use crate::{
    firewall::Enforcement, limits, secret::FernetKeys, store::redis::RedisUrl, token::TokenText,
};

/// Where settings are read from when neither flag nor variable names a file.
const DEFAULT_FILE: &str = "config/grid.toml";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// `grid serve`.
    Serve(Box<Config>),
    /// `grid doctor`.
    Doctor(Box<Config>),
    /// `grid upgrade`.
    Upgrade(Box<Config>),
    /// `grid openapi`.
    OpenApi(Box<Config>),
    /// `grid token`.
    Token(Box<Config>, TokenCommand),
    /// `grid keys`.
    Keys(Box<Config>, KeysCommand),
    /// `grid backup`, to this file.
    Backup(Box<Config>, PathBuf),
    /// `grid restore`, from this file.
    Restore(Box<Config>, PathBuf),
    /// `grid store`.
    Store(Box<Config>, StoreCommand),
    /// Print this and end: the help or the version.
    Show(String),
}

/// Why Grid does not start: one line for the operator that names the setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// Self-hosted functions: HTTP functions from pasted source code, each in its own container.
#[derive(Parser)]
#[command(name = "grid", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve functions and the admin API.
    ///
    /// Each setting can be given as a flag, an environment variable, a line of .env in the current
    /// directory, or a key of config/grid.toml (the flag's name with underscores), in this order of
    /// precedence. An empty variable counts as not set.
    #[command(after_help = "The bootstrap token of the admin API comes from the variable \
        SMSLY_TOKEN (environment or .env only; at least 16 visible ASCII characters). When it is \
        not set, one is made and kept in <data-dir>/token. Likewise GRID_FERNET_KEYS: the keys that \
        environment variables of functions are encrypted with, separated by commas, newest first; \
        kept in <data-dir>/fernet_keys when not set. And REDIS_URL: the Redis that holds the state \
        (redis://, rediss://, unix:// or redis+sentinel://); the data directory does when not set.")]
    Serve(Config),
    /// Try out whether functions are contained on this machine.
    ///
    /// Starts containers like those of functions, and prints a line for each promise of
    /// docs/security.md: whether it holds here, and what to do when it does not. Takes the settings
    /// of serve. Ends with status 1 when a promise does not hold.
    Doctor(Config),
    /// Have a running Grid replaced by a new version of it, or started anew with new settings.
    ///
    /// The running one starts the program that now lies where its own was, hands everything over and
    /// ends when its last requests have: no request fails. When the new one cannot take over, the
    /// running one goes on. Takes the settings of serve, of which only data-dir matters here. Ends
    /// with status 1 when nothing was replaced, and says why. See docs/upgrading.md.
    Upgrade(Config),
    /// Print the admin API's contract: OpenAPI 3.1, as JSON.
    ///
    /// It is what a running Grid with the same settings answers at /api/v1/openapi.json: runtimes, OCI
    /// runtimes and limits are part of it.
    #[command(name = "openapi")]
    OpenApi(Config),
    /// Make, list and revoke tokens of the admin API.
    ///
    /// Asks the admin API of the Grid that runs, with the bootstrap token (SMSLY_TOKEN, else that of
    /// <data-dir>/token). When nothing listens there, works on the store in the data directory. Takes
    /// the settings of serve, of which data-dir and admin-addr matter here. Ends with status 1 when
    /// nothing was done, and says why.
    Token(token::Args),
    /// Change the keys that environment variables are encrypted with.
    ///
    /// Asks the admin API as grid token does. Ends with status 1 when not everything was sealed anew,
    /// and says why; what was there still opens then.
    Keys(keys::Args),
    /// Write everything that Grid keeps to a file, also while it runs.
    ///
    /// Asks the admin API as grid token does, and adds the keys and the token that are in files of the
    /// data directory: whoever has the file has all secrets. It is there whole, or not at all. See
    /// docs/backup.md.
    Backup(backup::Args),
    /// Put back what grid backup wrote, into an empty store.
    ///
    /// Only while no Grid runs. The file is looked through before anything is written; when it is
    /// interrupted, do it again. Ends with status 1 when it was not done, and says why. See
    /// docs/backup.md.
    Restore(backup::Args),
    /// Bring the store from the data directory to a Redis, or back.
    Store(backup::StoreArgs),
}

/// The subcommands that take the settings.
const WITH_SETTINGS: [&str; 9] =
    ["serve", "doctor", "upgrade", "openapi", "token", "keys", "backup", "restore", "store"];
/// Those of them that have subcommands of their own.
const WITH_VERBS: [&str; 3] = ["token", "keys", "store"];
/// Those in whose help few settings matter.
const WITH_FILES: [&str; 2] = ["backup", "restore"];

/// The settings of `grid serve`, checked each and together.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Parts that this process runs: all, edge or control.
    #[arg(id = "GRID_ROLE", long = "role", value_name = "ROLE")]
    #[arg(default_value = "all", value_parser = rules::role)]
    pub role: Role,

    /// What all keys in the Redis of REDIS_URL begin with (1 to 64 characters of a-z, A-Z, 0-9, dot,
    /// hyphen and underscore): Grids with different ones can share a Redis.
    #[arg(id = "GRID_REDIS_PREFIX", long = "redis-prefix", value_name = "PREFIX")]
    #[arg(default_value = "grid", value_parser = rules::prefix)]
    pub redis_prefix: String,

    /// File with settings; config/grid.toml may be missing, one that is named here may not.
    #[arg(id = "GRID_CONFIG", long = "config", value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Directory for the store, the token and the sockets of running functions.
    #[arg(id = "GRID_DATA_DIR", long = "data-dir", value_name = "DIR")]
    #[arg(default_value = "./.grid")]
    pub data_dir: PathBuf,

    /// Directory that holds runners/ and config/runtimes.toml.
    #[arg(id = "GRID_SHARE_DIR", long = "share-dir", value_name = "DIR")]
    #[arg(
        help = "Directory that holds runners/ and config/runtimes.toml [default: the first that \
        has runners/ of the current directory, the one two above the program's, /usr/share/grid]"
    )]
    share_dir: Option<PathBuf>,

    /// Address of the admin API.
    #[arg(id = "GRID_ADMIN_ADDR", long = "admin-addr", value_name = "IP:PORT")]
    #[arg(default_value = "127.0.0.1:8000", value_parser = rules::address)]
    pub admin_addr: SocketAddr,

    /// Address of the functions.
    #[arg(id = "GRID_HTTP_ADDR", long = "http-addr", value_name = "IP:PORT")]
    #[arg(default_value = "0.0.0.0:8080", value_parser = rules::address)]
    pub http_addr: SocketAddr,

    /// HTTPS and its certificates.
    #[command(flatten)]
    pub https: Https,

    /// Docker Engine.
    #[arg(id = "DOCKER_HOST", long = "docker-host", value_name = "URL")]
    #[arg(default_value = "unix:///var/run/docker.sock", value_parser = rules::docker_host)]
    pub docker_host: String,

    /// Largest source code of a function, in bytes.
    #[arg(id = "MAX_FUNCTION_CODE_BYTES", long = "max-function-code-bytes", value_name = "BYTES")]
    #[arg(default_value_t = limits::CODE_BYTES, value_parser = rules::count(1..=16 << 20))]
    pub code_bytes: usize,

    /// Largest body of a request to a function, in bytes.
    #[arg(id = "MAX_FUNCTION_BODY_BYTES", long = "max-function-body-bytes", value_name = "BYTES")]
    #[arg(default_value_t = limits::BODY_BYTES, value_parser = rules::count(1..=256 << 20))]
    pub body_bytes: usize,

    /// Largest body of a function's answer, in bytes.
    #[arg(id = "MAX_FUNCTION_RESPONSE_BYTES", long = "max-function-response-bytes")]
    #[arg(value_name = "BYTES")]
    #[arg(default_value_t = limits::RESPONSE_BYTES, value_parser = rules::count(1..=256 << 20))]
    pub response_bytes: usize,

    /// Longest run of a function, in seconds (1 to 300).
    #[arg(id = "FUNCTION_TIMEOUT_SECONDS", long = "function-timeout-seconds")]
    #[arg(value_name = "SECONDS")]
    #[arg(default_value = "30", value_parser = rules::seconds(limits::TIMEOUT_SECONDS))]
    pub function_timeout: Duration,

    /// Idle time after which a function sleeps, in seconds (1 to 86400).
    #[arg(id = "GRID_IDLE_SECONDS", long = "idle-seconds", value_name = "SECONDS")]
    #[arg(default_value = "300", value_parser = rules::seconds(1..=86_400))]
    pub idle: Duration,

    /// Threads of the edge (1 to 256); by default one per two cores, since the functions need the
    /// others.
    #[arg(id = "GRID_EDGE_THREADS", long = "edge-threads", value_name = "THREADS")]
    #[arg(default_value_t = one_per_two_cores(), value_parser = rules::count(1..=256))]
    pub edge_threads: usize,

    /// Longest wait of a request for a free replica, in seconds (1 to 300).
    #[arg(id = "GRID_QUEUE_SECONDS", long = "queue-seconds", value_name = "SECONDS")]
    #[arg(default_value = "30", value_parser = rules::seconds(1..=300))]
    pub queue_wait: Duration,

    /// Requests of one function that wait at one time (1 to 10000); more get 429.
    #[arg(id = "GRID_QUEUE_LENGTH", long = "queue-length", value_name = "REQUESTS")]
    #[arg(default_value = "256", value_parser = rules::count(1..=10_000))]
    pub queue_length: usize,

    /// Time that a client has to send a request's body, in seconds (1 to 300); then 408.
    #[arg(id = "GRID_BODY_SECONDS", long = "body-seconds", value_name = "SECONDS")]
    #[arg(default_value = "10", value_parser = rules::seconds(1..=300))]
    pub body_wait: Duration,

    /// Requests per second of one client address (an IPv6 client is its /64), or off; more get 429.
    #[arg(id = "GRID_CLIENT_RATE", long = "client-rate", value_name = "REQUESTS")]
    #[arg(default_value = "off", value_parser = rules::rate)]
    pub client_rate: u32,

    /// Requests that a client address may make at once, when it has been quiet; by default as many
    /// as one second brings.
    #[arg(id = "GRID_CLIENT_BURST", long = "client-burst", value_name = "REQUESTS")]
    #[arg(value_parser = rules::burst)]
    pub client_burst: Option<u32>,

    /// Requests per second of one service that has no rate of its own, or off; more get 429.
    #[arg(id = "GRID_SERVICE_RATE", long = "service-rate", value_name = "REQUESTS")]
    #[arg(default_value = "off", value_parser = rules::rate)]
    pub service_rate: u32,

    /// Requests that such a service takes at once, when it has been quiet; by default as many as one
    /// second brings.
    #[arg(id = "GRID_SERVICE_BURST", long = "service-burst", value_name = "REQUESTS")]
    #[arg(value_parser = rules::burst)]
    pub service_burst: Option<u32>,

    /// Networks of the proxies before Grid, with commas between them: what their requests say in
    /// X-Forwarded-For and X-Forwarded-Proto is believed.
    #[arg(id = "GRID_TRUSTED_PROXIES", long = "trusted-proxies", value_name = "CIDR,...")]
    #[arg(value_delimiter = ',', value_parser = rules::network)]
    pub trusted_proxies: Vec<IpNet>,

    /// Whether public connections begin with the PROXY protocol, on or off. When on, trusted proxies
    /// must speak it and nobody else can connect.
    #[arg(id = "GRID_PROXY_PROTOCOL", long = "proxy-protocol", value_name = "ON|OFF")]
    #[arg(default_value = "off", value_parser = rules::switch, action = clap::ArgAction::Set)]
    pub proxy_protocol: bool,

    /// Open connections of one client address (an IPv6 client is its /64), or off; never more than
    /// three quarters of GRID_MAX_CONNECTIONS.
    #[arg(id = "GRID_CLIENT_CONNECTIONS", long = "client-connections", value_name = "CONNECTIONS")]
    #[arg(default_value = "12288", value_parser = rules::rate)]
    pub client_connections: u32,

    /// Open connections of all clients (16 to 1000000), as far as the process may have so many files
    /// open.
    #[arg(id = "GRID_MAX_CONNECTIONS", long = "max-connections", value_name = "CONNECTIONS")]
    #[arg(default_value = "16384", value_parser = rules::count(16..=1_000_000))]
    pub max_connections: usize,

    /// Replicas of all functions that run at one time (1 to 10000).
    #[arg(id = "GRID_MAX_REPLICAS", long = "max-replicas", value_name = "REPLICAS")]
    #[arg(default_value = "200", value_parser = rules::count(1..=10_000))]
    pub max_replicas: usize,

    /// Containers that are being started at one time (1 to 256); by default one per core, at least
    /// 2.
    #[arg(id = "GRID_STARTS", long = "starts", value_name = "CONTAINERS")]
    #[arg(default_value_t = one_per_core(), value_parser = rules::count(1..=256))]
    pub starts: usize,

    /// Earlier versions of each function whose images are kept, for a rollback within a second (0 to
    /// 100); one whose image is gone is built anew.
    #[arg(id = "GRID_IMAGES_KEPT", long = "images-kept", value_name = "IMAGES")]
    #[arg(default_value = "5", value_parser = rules::count(0..=100))]
    pub images_kept: usize,

    /// Invocations through the admin API.
    #[command(flatten)]
    pub invoke: Invoke,

    /// Bytes of output that are kept of one service (262144 to 67108864), on the disk; the engine keeps
    /// that of running containers besides.
    #[arg(id = "GRID_LOG_BYTES_PER_SERVICE", long = "log-bytes-per-service", value_name = "BYTES")]
    #[arg(default_value_t = limits::KEPT_LOG_BYTES)]
    #[arg(value_parser = rules::count(limits::KEPT_LOG_BYTES_RANGE))]
    pub log_bytes: usize,

    /// How functions are kept from addresses that are not public: firewall, or guard-only, which
    /// hostile code gets round.
    #[arg(id = "GRID_EGRESS_ENFORCEMENT", long = "egress-enforcement", value_name = "HOW")]
    #[arg(default_value = "firewall", value_parser = rules::enforcement)]
    pub egress_enforcement: Enforcement,

    /// DNS servers that are asked for functions, with commas between them; by default those of
    /// /etc/resolv.conf.
    #[arg(
        id = "GRID_EGRESS_DNS_SERVERS",
        long = "egress-dns-servers",
        value_name = "IP[:PORT],..."
    )]
    #[arg(value_delimiter = ',', value_parser = rules::dns_server)]
    pub egress_dns_servers: Vec<SocketAddr>,

    /// OCI runtimes that services may choose, with commas between them; the first one is the
    /// default of all. By default there is no choice, and the engine's own is used.
    #[arg(id = "GRID_OCI_RUNTIMES", long = "oci-runtimes", value_name = "NAME,...")]
    #[arg(value_delimiter = ',', value_parser = rules::oci_runtime)]
    pub oci_runtimes: Vec<String>,

    /// What is logged: a level (off, error, warn, info, debug, trace), or levels of single parts,
    /// such as info,control=debug.
    #[arg(id = "GRID_LOG", long = "log", value_name = "FILTER")]
    #[arg(default_value = "info", value_parser = rules::log_filter)]
    pub log: String,

    /// How it is logged: text or json.
    #[arg(id = "GRID_LOG_FORMAT", long = "log-format", value_name = "FORMAT")]
    #[arg(default_value = "text", value_parser = rules::log_format)]
    pub log_format: LogFormat,

    /// What is told about requests.
    #[command(flatten)]
    pub observe: Observe,

    /// The bootstrap token, when `SMSLY_TOKEN` is set: never a flag (others see command lines) and
    /// never in the file (which is often kept under version control).
    #[arg(skip)]
    pub token: Option<TokenText>,

    /// What environment variables are encrypted with, when `GRID_FERNET_KEYS` is set: never a flag and
    /// never in the file, like the token.
    #[arg(skip)]
    pub fernet_keys: Option<FernetKeys>,

    /// Where the store is, when `REDIS_URL` is set; else it is in the data directory. Never a flag nor
    /// in the file, since it may have a password in it.
    #[arg(skip)]
    pub redis_url: Option<RedisUrl>,
}

/// The parts that a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Edge and control.
    All,
    /// What answers public requests.
    Edge,
    /// What keeps services running.
    Control,
}

impl Role {
    /// As it is written in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Edge => "edge",
            Self::Control => "control",
        }
    }

    /// Whether public requests are answered.
    pub fn has_edge(self) -> bool {
        self != Self::Control
    }

    /// Whether services are kept running, and changed.
    pub fn has_control(self) -> bool {
        self != Self::Edge
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl ConfigError {
    /// An error with this line.
    pub fn new(line: impl Into<String>) -> Self {
        Self(line.into())
    }
}

/// Reads what this process was started with.
///
/// # Errors
/// See [`parse`].
pub fn from_process() -> Result<Command, ConfigError> {
    let cwd = std::env::current_dir()
        .map_err(|e| ConfigError::new(format!("the current directory: {e}")))?;
    parse(std::env::args_os(), &layers::environment()?, &cwd)
}

/// Reads a command line, program name first, on top of the environment, `.env` and the file.
/// Relative paths start at `cwd`.
///
/// # Errors
/// One line that names the setting, where it came from and the rule that it breaks.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    environment: &BTreeMap<String, String>,
    cwd: &Path,
) -> Result<Command, ConfigError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let anywhere = |command: clap::Command, verb: &&'static str| {
        command.mut_subcommand(*verb, token::settings_anywhere)
    };
    let few = |command: clap::Command, verb: &&'static str| {
        command.mut_subcommand(*verb, backup::few_settings)
    };
    let command = WITH_VERBS.iter().fold(Cli::command(), anywhere);
    let command = WITH_FILES.iter().fold(command, few);
    let command = each_with_settings(command, layers::document);

    // First without the other layers: the help shows built-in defaults, and what is wrong here is
    // wrong on the command line.
    let flags = match command.clone().try_get_matches_from(&args) {
        Ok(flags) => flags,
        Err(error) if !error.use_stderr() => return Ok(Command::Show(error.to_string())),
        Err(error) => return Err(layers::flag_error(&command, &error)),
    };
    let named =
        flags.subcommand().and_then(|(_, serve)| serve.get_one::<PathBuf>("GRID_CONFIG").cloned());

    let layers = Layers::read(&command, environment, cwd, named)?;
    let matches = each_with_settings(command.clone(), |verb| layers.apply(verb))
        .try_get_matches_from(&args)
        .map_err(|error| layers.error(&command, &error))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|e| layers.error(&command, &e))?;
    let whole = |mut config: Config| {
        config.token = layers.token()?;
        config.fernet_keys = layers.fernet_keys()?;
        config.redis_url = layers.redis_url()?;
        config.complete(cwd)?;
        config.check()?;
        Ok(Box::new(config))
    };
    match cli.verb {
        Verb::Serve(config) => whole(config).map(Command::Serve),
        Verb::Doctor(config) => whole(config).map(Command::Doctor),
        Verb::Upgrade(config) => whole(config).map(Command::Upgrade),
        Verb::OpenApi(config) => whole(config).map(Command::OpenApi),
        Verb::Token(token::Args { config, verb }) => {
            whole(config).map(|config| Command::Token(config, verb))
        }
        Verb::Keys(keys::Args { config, verb }) => {
            whole(config).map(|config| Command::Keys(config, verb))
        }
        Verb::Backup(backup::Args { config, path }) => {
            whole(config).map(|config| Command::Backup(config, cwd.join(path)))
        }
        Verb::Restore(backup::Args { config, path }) => {
            whole(config).map(|config| Command::Restore(config, cwd.join(path)))
        }
        Verb::Store(backup::StoreArgs { config, verb }) => {
            whole(config).map(|config| Command::Store(config, verb))
        }
    }
}

fn each_with_settings(
    command: clap::Command,
    change: impl Fn(clap::Command) -> clap::Command,
) -> clap::Command {
    WITH_SETTINGS.iter().fold(command, |command, verb| command.mut_subcommand(verb, &change))
}

impl Config {
    /// Directory that holds `runners/` and `config/runtimes.toml`.
    pub fn share_dir(&self) -> &Path {
        self.share_dir.as_deref().unwrap_or(Path::new("/usr/share/grid"))
    }

    /// Makes paths absolute and finds the share directory.
    fn complete(&mut self, cwd: &Path) -> Result<(), ConfigError> {
        self.data_dir = absolute(cwd, &self.data_dir);
        self.https.complete(cwd);
        self.observe.complete(cwd);
        let share_dir = match &self.share_dir {
            Some(dir) => absolute(cwd, dir),
            None => find_share_dir(cwd).ok_or_else(|| {
                ConfigError::new(
                    "GRID_SHARE_DIR is not set, and neither the current directory nor \
                     /usr/share/grid has runners/ in it: name the directory that has",
                )
            })?,
        };
        self.share_dir = Some(share_dir);
        Ok(())
    }

    /// Rules that take more than one setting, or the file system.
    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |line: String| Err(ConfigError(line));
        if self.role != Role::All && self.redis_url.is_none() {
            let role = self.role.as_str();
            return refuse(format!(
                "GRID_ROLE is \"{role}\", but REDIS_URL is not set: separate parts share their state \
                 in a Redis"
            ));
        }
        let (admin, http) = (self.admin_addr, self.http_addr);
        if self.role != Role::Control && clash(admin, http) {
            return refuse(format!(
                "GRID_ADMIN_ADDR ({admin}) and GRID_HTTP_ADDR ({http}) need the same port: give \
                 one of them another"
            ));
        }
        https::check(self)?;
        for (who, rate, burst) in [
            ("CLIENT", self.client_rate, self.client_burst),
            ("SERVICE", self.service_rate, self.service_burst),
        ] {
            if let (0, Some(burst)) = (rate, burst) {
                return refuse(format!(
                    "GRID_{who}_BURST is {burst}, but GRID_{who}_RATE is off: set both or none"
                ));
            }
        }
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            return refuse(
                "GRID_PROXY_PROTOCOL is on, but GRID_TRUSTED_PROXIES names nobody who may speak \
                 it: name the proxies' networks"
                    .to_owned(),
            );
        }
        self.observe.check()?;
        let data_dir = self.data_dir.display();
        if data_dir.to_string().contains(':') {
            return refuse(format!(
                "GRID_DATA_DIR is \"{data_dir}\": must not contain a colon, since Docker splits \
                 the paths of bind mounts there"
            ));
        }
        let socket = self.data_dir.join("run").join("x".repeat(12)).join("edge.sock");
        let surplus = socket.as_os_str().len().saturating_sub(limits::SOCKET_PATH_BYTES);
        if surplus > 0 {
            return refuse(format!(
                "GRID_DATA_DIR is \"{data_dir}\": {surplus} bytes too long, since the paths of \
                 Unix sockets in it may have {} bytes",
                limits::SOCKET_PATH_BYTES
            ));
        }
        if self.data_dir.exists() && !self.data_dir.is_dir() {
            return refuse(format!("GRID_DATA_DIR is \"{data_dir}\": is not a directory"));
        }
        let share_dir = self.share_dir();
        if !share_dir.join("runners").is_dir() {
            let share_dir = share_dir.display();
            return refuse(format!("GRID_SHARE_DIR is \"{share_dir}\": has no runners/ in it"));
        }
        Ok(())
    }
}

/// Whether two listeners cannot have these addresses at one time.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_ip
}

fn one_per_core() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 256))
}

fn one_per_two_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 256))
}

fn absolute(cwd: &Path, path: &Path) -> PathBuf {
    cwd.join(path).components().collect() // components() drops each `.`
}

fn find_share_dir(cwd: &Path) -> Option<PathBuf> {
    // A program that cargo built is in <repository>/target/<profile>/.
    let beside = std::env::current_exe().ok();
    let beside = beside.as_deref().and_then(|exe| exe.ancestors().nth(3)).map(Path::to_owned);
    [Some(cwd.to_owned()), beside, Some(PathBuf::from("/usr/share/grid"))]
        .into_iter()
        .flatten()
        .find(|dir| dir.join("runners").is_dir())
}

#[cfg(test)]
mod tests;
