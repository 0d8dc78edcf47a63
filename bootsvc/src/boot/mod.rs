//! What a machine asks of the boot server until its system runs: an address, files, and an ear for its reports.

pub(crate) mod dhcp;
mod dhcp_silence;
mod doorkeeper;
mod elsewhere;
mod file_cache;
pub(crate) mod files;
pub(crate) mod foreign_dhcp;
pub(crate) mod grub_images;
pub(crate) mod http;
pub(crate) mod ipxe_loaders;
pub(crate) mod link;
mod offers;
pub(crate) mod other_dhcp;
mod probes;
pub(crate) mod reports;
pub(crate) mod router_solicitations;
pub(crate) mod signed_loader;
pub(crate) mod tftp;
pub(crate) mod trials;
