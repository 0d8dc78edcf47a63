//! Where bits live: image versions, write layers of machines, and import of foreign disk images.

mod archive;
mod base;
mod block;
mod boot_header;
mod browse;
mod cached;
mod container;
mod copy;
mod digest;
mod disk_file;
mod entry;
mod error;
mod export;
mod ext4;
mod fat;
mod file_changes;
mod filter;
mod flush;
mod folder;
mod fsck;
mod harm;
mod import;
mod kernel;
mod layer;
mod lease;
mod logical;
mod memory;
mod new_root;
mod opened;
mod packages;
mod partitions;
mod progress;
mod qemu_img;
mod raw;
mod recipe;
mod rootfs;
mod small_file;
mod source;
mod sparse;
mod stop;
mod store;
mod stream;
mod system;
mod tethered;
mod volumes;

pub use base::Base;
pub use block::{Block, Extent, Zeroes};
pub use boot_header::{BootHeader, NotBootable, is_signed, kernel_version};
pub use browse::open_files;
pub use container::{Container, Unfit, inspect};
pub use disk_file::{DiskFile, Durability};
pub use entry::{Entry, EntryKind};
pub use error::{ImportError, RootfsError, StoreError};
pub use export::{ExportError, ExportFormat, ExportTo};
pub use file_changes::{FileChange, FileChanges, file_changes};
pub use filter::Filter;
pub use folder::space;
pub use harm::{CHECKS, Check, FixChoice, Harm, Look, Severity, look_at_files};
pub use import::{ChangedDisk, DISK_BYTES, DiskCopy, EmptyDisk, Import, ImportRequest, ToMount};
pub use layer::{
    About, BadHeader, Change, Expected, ForBoot, Header, LastUse, LayerError, LayerMode, Layers,
    Merged, NoRoom, OtherCopy, OtherOwner, OwnerUnknown, SnapshotDisk, Tree, WriteLayer,
};
pub use logical::Logical;
pub use memory::Memory;
pub use opened::Source;
pub use packages::{
    PackageChange, Packages, package_changes, packages, parse_packages, parse_rpm_database,
};
pub use progress::{Progress, Step};
pub use raw::RawFile;
pub use recipe::{Parameter, Recipe, RecipeError};
pub use rootfs::{FileReader, Looked, Rootfs};
pub use small_file::read_small;
pub use source::{Format, HEAD_BYTES_MAX, NotImported, detect};
pub use stop::Stop;
pub use store::{Store, Verified, VerifyError, VersionTrouble};
pub use stream::{
    ReceiveRequest, Received, SendRequest, Sent, StreamAbout, StreamError, about_stream,
    check_stream, write_changes,
};
pub use volumes::{Content, Volume, find_volumes};
