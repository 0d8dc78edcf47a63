//! The one door to a site: use cases, durable state, and what the boot path may read without waiting.
//!
//! Pages, command line and the boot server's sockets all go through [`Service`]. Several processes that open the
//! same state at once lose nothing by it: SQLite arbitrates, and each sees the changes of the others within a second.
//! What is in the memory of one the others don't see, which is why commands ask the boot server.
#![forbid(unsafe_code)]

pub mod backup;
mod boot;
mod clock;
mod commands;
mod error;
mod fleet;
pub mod incoming;
mod initrds;
pub mod jobs;
mod live;
mod loader;
mod options;
mod passwords;
mod people;
pub mod piped;
mod plain_file;
mod service;
mod storage_client;
mod store;

#[cfg(test)]
mod tests;

pub use crate::boot::{
    Belief, Capturing, Heard, Link, LoaderConfig, NewStage, has_memory_test, memory_test,
};
pub use crate::clock::{Clock, Now};
pub use crate::commands::{COMMANDS, Commands};
pub use crate::error::{
    CaptureError, DisksError, EditError, Error, FilesError, LeaseError, RoomError, Unwritable,
    VersionError,
};
pub use crate::fleet::{
    Arrived, CaptureView, DamagedVersion, Discovered, EditView, FileRead, FixWish, Fixed, Freed,
    ImportedLease, ImportedLeases, KeptBeside, LaidAt, LaidFile, LaidOver, LeaseKind, LeaseView,
    LeftOutLease, MachineChange, MachineDisk, MachineState, MachineView, NewBuild, NewCapture,
    NewDisk, NewEdit, NewFile, NewImport, Nic, NotChecked, Offer, Preview, Publication, Receiving,
    ReceivingStream, Released, Rescue, ReservedIn, RingView, RoomChange, RoomView, SendingStream,
    SettingsChange, StateWord, Status, VersionChanges, VersionHarms, Wanted, WrittenDisk,
    image_modules, snapshot_changes,
};
pub use crate::initrds::{InitrdFile, InitrdState};
pub use crate::live::{
    Alert, AlertCount, AlertItem, Certificate, Download, FindingCount, LeaseNews, Life, Refusals,
    StageTimes, TftpPackets, Traffic, Transfers,
};
pub use crate::loader::GivenLoader;
pub use crate::options::{
    AlertOptions, Channel, Directory, DirectoryAnswer, DirectoryAsked, DirectoryGroup,
    DirectoryOptions, DirectoryTrouble, LeasedNetwork, Leasing, LoaderRules, Options, find_init,
    init_name,
};
pub use crate::passwords::check as check_password;
pub use crate::people::{
    AccountKeeper, AccountOwner, Actor, Admin, AuditPage, LOGIN_CODE_STAYS, NewSession, NewToken,
    Operator, SESSION_ENDS, SESSION_IDLE_MAX, Via, Viewer, is_reserved, prepare_restored,
};
pub use crate::plain_file::open_plain;
pub use crate::service::Service;
pub use crate::storage_client::{SnapshotDownload, StorageError};
pub use crate::store::{
    AuditEntry, Expected, FieldChange, Hardware, KernelLog, PowerState, Restored, Session,
    Sighting, Token, User, check_database, copy_database, expected,
};
pub use images::{FixChoice, Harm, Recipe, Severity, StreamError};
pub use initcfg::{PowerVerb, UnknownVerb, failure_code};
