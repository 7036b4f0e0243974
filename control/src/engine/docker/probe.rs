//! A command in a container of its own: how Grid tries out what a function could do.

use bollard::query_parameters::{LogsOptionsBuilder, WaitContainerOptions};
use futures_util::{StreamExt, TryStreamExt};

use super::{Docker, call, container::shut_in};
use crate::{
    engine::{Probe, label},
    error::{Error, Result},
    limits,
};

impl Docker {
    pub(super) async fn run_probe(&self, probe: &Probe) -> Result<String> {
        // One at a time: what an earlier one left, after a crash, goes first.
        let name = format!("grid-{}-probe", probe.instance);
        self.remove_by_name(&name).await?;
        let outcome = tokio::time::timeout(probe.within, self.run_to_end(&name, probe)).await;
        self.remove_by_name(&name).await?;
        outcome.unwrap_or_else(|_| {
            Err(Error::Engine {
                operation: "run container",
                subject: name,
                reason: format!("not at its end after {} s", probe.within.as_secs()),
            })
        })
    }

    async fn run_to_end(&self, name: &str, probe: &Probe) -> Result<String> {
        let mut body = shut_in(&probe.sandbox);
        body.cmd = Some(probe.command.clone());
        body.labels = Some(
            [(label::MANAGED, "true".to_owned()), (label::INSTANCE, probe.instance.to_string())]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
        );
        self.create_and_start(name, body).await?;
        // With which status it ends is its own matter.
        let mut end = self.client()?.wait_container(name, None::<WaitContainerOptions>);
        let _ = end.next().await;
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
        let frames = self.client()?.logs(name, Some(options)).try_collect::<Vec<_>>();
        let frames = call("read output of", name, limits::ENGINE_CALL, frames).await?;
        let bytes: Vec<u8> = frames.into_iter().flat_map(|frame| frame.into_bytes()).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
