//! Where a Redis is, as its URL says it.

use std::{fmt, str::FromStr};

use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisResult, TlsMode,
    aio::{MultiplexedConnection, PubSub},
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};

use crate::limits;

/// The port of a Sentinel whose address names none.
const SENTINEL_PORT: u16 = 26379;

/// A Redis, or the Sentinels that know which one it is.
///
/// `redis://[user:password@]host[:port][/db]`, `rediss://…` with TLS, `unix:///path`, or
/// `redis+sentinel://[user:password@]host[:port],host[:port]…/name[/db]` (`rediss+sentinel://` with
/// TLS to both), where user and password are those of the Redis.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    text: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Server(String),
    Sentinels { nodes: Vec<(String, u16)>, name: String, tls: bool, redis: Login },
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Login {
    user: Option<String>,
    password: Option<String>,
    db: i64,
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sentinel = [("redis+sentinel://", false), ("rediss+sentinel://", true)];
        let found =
            sentinel.iter().find_map(|(scheme, tls)| Some((text.strip_prefix(scheme)?, tls)));
        let place = match found {
            Some((rest, tls)) => sentinels(rest, *tls)?,
            None => {
                text.into_connection_info().map_err(|error| {
                    format!(
                        "must be redis://, rediss://, unix:// or redis+sentinel:// and an address, \
                         such as redis://127.0.0.1:6379/0 ({error})"
                    )
                })?;
                Place::Server(text.to_owned())
            }
        };
        Ok(Self { text: text.to_owned(), place })
    }
}

fn sentinels(rest: &str, tls: bool) -> Result<Place, String> {
    let form = || {
        "must be redis+sentinel://HOST:PORT,HOST:PORT/NAME, with the name that the Sentinels know the Redis by".to_owned()
    };
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, rest)) => (Some(login), rest),
        None => (None, rest),
    };
    let mut parts = rest.split('/');
    let (hosts, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if hosts.is_empty() || name.is_empty() {
        return Err(form());
    }
    let mut redis = Login::default();
    if let Some(db) = parts.next().filter(|db| !db.is_empty()) {
        redis.db = db.parse().map_err(|_| form())?;
    }
    if parts.next().is_some() {
        return Err(form());
    }
    if let Some(login) = login {
        // The same rules as for a plain URL: its parts may be percent-encoded.
        let plain = format!("redis://{login}@host").into_connection_info();
        let plain = plain.map_err(|_| form())?;
        redis.user = plain.redis_settings().username().map(ToOwned::to_owned);
        redis.password = plain.redis_settings().password().map(ToOwned::to_owned);
    }
    let node = |text: &str| match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => Some((host.to_owned(), port.parse().ok()?)),
        None if !text.is_empty() => Some((text.to_owned(), SENTINEL_PORT)),
        _ => None,
    };
    let nodes: Option<Vec<_>> = hosts.split(',').map(node).collect();
    Ok(Place::Sentinels { nodes: nodes.ok_or_else(form)?, name: name.to_owned(), tls, redis })
}

impl fmt::Display for RedisUrl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // That of a socket is in what follows the path.
        let text = self.text.split_once('?').map_or(self.text.as_str(), |(text, _)| text);
        match (text.split_once("://"), text.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => write!(f, "{scheme}://{rest}"),
            _ => f.write_str(text),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?})", self.user)
    }
}

/// Opens connections to it: to another server after Sentinels have chosen one.
pub(super) struct Dialler {
    target: Target,
}

enum Target {
    Server(Box<Client>),
    Sentinels(Box<SentinelClient>),
}

