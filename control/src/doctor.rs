//! `grid doctor`: tries on this machine what docs/security.md promises, and says what does not
//! hold. Nothing is changed but what it makes for itself and takes away again.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use crate::{
    advisory,
    config::Config,
    egress::EgressPolicy,
    engine::{About, Attachment, Engine, Network, Probe, Sandbox, docker::Docker},
    error::Result,
    firewall,
    image::Images,
    limits,
    name::InstanceId,
    runtime::Runtimes,
    seccomp::Profile,
};

/// What a container like a function's finds in itself, as a shell tells it: `NAME VALUE` lines.
const LOOK_INSIDE: &str = r#"
echo uid $(id -u)
for field in CapEff CapBnd NoNewPrivs Seccomp; do
    echo $field $(sed -n "s/^$field:[[:space:]]*//p" /proc/self/status)
done
for path in / /app /etc /run /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/fs/cgroup; do
    if [ -w $path ]; then echo writable $path; fi
done
echo tmp $(sed -n 's/^[^ ]* \/tmp [^ ]* \([^ ]*\).*/\1/p' /proc/mounts)
echo links $(ls /sys/class/net)
for field in 'open files' 'core file size' 'pending signals'; do
    echo limits $field $(sed -n "s/^Max $field  *//p" /proc/self/limits)
done
cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null | sed 's/^/pids /'
cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | sed 's/^/memory /'
if [ -e /var/run/docker.sock ]; then echo writable /var/run/docker.sock; fi
"#;

/// One line of the table.
#[derive(Debug)]
pub struct Finding {
    check: String,
    verdict: Verdict,
    detail: String,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As promised.
    Holds,
    /// Works, but there is something to know.
    Warning,
    /// A promise is not kept.
    Fails,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Holds => "ok",
            Verdict::Warning => "warning",
            Verdict::Fails => "FAILS",
        };
        write!(f, "{:<24} {verdict:<8} {}", self.check, self.detail)
    }
}

/// Runs every check; `tell` is given each finding as it comes. True when every promise is kept.
///
/// # Errors
/// What Grid itself would refuse to start with.
pub async fn examine(
    config: &Config,
    tell: impl FnMut(&Finding),
) -> Result<bool, Box<dyn std::error::Error>> {
    let engine: Arc<dyn Engine> = Arc::new(Docker::new(&config.docker_host));
    let instance = InstanceId::random();
    let share_dir: &Path = config.share_dir();
    let images = Images::new(engine.clone(), instance.clone(), Runtimes::load(share_dir)?);
    let seccomp = Profile::load(share_dir)?.security_opt().into();
    let mut doctor = Doctor { config, engine, images, instance, seccomp, all_hold: true, tell };
    if doctor.engine().await {
        doctor.containers().await;
        doctor.egress().await;
    }
    Ok(doctor.all_hold)
}

struct Doctor<'a, T> {
    config: &'a Config,
    engine: Arc<dyn Engine>,
    images: Images,
    /// Of this run alone.
    instance: InstanceId,
    seccomp: Arc<str>,
    all_hold: bool,
    tell: T,
}

