//! The nouns of Bootlace and the decision which machine boots what, and why.
//!
//! Pure: sites and addresses go in, plans and texts come out. Knows no protocol.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod as_text;
mod boot;
mod boot_file;
mod capture;
mod disk_id;
mod disk_meant;
mod disk_owner;
mod edit;
mod export;
mod finding;
mod grub;
mod identity;
mod image;
mod ipxe;
mod kernel_args;
mod loader;
mod loader_ask;
mod loader_script;
mod machine;
mod menu;
mod names;
mod note;
mod people;
mod plan;
mod reach;
mod ring;
mod room;
mod settings;
mod site;
mod site_disk;
mod site_file;
mod size;
mod snapshot;
mod template;
mod tried;
mod uuid;
mod write_mode;

pub use boot::{ASK_AGAIN, Boot, BootId, StageEvent};
pub use boot_file::{BootFile, BootPart, NotABootFile};
pub use capture::Capture;
pub use disk_id::{BadDiskId, DiskId};
pub use disk_meant::{DiskFound, DiskMeant};
pub use disk_owner::DiskOwner;
pub use edit::Edit;
pub use export::{
    Admit, Descriptors, DiskReport, Exchange, ExportCounters, ExportOrder, ExportSpec,
    ExportStatus, HostCount, KeptDisk, NbdRefusals, Space, Stall, StallVerb, StorageHealth,
    StoragePath, StorageStarter, Times,
};
pub use finding::{Finding, FindingKind, Level, Passes, Subject};
pub use grub::{
    ENTRY_PATH, Fetch, MEDIUM_VARIABLE, SIGNED_ENTRY_PATHS, entry_cfg, grub_cfg, grub_waits,
};
pub use identity::{BootIdentity, MachineIdentity, NoIdentity};
pub use image::{Follows, ImageChoice, ImageVersion, VersionNumber, VersionState};
pub use initcfg::{
    BadRootUrl, CaptureEnd, CaptureOrder, Claim, DiskKey, DiskName, DiskPurpose, DiskTag,
    DiskWrites, FURTHER_DISKS_MAX, FileSystem, FurtherDisk, LogicalVolumeName, NO_ROOM_YET, Nonce,
    ParseChoiceError, RootKind, RootUrl, SECRET_SUFFIX, SecureBoot, Stage, ZramPercent,
    disk_folder, iscsi_initiator,
};
pub use ipxe::{IPXE_ENTRY_PATH, entry_ipxe, ipxe_waits};
pub use kernel_args::KernelArgs;
pub use loader::{
    Asker, IPXE_FILES, Loader, LoaderChoice, LoaderFamily, LoaderRule, SHIM_ARM64_FILE, SHIM_FILE,
    SIGNED_GRUB_ARM64_FILE, SIGNED_GRUB_FILE, SignedLoader, choose_loader, last_loader_file,
    loader_detail,
};
pub use loader_ask::{IPXE_FOLDER, LoaderAsk, LoaderClaim, MACHINE_PATH, MEMORY_TEST_FOLDER};
pub use loader_script::loader_script;
pub use machine::{Machine, ShelfSlot};
pub use menu::{BadMenu, BootChoice, MEMORY_TEST, Menu, MenuItem, OWN_DISK, ShownMenu, Strangers};
pub use names::{ImageName, InvalidName, MachineName, RoomName, Tag, UserName};
pub use note::{NOTE_MAX, does_something, is_note, one_line};
pub use people::{Right, Role};
pub use plan::{BootPlan, Network, Plan, Waiting, plan};
pub use reach::{BadHours, Hours, Reach, Rooms, WeekTime};
pub use ring::{
    RING_BOOTS_WANTED, Ring, RingBoot, RingEnd, RingNext, RingOutcome, RingProgress, median,
};
pub use room::{Room, Seat};
pub use settings::{Origin, Origins, Setting, Settings, present};
pub use site::{AddressPool, Seen, Site};
pub use site_disk::{DiskWhat, DisksClash, SiteDisk, check_disks, disks_of, disks_of_room};
pub use site_file::{
    BadFileSetting, FileMode, FileOwner, FilesOf, SiteFile, SiteFileKind, what_counts,
};
pub use size::{Size, binary_size};
pub use snapshot::{
    RollbackOrder, Snapshot, SnapshotFile, SnapshotFiles, SnapshotInfo, SnapshotKind, SnapshotList,
    SnapshotOrder, SnapshotPath,
};
pub use template::{BadTemplate, Placeholder, VALUE_MAX, fill_template};
pub use tried::{
    DOCTOR_AOE_MACHINE, DOCTOR_MACHINE, TRY_MACHINE, is_tried_mac, is_tried_name, tried_mac,
};
pub use uuid::is_real_uuid;
pub use wire::{Architecture, Firmware, Lease};
pub use write_mode::WriteMode;
