//! A look at what a snapshot holds.

use super::Layers;
use super::turns::View;
use crate::base::Base;
use crate::block::{Block, Extent, check_range};
use crate::layer::chain::{Chain, Change};
use crate::layer::error::{LayerError, io_error};
use model::DiskId;
use std::io;
use std::sync::Arc;

/// The disk as it was when a snapshot was made, read-only. While there is one, the machine's snapshots are not merged.
pub struct SnapshotDisk {
    size_bytes: u64,
    chain: Chain,
    _view: View,
}

impl Layers {
    /// Opens a snapshot of the machine's disk, which stands on `base`.
    ///
    /// # Errors
    /// There is none, its files are damaged, or it stands on another version.
    pub fn view(
        &self,
        disk: &DiskId,
        number: u32,
        base: &Base,
    ) -> Result<SnapshotDisk, LayerError> {
        let turns = self.turns.of(disk);
        let _turn = turns.begin();
        let about = self.kept_about(disk)?;
        if about.parent_digest != base.version.digest || about.size_bytes != base.block.size_bytes()
        {
            return Err(LayerError::OtherParent {
                disk: disk.clone(),
                image: about.image,
                version: about.version,
                wanted: format!("{}/v{}", base.version.image, base.version.version),
            });
        }
        let missing = || LayerError::NoSnapshot { disk: disk.clone(), number };
        let path = about.tree.as_ref().and_then(|tree| tree.path(tree.files_of(number)?));
        let mut parts = Vec::new();
        for files in path.ok_or_else(missing)? {
            let part = self.files.open_sealed(&about, files)?;
            // All of them now: a snapshot that is deleted meanwhile loses its names.
            part.data().map_err(io_error("open", &self.files.folder_of(&about)))?;
            parts.push(Arc::new(part));
        }
        let chain = Chain { parts: parts.into(), parent: Arc::clone(&base.block) };
        Ok(SnapshotDisk { size_bytes: about.size_bytes, chain, _view: turns.begin_view() })
    }
}

impl SnapshotDisk {
    /// What has become of the disk at `offset` since it was the version, for at most `length` bytes, and for how many; `None`: nothing.
    pub fn change_at(&self, offset: u64, length: u64) -> (Option<Change>, u64) {
        self.chain.change_at(offset, length)
    }
}

impl Block for SnapshotDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buffer.len() as u64, self.size_bytes)?;
        self.chain.read_from(0, buffer, offset)
    }

    fn extent(&self, offset: u64, length: u64) -> io::Result<Extent> {
        check_range(offset, length, self.size_bytes)?;
        self.chain.extent(offset, length)
    }

    fn hole_at(&self, offset: u64, length: u64) -> io::Result<u64> {
        check_range(offset, length, self.size_bytes)?;
        self.chain.hole_at(offset, length)
    }
}
