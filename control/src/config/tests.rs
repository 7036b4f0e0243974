//! Tests of precedence, refusals and of the annotated files in the repository.

use std::fs;

use tempfile::TempDir;

use super::*;

/// A directory to start in: it has `runners/`, and these files.
fn place(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir_all(dir.path().join("runners")).expect("creates");
    fs::create_dir_all(dir.path().join("config")).expect("creates");
    for (path, text) in files {
        fs::write(dir.path().join(path), text).expect("writes");
    }
    dir
}

fn run(dir: &TempDir, environment: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let args = ["grid", "serve"].iter().chain(flags).map(OsString::from);
    match parse(args, &pairs.collect(), dir.path())? {
        Command::Serve(config) => Ok(*config),
        other => panic!("is {other:?}"),
    }
}

/// The one line of a refusal.
fn refusal(dir: &TempDir, environment: &[(&str, &str)], flags: &[&str]) -> String {
    let line = run(dir, environment, flags).expect_err("refused").to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

#[test]
fn defaults_are_those_that_are_promised() {
    let dir = place(&[]);
    let config = run(&dir, &[], &[]).expect("good");
    assert_eq!(config.role, Role::All);
    assert_eq!(config.data_dir, dir.path().join(".grid"));
    assert_eq!(config.share_dir(), dir.path());
    assert_eq!(config.admin_addr.to_string(), "127.0.0.1:8000");
    assert_eq!(config.http_addr.to_string(), "0.0.0.0:8080");
    assert_eq!(config.docker_host, "unix:///var/run/docker.sock");
    assert_eq!(
        (config.code_bytes, config.body_bytes, config.response_bytes),
        (262_144, 1_048_576, 6_291_456)
    );
    assert_eq!(config.function_timeout, Duration::from_secs(30));
    assert_eq!(config.idle, Duration::from_secs(300));
    assert_eq!(config.queue_wait, Duration::from_secs(30));
    assert_eq!(config.body_wait, Duration::from_secs(10));
    assert_eq!((config.queue_length, config.max_replicas), (256, 200));
    assert!(config.starts >= 2);
    assert_eq!((config.client_rate, config.client_burst), (0, None));
    assert_eq!((config.service_rate, config.service_burst), (0, None));
    assert_eq!((config.client_connections, config.max_connections), (12_288, 16_384));
    assert!(config.trusted_proxies.is_empty() && !config.proxy_protocol);
    assert_eq!((config.log.as_str(), config.log_format), ("info", LogFormat::Text));
    assert!(config.token.is_none());
}

#[test]
fn flag_then_environment_then_dot_env_then_file() {
    let dir = place(&[
        (".env", "GRID_IDLE_SECONDS=3\nGRID_QUEUE_SECONDS=3\nGRID_BODY_SECONDS=3\nOTHER=x\n"),
        (
            "config/grid.toml",
            "idle_seconds = 4\nqueue_seconds = 4\nbody_seconds = \"4\"\nqueue_length = 4\n",
        ),
    ]);
    let environment = [("GRID_IDLE_SECONDS", "2"), ("GRID_QUEUE_SECONDS", "2")];
    let config = run(&dir, &environment, &["--idle-seconds", "1"]).expect("good");
    let seconds = [config.idle, config.queue_wait, config.body_wait].map(|time| time.as_secs());
    assert_eq!((seconds, config.queue_length), ([1, 2, 3], 4));

    // An empty variable is none.
    let config = run(&dir, &[("GRID_IDLE_SECONDS", "")], &[]).expect("good");
    assert_eq!(config.idle.as_secs(), 3);
}

#[test]
fn lists_and_dotted_keys() {
    let dir = place(&[("config/grid.toml", "egress.enforcement = \"guard-only\"\n")]);
    let config = run(&dir, &[("GRID_OCI_RUNTIMES", "runsc, runc")], &[]).expect("good");
    assert_eq!(config.egress_enforcement, Enforcement::GuardOnly);
    assert_eq!(config.oci_runtimes, ["runsc", "runc"]);
    assert!(config.egress_dns_servers.is_empty());

    let text = "[egress]\ndns_servers = \"9.9.9.9,[2620:fe::fe]:5353\"\n";
    let dir = place(&[("config/grid.toml", text)]);
    let config = run(&dir, &[], &[]).expect("good");
    let servers: Vec<_> = config.egress_dns_servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["9.9.9.9:53", "[2620:fe::fe]:5353"]);

    let dir = place(&[("config/grid.toml", "egress.enforcment = \"x\"\n")]);
    assert!(refusal(&dir, &[], &[]).contains("did you mean"));
    let dir = place(&[]);
    for (name, value) in [
        ("GRID_EGRESS_ENFORCEMENT", "none"),
        ("GRID_EGRESS_DNS_SERVERS", "9.9.9.9,dns.example.com"),
        ("GRID_OCI_RUNTIMES", "default"),
        ("GRID_OCI_RUNTIMES", "run c"),
    ] {
        assert!(refusal(&dir, &[(name, value)], &[]).starts_with(&format!("{name} is ")));
    }
}

