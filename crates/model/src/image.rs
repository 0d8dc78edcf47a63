//! An image version: a system's disk, frozen.

use crate::ImageName;
use alloc::string::String;
use initcfg::FileSystem;
use wire::Architecture;

/// Immutable state of an image. It never changes once it is published.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageVersion {
    /// Name of the image.
    pub image: ImageName,
    /// Number of the version, from 1.
    pub version: u32,
    /// BLAKE3 of the disk's bytes in hexadecimal: the version's identity.
    pub digest: String,
    /// Size of the disk in bytes, a multiple of 4096.
    pub size_bytes: u64,
    /// Partition that holds the root file system, from 1; `None` is the whole disk.
    pub partition: Option<u8>,
    /// The root's file system.
    pub file_system: FileSystem,
    /// Release of the kernel that it boots, like `6.1.0-56-amd64`.
    pub kernel_version: String,
    /// What that kernel is for. Versions of an older Bootlace don't say, and are for x86-64.
    #[serde(default)]
    pub architecture: Architecture,
    /// What the image calls itself (`PRETTY_NAME` of its os-release).
    pub os_name: Option<String>,
    /// When it was imported, seconds since 1970.
    pub imported_unix: u64,
}
