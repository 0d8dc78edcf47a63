//! The empty file system that `mke2fs` has made, and what stands in its superblock and descriptors.

use super::inode::Inode;
use super::{Meta, inode};
use crate::ext4::{crc32c, is_power_of_3_5_or_7, of_descriptor, u16_of, u32_of};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

pub(super) const BLOCK_BYTES: usize = 4096;
pub(super) const INODE_BYTES: usize = 256;
/// As many as a block has bits.
pub(super) const BLOCKS_PER_GROUP: u32 = 32768;
/// The inodes of the root, and of `lost+found`, which is the last that `mke2fs` takes.
pub(super) const ROOT: u32 = 2;
pub(super) const LOST_AND_FOUND: u32 = 11;

const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 1024;
const DESCRIPTOR_BYTES: usize = 64;

/// Features by the names of mke2fs: what Linux has known since 3.18, with sums, and nothing newer.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,\
                        sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// Flags of a descriptor.
const INODES_UNUSED: u16 = 1;
const BLOCKS_UNUSED: u16 = 2;

/// One file or folder for each so many bytes, as mke2fs has it.
pub(crate) const BYTES_PER_INODE: u64 = 16384;

/// Makes an empty ext4 of `size_bytes` in a file that is new, with this label of at most 16 bytes.
///
/// # Errors
/// `mke2fs` can't be started, or fails: with what it says.
pub(crate) fn make(path: &Path, size_bytes: u64, label: &str) -> io::Result<()> {
    // Administrators' programs are not in the search path of everybody.
    let mut places = std::env::var_os("PATH").unwrap_or_default();
    places.push(":/usr/sbin:/sbin");
    let block_bytes = BLOCK_BYTES.to_string();
    let inode_bytes = INODE_BYTES.to_string();
    let bytes_per_inode = BYTES_PER_INODE.to_string();
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-m", "1", "-L", label])
        .args(["-b", &block_bytes, "-I", &inode_bytes, "-i", &bytes_per_inode, "-O", FEATURES])
        // The file is new: where nothing was written it is zero.
        .args(["-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1"])
        .arg(path)
        .arg(format!("{}k", size_bytes / 1024))
        .env("PATH", places)
        .env("LC_ALL", "C")
        // What an administrator has set there is for his own disks.
        .env("MKE2FS_CONFIG", "/dev/null")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    let made = made.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::other("the program mke2fs is not installed: install the package e2fsprogs")
        }
        _ => error,
    })?;
    if made.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&made.stderr);
    if said.contains("No space left on device") {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Err(io::Error::other(format!("mke2fs ended with {}: {}", made.status, said.trim())))
}

/// What is where.
pub(super) struct Layout {
    superblock: Vec<u8>,
    descriptors: Vec<u8>,
    /// What all sums begin with.
    pub(super) seed: u32,
    pub(super) n_blocks: u64,
    pub(super) n_groups: u32,
    pub(super) n_inodes: u32,
    pub(super) inodes_per_group: u32,
    /// Where the root's first block is.
    pub(super) root_block: u64,
    /// Blocks that are taken from the beginning, where their bitmap is not written yet: first, and how many.
    own: Vec<(u64, u64)>,
    /// Bitmaps that are written.
    bitmaps: BTreeMap<u32, Vec<u8>>,
}

