//! Checksums as `fs/ext4` and `fs/jbd2` calculate them.

use super::u16_of;
use crc::{CRC_16_MODBUS, CRC_32_ISCSI, Crc};
use std::ops::Range;

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

/// Where an inode has its checksum: its lower half, and the upper one if there is room for it.
const LOW: Range<usize> = 0x7c..0x7e;
const HIGH: Range<usize> = 0x82..0x84;

/// Whether an inode has room for the whole of its checksum.
fn has_high(inode: &[u8]) -> bool {
    inode.len() > 128 && u16_of(inode, 0x80) >= 4
}

/// The checksum that an inode should have (`ext4_inode_csum`).
pub(super) fn inode_checksum(seed_of_inode: u32, inode: &[u8]) -> u32 {
    let mut without = inode.to_vec();
    without[LOW].fill(0);
    if has_high(inode) {
        without[HIGH].fill(0);
    }
    crc32c(seed_of_inode, &without)
}

/// Gives it to the inode.
pub(super) fn put_checksum(inode: &mut [u8], checksum: u32) {
    inode[LOW].copy_from_slice(&(checksum as u16).to_le_bytes());
    if has_high(inode) {
        inode[HIGH].copy_from_slice(&((checksum >> 16) as u16).to_le_bytes());
    }
}

/// Whether the checksum of an inode is right.
pub(super) fn is_inode_right(seed_of_inode: u32, inode: &[u8]) -> bool {
    let calculated = inode_checksum(seed_of_inode, inode);
    let low = u32::from(u16_of(inode, LOW.start));
    match has_high(inode) {
        true => calculated == (u32::from(u16_of(inode, HIGH.start)) << 16 | low),
        false => calculated & 0xffff == low,
    }
}
