//! What people ask: machines, images, orders, and how all of that is.

mod alerts;
mod building;
mod captures;
mod discovered;
mod disk_deletions;
mod edits;
mod exports;
mod findings;
mod hardware;
mod harms;
mod images;
mod incoming;
mod jobs;
mod kept_disks;
mod kernel_logs;
mod leases;
mod machine_state;
mod machine_view;
mod machines;
mod obstacle;
mod power;
mod preview;
mod releases;
mod rescue;
mod rings;
mod rooms;
mod run;
mod screens;
mod site_disks;
mod site_files;
mod site_status;
mod snapshots;
mod state_copy;
mod streams;
mod tried;
mod viewer;

pub use building::NewBuild;
pub use captures::{CaptureView, NewCapture};
pub use discovered::Discovered;
pub use edits::{EditView, NewEdit, Publication, snapshot_changes};
pub use harms::{LaidFile, LaidOver, NotChecked, VersionHarms};
pub use images::{DamagedVersion, image_modules};
pub use incoming::{NewImport, Receiving};
pub use kept_disks::WrittenDisk;
pub use leases::{
    FixWish, Fixed, Freed, ImportedLease, ImportedLeases, LeaseKind, LeaseView, LeftOutLease,
    ReservedIn,
};
pub use machine_state::{MachineState, StateWord};
pub use machine_view::{MachineView, Nic};
pub use machines::MachineChange;
pub use preview::Preview;
pub use releases::{Released, VersionChanges};
pub use rescue::Rescue;
pub use rings::RingView;
pub use rooms::{RoomChange, RoomView, SettingsChange};
pub use site_disks::{KeptBeside, MachineDisk, NewDisk};
pub use site_files::{FileRead, LaidAt, NewFile};
pub use site_status::Status;
pub use streams::{Arrived, Offer, ReceivingStream, SendingStream, Wanted};
