//! The contract between the boot server, the initrd builder and the init inside the initrd:
//! the kernel command line, the host segment, reports and orders, the module index, and what is laid over a root.
//!
//! Text in, values out. Nothing here performs I/O.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod capture;
mod choice;
mod config;
mod disk_name;
mod fault;
mod file_system;
mod files;
mod foreign;
mod further_disk;
mod heartbeat;
mod host;
mod logical_volume;
mod modules;
mod mtu;
mod overlay;
mod power;
mod question;
mod ram;
mod report;
mod rescue;
mod root_kind;
mod secure_boot;
mod stage;
mod storage_network;
mod token;
mod word;
mod zram;

pub use capture::{
    CAPTURE_PATH, CAPTURE_PIECE_MAX, CAPTURE_RANDOM_BYTES, CaptureAbout, CaptureEnd, CaptureError,
    CaptureOpener, CaptureOrder, CaptureProof, CaptureSealer,
};
pub use choice::ParseChoiceError;
pub use config::{BootConfig, ConfigError, NBD_SERVERS_MAX, Root, VLAN_RANGE};
pub use disk_name::{Claim, DiskKey, DiskName, NO_ROOM_YET, Nonce, Proof, SECRET_SUFFIX};
pub use fault::is_images_fault;
pub use file_system::FileSystem;
pub use files::{
    FILES_NONCE_BYTES, FILES_PATH, FILES_SEALED_MAX, FilesAsked, FilesError, open_files, seal_files,
};
pub use foreign::{
    AoeRoot, BadRootUrl, IscsiRoot, NbdRoot, NfsRoot, NfsVersion, OnDisk, RootUrl, iscsi_initiator,
};
pub use further_disk::{
    DiskPurpose, DiskTag, DiskWrites, FURTHER_DISKS_MAX, FurtherDisk, disk_folder, name_on_disk,
};
pub use heartbeat::Heartbeat;
pub use host::{
    HOST_ARCHIVE_PATH, HOST_FILE, HOST_FILE_MARK, HOST_FILE_PATH, HOST_MAX, HostConfig, HostError,
    REBOOT_SECONDS, Replaces, SshHostKey,
};
pub use logical_volume::LogicalVolumeName;
pub use modules::{
    INDEX_PATH, IndexError, Load, MODULES_MAX, MODULES_PATH, Module, ModuleIndex, glob_matches,
    module_name,
};
pub use mtu::MTU_RANGE;
pub use overlay::{
    ContentDigest, LAID_MAX, LAID_NOTE_PATH, Laid, LaidPath, LaidWhat, OVERLAY_MAX, OVERLAY_PATH,
    OnlyIf, Overlay, OverlayError, content_digest,
};
pub use power::{Obedience, PowerOrder, PowerVerb, UnknownVerb, failure_code};
pub use question::{Answer, Question, QuestionId};
pub use ram::{ParseRamSizeError, RamSize};
pub use report::{Ack, REPORT_MAX, Report};
pub use rescue::{
    NotAPassword, RESCUE_ARCHIVE_PATH, RESCUE_BUSYBOX, RESCUE_BUSYBOX_MAX, RescuePassword,
};
pub use root_kind::RootKind;
pub use secure_boot::SecureBoot;
pub use stage::Stage;
pub use storage_network::{ParseStorageNetworkError, StorageNetwork};
pub use token::{NotHex, SEAL_BYTES, Tag, Token, unseal, upload};
pub use word::{LineError, Word};
pub use zram::ZramPercent;

/// In an initrd: certificates (PEM) of the authority by which machines know the storage server. NBD roots
/// are attached over TLS if it is there.
pub const NBD_CA_PATH: &str = "/etc/bootlace-nbd-ca.pem";

/// What stands in every `bootlace-init` before its version and a line feed. By this the builder of initrds knows that
/// it has the init that belongs to it.
pub const INIT_MARK: &str = "bootlace-init of Bootlace ";

/// The version of Bootlace that init and server must have in common.
pub const INIT_VERSION: &str = env!("CARGO_PKG_VERSION");

/// [`INIT_MARK`] and [`INIT_VERSION`], as init has them in it.
pub const INIT_LINE: &str = concat!("bootlace-init of Bootlace ", env!("CARGO_PKG_VERSION"), "\n");

/// Where `init` puts the kernel's log of a failed boot, by HTTP on the boot server's [`HTTP_PORT`]; the number of
/// the boot follows.
pub const KERNEL_LOG_PATH: &str = "/kernel-log/";

/// Header of that request, with the tag of path and log ([`upload`]): proves that the machine has
/// sent it.
pub const TAG_HEADER: &str = "Bootlace-Tag";

/// Longest kernel log in bytes that `init` sends.
pub const KERNEL_LOG_MAX: usize = 60 << 10;

/// Where the boot server takes the list of a machine's hardware, by HTTP `PUT`: this and the boot's number.
pub const HARDWARE_PATH: &str = "/hardware/";

/// Longest list of hardware in bytes: one hardware name (`modalias`) a line. A PC has about a hundred.
pub const HARDWARE_MAX: usize = 60 << 10;

/// TCP port of the boot server at which boot files are had by HTTP, and logs are put: GRUB and firmware ask at no
/// other.
pub const HTTP_PORT: u16 = 80;

/// UDP port of the boot server on which `init` reports its stages.
pub const REPORT_PORT: u16 = 4915;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_init_is_its_mark_and_its_version() {
        assert_eq!(INIT_LINE, alloc::format!("{INIT_MARK}{INIT_VERSION}\n"));
    }
}
