//! The layers below the command line: environment, `.env` and file. They become default values of
//! clap's arguments, so that one declaration and one set of rules serve them all.

use std::{
    collections::BTreeMap,
    error::Error as _,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{
    Arg, Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{ConfigError, DEFAULT_FILE};
use crate::{secret::FernetKeys, store::redis::RedisUrl, token::TokenText};

/// A variable that begins like one of ours but is not known is a mistake.
const PREFIXES: [&str; 4] = ["GRID_", "SMSLY_", "MAX_FUNCTION_", "FUNCTION_"];
/// Variables of the project's own tests and scripts.
const INTERNAL: &str = "GRID_TEST_";
/// Read from variables only, and never shown.
const SECRETS: [&str; 3] = [TOKEN, FERNET_KEYS, REDIS_URL];
const TOKEN: &str = "SMSLY_TOKEN";
const FERNET_KEYS: &str = "GRID_FERNET_KEYS";
const REDIS_URL: &str = "REDIS_URL";
/// Names the file, so it cannot be in it.
const CONFIG: &str = "GRID_CONFIG";

/// A value, and how to tell people where it is.
#[derive(Debug)]
struct Given {
    value: String,
    /// The name as it is spelled there.
    name: String,
    origin: String,
}

/// The values that win below the command line, by the variable's name.
#[derive(Debug, Default)]
pub(super) struct Layers(BTreeMap<String, Given>);

impl Layers {
    /// Reads all layers; `named` is the file that a flag names.
    pub(super) fn read(
        command: &Command,
        environment: &BTreeMap<String, String>,
        cwd: &Path,
        named: Option<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        layers.add_variables(command, environment, "the environment")?;
        layers.add_variables(command, &dot_env(&cwd.join(".env"))?, ".env")?;

        let named = named.or_else(|| layers.0.get(CONFIG).map(|given| given.value.clone().into()));
        let path = cwd.join(named.as_deref().unwrap_or(Path::new(DEFAULT_FILE)));
        match fs::read_to_string(&path) {
            Ok(text) => layers.add_file(command, &path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {}
            Err(error) => {
                return Err(ConfigError::new(format!(
                    "{CONFIG} is \"{}\": {error}",
                    path.display()
                )));
            }
        }
        Ok(layers)
    }

    /// The configured token, when there is one.
    pub(super) fn token(&self) -> Result<Option<TokenText>, ConfigError> {
        self.secret(TOKEN, TokenText::parse)
    }

    /// The configured Fernet keys, when there are any.
    pub(super) fn fernet_keys(&self) -> Result<Option<FernetKeys>, ConfigError> {
        self.secret(FERNET_KEYS, FernetKeys::parse)
    }

    /// Where the Redis is, when there is one.
    pub(super) fn redis_url(&self) -> Result<Option<RedisUrl>, ConfigError> {
        self.secret(REDIS_URL, RedisUrl::from_str)
    }

    /// Reads a value that no error shows.
    fn secret<T, E: std::fmt::Display>(
        &self,
        name: &str,
        parse: fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(given) = self.0.get(name) else { return Ok(None) };
        let line = |rule| ConfigError::new(format!("{name} (from {}): {rule}", given.origin));
        parse(&given.value).map(Some).map_err(line)
    }

    /// Puts the values under a command line.
    pub(super) fn apply(&self, command: Command) -> Command {
        command.mut_args(|arg| match self.0.get(arg.get_id().as_str()) {
            Some(given) => arg.default_value(given.value.clone()),
            None => arg,
        })
    }

    /// The line for a value of these layers that clap refused.
    pub(super) fn error(&self, command: &Command, error: &clap::Error) -> ConfigError {
        let given = argument(command, error).and_then(|arg| self.0.get(arg.get_id().as_str()));
        match (given, error.source()) {
            (Some(Given { value, name, origin }), Some(rule)) => {
                ConfigError::new(format!("{name} is \"{value}\" (from {origin}): {rule}"))
            }
            _ => flag_error(command, error),
        }
    }

    fn add_variables(
        &mut self,
        command: &Command,
        variables: &BTreeMap<String, String>,
        origin: &str,
    ) -> Result<(), ConfigError> {
        let known: Vec<&str> = settings(command).map(|arg| arg.get_id().as_str()).collect();
        for (name, value) in variables {
            if known.contains(&name.as_str()) || SECRETS.contains(&name.as_str()) {
                self.add(name, value.clone(), name, origin);
            } else if is_ours(name) {
                let likely = likely(name, known.iter().copied().chain(SECRETS));
                return Err(ConfigError::new(format!(
                    "{name} (from {origin}) is not a setting{likely}"
                )));
            }
        }
        Ok(())
    }

    fn add_file(&mut self, command: &Command, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|e| toml_error(path, text, &e))?;
        let origin = path.display().to_string();
        let refuse = |line: String| Err(ConfigError::new(line));
        for (name, value) in flat(table) {
            if let Some(secret) = SECRETS.iter().find(|secret| name.eq_ignore_ascii_case(secret)) {
                return refuse(format!(
                    "{name} (from {origin}) is a secret: set {secret} in the environment or in .env"
                ));
            }
            let in_file = |arg: &&Arg| arg.get_id() != CONFIG;
            let Some(arg) =
                settings(command).filter(in_file).find(|arg| key(arg) == name.replace('.', "_"))
            else {
                let keys: Vec<_> = settings(command).filter(in_file).map(key).collect();
                let plain = name.to_ascii_lowercase();
                let plain = plain.strip_prefix("grid_").unwrap_or(&plain);
                let likely = likely(plain, keys.iter().map(String::as_str));
                return refuse(format!("{name} (from {origin}) is not a setting{likely}"));
            };
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                other => {
                    let kind = other.type_str();
                    return refuse(format!(
                        "{name} (from {origin}): must be a text or a number, not a {kind}"
                    ));
                }
            };
            self.add(arg.get_id().as_str(), value, &name, &origin);
        }
        Ok(())
    }

    /// Adds a value unless a higher layer has one; an empty one is none.
    fn add(&mut self, id: &str, value: String, name: &str, origin: &str) {
        if value.is_empty() {
            return;
        }
        self.0.entry(id.to_owned()).or_insert_with(|| Given {
            value,
            name: name.to_owned(),
            origin: origin.to_owned(),
        });
    }
}

/// `egress.enforcement = "…"`, which TOML takes for a table, is the key `egress_enforcement`.
fn flat(table: toml::Table) -> Vec<(String, toml::Value)> {
    let mut pairs = Vec::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(inner) => {
                pairs
                    .extend(inner.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            value => pairs.push((name, value)),
        }
    }
    pairs
}

/// The process's variables that may concern us.
pub(super) fn environment() -> Result<BTreeMap<String, String>, ConfigError> {
    let mut variables = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        if is_ours(&name) || name == "DOCKER_HOST" || SECRETS.contains(&name.as_str()) {
            let value = value.into_string().map_err(|_| {
                ConfigError::new(format!("{name} (from the environment): must be UTF-8"))
            })?;
            variables.insert(name, value);
        }
    }
    Ok(variables)
}

