//! A test of this binary as a process of its own: to be killed, or to have mounts of its own.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// The directory that the process works in. Without it, it was not started by a test.
const DIR: &str = "GRID_TEST_AGAIN_IN";

/// The directory for a test that is only run as a process of its own; none when somebody runs all
/// tests that are ignored.
pub(super) fn dir() -> Option<std::path::PathBuf> {
    std::env::var_os(DIR).map(Into::into)
}

/// The process that runs an ignored test, with its name in this binary, after the words of `before`.
pub(super) fn process(before: &[&str], test: &str, dir: &Path) -> Command {
    let binary = std::env::current_exe().expect("a test binary");
    let mut words = before.iter().map(std::ffi::OsStr::new).chain([binary.as_os_str()]);
    let mut command = Command::new(words.next().expect("one at least"));
    command.args(words).args(["--exact", test, "--ignored", "--nocapture"]);
    command.env(DIR, dir).stdin(Stdio::null());
    command
}