impl Layout {
    pub(super) fn read(file: &File) -> io::Result<Self> {
        let mut superblock = vec![0; SUPERBLOCK_BYTES];
        file.read_exact_at(&mut superblock, SUPERBLOCK_AT)?;
        let other = || io::Error::new(io::ErrorKind::InvalidData, "it is no empty ext4 of ours");
        let is_ours = u16_of(&superblock, 0x38) == 0xef53
            && u32_of(&superblock, 0x18) == 2
            && u32_of(&superblock, 0x20) == BLOCKS_PER_GROUP
            && usize::from(u16_of(&superblock, 0x58)) == INODE_BYTES
            && usize::from(u16_of(&superblock, 0xfe)) == DESCRIPTOR_BYTES
            && u32_of(&superblock, 0x14) == 0
            && u32_of(&superblock, 0x64) & 0x400 != 0;
        if !is_ours {
            return Err(other());
        }
        let n_blocks =
            u64::from(u32_of(&superblock, 0x150)) << 32 | u64::from(u32_of(&superblock, 0x4));
        let n_groups = n_blocks.div_ceil(u64::from(BLOCKS_PER_GROUP));
        let n_groups = u32::try_from(n_groups).map_err(|_| other())?;
        let mut descriptors = vec![0; n_groups as usize * DESCRIPTOR_BYTES];
        file.read_exact_at(&mut descriptors, BLOCK_BYTES as u64)?;
        let mut layout = Self {
            seed: crc32c(!0, &superblock[0x68..0x78]),
            n_blocks,
            n_groups,
            n_inodes: u32_of(&superblock, 0),
            inodes_per_group: u32_of(&superblock, 0x28),
            superblock,
            descriptors,
            root_block: 0,
            own: Vec::new(),
            bitmaps: BTreeMap::new(),
        };
        layout.find_own();
        for group in 0..n_groups {
            if layout.flags(group) & BLOCKS_UNUSED == 0 {
                let mut bitmap = vec![0; BLOCK_BYTES];
                file.read_exact_at(&mut bitmap, layout.place(group, 0) * BLOCK_BYTES as u64)?;
                layout.bitmaps.insert(group, bitmap);
            }
        }
        let mut root = vec![0; INODE_BYTES];
        let at = layout.place(0, 8) * BLOCK_BYTES as u64 + (INODE_BYTES as u64);
        file.read_exact_at(&mut root, at)?;
        // One extent, in the inode.
        if u16_of(&root, 0x28) != 0xf30a || u16_of(&root, 0x2a) != 1 || u16_of(&root, 0x2e) != 0 {
            return Err(other());
        }
        layout.root_block = u64::from(u16_of(&root, 0x3a)) << 32 | u64::from(u32_of(&root, 0x3c));
        Ok(layout)
    }

    pub(super) fn root_inode(&self) -> Inode {
        Inode::new(inode::FOLDER, &Meta { permissions: 0o755, ..Meta::default() })
    }

    /// Which blocks of a group are taken before anything is put there.
    pub(super) fn bitmap(&self, group: u32) -> Vec<u8> {
        if let Some(bitmap) = self.bitmaps.get(&group) {
            return bitmap.clone();
        }
        let mut bitmap = vec![0; BLOCK_BYTES];
        let first = u64::from(group) * u64::from(BLOCKS_PER_GROUP);
        let end = first + u64::from(BLOCKS_PER_GROUP);
        let behind = (self.n_blocks.min(end), end.saturating_sub(self.n_blocks.min(end)));
        let begin = self.own.partition_point(|&(own, n)| own + n <= first);
        let within = self.own[begin..].iter().take_while(|(own, _)| *own < end);
        for &(own, n) in within.chain([&behind]) {
            for block in own.max(first)..(own + n).min(end) {
                let bit = (block - first) as usize;
                bitmap[bit / 8] |= 1 << (bit % 8);
            }
        }
        bitmap
    }

    fn find_own(&mut self) {
        let table_blocks =
            u64::from(self.inodes_per_group) * INODE_BYTES as u64 / BLOCK_BYTES as u64;
        let descriptor_blocks = self.descriptors.len().div_ceil(BLOCK_BYTES) as u64;
        let reserved = u64::from(u16_of(&self.superblock, 0xce));
        let mut own = Vec::new();
        for group in 0..self.n_groups {
            if group <= 1 || is_power_of_3_5_or_7(group.into()) {
                let first = u64::from(group) * u64::from(BLOCKS_PER_GROUP);
                own.push((first, 1 + descriptor_blocks + reserved));
            }
            own.push((self.place(group, 0), 1));
            own.push((self.place(group, 4), 1));
            own.push((self.place(group, 8), table_blocks));
        }
        own.sort_unstable();
        self.own = own;
    }

    /// Where a group's block bitmap (0), inode bitmap (4) or inodes (8) are.
    fn place(&self, group: u32, what: usize) -> u64 {
        let descriptor = self.descriptor(group);
        u64::from(u32_of(descriptor, 0x20 + what)) << 32 | u64::from(u32_of(descriptor, what))
    }

    fn descriptor(&self, group: u32) -> &[u8] {
        &self.descriptors[group as usize * DESCRIPTOR_BYTES..][..DESCRIPTOR_BYTES]
    }

    fn flags(&self, group: u32) -> u16 {
        u16_of(self.descriptor(group), 0x12)
    }

