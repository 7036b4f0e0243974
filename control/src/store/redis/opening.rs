//! How the store in a Redis is opened: whose it is, whether this Grid understands it, and whether the
//! Redis keeps what it is told.

use std::{
    fs,
    path::Path,
    sync::{Arc, LazyLock},
};

use ::redis::{InfoDict, Script, cmd, pipe};
use tokio::{
    sync::{broadcast, oneshot, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    Aborted, Part, Redis, RedisSettings,
    address::Dialler,
    hints,
    keys::Keys,
    lease::{Lease, Seat},
    link::{Link, Request},
    server::{FENCED, Server},
};
use crate::{
    error::{Error, Result},
    limits,
    name::InstanceId,
    store::tables::{Fault, SCHEMA, Table, UNFINISHED},
    token,
};

const OPEN: &str = "open";
/// Hints that a slow receiver may fall behind before it has to read everything again.
const HINTS: usize = 1024;

/// KEYS: meta. ARGV: schema, instance. Makes what is missing, and tells what is there, and
/// whether there was nothing.
static PREPARE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "redis.call('HSETNX', KEYS[1], 'schema', ARGV[1])
         local new = redis.call('HSETNX', KEYS[1], 'instance', ARGV[2])
         redis.call('HSETNX', KEYS[1], 'version', 0)
         local schema, instance = unpack(redis.call('HMGET', KEYS[1], 'schema', 'instance'))
         return {schema, instance, new}",
    )
});

/// KEYS: meta, control, and the hashes of all tables, that of the counters first. ARGV: the instance, the
/// one that it is to become, holder, the key of the mark. Only a Redis in which nothing is, or nothing
/// that was finished, becomes another one's.
static ADOPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local instance = redis.call('HGET', KEYS[1], 'instance')
         if instance == ARGV[2] then return 'adopted' end
         if instance ~= ARGV[1] then return 'full' end
         local holder = redis.call('GET', KEYS[2])
         if holder and holder ~= ARGV[3] then return 'fenced' end
         if redis.call('HEXISTS', KEYS[3], ARGV[4]) == 0 then
           for i = 3, #KEYS do
             if redis.call('EXISTS', KEYS[i]) == 1 then return 'full' end
           end
         end
         redis.call('HSET', KEYS[1], 'instance', ARGV[2])
         return 'adopted'",
    )
});

pub(super) async fn open(
    settings: &RedisSettings,
    data_dir: &Path,
    part: Part,
    adopt: Option<&InstanceId>,
) -> Result<Redis> {
    let RedisSettings { url, prefix } = settings;
    fs::create_dir_all(data_dir).map_err(Error::file("create", data_dir))?;
    let seat = match part {
        Part::Control => Some(Seat::take(data_dir)?),
        Part::Edge => None,
    };
    let broken = |reason: String| Error::Store { operation: OPEN, reason };
    let refused = |error: ::redis::RedisError| broken(format!("REDIS_URL ({url}): {error}"));
    let link = Link::to(url).map_err(refused)?;
    let dialler = Dialler::to(url).map_err(refused)?;
    let keys = Keys::with(prefix);
    let known = read_instance(data_dir)?;
    let wanted = adopt.cloned().or_else(|| known.clone());
    let (schema, mut instance, is_new) = prepare(&link, &keys, wanted).await?;
    check_schema(&schema, url).map_err(|fault| fault.during(OPEN))?;
    if let Some(adopt) = adopt {
        let holder = seat.as_ref().map_or("", |seat| &seat.holder);
        let adopted = become_anothers(&link, &keys, &instance, adopt, holder).await;
        adopted.map_err(|fault| fault.during(OPEN))?;
        instance = adopt.clone();
    }
    match known {
        Some(known) if adopt.is_some() && known != instance => {
            token::write_private(data_dir, INSTANCE, instance.as_str())?;
        }
        Some(known) if known == instance => {
            if is_new && adopt.is_none() {
                tracing::warn!(
                    "Redis at {url} has nothing of this Grid ({}), which is not new: it begins with \
                     nothing. If that is wrong, stop it, restore a backup of the Redis, and start again",
                    keys.meta
                );
            }
        }
        Some(known) => {
            return Err(broken(format!(
                "Redis at {url} holds the state of another Grid under the prefix {prefix} (instance \
                 {instance}, and the data directory {} is {known}'s): use another GRID_REDIS_PREFIX, \
                 or the data directory that belongs to it",
                data_dir.display()
            )));
        }
        None => token::write_private(data_dir, INSTANCE, instance.as_str())?,
    }
    if part == Part::Control {
        warn_of_losses(&link).await;
    }
    let server = Arc::new(Server {
        link,
        keys,
        instance,
        holder: seat.as_ref().map(|seat| seat.holder.clone()).unwrap_or_default(),
        sender: InstanceId::random().to_string(),
        changes: broadcast::Sender::new(HINTS),
        problem: watch::Sender::new(None),
    });
    let (heard, hears) = oneshot::channel();
    let listening = tokio::spawn(hints::listen(server.clone(), dialler, heard));
    let listening = Arc::new(Aborted(listening.abort_handle()));
    // Hints that do not come yet will; what they would have said is read again then.
    let _ = timeout(limits::STORE_CALL, hears).await;
    let lease = match seat {
        Some(seat) => {
            let lease = Lease::take(server.clone(), seat).await;
            Some(Arc::new(lease.map_err(|fault| fault.during("take control"))?))
        }
        None => None,
    };
    Ok(Redis {
        server,
        listings: Arc::default(),
        turn: Arc::default(),
        exporting: Arc::default(),
        closing: Arc::default(),
        lease,
        _listening: listening,
    })
}

