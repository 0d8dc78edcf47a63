//! What a loader reads that asks for its machine's configuration.

use crate::ipxe::ipxe_script;
use crate::{Fetch, Network, Plan, grub_cfg};
use alloc::string::String;

/// What the loader of one machine reads, in its own language.
pub fn loader_script(plan: &Plan, network: &Network, fetch: Fetch) -> String {
    match fetch {
        Fetch::Itself | Fetch::ByFirmware => grub_cfg(plan, network, fetch),
        Fetch::ByIpxe => ipxe_script(plan, network),
    }
}
