//! The file system of a disk in which people look for single files.

use crate::block::Block;
use crate::error::RootfsError;
use crate::rootfs::Rootfs;
use crate::volumes::{Content, FAT, Volume, find_volumes};
use std::sync::Arc;

/// Opens the file system of a partition, or the largest one of the disk that can be read; with it the partitions that have
/// one, and which it is (`None`: it takes the whole disk).
///
/// # Errors
/// There is none that can be read.
pub fn open_files(
    disk: &Arc<dyn Block>,
    partition: Option<u8>,
) -> Result<(Rootfs, Vec<u8>, Option<u8>), RootfsError> {
    let volumes = find_volumes(disk)
        .map_err(|error| RootfsError::FileSystem(format!("the disk can't be read: {error}")))?;
    let can_read = |volume: &&Volume| {
        matches!(volume.content, Content::Root(_)) || volume.content == Content::Other(FAT)
    };
    let readable: Vec<_> = volumes.iter().filter(can_read).collect();
    let is_wanted = |volume: &&&Volume| partition.is_none() || volume.partition == partition;
    let wanted = readable.iter().filter(is_wanted).max_by_key(|volume| volume.size_bytes);
    let Some(wanted) = wanted else {
        let what: Vec<_> = volumes.iter().map(|volume| volume.content.to_string()).collect();
        let what = if what.is_empty() { "nothing known".to_owned() } else { what.join(", ") };
        return Err(RootfsError::FileSystem(format!(
            "there is no file system on it whose files can be read, but {what}"
        )));
    };
    let partitions = readable.iter().filter_map(|volume| volume.partition).collect();
    Ok((Rootfs::open(Arc::clone(disk), wanted)?, partitions, wanted.partition))
}
