//! What machines ask: addresses, configurations, secrets; and what they tell.

mod candidates;
mod captures;
mod foreign_dhcp;
mod further_disks;
mod grub_config;
mod hardware;
mod host_segment;
mod kernel_logs;
mod leases;
mod memory_test;
mod seen;
mod site_files;
mod ssh_key;
mod stages;
mod words;

pub use captures::Capturing;
pub use grub_config::LoaderConfig;
pub use host_segment::Link;
pub use memory_test::{has_memory_test, memory_test};
pub use stages::NewStage;
pub use words::{Belief, Heard};