#[test]
fn rates_and_who_stands_before_grid() {
    let dir = place(&[(
        "config/grid.toml",
        "client_rate = 5\nclient_burst = 50\nservice_rate = \"off\"\nproxy_protocol = \"on\"\n\
         trusted_proxies = \"10.0.0.0/8, ::1,2001:db8::/32\"\n",
    )]);
    let config = run(&dir, &[("GRID_CLIENT_CONNECTIONS", "off")], &[]).expect("good");
    assert_eq!((config.client_rate, config.client_burst), (5, Some(50)));
    assert_eq!((config.service_rate, config.client_connections), (0, 0));
    assert!(config.proxy_protocol);
    let networks: Vec<_> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "::1/128", "2001:db8::/32"]);

    let dir = place(&[]);
    let line = refusal(&dir, &[("GRID_SERVICE_BURST", "5")], &[]);
    assert!(line.starts_with("GRID_SERVICE_BURST is 5, but GRID_SERVICE_RATE is off"), "{line}");
    let line = refusal(&dir, &[("GRID_PROXY_PROTOCOL", "on")], &[]);
    assert!(line.contains("GRID_TRUSTED_PROXIES names nobody"), "{line}");
}

#[test]
fn what_is_told_about_requests() {
    let dir = place(&[("config/grid.toml", "access_log_sample = 0.25\ntrace_sample = 0\n")]);
    let observe = run(&dir, &[], &[]).expect("good").observe;
    assert_eq!((observe.access_log, observe.access_log_sample), (AccessLog::Off, 0.25));
    assert_eq!((observe.trace_sample, observe.server_timing), (0.0, true));
    assert_eq!((observe.access_log_file, observe.otlp_endpoint), (None, None));

    let given = [
        ("GRID_ACCESS_LOG", "json"),
        ("GRID_ACCESS_LOG_FILE", "access.log"),
        ("GRID_OTLP_ENDPOINT", "http://[::1]:4318"),
    ];
    let observe = run(&dir, &given, &["--server-timing", "off"]).expect("good").observe;
    assert_eq!(observe.access_log_file, Some(dir.path().join("access.log")));
    assert_eq!(observe.otlp_endpoint.as_deref(), Some("http://[::1]:4318"));
    assert!(!observe.server_timing);

    for (log, file, reason) in [
        ("off", "access.log", "there is no access log"),
        ("text", "config", "is a directory"),
        ("text", "none/access.log", "its directory does not exist"),
    ] {
        let given = [("GRID_ACCESS_LOG", log), ("GRID_ACCESS_LOG_FILE", file)];
        let line = refusal(&dir, &given, &[]);
        assert!(line.starts_with("GRID_ACCESS_LOG_FILE is ") && line.contains(reason), "{line}");
    }
}

#[test]
fn the_file_can_be_named() {
    let dir = place(&[
        ("config/grid.toml", "idle_seconds = 1\n"),
        ("a.toml", "idle_seconds = 2\n"),
        ("b.toml", "idle_seconds = 3\n"),
    ]);
    let idle = |environment: &[_], flags: &[_]| {
        run(&dir, environment, flags).expect("good").idle.as_secs()
    };
    assert_eq!(idle(&[], &[]), 1);
    assert_eq!(idle(&[("GRID_CONFIG", "a.toml")], &[]), 2);
    assert_eq!(idle(&[("GRID_CONFIG", "a.toml")], &["--config", "b.toml"]), 3);
    let line = refusal(&dir, &[], &["--config", "c.toml"]);
    assert!(line.starts_with("GRID_CONFIG is \"") && line.contains("c.toml"), "{line}");
}

