//! What this machine and the boot server tell each other.

pub(crate) mod files;
pub(crate) mod hardware;
pub(crate) mod host_segment;
pub(crate) mod http;
pub(crate) mod kernel_log;
pub(crate) mod reporter;
mod secure_boot;
pub(crate) mod token;
