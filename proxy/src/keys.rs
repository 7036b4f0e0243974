//! `grid keys`: rotates the keys of environment variables through the admin API.

use std::{thread, time::Duration};

use control::config::{Config, KeysCommand};
use http::{Method, StatusCode};

use crate::admin::{AdminClient, Result};

const ROTATE: &str = "/api/v1/keys/rotate/";
/// How often a rotation that takes long is asked for its end.
const PACE: Duration = Duration::from_secs(1);

/// Runs one of the commands, to its end.
pub(crate) fn run(config: &Config, command: KeysCommand) -> Result<()> {
    match command {
        KeysCommand::Rotate => rotate(&AdminClient::open(config)?),
    }
}

fn rotate(client: &AdminClient) -> Result<()> {
    let (mut status, mut answer) = client.call(Method::POST, ROTATE, None)?;
    while answer["state"] == "running" {
        thread::sleep(PACE);
        (status, answer) = client.call(Method::GET, ROTATE, None)?;
    }
    match (status, answer["state"].as_str(), answer["detail"].as_str()) {
        (StatusCode::OK, Some("done"), Some(detail)) => {
            println!("{detail}");
            Ok(())
        }
        // It was told how it went, and that is not well.
        (StatusCode::OK, ..) => Err(client.refused(StatusCode::INTERNAL_SERVER_ERROR, &answer)),
        _ => Err(client.refused(status, &answer)),
    }
}
