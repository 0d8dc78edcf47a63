//! Virtual LANs with PCs that boot over them, for the system tests, the demo and the benchmarks.
//!
//! Everything lives in a network namespace of its own and ends with the value that stands for it:
//! PCs and servers are killed by their process id, then the namespace is removed. Should this
//! process be killed itself, the kernel ends its children, and the next run removes the namespace.

mod arm64;
mod by_hand;
mod command;
mod console;
mod container;
mod daemon;
mod dhcp_client;
mod foreign;
mod guest;
mod http;
mod image;
mod installed;
mod knocker;
mod lan;
mod lock;
mod netns;
mod other_dhcp;
mod packages;
mod pc;
mod pc_slots;
mod picture;
mod pki;
mod preboot;
mod qmp;
mod recipes;
mod require;
mod signed_loader;
mod site;
mod small_disk;
mod tap;
mod vlan;
mod vmlinux;
mod wire;

pub use arm64::Arm64;
pub use command::{run, run_with_line, text_of};
pub use console::Console;
pub use container::Container;
pub use daemon::Daemon;
pub use dhcp_client::{DhcpClient, DhcpHost};
pub use foreign::{ISCSI_LUN, ISCSI_TARGET, IscsiTarget, NFS_FOLDER, NfsServer};
pub use guest::Guest;
pub use http::{Answer, Browser};
pub use image::{Init, Recipe, Release, copy_with, marked_copy};
pub use installed::{Installed, UNITS};
pub use knocker::{Knocked, Knocker};
pub use lan::{Client, Lan, SERVER, SERVER_PREFIX};
pub use lock::Lock;
pub use netns::Netns;
pub use other_dhcp::{DhcpServer, OtherDhcp};
pub use packages::{BUILD, LAB, PACKAGING, Package, install};
pub use pc::{Firmware, Pc, PcBuilder};
pub use pc_slots::PcSlots;
pub use picture::Picture;
pub use pki::Authority;
pub use preboot::{Kernel, Preboot, Started};
pub use qmp::Qmp;
pub use require::{INSTALL_ARM64_TARGET, Need, require};
pub use signed_loader::signed_loader;
pub use site::{FAKETIME, SERVERS_UID, Site, SiteBuilder, StageLine, bootlace_binary};
pub use small_disk::SmallDisk;
pub use vlan::VlanSwitch;
pub use wire::{BreaksAfter, Quality, Wire};
