//! Known ways out of a container that concern functions, by the versions of what runs them. Pure:
//! who asks the engine for its versions passes them in.

use std::{cmp::Ordering, fmt};

/// What runs functions here, as Docker Engine tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// Docker Engine itself, such as `20.10.24+dfsg1`.
    pub engine: Option<String>,
    /// Such as `v1.7.27`.
    pub containerd: Option<String>,
    /// Such as `1.1.5+ds1-1+deb12u1`. None when functions run by another OCI runtime.
    pub runc: Option<String>,
    /// The kernel's release, such as `6.1.0-18-amd64`.
    pub kernel: String,
}

/// A part of what runs functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// Docker Engine.
    Engine,
    /// What the engine manages containers with.
    Containerd,
    /// What starts a container.
    Runc,
    /// What all containers share.
    Kernel,
}

/// A component that should be upgraded. Displayed as one line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What is at fault.
    pub component: Component,
    /// Its version, as it was given.
    pub version: String,
    /// The identifiers of the faults.
    pub cves: &'static [&'static str],
    /// What they let a function do.
    pub effect: &'static str,
    /// Versions without the faults, lowest first. Not empty.
    pub fixed: Vec<String>,
}

/// Faults that came and went together.
struct Advisory {
    component: Component,
    cves: &'static [&'static str],
    effect: &'static str,
    /// The first version that has them.
    since: &'static str,
    /// The first version without them of each branch (`major.minor`) that got the fix, ascending.
    /// Branches after the last one never had them; others below it never got the fix.
    fixed: &'static [&'static str],
}

const ESCAPE: &str = "container escape";

/// Only what code in a function's container can reach: no capabilities, no new privileges, our
/// seccomp profile, a read-only root, no mount of the host but the call-home directory.
///
/// So these are absent. Engine: the races of `docker cp`, which need a root that can be written.
/// containerd: faults of its Kubernetes interface and of containers in the host's network. runc:
/// checkpoints. Kernel: all that takes a user namespace, AF_ALG (CVE-2026-31431), AF_RXRPC
/// (CVE-2026-43500), AF_RDS, AF_VSOCK, `io_uring`, priority-inheriting futexes (CVE-2026-43499) or
/// `pidfd_getfd` (CVE-2026-46333): `config/seccomp.json` refuses them.
const ADVISORIES: [Advisory; 8] = [
    Advisory {
        component: Component::Runc,
        cves: &["CVE-2024-21626"],
        effect: ESCAPE,
        since: "1.0.0-rc93",
        fixed: &["1.1.12"],
    },
    Advisory {
        component: Component::Runc,
        cves: &["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"],
        effect: ESCAPE,
        since: "0",
        fixed: &["1.2.8", "1.3.3", "1.4.0-rc.3"],
    },
    // Functions do not shape the root of their image, but whoever makes the base image does.
    Advisory {
        component: Component::Runc,
        cves: &["CVE-2026-41579"],
        effect: "limited writes to the host by a malicious base image",
        since: "0",
        fixed: &["1.3.6", "1.4.3", "1.5.0-rc.3"],
    },
    // Dirty Pipe. sendfile is a way to it as well as splice.
    Advisory {
        component: Component::Kernel,
        cves: &["CVE-2022-0847"],
        effect: ESCAPE,
        since: "5.8",
        fixed: &["5.10.102", "5.15.25", "5.16.11"],
    },
    // StackRot.
    Advisory {
        component: Component::Kernel,
        cves: &["CVE-2023-3269"],
        effect: ESCAPE,
        since: "6.1",
        fixed: &["6.1.37", "6.3.11", "6.4.1"],
    },
    // Out-of-band data on Unix sockets.
    Advisory {
        component: Component::Kernel,
        cves: &["CVE-2025-38236"],
        effect: ESCAPE,
        since: "5.15",
        fixed: &["5.15.194", "6.1.143", "6.6.96", "6.12.36", "6.15.5"],
    },
    // Bad Epoll; a fix of another fault brought it to 6.1 later.
    Advisory {
        component: Component::Kernel,
        cves: &["CVE-2026-46242"],
        effect: ESCAPE,
        since: "6.4",
        fixed: &["6.6.144", "6.12.95", "6.18.33", "7.0.10"],
    },
    Advisory {
        component: Component::Kernel,
        cves: &["CVE-2026-46242"],
        effect: ESCAPE,
        since: "6.1.175",
        fixed: &["6.1.178"],
    },
];

