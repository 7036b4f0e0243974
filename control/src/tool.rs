//! Programs of the system that Grid runs (`nft`, `ip`): found, bounded, and with errors that say
//! what to do.

use std::{process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command};

use crate::error::{Error, Result};

/// No call of ours takes longer unless the machine is stuck.
const BOUND: Duration = Duration::from_secs(10);

/// A program, the package that it comes in, and where else than on the path it may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    name: &'static str,
    package: &'static str,
}

/// Packet filter rules.
pub(crate) const NFT: Tool = Tool { name: "nft", package: "nftables" };
/// Links, addresses, routes.
pub(crate) const IP: Tool = Tool { name: "ip", package: "iproute2" };

impl Tool {
    /// Runs it and gives its output.
    ///
    /// # Errors
    /// `Tool` when it is missing, takes too long, or ends with another status than 0; then with
    /// what it wrote to standard error.
    pub(crate) async fn run(self, args: &[&str], input: &str) -> Result<String> {
        let work = async {
            let mut child = self.command(args).spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // A program that ends early says why on standard error.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = match tokio::time::timeout(BOUND, work).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(self.missing(&error)),
            Err(_) => return Err(self.error(format!("no answer within {} s", BOUND.as_secs()))),
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(self.error(explain(&String::from_utf8_lossy(&output.stderr))))
    }

    /// The command with its streams ready; ends when its handle is dropped.
    pub(crate) fn command(self, args: &[&str]) -> Command {
        let mut command = Command::new(self.name);
        // On many systems these programs are not on the path of ordinary users.
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(args)
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// The error for a program that could not be started.
    pub(crate) fn missing(self, error: &std::io::Error) -> Error {
        if error.kind() == std::io::ErrorKind::NotFound {
            return self.error(format!("is not installed: install the package {}", self.package));
        }
        self.error(error.to_string())
    }

    /// An error of this program.
    pub(crate) fn error(self, reason: impl Into<String>) -> Error {
        Error::Tool { name: self.name, reason: reason.into() }
    }
}

/// The first lines of what went wrong, with what to do about a missing right.
pub(crate) fn explain(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = lines.iter().take(2).copied().collect::<Vec<_>>().join(" ");
    let said = if said.is_empty() { "failed without a word".to_owned() } else { said };
    if said.contains("not permitted") || said.contains("Permission denied") {
        return format!(
            "{said} (it takes root, or the capability CAP_NET_ADMIN: see docs/security.md)"
        );
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: Tool = Tool { name: "no-such-program-of-grid", package: "some-package" };
    const FALSE: Tool = Tool { name: "false", package: "coreutils" };
    const CAT: Tool = Tool { name: "cat", package: "coreutils" };

    #[tokio::test]
    async fn a_missing_program_names_its_package() {
        let error = MISSING.run(&[], "").await.expect_err("missing").to_string();
        assert!(error.contains("install the package some-package"), "{error}");
    }

    #[tokio::test]
    async fn input_output_and_status() {
        assert_eq!(CAT.run(&[], "text").await.expect("runs"), "text");
        assert!(FALSE.run(&[], "text").await.is_err());
        let error = CAT.run(&["/nonexistent"], "").await.expect_err("no file").to_string();
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_missing_right_is_explained() {
        assert!(explain("Error: Operation not permitted\n").contains("CAP_NET_ADMIN"));
    }
}