#[test]
fn unknown_settings_are_named_with_the_likely_one() {
    let dir = place(&[]);
    assert_eq!(
        refusal(&dir, &[("GRID_IDLE_SECOND", "1")], &[]),
        "GRID_IDLE_SECOND (from the environment) is not a setting: did you mean GRID_IDLE_SECONDS?"
    );
    assert_eq!(
        refusal(&dir, &[("SMSLY_TOKN", "secret")], &[]),
        "SMSLY_TOKN (from the environment) is not a setting: did you mean SMSLY_TOKEN?"
    );
    assert_eq!(
        refusal(&dir, &[("FUNCTION_COLOUR", "red")], &[]),
        "FUNCTION_COLOUR (from the environment) is not a setting"
    );
    assert_eq!(
        refusal(&dir, &[], &["--idel-seconds", "1"]),
        "--idel-seconds (from the command line) is not a setting: did you mean --idle-seconds?"
    );
    run(&dir, &[("GRID_TEST_X", "1"), ("PATH", "/bin")], &[]).expect("not ours");

    let dir = place(&[(".env", "MAX_FUNCTION_BODY_BYTE=1\n")]);
    assert_eq!(
        refusal(&dir, &[], &[]),
        "MAX_FUNCTION_BODY_BYTE (from .env) is not a setting: did you mean \
         MAX_FUNCTION_BODY_BYTES?"
    );
    for (key, likely) in [("idle_second", "idle_seconds"), ("GRID_DATA_DIR", "data_dir")] {
        let dir = place(&[("config/grid.toml", &format!("{key} = 1\n"))]);
        let line = refusal(&dir, &[], &[]);
        let file = dir.path().join("config/grid.toml");
        let expected =
            format!("{key} (from {}) is not a setting: did you mean {likely}?", file.display());
        assert_eq!(line, expected);
    }
}