/// Waits for a Redis that is just being started.
async fn prepare(
    link: &Link,
    keys: &Keys,
    known: Option<InstanceId>,
) -> Result<(String, InstanceId, bool)> {
    let instance = known.unwrap_or_else(InstanceId::random);
    let mut script = PREPARE.prepare_invoke();
    script.key(&keys.meta).arg(SCHEMA).arg(instance.as_str());
    let until = Instant::now() + limits::STORE_START;
    let (schema, instance, is_new): (String, String, bool) = loop {
        match link.ask(Request::Script(&script)).await {
            Ok(answer) => break answer.value,
            Err(_) if Instant::now() < until && link.is_down().await => {
                sleep(limits::STORE_CONNECT / 4).await;
            }
            Err(fault) => return Err(check_url(fault).during(OPEN)),
        }
    };
    let instance = InstanceId::parse(instance).map_err(|error| Error::Store {
        operation: OPEN,
        reason: format!("{}: instance: {error}", keys.meta),
    })?;
    Ok((schema, instance, is_new))
}

/// Says which setting it is that may be wrong.
fn check_url(fault: Fault) -> Fault {
    match fault {
        Fault::Broken(reason) => {
            Fault::Broken(format!("{reason}; is that the Redis, and is REDIS_URL right?"))
        }
        refused @ Fault::Refused(_) => refused,
    }
}

async fn become_anothers(
    link: &Link,
    keys: &Keys,
    instance: &InstanceId,
    adopt: &InstanceId,
    holder: &str,
) -> Result<(), Fault> {
    let mut script = ADOPT.prepare_invoke();
    script.key(&keys.meta).key(&keys.control);
    for table in Table::ALL {
        script.key(keys.table(table));
    }
    script.arg(instance.as_str()).arg(adopt.as_str()).arg(holder).arg(UNFINISHED);
    match link.ask::<String>(Request::Script(&script)).await?.value.as_str() {
        "adopted" => Ok(()),
        "fenced" => Err(Fault::Broken(FENCED.to_owned())),
        _ => Err(Fault::Broken(format!(
            "Redis at {} has services, tokens or an audit log of another Grid under this prefix \
             (instance {instance}): use another GRID_REDIS_PREFIX",
            link.url()
        ))),
    }
}

fn check_schema(text: &str, url: &super::RedisUrl) -> Result<(), Fault> {
    match text.parse::<u32>() {
        Ok(SCHEMA) => Ok(()),
        Ok(newer) if newer > SCHEMA => Err(Fault::Broken(format!(
            "Redis at {url} was written by a newer Grid (schema {newer}, this one knows {SCHEMA}): \
             start that Grid again, or use another GRID_REDIS_PREFIX"
        ))),
        _ => Err(Fault::Broken(format!("Redis at {url} has the unknown schema \"{text}\""))),
    }
}

/// Says in the log with which of the Redis's own settings state would be lost.
async fn warn_of_losses(link: &Link) {
    let url = link.url();
    let mut commands = pipe();
    commands.cmd("INFO");
    let info = link.ask::<(InfoDict,)>(Request::Commands(&commands)).await;
    let Ok(info) = info.map(|answer| answer.value.0) else {
        tracing::warn!("Redis at {url} does not tell (INFO) whether it keeps what it is told");
        return;
    };
    let has_log = info.get::<u8>("aof_enabled") == Some(1);
    let mut commands = pipe();
    commands.add_command(cmd("CONFIG").arg("GET").arg("save").to_owned());
    let save = link.ask::<(Vec<String>,)>(Request::Commands(&commands)).await;
    let save = save.ok().and_then(|answer| answer.value.0.get(1).cloned());
    match (has_log, save.as_deref()) {
        (true, _) => {}
        (false, Some("")) => tracing::warn!(
            "Redis at {url} has no persistence: when it ends, all services are lost. Set appendonly \
             yes in its configuration"
        ),
        (false, _) => tracing::warn!(
            "Redis at {url} writes no append-only file: when it crashes, the changes of the last \
             minutes may be lost. Set appendonly yes in its configuration"
        ),
    }
    let policy = info.get::<String>("maxmemory_policy").unwrap_or_default();
    if info.get::<u64>("maxmemory").is_some_and(|most| most > 0) && policy != "noeviction" {
        tracing::warn!(
            "Redis at {url} forgets keys when its memory is full (maxmemory-policy {policy}): set it \
             to noeviction"
        );
    }
}

/// In the data directory: whose containers are ours.
const INSTANCE: &str = "instance";

fn read_instance(data_dir: &Path) -> Result<Option<InstanceId>> {
    let path = data_dir.join(INSTANCE);
    match fs::read_to_string(&path) {
        Ok(text) => InstanceId::parse(text.trim()).map(Some).map_err(|error| Error::Store {
            operation: OPEN,
            reason: format!("{}: {error}", path.display()),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", &path)(error)),
    }
}
