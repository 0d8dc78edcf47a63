//! What machines ask.

pub(crate) mod grub_config;
pub(crate) mod host_segment;
pub(crate) mod kernel_logs;
pub(crate) mod leases;
pub(crate) mod seen;
pub(crate) mod stages;
pub(crate) mod words;
