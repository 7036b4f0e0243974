//! The rights beyond an ordinary user's that Grid needs: to set up the network of the functions, and to
//! answer their DNS. Root has them. Others get them from systemd (`AmbientCapabilities`), or from the program file
//! (`setcap cap_net_admin,cap_net_bind_service=ep grid`), and then they have to be passed on: to
//! `nft` and `ip`, and to the process that replaces this one, whose program file may lack them.

use caps::{CapSet, Capability, errors::CapsError};

/// Lets the programs that Grid runs have these rights, where Grid itself has them.
pub(crate) fn pass_on() {
    let passed = || -> Result<(), CapsError> {
        for right in [Capability::CAP_NET_ADMIN, Capability::CAP_NET_BIND_SERVICE] {
            if caps::has_cap(None, CapSet::Permitted, right)? {
                caps::raise(None, CapSet::Inheritable, right)?;
                caps::raise(None, CapSet::Ambient, right)?;
            }
        }
        Ok(())
    };
    // Without it the firewall says what is missing.
    if let Err(error) = passed() {
        tracing::debug!(%error, "the right to set up networks is not passed on");
    }
}