impl<T: FnMut(&Finding)> Doctor<'_, T> {
    /// What runs the containers. False when nothing more can be tried.
    async fn engine(&mut self) -> bool {
        let about = match self.engine.about().await {
            Ok(about) => about,
            Err(error) => {
                self.say("engine", Verdict::Fails, error.to_string());
                return false;
            }
        };
        let About { versions, oci_runtimes, security, no_bound_on } = about;
        let version = |name: &str, v: &Option<String>| v.as_ref().map(|v| format!("{name} {v}"));
        let names = [
            version("Docker Engine", &versions.engine),
            version("runc", &versions.runc),
            Some(format!("kernel {}", versions.kernel)),
        ];
        let names: Vec<_> = names.into_iter().flatten().collect();
        self.say("engine", Verdict::Holds, names.join(", "));
        for warning in advisory::warnings(&versions) {
            self.say("known escapes", Verdict::Warning, warning.to_string());
        }
        let seccomp = security.iter().any(|feature| feature.contains("name=seccomp"));
        self.judge("seccomp", seccomp, "the engine applies profiles", "the engine has none");
        let bounds = format!("the kernel has none on {}", no_bound_on.join(", "));
        self.judge("bounds", no_bound_on.is_empty(), "memory, swap, processes, CPU", &bounds);
        let unknown: Vec<_> =
            self.config.oci_runtimes.iter().filter(|name| !oci_runtimes.contains(name)).collect();
        let known = format!("the engine knows {}", oci_runtimes.join(", "));
        self.judge(
            "OCI runtimes",
            unknown.is_empty(),
            &known,
            &format!("{unknown:?} unknown; {known}"),
        );
        true
    }

    /// A container like a function's, seen from inside.
    async fn containers(&mut self) {
        let said = match self.probe(None, &["sh", "-c", LOOK_INSIDE]).await {
            Ok(said) => said,
            Err(error) => return self.say("containers", Verdict::Fails, error.to_string()),
        };
        let value = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_default().trim().to_owned()
        };
        let is_zero = |text: &str| !text.is_empty() && text.chars().all(|c| c == '0');
        self.judge("user", value("uid") == "1000", "uid 1000", &format!("uid {}", value("uid")));
        let caps = format!("effective {}, bounding {}", value("CapEff"), value("CapBnd"));
        let none = is_zero(&value("CapEff")) && is_zero(&value("CapBnd"));
        self.judge("capabilities", none, "none", &caps);
        let locked = value("NoNewPrivs") == "1" && value("Seccomp") == "2";
        self.judge("system calls", locked, "our profile, no new privileges", &said);
        let writable: Vec<_> =
            said.lines().filter_map(|line| line.strip_prefix("writable ")).collect();
        self.judge(
            "files",
            writable.is_empty(),
            "only what is in memory can be written (/tmp, /dev/shm)",
            &writable.join(", "),
        );
        self.bounds(&value);
        let options = value("tmp");
        let tmp = ["noexec", "nosuid", "nodev", "size="].iter().all(|o| options.contains(o));
        self.judge("/tmp", tmp, "noexec, nosuid, nodev, bounded", &options);
        let links = value("links");
        self.judge("egress: none", links == "lo", "no network but loopback", &links);
    }

    /// Whether the bounds that the engine was asked for are there inside.
    fn bounds(&mut self, value: &impl Fn(&str) -> String) {
        let memory = u64::from(*limits::MEMORY_MB.start()) * 1024 * 1024;
        let expected = [
            ("pids", limits::PIDS.to_string()),
            ("memory", memory.to_string()),
            ("limits open files", limits::OPEN_FILES.to_string()),
            ("limits core file size", "0".to_owned()),
            ("limits pending signals", limits::PENDING_SIGNALS.to_string()),
        ];
        let wrong: Vec<_> = expected
            .iter()
            .filter(|(name, bound)| value(name).split_whitespace().next() != Some(bound))
            .map(|(name, bound)| format!("{name}: `{}` instead of {bound}", value(name)))
            .collect();
        let good = "memory, processes, open files, core files, pending signals";
        self.judge("bounds inside", wrong.is_empty(), good, &wrong.join(", "));
    }

    /// The firewall of every Grid on this machine; without one, of one that is made for the test.
    async fn egress(&mut self) {
        let networks = match self.engine.networks().await {
            Ok(networks) => networks,
            Err(error) => return self.say("firewall", Verdict::Fails, error.to_string()),
        };
        for network in &networks {
            self.firewall(network).await;
        }
        if networks.is_empty() {
            let made = async {
                let network = self.engine.network(&self.instance).await?;
                firewall::install(&network, EgressPolicy::fixed()).await?;
                Ok::<_, crate::error::Error>(network)
            };
            match made.await {
                Ok(network) => {
                    self.firewall(&network).await;
                    let _ = firewall::remove(&network).await;
                }
                Err(error) => self.say("firewall", Verdict::Fails, error.to_string()),
            }
            if let Err(error) = self.engine.remove_network(&self.instance).await {
                self.say("clean-up", Verdict::Warning, error.to_string());
            }
        }
    }

    async fn firewall(&mut self, network: &Network) {
        let check = format!("firewall {}", network.bridge);
        let proved = async {
            let attachment = Attachment { network: network.name.clone(), dns: None };
            let probe = self.probe_of(Some(attachment), &[]).await?;
            firewall::prove(&self.engine, network, probe, false).await
        };
        match proved.await {
            Ok(()) => self.say(
                &check,
                Verdict::Holds,
                "a container was refused by denied addresses and by this machine".to_owned(),
            ),
            Err(error) => self.say(&check, Verdict::Fails, error.to_string()),
        }
    }

    async fn probe(&self, network: Option<Attachment>, command: &[&str]) -> Result<String> {
        let probe = self.probe_of(network, command).await?;
        self.engine.probe(&probe).await
    }

    async fn probe_of(&self, network: Option<Attachment>, command: &[&str]) -> Result<Probe> {
        let sandbox = Sandbox {
            image: self.images.any_runner().await?,
            env: Vec::new(),
            network,
            oci_runtime: self.config.oci_runtimes.first().cloned(),
            seccomp: self.seccomp.clone(),
            memory_mb: *limits::MEMORY_MB.start(),
            cpu_shares: 1024,
        };
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let within = Duration::from_secs(20);
        Ok(Probe { instance: self.instance.clone(), sandbox, command, within })
    }

    fn judge(&mut self, check: &str, holds: bool, good: &str, bad: &str) {
        if holds {
            self.say(check, Verdict::Holds, good.to_owned());
        } else {
            self.say(check, Verdict::Fails, bad.to_owned());
        }
    }

    fn say(&mut self, check: &str, verdict: Verdict, detail: String) {
        self.all_hold &= verdict != Verdict::Fails;
        (self.tell)(&Finding { check: check.to_owned(), verdict, detail });
    }
}
