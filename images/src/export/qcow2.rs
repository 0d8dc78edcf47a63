//! Writing qcow2, version 3: docs/interop/qcow2.rst of QEMU. A program for that would have to read what only the servers' user may, and
//! write where only root may.

use crate::copy::CopyError;
use crate::digest::{Digest, PIECE_BYTES};
use crate::progress::{Progress, Step};
use crate::sparse::hole_at;
use crate::stop::Stop;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// What is in use or not as a whole: QEMU's usual size.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: usize = 1 << CLUSTER_BITS;
/// Entries of a table of the second level: 8 bytes each.
const PER_L2: usize = CLUSTER / 8;
/// Counts of references in a block of them: 2 bytes each.
const PER_REFCOUNT_BLOCK: u64 = CLUSTER as u64 / 2;
/// In an entry: the cluster is used once (`QCOW_OFLAG_COPIED`).
const COPIED: u64 = 1 << 63;
const HEADER_BYTES: u32 = 104;

/// Writes the disk to an empty file. Returns the disk's digest.
pub(super) fn write(
    disk: &File,
    size_bytes: u64,
    target: &File,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<String, CopyError> {
    let n_clusters = size_bytes.div_ceil(CLUSTER as u64);
    let mut out = Out { target, next: 1, tables: Vec::new() };
    out.tables.resize(n_clusters.div_ceil(PER_L2 as u64) as usize, None);
    let mut digest = Digest::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut position = 0;
    while position < size_bytes {
        progress(Progress { step: Step::Copy, done_bytes: position, total_bytes: size_bytes });
        if stop.is_stopping() {
            return Err(CopyError::Stopped);
        }
        let left = size_bytes - position;
        let hole = hole_at(disk, position, left).map_err(CopyError::Read)?;
        let count = (hole / PIECE_BYTES as u64).min(digest.zeroes_max());
        if count > 0 {
            digest.zeroes(count);
            position += count * PIECE_BYTES as u64;
            continue;
        }
        let bytes = &mut piece[..left.min(PIECE_BYTES as u64) as usize];
        disk.read_exact_at(bytes, position).map_err(CopyError::Read)?;
        digest.piece(bytes);
        for (n, cluster) in bytes.chunks(CLUSTER).enumerate() {
            if cluster.iter().any(|&byte| byte != 0) {
                let index = position / CLUSTER as u64 + n as u64;
                out.cluster(index, cluster).map_err(CopyError::Write)?;
            }
        }
        position += bytes.len() as u64;
    }
    out.finish(size_bytes).map_err(CopyError::Write)?;
    progress(Progress { step: Step::Copy, done_bytes: size_bytes, total_bytes: size_bytes });
    Ok(digest.finish().to_hex().to_string())
}

struct Out<'a> {
    target: &'a File,
    /// The next cluster of the file that is free.
    next: u64,
    /// Of the second level: where clusters of the disk are.
    tables: Vec<Option<Box<[u64; PER_L2]>>>,
}

impl Out<'_> {
    fn cluster(&mut self, index: u64, bytes: &[u8]) -> io::Result<()> {
        let at = self.append(bytes, 1)?;
        let (table, entry) = (index as usize / PER_L2, index as usize % PER_L2);
        let table = self.tables[table].get_or_insert_with(|| Box::new([0; PER_L2]));
        table[entry] = at | COPIED;
        Ok(())
    }

    /// Returns where it is.
    fn append(&mut self, bytes: &[u8], n_clusters: u64) -> io::Result<u64> {
        let at = self.next << CLUSTER_BITS;
        self.target.write_all_at(bytes, at)?;
        self.next += n_clusters;
        Ok(at)
    }

    /// Tables, counts, and at last the header, without which the file is none.
    fn finish(mut self, size_bytes: u64) -> io::Result<()> {
        let tables = std::mem::take(&mut self.tables);
        let mut first_level = Vec::with_capacity(tables.len());
        for table in tables {
            first_level.push(match table {
                Some(table) => self.append(&big_endian(table.as_slice()), 1)? | COPIED,
                None => 0,
            });
        }
        let l1_clusters = (first_level.len() as u64 * 8).div_ceil(CLUSTER as u64).max(1);
        let l1_at = self.append(&big_endian(&first_level), l1_clusters)?;
        // All clusters are used once: those before, those of the counts, and those of the table of these.
        let (mut n_blocks, mut table_clusters) = (0, 1);
        loop {
            let all = self.next + n_blocks + table_clusters;
            let needed = all.div_ceil(PER_REFCOUNT_BLOCK);
            let needed_table = (needed * 8).div_ceil(CLUSTER as u64).max(1);
            if (needed, needed_table) == (n_blocks, table_clusters) {
                break;
            }
            (n_blocks, table_clusters) = (needed, needed_table);
        }
        let all = self.next + n_blocks + table_clusters;
        let mut blocks = Vec::new();
        for n in 0..n_blocks {
            let used = all.saturating_sub(n * PER_REFCOUNT_BLOCK).min(PER_REFCOUNT_BLOCK) as usize;
            let mut block = vec![0; CLUSTER];
            block[..used * 2].chunks_exact_mut(2).for_each(|count| count[1] = 1);
            blocks.push(self.append(&block, 1)?);
        }
        let table_at = self.append(&big_endian(&blocks), table_clusters)?;
        self.target.set_len(self.next << CLUSTER_BITS)?;
        let mut header = Vec::with_capacity(HEADER_BYTES as usize);
        header.extend(b"QFI\xfb");
        header.extend(3u32.to_be_bytes());
        // No base.
        header.extend([0; 12]);
        header.extend(CLUSTER_BITS.to_be_bytes());
        header.extend(size_bytes.to_be_bytes());
        // Not encrypted.
        header.extend(0u32.to_be_bytes());
        header.extend((first_level.len() as u32).to_be_bytes());
        header.extend(l1_at.to_be_bytes());
        header.extend(table_at.to_be_bytes());
        header.extend((table_clusters as u32).to_be_bytes());
        // No snapshots, and no features.
        header.extend([0; 12 + 24]);
        // Counts have 16 bits.
        header.extend(4u32.to_be_bytes());
        header.extend(HEADER_BYTES.to_be_bytes());
        self.target.write_all_at(&header, 0)
    }
}

fn big_endian(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}
