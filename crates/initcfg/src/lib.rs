//! The contract between the boot server, the initrd builder and the init inside the initrd:
//! the kernel command line, the report line, and the module index.
//!
//! Text in, values out. Nothing here performs I/O.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod foreign;
mod modules;
mod report;

pub use config::{BootConfig, ConfigError, Root};
pub use foreign::{BadRootUrl, IscsiRoot, NfsRoot, NfsVersion, RootUrl, iscsi_initiator};
pub use modules::{
    INDEX_PATH, IndexError, Load, MODULES_MAX, MODULES_PATH, Module, ModuleIndex, glob_matches,
    module_name,
};
pub use report::{Ack, Heartbeat, REPORT_MAX, Report, ReportError, Stage};

/// Where `init` puts the kernel's log of a failed boot, by HTTP on the boot server's port 80; the number of
/// the boot follows.
pub const KERNEL_LOG_PATH: &str = "/kernel-log/";

/// Longest kernel log in bytes that `init` sends.
pub const KERNEL_LOG_MAX: usize = 60 << 10;

/// UDP port of the boot server on which `init` reports its stages.
pub const REPORT_PORT: u16 = 4915;