impl Dialler {
    pub(super) fn to(url: &RedisUrl) -> RedisResult<Self> {
        // The library takes the process's own, and panics without one. One that is there stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let target = match &url.place {
            Place::Server(text) => Target::Server(Box::new(Client::open(text.as_str())?)),
            Place::Sentinels { nodes, name, tls, redis } => {
                let address = |(host, port): &(String, u16)| match tls {
                    false => ConnectionAddr::Tcp(host.clone(), *port),
                    true => ConnectionAddr::TcpTls {
                        host: host.clone(),
                        port: *port,
                        insecure: false,
                        tls_params: None,
                    },
                };
                let nodes: RedisResult<Vec<ConnectionInfo>> =
                    nodes.iter().map(|node| address(node).into_connection_info()).collect();
                let mut login = RedisConnectionInfo::default().set_db(redis.db);
                if let Some(user) = &redis.user {
                    login = login.set_username(user);
                }
                if let Some(password) = &redis.password {
                    login = login.set_password(password);
                }
                let mut node = SentinelNodeConnectionInfo::default();
                node = node.set_redis_connection_info(login);
                if *tls {
                    node = node.set_tls_mode(TlsMode::Secure);
                }
                let master = SentinelServerType::Master;
                let client = SentinelClient::build(nodes?, name, Some(node), master)?;
                Target::Sentinels(Box::new(client))
            }
        };
        Ok(Self { target })
    }

    /// A connection for commands that answer at once.
    pub(super) async fn connect(&mut self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limits::STORE_CONNECT))
            .set_response_timeout(Some(limits::STORE_CALL));
        let client = self.client().await?;
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// A connection for hints.
    pub(super) async fn subscribe(&mut self) -> RedisResult<PubSub> {
        self.client().await?.get_async_pubsub().await
    }

    async fn client(&mut self) -> RedisResult<Client> {
        match &mut self.target {
            Target::Server(client) => Ok(Client::clone(client)),
            Target::Sentinels(sentinels) => sentinels.async_get_client().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RedisUrl, String> {
        text.parse()
    }

    #[test]
    fn urls_are_taken_as_operators_write_them() {
        for text in [
            "redis://127.0.0.1",
            "redis://:secret@redis.internal:6380/2",
            "rediss://grid:secret@redis.internal",
            "unix:///run/redis.sock",
        ] {
            let url = parse(text).expect(text);
            assert!(matches!(url.place, Place::Server(_)), "{text}");
            assert!(Dialler::to(&url).is_ok(), "{text}");
        }
        let url = parse("rediss+sentinel://grid:s%40d@a:1,b,c:3/main/2").expect("valid");
        assert!(Dialler::to(&url).is_ok());
        let Place::Sentinels { nodes, name, tls, redis } = url.place else { panic!("sentinels") };
        let nodes: Vec<_> = nodes.iter().map(|(host, port)| (host.as_str(), *port)).collect();
        assert_eq!(nodes, [("a", 1), ("b", SENTINEL_PORT), ("c", 3)]);
        assert_eq!((name.as_str(), tls, redis.db), ("main", true, 2));
        assert_eq!((redis.user.as_deref(), redis.password.as_deref()), (Some("grid"), Some("s@d")));
    }

    #[test]
    fn others_are_refused_with_the_form_that_is_taken() {
        for text in ["", "127.0.0.1:6379", "http://a", "redis://", "redis://a/x"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("redis://127.0.0.1:6379/0"), "{text}: {error}");
        }
        for text in [
            "redis+sentinel://",
            "redis+sentinel://a",
            "redis+sentinel://a:x/m",
            "redis+sentinel://a,/m",
            "redis+sentinel://a/m/x",
            "redis+sentinel://a/m/1/2",
        ] {
            assert!(parse(text).expect_err(text).contains("NAME"), "{text}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for text in [
            "redis://u:secret@h/1",
            "redis+sentinel://:secret@h/m",
            "rediss://:secret@h",
            "unix:///run/redis.sock?user=u&pass=secret",
        ] {
            let url = parse(text).expect(text);
            assert!(!format!("{url} {url:?}").contains("secret"), "{text}");
        }
        assert_eq!(parse("redis://u:secret@h/1").expect("valid").to_string(), "redis://h/1");
    }
}
