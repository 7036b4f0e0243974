//! What the `grid` binary does: reads what it is asked for, does it, and says plainly when it cannot.

mod access_log;
mod address;
mod admin;
mod admit;
mod background;
mod backup;
#[doc(hidden)]
pub mod bench;
mod bound;
mod chunked;
mod client;
mod connections;
mod date;
mod denial;
mod door;
mod edge;
mod exchange;
mod fields;
mod files;
mod flow;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod gateway;
mod head;
mod home;
mod hop;
mod http1;
mod http2;
mod keys;
mod line;
mod link;
mod listen;
mod metrics;
#[cfg(test)]
mod model;
mod observe;
mod origin;
mod pool;
mod privilege;
mod proxy_protocol;
mod rate;
mod request;
mod respond;
mod room;
mod route;
mod serve;
mod sockets;
mod spans;
mod stages;
mod stop;
mod tls;
mod tokens;
mod trace;
mod traffic;
mod upgrade;
#[cfg(test)]
mod wire;

use std::process::ExitCode;

use control::{
    api::{self, ApiLimits},
    config::{self, Command, Config, StoreCommand},
    doctor,
    runtime::Runtimes,
};

use upgrade::predecessor::Inherited;

/// Runs a command line to its end.
pub fn main() -> ExitCode {
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => {
            eprintln!("grid: {error}");
            return ExitCode::from(2);
        }
    };
    let predecessor = inherited.predecessor.clone();
    let say = |error: &dyn std::fmt::Display| {
        eprintln!("grid: {error}");
        if let Some(predecessor) = &predecessor {
            predecessor.fail(&error.to_string());
        }
    };
    let command = match config::from_process() {
        Ok(command) => command,
        Err(error) => {
            say(&error);
            return ExitCode::from(2);
        }
    };
    // Before there are threads: rights belong to each of them.
    privilege::pass_on();
    let outcome = match command {
        Command::Show(text) => {
            print!("{text}");
            Ok(())
        }
        Command::Serve(config) => serve::run(&config, inherited),
        Command::OpenApi(config) => contract(&config).map(|contract| println!("{contract}")),
        Command::Upgrade(config) => upgrade::ask(&config).map(|done| println!("{done}")),
        Command::Token(config, command) => {
            show_warnings();
            tokens::run(&config, &command).map_err(Into::into)
        }
        Command::Keys(config, command) => {
            show_warnings();
            keys::run(&config, command).map_err(Into::into)
        }
        Command::Backup(config, path) => {
            show_warnings();
            backup::make(&config, &path).map_err(Into::into)
        }
        Command::Restore(config, path) => {
            show_warnings();
            backup::restore(&config, &path).map_err(Into::into)
        }
        Command::Store(config, StoreCommand::Migrate { to }) => {
            show_warnings();
            backup::migrate(&config, to).map_err(Into::into)
        }
        Command::Doctor(config) => match examine(&config) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

/// The admin API's contract under these settings.
fn contract(config: &Config) -> Result<String, Box<dyn std::error::Error>> {
    let runtimes: Vec<String> =
        Runtimes::load(config.share_dir())?.iter().map(|runtime| runtime.name.clone()).collect();
    Ok(api::openapi(&api::Rules {
        runtimes: &runtimes,
        oci_runtimes: &config.oci_runtimes,
        limits: ApiLimits { code_bytes: config.code_bytes },
    }))
}

/// Of a command that works for a moment: what it does in the end, it says itself.
fn show_warnings() {
    let warnings = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
    // Fails when somebody else shows them.
    let _ = warnings.with_target(false).with_writer(std::io::stderr).try_init();
}

/// `grid doctor`: a line for each finding.
fn examine(config: &Config) -> Result<bool, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let all_hold = runtime.block_on(doctor::examine(config, |finding| println!("{finding}")))?;
    let verdict = if all_hold {
        "Everything that was tried is as docs/security.md promises."
    } else {
        "Functions are not contained on this machine as docs/security.md promises."
    };
    println!("{verdict}");
    Ok(all_hold)
}
