//! The one door to a site: use cases, durable state, and what the boot path may read without waiting.
//!
//! Pages, command line and the boot server's sockets all go through [`Service`]. Several processes may
//! open the same state at once: SQLite arbitrates, and each sees the changes of the others within a
//! second.
#![forbid(unsafe_code)]

mod boots;
mod control;
mod database;
mod error;
mod fitted;
mod hardware;
mod heartbeats;
mod host_segment;
mod imports;
mod initrd_files;
mod initrds;
mod kernel_logs;
mod leases;
mod loader;
mod machines;
mod module_source;
mod options;
mod rescue;
mod rows;
mod schema;
mod seen;
mod service;
mod state;
mod status;
mod storage_client;
mod view;

#[cfg(test)]
mod tests;

pub use crate::boots::NewStage;
pub use crate::control::PowerState;
pub use crate::error::Error;
pub use crate::hardware::Hardware;
pub use crate::heartbeats::Life;
pub use crate::imports::Imported;
pub use crate::initrd_files::InitrdFile;
pub use crate::initrds::InitrdState;
pub use crate::kernel_logs::KernelLog;
pub use crate::loader::LoaderConfig;
pub use crate::machines::MachineChange;
pub use crate::options::{INIT, INIT_TLS, Options, find_init};
pub use crate::rescue::Rescue;
pub use crate::seen::Sighting;
pub use crate::service::Service;
pub use crate::state::{MachineState, StateWord, machine_state};
pub use crate::status::{Attention, MachineView, Preview, Status};
pub use crate::storage_client::StorageError;
pub use images::{ImportError, ImportRequest, Progress, Step};
pub use initcfg::{PowerVerb, UnknownVerb, failure_code};