    /// Puts a number into a descriptor, of which the upper half stands elsewhere.
    fn set_halves(&mut self, group: u32, [low, high]: [usize; 2], value: u32) {
        let descriptor =
            &mut self.descriptors[group as usize * DESCRIPTOR_BYTES..][..DESCRIPTOR_BYTES];
        descriptor[low..low + 2].copy_from_slice(&(value as u16).to_le_bytes());
        descriptor[high..high + 2].copy_from_slice(&((value >> 16) as u16).to_le_bytes());
    }

    fn clear_flag(&mut self, group: u32, flag: u16) {
        let flags = self.flags(group) & !flag;
        let at = group as usize * DESCRIPTOR_BYTES + 0x12;
        self.descriptors[at..at + 2].copy_from_slice(&flags.to_le_bytes());
    }

    /// Writes which blocks of a group are taken.
    pub(super) fn write_block_bitmap(
        &mut self,
        file: &File,
        group: u32,
        bitmap: &[u8],
    ) -> io::Result<()> {
        file.write_all_at(bitmap, self.place(group, 0) * BLOCK_BYTES as u64)?;
        let n_free: u32 = bitmap.iter().map(|byte| byte.count_zeros()).sum();
        self.set_halves(group, [0x0c, 0x2c], n_free);
        self.set_halves(group, [0x18, 0x38], crc32c(self.seed, bitmap));
        self.clear_flag(group, BLOCKS_UNUSED);
        Ok(())
    }

    /// The inodes of a group that are there already: those of the file system itself.
    pub(super) fn inode_table(&self, file: &File, group: u32) -> io::Result<Vec<u8>> {
        if group > 0 {
            return Ok(Vec::new());
        }
        let mut table = vec![0; LOST_AND_FOUND as usize * INODE_BYTES];
        file.read_exact_at(&mut table, self.place(0, 8) * BLOCK_BYTES as u64)?;
        Ok(table)
    }

    /// Writes a group's inodes, of which those with these indices are used.
    pub(super) fn write_inode_table(
        &mut self,
        file: &File,
        group: u32,
        table: &[u8],
        used: &[u32],
        n_folders: u32,
    ) -> io::Result<()> {
        let mut bitmap = vec![0xff; BLOCK_BYTES];
        let bitmap_bytes = self.inodes_per_group as usize / 8;
        bitmap[..bitmap_bytes].fill(0);
        for &index in used {
            bitmap[index as usize / 8] |= 1 << (index % 8);
        }
        let n_used = used.len() as u32;
        let end = used.iter().max().map_or(0, |last| last + 1);
        file.write_all_at(table, self.place(group, 8) * BLOCK_BYTES as u64)?;
        file.write_all_at(&bitmap, self.place(group, 4) * BLOCK_BYTES as u64)?;
        self.set_halves(group, [0x0e, 0x2e], self.inodes_per_group - n_used);
        self.set_halves(group, [0x10, 0x30], n_folders);
        self.set_halves(group, [0x1c, 0x32], self.inodes_per_group - end);
        self.set_halves(group, [0x1a, 0x3a], crc32c(self.seed, &bitmap[..bitmap_bytes]));
        self.clear_flag(group, INODES_UNUSED);
        Ok(())
    }

    /// Writes descriptors and superblock, with their sums.
    pub(super) fn write(&mut self, file: &File) -> io::Result<()> {
        let (mut free_blocks, mut free_inodes) = (0_u64, 0_u32);
        let seed = self.seed;
        for (group, descriptor) in self.descriptors.chunks_mut(DESCRIPTOR_BYTES).enumerate() {
            let whole = |low, high| {
                u32::from(u16_of(descriptor, high)) << 16 | u32::from(u16_of(descriptor, low))
            };
            free_blocks += u64::from(whole(0x0c, 0x2c));
            free_inodes += whole(0x0e, 0x2e);
            let sum = of_descriptor(seed, group as u32, descriptor);
            descriptor[0x1e..0x20].copy_from_slice(&sum.to_le_bytes());
        }
        file.write_all_at(&self.descriptors, BLOCK_BYTES as u64)?;
        let superblock = &mut self.superblock;
        superblock[0x0c..0x10].copy_from_slice(&(free_blocks as u32).to_le_bytes());
        superblock[0x158..0x15c].copy_from_slice(&((free_blocks >> 32) as u32).to_le_bytes());
        superblock[0x10..0x14].copy_from_slice(&free_inodes.to_le_bytes());
        let sum = crc32c(!0, &superblock[..0x3fc]);
        superblock[0x3fc..].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(superblock, SUPERBLOCK_AT)
    }
}
