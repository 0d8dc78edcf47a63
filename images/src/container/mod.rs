//! Whether a disk image of a foreign format is all there, before it is converted: `qemu-img` reads zeroes where a file
//! ends too early, and says nothing.
//!
//! Each format has tables that say where in the file its data is. They are followed here, and nothing else is
//! decided: what they mean in detail is for `qemu-img`.

mod qcow2;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

use crate::block::Block;
use crate::partitions::read_if_there;
use crate::source::Format;
use std::io;

/// What a disk image says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container {
    /// Bytes of the disk that is in it.
    pub size_bytes: u64,
}

/// A disk image that is not converted.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It ends before its data does.
    #[error(
        "it is cut off: its tables speak of {needed_bytes} bytes at least, and it has {is_bytes}; copy or download \
         it again"
    )]
    Cut {
        /// Where data that it needs ends.
        needed_bytes: u64,
        /// Where it ends.
        is_bytes: u64,
    },
    /// Its tables can't be followed.
    #[error("it is damaged: {0}; copy or download it again, or try `qemu-img check`")]
    Damaged(&'static str),
    /// It can't be taken as it is; why, and what to do.
    #[error("{0}")]
    Refused(&'static str),
}

/// Follows the tables of a disk image. A raw disk has none, but may have a sector behind it that makes it a VHD. Never panics, whatever the bytes; takes time and memory
/// as the tables that are really there.
///
/// # Errors
/// It is not all there, damaged, or needs other files.
pub fn inspect(format: Format, file: &dyn Block) -> Result<Container, Unfit> {
    match format {
        Format::Raw => vhd::inspect_fixed(file),
        Format::Qcow2 => qcow2::inspect(file),
        Format::Vmdk => vmdk::inspect(file),
        Format::Vhdx => vhdx::inspect(file),
        Format::Vpc => vhd::inspect(file),
        Format::Vdi => vdi::inspect(file),
    }
}

/// The longest table that is read at once: that of a VHDX of 32 TiB in blocks of 1 MiB.
const TABLE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of the file that must be there.
fn needed(file: &dyn Block, offset: u64, length: u64) -> Result<Vec<u8>, Unfit> {
    must_reach(file, offset.saturating_add(length))?;
    if length > TABLE_BYTES_MAX {
        return Err(Unfit::Damaged("one of its tables is too long"));
    }
    let mut bytes = vec![0; length as usize];
    if !read_if_there(file, offset, &mut bytes)? {
        return Err(Unfit::Damaged("a table lies outside of it"));
    }
    Ok(bytes)
}

/// No image file is longer: four times the largest disk.
const CONTAINER_BYTES_MAX: u64 = 64 << 40;

/// The file must have so many bytes.
fn must_reach(file: &dyn Block, needed_bytes: u64) -> Result<(), Unfit> {
    let is_bytes = file.size_bytes();
    if needed_bytes > CONTAINER_BYTES_MAX {
        return Err(Unfit::Damaged("its tables lead to where no file is"));
    }
    if needed_bytes > is_bytes { Err(Unfit::Cut { needed_bytes, is_bytes }) } else { Ok(()) }
}

/// A number of `N` bytes; 0 where the bytes end.
fn le<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    number.map_or(0, |bytes| bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
}

fn be<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    number.map_or(0, |bytes| bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::source::detect;
    use proptest::prelude::*;
    use std::process::Command;

    /// Disk images of each kind, made by `qemu-img` of a disk of 3 MiB with data at its start and its end.
    fn made() -> Vec<(String, Format, Vec<u8>)> {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("disk.raw");
        let mut disk = vec![0; (3 << 20) + 512];
        for range in [0..200_000, (2 << 20) + 5000..(3 << 20) + 512] {
            // Nothing that can be packed, so that each block is of a size of its own.
            blake3::Hasher::new().finalize_xof().fill(&mut disk[range]);
        }
        std::fs::write(&raw, &disk).unwrap();
        let kinds = [
            ("qcow2", ""),
            ("qcow2", "compat=0.10"),
            ("qcow2", "extended_l2=on,cluster_size=128k"),
            ("qcow2", "cluster_size=512"),
            ("qcow2", "packed"),
            ("qcow2", "packed,compression_type=zstd"),
            ("vmdk", ""),
            ("vmdk", "subformat=streamOptimized"),
            ("vhdx", ""),
            ("vpc", "force_size=on"),
            ("vdi", ""),
            ("vdi", "static=on"),
        ];
        let make = |(kind, options): (&str, &str)| {
            let path = dir.path().join("made");
            let mut command = Command::new("qemu-img");
            command.args(["convert", "-f", "raw", "-O", kind]);
            let is_packed = options.starts_with("packed");
            if is_packed {
                command.arg("-c");
            }
            let options = options.trim_start_matches("packed").trim_start_matches(',');
            if !options.is_empty() {
                command.args(["-o", options]);
            }
            let status = command.arg(&raw).arg(&path).status().unwrap();
            assert!(status.success(), "{kind} {options}");
            let bytes = std::fs::read(path).unwrap();
            let format = detect(&bytes[..bytes.len().min(64 << 10)]).unwrap();
            (format!("{kind} {options} {is_packed}"), format, bytes)
        };
        kinds.into_iter().map(make).collect()
    }

    #[test]
    fn what_is_complete_is_taken_and_what_is_cut_off_is_not() {
        for (name, format, bytes) in made() {
            let inspect = |length: usize| inspect(format, &Memory::new(bytes[..length].to_vec()));
            let whole = inspect(bytes.len()).unwrap_or_else(|error| panic!("{name}: {error}"));
            // VHD counts in cylinders, unless it is told not to; then in sectors.
            assert_eq!(whole.size_bytes, (3 << 20) + 512, "{name}");
            for cut in [1, 100, 1000, 5000, 70_000, 200_000, bytes.len() / 2] {
                // What tables and alignment leave free at the end may be missing.
                let length = bytes.len() - cut;
                let is_data = bytes[length..].iter().any(|&byte| byte != 0);
                assert!(
                    inspect(length).is_err() || !is_data,
                    "{name} without its last {cut} bytes"
                );
            }
            for length in (0..66_000).step_by(97).chain(0..600) {
                assert!(inspect(length.min(bytes.len() - 1)).is_err() || length >= bytes.len());
            }
        }
    }

    proptest! {
        #[test]
        fn no_change_panics(changes in proptest::collection::vec((0..4096usize, any::<u8>()), 1..20)) {
            // The tables of small files are all at their start.
            static MADE: std::sync::OnceLock<Vec<(String, Format, Vec<u8>)>> = std::sync::OnceLock::new();
            for (_, format, bytes) in MADE.get_or_init(made) {
                for spread in [1, 97] {
                    let mut bytes = bytes.clone();
                    let length = bytes.len();
                    for &(at, byte) in &changes {
                        bytes[at * spread % length] = byte;
                    }
                    let _ = inspect(*format, &Memory::new(bytes));
                }
            }
        }
    }
}
