//! Whether Linux mounts an ext2, ext3 or ext4 as machines do: read-write, or read-only with its journal left alone
//! (`noload`). What is looked at is what `fs/ext4` and `fs/jbd2` of Linux 6.1 to 6.18 look at before; where they
//! differ, the stricter holds.

mod checksums;
mod descriptors;
mod files;
mod inodes;
mod journal;
mod map;
mod superblock;
mod times;
mod tree;

pub(crate) use checksums::{crc32c, of_descriptor};
pub(crate) use descriptors::is_power_of_3_5_or_7;

use super::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET};
use std::io;
use superblock::FileSystem;
pub(crate) use times::Times;
pub(crate) use tree::{Kind, Node, Visit, walk};

/// Why Linux does not mount it.
#[derive(Debug)]
pub(crate) enum NotMounted {
    /// It can't be read.
    Io(io::Error),
    /// What is damaged; e2fsck(8) may repair it.
    Damaged(String),
    /// What is not wrong, but nothing that machines can use; and what helps.
    Unfit(String),
}

impl From<io::Error> for NotMounted {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn damaged<T>(why: impl Into<String>) -> Result<T, NotMounted> {
    Err(NotMounted::Damaged(why.into()))
}

fn unfit<T>(why: impl Into<String>) -> Result<T, NotMounted> {
    Err(NotMounted::Unfit(why.into()))
}

/// What helps where no other is known: a file system as all kernels know it.
const COPY: &str = "copy its files to a new ext4 with `mkfs.ext4 -d`";

/// Reads so many bytes at an offset from the file system's start.
type Read<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// Looks at the file system that `read` reads, from its start on, in the order of `ext4_fill_super`.
///
/// # Errors
/// Linux does not mount it, or it can't be read.
pub(crate) fn check(read: Read<'_>) -> Result<(), NotMounted> {
    let mut superblock = [0; SUPERBLOCK_BYTES];
    read(&mut superblock, SUPERBLOCK_OFFSET)?;
    let file_system = FileSystem::parse(read, superblock)?;
    let mut used = file_system.check_groups()?;
    file_system.check_journal(&mut used)?;
    file_system.check_root()?;
    file_system.check_orphan_file(&used)?;
    file_system.check_quota_files(&used)
}

pub(crate) fn u16_of(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_of(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}
