//! The seccomp profile of `config/seccomp.json`: the system calls that a function's container has.

use std::{collections::BTreeSet, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// Where the profile is, below the share directory.
const FILE: &str = "config/seccomp.json";

/// Without these no container starts.
const VITAL: [&str; 3] = ["execve", "exit_group", "mmap"];

/// A profile that Docker Engine takes, small and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile(String);

/// Docker's format. A field that it does not have is an error here: the engine would overlook a
/// misspelled `args`, and the rule would then allow the call whatever its arguments are.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    default_action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u32>,
    arch_map: Vec<Architecture>,
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Architecture {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    /// For people: the engine keeps the profile with every container, so it does not get this.
    #[serde(rename = "comment", default, skip_serializing)]
    _comment: Option<String>,
    names: Vec<String>,
    action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    /// All of them must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    args: Vec<Argument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    includes: Option<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    excludes: Option<Condition>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Comparison,
}

/// When a rule counts.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    caps: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arches: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_kernel: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    Kill,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
enum Comparison {
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// `argument & value == value_two`.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

impl Profile {
    /// Reads and checks `<share_dir>/config/seccomp.json`.
    ///
    /// # Errors
    /// One line that names the file and the field or the place in it.
    pub fn load(share_dir: &Path) -> Result<Self, ConfigError> {
        let path = share_dir.join(FILE);
        let refuse = |why: String| ConfigError::new(format!("{}: {why}", path.display()));
        let text = fs::read_to_string(&path).map_err(|e| refuse(e.to_string()))?;
        let file: File = serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))?;
        file.check().map_err(refuse)?;
        serde_json::to_string(&file).map(Self).map_err(|e| refuse(e.to_string()))
    }

    /// The profile as an entry of a container's security options.
    pub fn security_opt(&self) -> String {
        format!("seccomp={}", self.0)
    }
}

impl File {
    /// What is wrong, beginning with the field.
    fn check(&self) -> Result<(), String> {
        match self.default_action {
            Action::Errno | Action::Kill | Action::KillProcess => {}
            Action::Allow | Action::Log | Action::Trace | Action::Trap => {
                return Err("defaultAction: must be SCMP_ACT_ERRNO, SCMP_ACT_KILL or \
                            SCMP_ACT_KILL_PROCESS, so that a call that no rule names is refused"
                    .to_owned());
            }
        }
        if self.arch_map.is_empty() {
            return Err("archMap: names no architecture".to_owned());
        }
        let mut allowed = BTreeSet::new();
        for (number, rule) in self.syscalls.iter().enumerate() {
            if rule.names.is_empty() {
                return Err(format!("syscalls[{number}].names: names no system call"));
            }
            let mut seen = BTreeSet::new();
            for argument in &rule.args {
                if argument.index > 5 {
                    return Err(format!(
                        "syscalls[{number}].args: a system call has arguments 0 to 5"
                    ));
                }
                // The runtime would take these as alternatives, not as conditions that all hold.
                if !seen.insert(argument.index) {
                    return Err(format!(
                        "syscalls[{number}].args: compares argument {} twice",
                        argument.index
                    ));
                }
            }
            if rule.action == Action::Allow {
                allowed.extend(rule.names.iter().map(String::as_str));
            }
        }
        match VITAL.iter().find(|call| !allowed.contains(**call)) {
            Some(call) => Err(format!("syscalls: no rule allows {call}: no container would start")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
