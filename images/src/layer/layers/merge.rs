//! Files that no snapshot needs any more: made one with those over them, while the machine reads and writes.
//!
//! Of two pairs of files, one over the other, either is copied into the other, whichever is less work. Nobody sees the lower alone:
//! it is no snapshot any more, and nothing but the upper lies over it. So whatever is copied *up* reads as before, since it comes
//! from where a read would have found it; and whatever is copied *down* replaces what the upper hides. A copy that is broken
//! off leaves nothing to be undone, and may be begun again in the other direction. Only when all of it is durable does the
//! description leave the one pair out, by one rename.

use super::Layers;
use super::turns::Merging;
use crate::folder::space;
use crate::layer::about::About;
use crate::layer::error::{LayerError, io_error};
use crate::layer::header::GRANULE_BYTES;
use crate::layer::part::Part;
use crate::layer::tree::{Tree, Work};
use model::DiskId;
use std::sync::Arc;

/// So much is copied before it is written to the disk: more would have to be at once when a machine flushes.
const FLUSH_EVERY_BYTES: u64 = 32 << 20;

/// How a piece of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// There is nothing to be done.
    Nothing,
    /// One pair of files less.
    Done,
    /// Not now: somebody looks at a snapshot, or the disk was opened anew meanwhile, or it was told to stop.
    Later,
    /// There is no room on the disk for what would be in both for a while.
    NoRoom,
}

impl Layers {
    /// Does one piece of what is to be done with files that no snapshot of the machine needs. `pace` is told of each few hundred
    /// KiB that were copied, and may wait; `false` is to stop.
    ///
    /// # Errors
    /// The operating system refuses. What the machine and its snapshots hold is as it was.
    pub fn tidy(&self, disk: &DiskId, pace: &dyn Fn(u64) -> bool) -> Result<Merged, LayerError> {
        let turns = self.turns.of(disk);
        let turn = turns.join();
        let about = self.kept_about(disk)?;
        let Some(tree) = &about.tree else { return Ok(Merged::Nothing) };
        let Some(work) = tree.work() else { return Ok(Merged::Nothing) };
        let Some(merging) = turns.begin_merge() else { return Ok(Merged::Later) };
        let (lower, upper, upper_is_top) = match work {
            Work::Remove(files) => {
                self.leave_out(disk, &about, tree.removed(files), files)?;
                return Ok(Merged::Done);
            }
            Work::Merge { lower, upper, upper_is_top } => (lower, upper, upper_is_top),
        };
        let pair = (self.part(disk, &about, lower)?, self.part(disk, &about, upper)?);
        drop(turn);
        let n_up = pair.1.n_lacking(&pair.0);
        let n_down = pair.1.map.n_mine();
        let is_up = upper_is_top || n_up <= n_down;
        let n_bytes = if is_up { n_up } else { n_down } * GRANULE_BYTES;
        let dir = self.files.dir();
        let room = space(dir).map_err(io_error("see the room in", dir))?;
        if room.free_bytes < n_bytes.saturating_add(room.reserve_bytes / 2) {
            return Ok(Merged::NoRoom);
        }
        let (from, into) = if is_up { (&pair.0, &pair.1) } else { (&pair.1, &pair.0) };
        if !self.copy(disk, &about, (from, into), is_up, &merging, pace)? {
            return Ok(Merged::Later);
        }
        self.flush(disk, &about, into)?;
        let Some(_turn) = merging.join() else { return Ok(Merged::Later) };
        // Snapshots may have come and gone meanwhile.
        let about = self.kept_about(disk)?;
        let is_still = |tree: &&Tree| {
            let mut works = tree.node.iter().filter(|node| node.parent == Some(lower));
            let only_upper = works.next().is_some_and(|node| node.files == upper);
            only_upper
                && works.next().is_none()
                && tree.get(lower).is_some_and(|node| node.snapshot.is_none())
        };
        let merged = about.tree.as_ref().filter(is_still);
        let merged = merged.and_then(|tree| tree.merged(into.files, from.files));
        let Some(merged) = merged else { return Ok(Merged::Later) };
        self.flush(disk, &about, into)?;
        self.leave_out(disk, &about, merged, from.files)?;
        Ok(Merged::Done)
    }

    /// Copies all of it; `false`: not to the end.
    fn copy(
        &self,
        disk: &DiskId,
        about: &About,
        (from, into): (&Part, &Part),
        is_up: bool,
        merging: &Merging,
        pace: &dyn Fn(u64) -> bool,
    ) -> Result<bool, LayerError> {
        let failed = || io_error("merge snapshots in", &self.files.folder_of(about));
        // Who reads from it still may find it without a name.
        from.data().map_err(failed())?;
        let mut not_flushed = 0;
        for stripe in 0..from.n_stripes() {
            if merging.is_unwanted() {
                return Ok(false);
            }
            let copied = into
                .take_stripe(from, stripe, is_up)
                .map_err(|error| self.files.explain(failed()(error)))?;
            if copied > 0 && !pace(copied) {
                return Ok(false);
            }
            not_flushed += copied;
            if not_flushed >= FLUSH_EVERY_BYTES {
                self.flush(disk, about, into)?;
                not_flushed = 0;
            }
        }
        Ok(true)
    }

    /// Makes durable what was copied, as the flush of the machine's disk if it is a part of that: one that fails must be
    /// known there.
    fn flush(&self, disk: &DiskId, about: &About, part: &Part) -> Result<(), LayerError> {
        let live = self.live(disk);
        let live = live.filter(|layer| {
            layer.chain().parts.iter().any(|one| std::ptr::eq(Arc::as_ptr(one), part))
        });
        let flushed = match live {
            Some(layer) => layer.flush_part(part),
            None => part.flush(),
        };
        flushed.map_err(io_error("flush", &self.files.folder_of(about)))
    }

    /// The files, as the machine has them open, or opened.
    fn part(&self, disk: &DiskId, about: &About, files: u32) -> Result<Arc<Part>, LayerError> {
        let live = self.live(disk).and_then(|layer| {
            layer.chain().parts.iter().find(|part| part.files == files).map(Arc::clone)
        });
        match live {
            Some(part) => Ok(part),
            None if files == about.top() => self.files.open_top(about).map(Arc::new),
            None => self.files.open_sealed(about, files).map(Arc::new),
        }
    }

    /// Has a description count that leaves these files out, and removes them.
    fn leave_out(
        &self,
        disk: &DiskId,
        about: &About,
        tree: Tree,
        gone: u32,
    ) -> Result<(), LayerError> {
        let left = about.with_tree(tree);
        let live = self.live(disk);
        match &live {
            Some(layer) => {
                self.files.prepare_about(&left)?;
                let kept = |chain: &crate::layer::chain::Chain| {
                    chain.parts.iter().filter(|part| part.files != gone).cloned().collect()
                };
                let exchanged = layer.exchange(kept, || self.files.commit_about(&left));
                exchanged.map_err(io_error("write", &self.files.folder_of(about)))?;
                self.files.sync_folder(&left)?;
            }
            None => self.commit(&left)?,
        }
        self.files.remove_node(&left, gone);
        if let Some(layer) = &live {
            layer.set_others_bytes(self.files.others_bytes(&left));
        }
        Ok(())
    }
}
