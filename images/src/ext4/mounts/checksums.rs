//! Checksums as `fs/ext4` and `fs/jbd2` calculate them.

use super::u16_of;
use crc::{CRC_16_MODBUS, CRC_32_ISCSI, Crc};

static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// With the start value that the kernel gives it.
static CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_MODBUS);

/// As in the kernel: without the last inversion, and begun with what came before (`ext4_chksum`).
pub(crate) fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    let mut digest = CRC32C.digest_with_initial(before.reverse_bits());
    digest.update(bytes);
    !digest.finalize()
}

/// That of a group's descriptor with `metadata_csum` (`ext4_group_desc_csum`).
pub(crate) fn of_descriptor(seed: u32, group: u32, descriptor: &[u8]) -> u16 {
    let begun = crc32c(crc32c(seed, &group.to_le_bytes()), &descriptor[..0x1e]);
    crc32c(crc32c(begun, &[0; 2]), &descriptor[0x20..]) as u16
}

/// That of a group's descriptor with `uninit_bg` (`ext4_group_desc_csum`).
pub(super) fn of_old_descriptor(uuid: &[u8], group: u32, descriptor: &[u8]) -> u16 {
    let mut digest = CRC16.digest();
    digest.update(uuid);
    digest.update(&group.to_le_bytes());
    digest.update(&descriptor[..0x1e]);
    digest.update(&descriptor[0x20..]);
    digest.finalize()
}

/// What all checksums of one inode begin with (`i_csum_seed`).
pub(super) fn seed_of_inode(seed: u32, number: u32, inode: &[u8]) -> u32 {
    crc32c(crc32c(seed, &number.to_le_bytes()), &inode[0x64..0x68])
}

/// Whether the checksum of an inode is right (`ext4_inode_csum`).
pub(super) fn is_inode_right(seed_of_inode: u32, inode: &[u8]) -> bool {
    const LOW: std::ops::Range<usize> = 0x7c..0x7e;
    const HIGH: std::ops::Range<usize> = 0x82..0x84;
    let has_high = inode.len() > 128 && u16_of(inode, 0x80) >= 4;
    let mut without = inode.to_vec();
    without[LOW].fill(0);
    if has_high {
        without[HIGH].fill(0);
    }
    let calculated = crc32c(seed_of_inode, &without);
    let high = if has_high { u32::from(u16_of(inode, HIGH.start)) << 16 } else { 0 };
    let stored = high | u32::from(u16_of(inode, LOW.start));
    if has_high { calculated == stored } else { calculated & 0xffff == stored }
}