/// Adds the variable's name to the help of each setting.
pub(super) fn document(command: Command) -> Command {
    command.mut_args(|arg| {
        let id = arg.get_id().to_string();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        if is_setting(&arg) { arg.help(format!("{help} [env: {id}]")) } else { arg }
    })
}

/// The line for a mistake on the command line.
pub(super) fn flag_error(command: &Command, error: &clap::Error) -> ConfigError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if error.kind() == ErrorKind::ValueValidation
        && let (Some(arg), Some(value), Some(rule)) =
            (argument(command, error), context(ContextKind::InvalidValue), error.source())
    {
        let flag = arg.get_long().unwrap_or_default();
        return ConfigError::new(format!(
            "--{flag} is \"{value}\" (from the command line): {rule}"
        ));
    }
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(flag) = context(ContextKind::InvalidArg)
    {
        let flags = settings(command).filter_map(Arg::get_long);
        let flags: Vec<_> = flags.map(|flag| format!("--{flag}")).collect();
        let likely = likely(flag, flags.iter().map(String::as_str));
        return ConfigError::new(format!(
            "{flag} (from the command line) is not a setting{likely}"
        ));
    }
    // clap's first paragraph on one line, or all of it when it is the help.
    let text = error.to_string();
    let Some(reason) = text.strip_prefix("error: ") else {
        return ConfigError::new(text.trim());
    };
    let lines = reason.split("\n\n").next().unwrap_or(reason).lines();
    ConfigError::new(lines.map(str::trim).collect::<Vec<_>>().join(" "))
}

/// A TOML error on one line, with its place.
pub(crate) fn toml_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
    let message = error.message().replace('\n', ", ");
    ConfigError::new(format!("{}, line {line}: {message}", path.display()))
}

fn dot_env(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let file = match fs::read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(ConfigError::new(format!("{}: {error}", path.display()))),
    };
    let mut variables = BTreeMap::new();
    for line in dotenvy::from_read_iter(file.as_slice()) {
        // dotenvy's own text would show the line, and with it perhaps a secret.
        let (name, value) = line.map_err(|_| {
            let after = variables.keys().last().map(|name| format!(" (after {name})"));
            let after = after.unwrap_or_default();
            let path = path.display();
            ConfigError::new(format!("{path}: a line{after} is not NAME=value"))
        })?;
        variables.insert(name, value);
    }
    Ok(variables)
}

/// The arguments of `grid serve` that are settings, not clap's own.
fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    let serve = command.find_subcommand("serve");
    serve.into_iter().flat_map(Command::get_arguments).filter(|arg| is_setting(arg))
}

fn is_setting(arg: &Arg) -> bool {
    arg.get_id().as_str().contains('_')
}

/// A setting's name in the file.
fn key(arg: &Arg) -> String {
    arg.get_long().unwrap_or_default().replace('-', "_")
}

fn is_ours(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !name.starts_with(INTERNAL)
}

/// The argument that an error of clap's is about; it is named like `--data-dir <DIR>`.
fn argument<'a>(command: &'a Command, error: &clap::Error) -> Option<&'a Arg> {
    let Some(ContextValue::String(text)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = text.split(' ').next()?.strip_prefix("--")?;
    settings(command).find(|arg| arg.get_long() == Some(flag))
}

/// `: did you mean …?` with the closest name, when one is close.
fn likely<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let closest = known.map(|known| (distance(name, known), known)).min();
    match closest {
        Some((distance, known)) if distance <= 1.max(name.len() / 4) => {
            format!(": did you mean {known}?")
        }
        _ => String::new(),
    }
}

/// How many letters have to be added, removed or replaced to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