#[test]
fn bad_values_are_named_with_origin_and_rule() {
    let dir = place(&[]);
    assert_eq!(
        refusal(&dir, &[("GRID_IDLE_SECONDS", "0")], &[]),
        "GRID_IDLE_SECONDS is \"0\" (from the environment): must be a whole number of seconds \
         from 1 to 86400"
    );
    assert_eq!(
        refusal(&dir, &[], &["--http-addr", "localhost"]),
        "--http-addr is \"localhost\" (from the command line): must be IP:PORT, such as \
         127.0.0.1:8000 or [::]:8080"
    );
    for (name, value) in [
        ("MAX_FUNCTION_BODY_BYTES", "0"),
        ("MAX_FUNCTION_CODE_BYTES", "1e3"),
        ("MAX_FUNCTION_RESPONSE_BYTES", "-1"),
        ("FUNCTION_TIMEOUT_SECONDS", "301"),
        ("GRID_QUEUE_SECONDS", "1.5"),
        ("GRID_QUEUE_LENGTH", "10001"),
        ("GRID_BODY_SECONDS", "x"),
        ("GRID_MAX_REPLICAS", "99999999999999999999999"),
        ("GRID_STARTS", "0"),
        ("GRID_CLIENT_RATE", "1000001"),
        ("GRID_CLIENT_BURST", "0"),
        ("GRID_SERVICE_RATE", "none"),
        ("GRID_SERVICE_BURST", "off"),
        ("GRID_CLIENT_CONNECTIONS", "-1"),
        ("GRID_MAX_CONNECTIONS", "0"),
        ("GRID_PROXY_PROTOCOL", "v2"),
        ("GRID_TRUSTED_PROXIES", "proxy.example.com"),
        ("GRID_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("GRID_ADMIN_ADDR", ":8000"),
        ("DOCKER_HOST", "/var/run/docker.sock"),
        ("GRID_LOG", "loud"),
        ("GRID_LOG_FORMAT", "xml"),
        ("GRID_ACCESS_LOG", "xml"),
        ("GRID_ACCESS_LOG_SAMPLE", "1.1"),
        ("GRID_ACCESS_LOG_SAMPLE", "-0"),
        ("GRID_TRACE_SAMPLE", "nan"),
        ("GRID_SERVER_TIMING", "yes"),
        ("GRID_OTLP_ENDPOINT", "https://collector.example"),
        ("GRID_OTLP_ENDPOINT", "127.0.0.1:4318"),
        ("GRID_OTLP_ENDPOINT", "http://user:word@127.0.0.1:4318"),
        ("GRID_ROLE", "server"),
        ("GRID_REDIS_PREFIX", "a{b"),
    ] {
        let line = refusal(&dir, &[(name, value)], &[]);
        let start = format!("{name} is \"{value}\" (from the environment): must be ");
        assert!(line.starts_with(&start), "{line}");
    }
    // A bad value that a higher layer replaces does no harm.
    run(&dir, &[("GRID_STARTS", "0")], &["--starts", "1"]).expect("good");

    let dir = place(&[("config/grid.toml", "# one\nfunction_timeout_seconds = 0\n")]);
    let line = refusal(&dir, &[], &[]);
    assert!(line.starts_with("function_timeout_seconds is \"0\" (from /"), "{line}");
    let dir = place(&[("config/grid.toml", "# one\nstarts = true\n")]);
    assert!(refusal(&dir, &[], &[]).ends_with("must be a text or a number, not a boolean"));
    let dir = place(&[("config/grid.toml", "# one\nstarts =\n")]);
    assert!(refusal(&dir, &[], &[]).contains("grid.toml, line 2: "));
}

#[test]
fn the_token_comes_from_variables_and_is_never_shown() {
    let secret = "0123456789abcdef";
    let dir = place(&[(".env", "SMSLY_TOKEN=0123456789abcdef\n")]);
    let config = run(&dir, &[], &[]).expect("good");
    assert!(config.token.as_ref().is_some_and(|token| token.as_str() == secret));
    assert!(!format!("{config:?}").contains(secret));
    let line = refusal(&dir, &[("SMSLY_TOKEN", "hunter2")], &[]);
    assert!(line.starts_with("SMSLY_TOKEN (from the environment): must be at least"), "{line}");
    assert!(!line.contains("hunter2"));

    let line = refusal(&dir, &[("GRID_FERNET_KEYS", "hunter2")], &[]);
    assert!(line.starts_with("GRID_FERNET_KEYS (from the environment): must be Fernet"), "{line}");
    assert!(!line.contains("hunter2"));
    let key = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    let config = run(&dir, &[("GRID_FERNET_KEYS", key)], &[]).expect("good");
    assert!(config.fernet_keys.is_some() && !format!("{config:?}").contains(key));

    let line = refusal(&dir, &[("REDIS_URL", "redis:/:hunter2@here")], &[]);
    assert!(line.starts_with("REDIS_URL (from the environment): must be redis://"), "{line}");
    assert!(!line.contains("hunter2"));
    let config = run(&dir, &[("REDIS_URL", "redis://:hunter2@here")], &[]).expect("good");
    assert!(config.redis_url.is_some() && !format!("{config:?}").contains("hunter2"));

    let dir = place(&[(".env", "A=1\nhunter2 is my secret\n")]);
    let line = refusal(&dir, &[], &[]);
    assert!(line.ends_with(".env: a line (after A) is not NAME=value"), "{line}");
    let dir = place(&[("config/grid.toml", "smsly_token = \"hunter2hunter2hunter2\"\n")]);
    let line = refusal(&dir, &[], &[]);
    assert!(line.contains("is a secret") && !line.contains("hunter2"), "{line}");
    assert!(refusal(&dir, &[], &["--smsly-token", "x"]).contains("--smsly-token"));
}

#[test]
fn contradictions_are_refused() {
    let dir = place(&[("file", "")]);
    for (admin, http) in [
        ("127.0.0.1:8080", "0.0.0.0:8080"),
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("[::]:9000", "127.0.0.1:9000"),
    ] {
        let line = refusal(&dir, &[("GRID_ADMIN_ADDR", admin), ("GRID_HTTP_ADDR", http)], &[]);
        assert!(line.contains("GRID_ADMIN_ADDR") && line.contains("GRID_HTTP_ADDR"), "{line}");
    }
    let any = [("GRID_ADMIN_ADDR", "127.0.0.1:0"), ("GRID_HTTP_ADDR", "127.0.0.1:0")];
    run(&dir, &any, &[]).expect("port 0 is a port of its own");

    for role in ["edge", "control"] {
        let line = refusal(&dir, &[], &["--role", role]);
        assert!(line.contains(role) && line.contains("REDIS_URL is not set"), "{line}");
        run(&dir, &[("REDIS_URL", "redis://localhost")], &["--role", role]).expect("can be shared");
    }
    for (data_dir, reason) in [
        (format!("/{}", "d".repeat(80)), "1 bytes too long"),
        ("a:b".to_owned(), "must not contain a colon"),
        ("file".to_owned(), "is not a directory"),
    ] {
        let line = refusal(&dir, &[("GRID_DATA_DIR", &data_dir)], &[]);
        assert!(line.starts_with("GRID_DATA_DIR is ") && line.contains(reason), "{line}");
    }
    let longest = format!("/{}", "d".repeat(79));
    run(&dir, &[("GRID_DATA_DIR", &longest)], &[]).expect("fits");
    let line = refusal(&dir, &[("GRID_SHARE_DIR", "config")], &[]);
    assert!(line.ends_with("has no runners/ in it"), "{line}");
}

#[test]
fn https_is_on_and_asks_nobody_for_certificates() {
    let dir = place(&[("ca.pem", "")]);
    let https = run(&dir, &[], &[]).expect("good").https;
    let addr = https.addr.get().map(|addr| addr.to_string());
    assert_eq!(addr.as_deref(), Some("0.0.0.0:8443"));
    assert!(!https.redirect && https.certs_dir.is_none() && https.acme_directory.is_none());

    let environment = [
        ("GRID_HTTPS_ADDR", "[::]:443"),
        ("GRID_HTTPS_REDIRECT", "on"),
        ("GRID_CERTS_DIR", "config"),
        ("GRID_ACME_DIRECTORY", "letsencrypt"),
        ("GRID_ACME_TERMS", "agreed"),
        ("GRID_ACME_EMAIL", "ops@example.com"),
        ("GRID_ACME_CA_FILE", "ca.pem"),
    ];
    let https = run(&dir, &environment, &[]).expect("good").https;
    assert!(https.redirect);
    assert_eq!(https.certs_dir, Some(dir.path().join("config")));
    assert_eq!(https.acme_ca_file, Some(dir.path().join("ca.pem")));
    let url = "https://acme-v02.api.letsencrypt.org/directory";
    assert_eq!(https.acme_directory.as_deref(), Some(url));

    let off = run(&dir, &[("GRID_HTTPS_ADDR", "off")], &[]).expect("good").https;
    assert_eq!(off.addr, HttpsAddr::Off);
    let text = "acme.directory = \"https://ca.example/dir\"\nacme.terms = \"agreed\"\n";
    let dir = place(&[("config/grid.toml", text)]);
    let https = run(&dir, &[], &[]).expect("good").https;
    assert_eq!(https.acme_directory.as_deref(), Some("https://ca.example/dir"));
}

#[test]
fn bad_or_contradicting_settings_of_https_are_refused() {
    let dir = place(&[("file", "")]);
    for (name, value) in [
        ("GRID_HTTPS_ADDR", "443"),
        ("GRID_HTTPS_REDIRECT", "yes"),
        ("GRID_ACME_DIRECTORY", "http://ca.example/dir"),
        ("GRID_ACME_DIRECTORY", "https:///dir"),
        ("GRID_ACME_EMAIL", "ops"),
        ("GRID_ACME_EMAIL", "a@b,c@d"),
        ("GRID_ACME_TERMS", "yes"),
    ] {
        let line = refusal(&dir, &[(name, value)], &[]);
        assert!(line.starts_with(&format!("{name} is \"{value}\" (from")), "{line}");
    }
    let ca = ("GRID_ACME_DIRECTORY", "letsencrypt");
    let agreed = ("GRID_ACME_TERMS", "agreed");
    let off = ("GRID_HTTPS_ADDR", "off");
    for (environment, named) in [
        (vec![ca], "GRID_ACME_TERMS"),
        (vec![agreed], "GRID_ACME_DIRECTORY"),
        (vec![("GRID_ACME_EMAIL", "a@b.c")], "GRID_ACME_DIRECTORY"),
        (vec![("GRID_ACME_CA_FILE", "file")], "GRID_ACME_DIRECTORY"),
        (vec![ca, agreed, ("GRID_ACME_CA_FILE", "no")], "GRID_ACME_CA_FILE"),
        (vec![off, ca, agreed], "GRID_ACME_DIRECTORY"),
        (vec![off, ("GRID_HTTPS_REDIRECT", "on")], "GRID_HTTPS_REDIRECT"),
        (vec![off, ("GRID_CERTS_DIR", "config")], "GRID_CERTS_DIR"),
        (vec![("GRID_CERTS_DIR", "file")], "GRID_CERTS_DIR"),
        (vec![("GRID_CERTS_DIR", "missing")], "GRID_CERTS_DIR"),
        (vec![("GRID_HTTPS_ADDR", "0.0.0.0:8080")], "GRID_HTTP_ADDR"),
        (vec![("GRID_HTTPS_ADDR", "127.0.0.1:8000")], "GRID_ADMIN_ADDR"),
    ] {
        let line = refusal(&dir, &environment, &[]);
        assert!(line.contains(named), "{environment:?}: {line}");
    }
}

#[test]
fn help_shows_every_setting_with_variable_and_default() {
    let show = |args: &[&str]| {
        let environment = BTreeMap::from([("GRID_IDLE_SECONDS".to_owned(), "7".to_owned())]);
        match parse(args.iter().map(OsString::from), &environment, Path::new("/")) {
            Ok(Command::Show(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    let help = show(&["grid", "serve", "--help"]);
    let words: Vec<_> = help.split_whitespace().collect();
    let help = words.join(" ");
    for arg in Cli::command().find_subcommand("serve").expect("is there").get_arguments() {
        assert!(help.contains(&format!("[env: {}]", arg.get_id())), "{}", arg.get_id());
    }
    for text in ["[default: 300]", "[default: ./.grid]", "SMSLY_TOKEN", "in seconds (1 to 86400)"] {
        assert!(help.contains(text), "{text} in {help}");
    }
    assert!(show(&["grid", "--help"]).contains("serve"));
    assert!(show(&["grid", "--version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn annotated_files_show_every_setting_with_its_default() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path| fs::read_to_string(root.join(path)).expect("is there");
    // Lines such as `# key = value` and `# KEY=value`, with their # taken away.
    let uncomment = |text: &str, separator: &str| -> String {
        let setting = |line: &&str| {
            line.split_once(separator).is_some_and(|(name, _)| {
                !name.is_empty()
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c))
            })
        };
        let lines = text.lines().filter_map(|line| line.strip_prefix("# ")).filter(setting);
        lines.map(|line| format!("{line}\n")).collect()
    };
    let toml = uncomment(&read("config/grid.toml"), " = ");
    let dot_env = uncomment(&read(".env.example"), "=");
    let command = Cli::command();
    let serve = command.find_subcommand("serve").expect("is there");
    for arg in serve.get_arguments() {
        let id = arg.get_id().as_str();
        let key = arg.get_long().expect("each has one").replace('-', "_");
        assert!(dot_env.contains(&format!("{id}=")), "{id}");
        assert!(
            id == "GRID_CONFIG" || toml.replace('.', "_").contains(&format!("{key} = ")),
            "{key}"
        );
    }

    // What is machine-dependent is given; the rest must come out as the defaults.
    let given = ["--share-dir", ".", "--starts", "2"];
    let plain = place(&[]);
    let expected = run(&plain, &[], &given).expect("good");
    for (path, text) in [("config/grid.toml", toml), (".env", dot_env.replace("GRID_CONFIG", "#"))]
    {
        let dir = place(&[(path, &text)]);
        let mut config = run(&dir, &[], &given).expect("good");
        config.data_dir = expected.data_dir.clone();
        config.share_dir = expected.share_dir.clone();
        assert_eq!(format!("{config:?}"), format!("{expected:?}"), "{path}");
    }
}

#[test]
fn keys_are_rotated_with_settings_before_and_behind() {
    let dir = place(&[]);
    let read = |line: &str| {
        let args = line.split(' ').map(OsString::from);
        parse(args, &BTreeMap::new(), dir.path())
    };
    for line in ["grid keys rotate --data-dir /d", "grid keys --data-dir /d rotate"] {
        match read(line) {
            Ok(Command::Keys(config, KeysCommand::Rotate)) => {
                assert_eq!(config.data_dir, Path::new("/d"));
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    let error = read("grid keys rot").expect_err("refused").to_string();
    assert!(error.contains("rot"), "{error}");
}

#[test]
fn the_verbs_of_tokens_take_settings_before_and_behind() {
    let dir = place(&[("config/grid.toml", "admin_addr = \"127.0.0.1:9\"\n"), ("other.toml", "")]);
    let read = |line: &str| {
        let args = line.split(' ').map(OsString::from);
        parse(args, &BTreeMap::new(), dir.path())
    };
    let token = |line: &str| match read(line) {
        Ok(Command::Token(config, verb)) => (config.admin_addr.to_string(), config.data_dir, verb),
        other => panic!("{line}: {other:?}"),
    };
    let list = |user: Option<&str>, json| TokenCommand::List {
        user: user.map(|name| name.parse().expect("valid")),
        json,
    };
    let (file, own) = ("127.0.0.1:9".to_owned(), dir.path().join(".grid"));
    assert_eq!(token("grid token list"), (file.clone(), own.clone(), list(None, false)));
    let elsewhere = ("127.0.0.1:8".to_owned(), "/d".into(), list(Some("alice"), true));
    for line in [
        "grid token --data-dir /d --admin-addr 127.0.0.1:8 list --user alice --json",
        "grid token list --user alice --json --data-dir /d --admin-addr 127.0.0.1:8",
        "grid token --data-dir /d list --admin-addr 127.0.0.1:8 --user alice --json",
    ] {
        assert_eq!(token(line), elsewhere, "{line}");
    }
    let default = token("grid token list --config other.toml").0;
    assert_eq!(default, "127.0.0.1:8000", "the file that is named there is the one that is read");
    let create = TokenCommand::Create {
        user: "a+b@example.com".parse().expect("valid"),
        admin: true,
        name: "ci".to_owned(),
        expires_in_days: Some(7),
    };
    let line = "grid token create --user a+b@example.com --admin --name ci --expires-in-days 7";
    assert_eq!(token(line), (file, own, create));

    for (line, said) in [
        ("grid token create", "--user <NAME>"),
        ("grid token create --user a/b", "a/b"),
        ("grid token create --user a --expires-in-days 0", "0 is not in 1..=36500"),
        ("grid token list --admin-addr nowhere", "--admin-addr is \"nowhere\""),
        ("grid token revoke x", "Must be a valid UUID."),
        ("grid token revoke", "<ID>"),
    ] {
        let error = read(line).expect_err("refused").to_string();
        assert!(error.contains(said) && error.lines().count() == 1, "{line}: {error}");
    }
    let Ok(Command::Show(help)) = read("grid token create --help") else { panic!("no help") };
    assert!(help.contains("--data-dir") && !help.contains("--idle-seconds"), "{help}");
}

#[test]
fn backups_and_migrations_take_the_settings_of_serve() {
    let dir = place(&[("config/grid.toml", "data_dir = \"d\"\n")]);
    let read = |line: &str| {
        let args = line.split(' ').map(OsString::from);
        parse(args, &BTreeMap::new(), dir.path())
    };
    let here = |name: &str| dir.path().join(name);
    for (line, data_dir) in
        [("grid backup a.backup", "d"), ("grid backup --data-dir e a.backup", "e")]
    {
        let Ok(Command::Backup(config, path)) = read(line) else { panic!("{line}") };
        assert_eq!((config.data_dir, path), (here(data_dir), here("a.backup")), "{line}");
    }
    let Ok(Command::Restore(_, path)) = read("grid restore /a.backup") else { panic!("restore") };
    assert_eq!(path, Path::new("/a.backup"));
    for line in ["grid store migrate --to redis", "grid store --data-dir d migrate --to redis"] {
        let Ok(Command::Store(config, verb)) = read(line) else { panic!("{line}") };
        let to = StoreCommand::Migrate { to: crate::backup::Kind::Redis };
        assert_eq!((config.data_dir, verb), (here("d"), to), "{line}");
    }
    for (line, said) in [
        ("grid backup", "<FILE>"),
        ("grid restore a b", "b (from the command line)"),
        ("grid store migrate", "--to <KIND>"),
        ("grid store migrate --to file", "redis, embedded"),
    ] {
        let error = read(line).expect_err("refused").to_string();
        assert!(error.contains(said) && error.lines().count() == 1, "{line}: {error}");
    }
    for line in ["grid backup --help", "grid restore --help", "grid store migrate --help"] {
        let Ok(Command::Show(help)) = read(line) else { panic!("no help") };
        assert!(help.contains("--data-dir") && !help.contains("--idle-seconds"), "{help}");
    }
}
