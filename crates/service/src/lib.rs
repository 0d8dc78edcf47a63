//! The one door to a site: use cases, durable state, and what the boot path may read without waiting.
//!
//! Pages, command line and the boot server's sockets all go through [`Service`]. Several processes may
//! open the same state at once: SQLite arbitrates, and each sees the changes of the others within a
//! second.
#![forbid(unsafe_code)]

mod boot;
mod error;
mod fleet;
mod initrds;
mod live;
mod options;
mod service;
mod storage_client;
mod store;

#[cfg(test)]
mod tests;

pub use crate::boot::grub_config::LoaderConfig;
pub use crate::boot::kernel_logs::KernelLog;
pub use crate::boot::seen::Sighting;
pub use crate::boot::stages::NewStage;
pub use crate::boot::words::PowerState;
pub use crate::error::Error;
pub use crate::fleet::images::Imported;
pub use crate::fleet::machines::MachineChange;
pub use crate::fleet::rescue::Rescue;
pub use crate::fleet::state::{MachineState, StateWord, machine_state};
pub use crate::fleet::status::{Attention, MachineView, Preview, Status};
pub use crate::initrds::build::InitrdState;
pub use crate::initrds::files::InitrdFile;
pub use crate::initrds::hardware::Hardware;
pub use crate::live::heartbeats::Life;
pub use crate::options::{INIT, INIT_TLS, Options, find_init};
pub use crate::service::Service;
pub use crate::storage_client::StorageError;
pub use images::{ImportError, ImportRequest, Progress, Step};
pub use initcfg::{PowerVerb, UnknownVerb, failure_code};
