//! The container in which a function's code runs, whoever starts it: what it is given, and how it is
//! shut in.

use crate::{
    context::Context,
    engine::{Attachment, Sandbox},
    error::Result,
    limits,
    service::{Egress, FunctionSpec},
};

/// The network that a function may have, as soon as the firewall is in place.
///
/// # Errors
/// `Firewall` when it is not in time.
pub(crate) async fn network(context: &Context, egress: Egress) -> Result<Option<Attachment>> {
    match egress {
        Egress::Public => context.gate.pass().await.map(Some),
        // What has no network needs no firewall.
        Egress::None => Ok(None),
    }
}

/// A container for a function, with the settings of its runner.
pub(crate) fn of_function(
    context: &Context,
    function: &FunctionSpec,
    image: String,
    network: Option<Attachment>,
) -> Sandbox {
    let least = least(context, image, network);
    Sandbox {
        env: vec![
            format!("GRID_HANDLER={}", function.handler),
            format!("GRID_EVENT_FORMAT={}", function.event_format.as_str()),
            format!("GRID_MEMORY_MB={}", function.memory_mb),
            format!("GRID_TIMEOUT_SECONDS={}", context.settings.function_timeout.as_secs()),
            format!("GRID_MAX_RESPONSE_BYTES={}", context.settings.response_bytes),
        ],
        oci_runtime: function.oci_runtime.clone().or(least.oci_runtime),
        memory_mb: function.memory_mb,
        cpu_shares: function.cpu_shares,
        ..least
    }
}

/// A container of the least size.
pub(crate) fn least(context: &Context, image: String, network: Option<Attachment>) -> Sandbox {
    Sandbox {
        image,
        env: Vec::new(),
        network,
        oci_runtime: context.settings.oci_runtimes.first().cloned(),
        seccomp: context.settings.seccomp.clone(),
        memory_mb: *limits::MEMORY_MB.start(),
        cpu_shares: 1024,
    }
}
