//! The `grid` binary: reads what it is asked for, does it, and says plainly when it cannot.

mod admit;
mod background;
mod denial;
mod edge;
mod exchange;
mod gateway;
mod home;
mod listen;
mod pool;
mod respond;
mod route;
mod serve;
mod stop;

use std::process::ExitCode;

use control::config::{self, Command};

fn main() -> ExitCode {
    let command = match config::from_process() {
        Ok(command) => command,
        Err(error) => {
            eprintln!("grid: {error}");
            return ExitCode::from(2);
        }
    };
    let outcome = match command {
        Command::Show(text) => {
            print!("{text}");
            Ok(())
        }
        Command::Serve(config) => serve::run(&config),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("grid: {error}");
            ExitCode::FAILURE
        }
    }
}