/// What these versions are known to be open to. A version that cannot be read, or that says nothing
/// about fixes, gives no warning.
pub fn warnings(versions: &Versions) -> Vec<Warning> {
    ADVISORIES.iter().filter_map(|advisory| advisory.warning(versions)).collect()
}

impl Advisory {
    fn warning(&self, versions: &Versions) -> Option<Warning> {
        let given = versions.of(self.component)?;
        let version = match self.component {
            Component::Kernel => Version::of_kernel(given)?,
            _ => Version::parse(given)?,
        };
        let fixed: Vec<Version> =
            self.fixed.iter().filter_map(|text| Version::parse(text)).collect();
        let last = fixed.last()?;
        let own = fixed.iter().find(|fix| fix.branch() == version.branch());
        if version < Version::parse(self.since)? || version >= *own.unwrap_or(last) {
            return None;
        }
        let upgrades = match own {
            Some(own) => vec![own.to_string()],
            None => fixed.iter().filter(|fix| **fix > version).map(Version::to_string).collect(),
        };
        Some(Warning {
            component: self.component,
            version: given.to_owned(),
            cves: self.cves,
            effect: self.effect,
            fixed: upgrades,
        })
    }
}

impl Versions {
    fn of(&self, component: Component) -> Option<&str> {
        match component {
            Component::Engine => self.engine.as_deref(),
            Component::Containerd => self.containerd.as_deref(),
            Component::Runc => self.runc.as_deref(),
            Component::Kernel => Some(&self.kernel),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Engine => "Docker Engine",
            Self::Containerd => "containerd",
            Self::Runc => "runc",
            Self::Kernel => "Linux",
        })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { component, version, effect, .. } = self;
        let are = if self.cves.len() == 1 { "is" } else { "are" };
        write!(
            f,
            "{component} {version}: {} ({effect}) {are} fixed in {}: upgrade {component}{} (a \
             distribution may have put the fix into an older version: see its security tracker)",
            self.cves.join(", "),
            listed(&self.fixed),
            if *component == Component::Kernel { " and reboot" } else { "" },
        )
    }
}

/// `a`, `a and b`, `a, b and c`.
fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [word] => word.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Three numbers, and the number of the release candidate when it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    numbers: [u32; 3],
    candidate: Option<u32>,
}

impl Version {
    /// Reads `1.2`, `v1.7.27`, `1.1.5+ds1-1+deb12u1`, `1.2.0-rc.1`, `5:20.10.24~3-0~debian`. What
    /// follows the numbers counts only when it is a candidate's.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.split_once(':').map_or(text, |(_epoch, rest)| rest);
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut numbers = [0; 3];
        let mut rest = text;
        for (place, number) in numbers.iter_mut().enumerate() {
            let start = if place == 0 { Some(rest) } else { rest.strip_prefix('.') };
            let Some((value, after)) = start.and_then(leading_number) else {
                if place == 0 {
                    return None;
                }
                break;
            };
            (*number, rest) = (value, after);
        }
        let tail = rest.strip_prefix(['-', '~']).unwrap_or(rest);
        let candidate = tail.strip_prefix("rc").map(|number| {
            let number = number.strip_prefix('.').unwrap_or(number);
            leading_number(number).map_or(0, |(value, _)| value)
        });
        Some(Self { numbers, candidate })
    }

    /// Reads a kernel's release when it tells the patch level. Many distributions stay at one
    /// release of a branch, mostly its first, and put fixes into it under numbers of their own:
    /// `5.15.0-91-generic`, `6.1.0-18-amd64`, `5.14.0-427.el9.x86_64`, `5.14.21-150500.55-default`.
    fn of_kernel(release: &str) -> Option<Self> {
        let version = Self::parse(release)?;
        let numbered_otherwise = version.numbers[2] == 0
            && version.candidate.is_none()
            && release.contains(['-', '+', '~']);
        (!numbered_otherwise && !release.ends_with("-default")).then_some(version)
    }

    fn branch(&self) -> [u32; 2] {
        [self.numbers[0], self.numbers[1]]
    }
}

/// A candidate comes before its release.
impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |version: &Self| (version.numbers, version.candidate.unwrap_or(u32::MAX));
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The release, also for a candidate: what a candidate has, its release has too.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// The number that a text begins with, and the rest.
fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests;
