//! The one right beyond an ordinary user's that Grid needs: to set up the network of the functions.
//! Root has it. Others get it from systemd (`AmbientCapabilities`), or from the program file
//! (`setcap cap_net_admin,cap_net_bind_service=ep grid`), and then it has to be passed on to `nft`
//! and `ip`.

use caps::{CapSet, Capability, errors::CapsError};

/// Lets the programs that Grid runs have the right to set up the network, where Grid itself has it.
pub(crate) fn pass_on() {
    let right = Capability::CAP_NET_ADMIN;
    let passed = || -> Result<(), CapsError> {
        if caps::has_cap(None, CapSet::Permitted, right)? {
            caps::raise(None, CapSet::Inheritable, right)?;
            caps::raise(None, CapSet::Ambient, right)?;
        }
        Ok(())
    };
    // Without it the firewall says what is missing.
    if let Err(error) = passed() {
        tracing::debug!(%error, "the right to set up networks is not passed on");
    }
}
