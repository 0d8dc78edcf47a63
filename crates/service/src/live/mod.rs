//! What is forgotten at a restart: plain structs, which know neither the service nor the database.

mod address_pool;
mod alerts;
mod boot_times;
mod certificates;
mod disk_deletions;
mod exports;
mod findings;
mod heartbeats;
mod image_troubles;
mod keepers;
mod lease_clock;
mod login_codes;
mod refused;
mod traffic;
mod waits;

pub(crate) use address_pool::LastPool;
pub(crate) use alerts::Alerts;
pub use alerts::{Alert, AlertCount, AlertItem};
pub(crate) use boot_times::BootTimes;
pub use boot_times::StageTimes;
pub use certificates::Certificate;
pub(crate) use certificates::Certificates;
pub(crate) use disk_deletions::DiskDeletions;
pub(crate) use exports::{Answer, Exports};
pub use findings::FindingCount;
pub(crate) use findings::{Findings, Held, News};
pub use heartbeats::Life;
pub(crate) use heartbeats::{Heartbeat, Heartbeats};
pub(crate) use image_troubles::ImageTroubles;
pub(crate) use keepers::{Keepers, Presence};
pub(crate) use lease_clock::LeaseClock;
pub(crate) use login_codes::LoginCodes;
pub(crate) use refused::Refused;
pub use traffic::{Refusals, Traffic, Transfers};
pub(crate) use waits::{Wait, Waits, WaitsIn};
