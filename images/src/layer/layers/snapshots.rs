//! Snapshots of persistent layers: made while the machine writes, deleted, and gone back to.

use super::{Layers, folder};
use crate::block::Block as _;
use crate::layer::about::{About, LayerMode};
use crate::layer::error::{LayerError, io_error};
use crate::layer::tree::{RollBack, SNAPSHOTS_MAX, Tree};
use crate::layer::write::WriteLayer;
use model::{BootId, DiskId, Snapshot, SnapshotInfo, SnapshotKind};
use std::sync::{Arc, PoisonError};

impl Layers {
    /// Snapshots of the machine's persistent disk, the oldest first.
    ///
    /// # Errors
    /// It has no such disk, or that can't be read.
    pub fn snapshots(&self, disk: &DiskId) -> Result<Vec<SnapshotInfo>, LayerError> {
        let about = self.kept_about(disk)?;
        let Some(tree) = &about.tree else { return Ok(vec![]) };
        let path = about.path();
        let asked = tree.roll_back.as_ref().map(|asked| asked.snapshot);
        let info = |(files, snapshot): (u32, &Snapshot)| SnapshotInfo {
            held_bytes: self.files.node_bytes(&about, files),
            is_next: asked == Some(snapshot.number),
            is_below: path.contains(&files),
            snapshot: snapshot.clone(),
        };
        Ok(tree.snapshots().into_iter().map(info).collect())
    }

    /// Makes a snapshot of what the machine has written up to now, and that durable. It goes on writing meanwhile. `None`: it has
    /// written nothing since the last one.
    ///
    /// # Errors
    /// There is no disk, no room for the files, or there are too many snapshots: then all is as it was. If what was written
    /// can't be flushed, the snapshot is there, and the disk is read-only.
    pub fn snapshot(
        &self,
        disk: &DiskId,
        at_unix: u64,
        kind: SnapshotKind,
        note: Option<String>,
    ) -> Result<Option<Snapshot>, LayerError> {
        let flushed = |layer: &WriteLayer, about: &About| {
            let path = self.files.folder_of(about);
            layer.flush().map_err(io_error("flush", &path))
        };
        if let Some(layer) = self.live(disk) {
            // Before anybody has to wait for it.
            flushed(&layer, &self.kept_about(disk)?)?;
        }
        let turns = self.turns.of(disk);
        let _turn = turns.join();
        let about = self.kept_about(disk)?;
        let live = self.live(disk);
        let is_untouched = match &live {
            Some(layer) => layer.chain().top().map.is_untouched(),
            None => self.files.is_top_untouched(&about)?,
        };
        if is_untouched {
            return Ok(None);
        }
        let Some((tree, snapshot)) = self.files.tree(&about).seal(at_unix, kind, note) else {
            let (disk, max) = (disk.clone(), SNAPSHOTS_MAX);
            return Err(LayerError::TooManySnapshots { disk, max });
        };
        let sealed = about.with_tree(tree);
        let new = Arc::new(self.files.make_node(&about, sealed.top())?);
        let made = self.files.prepare_about(&sealed).and_then(|()| {
            let commit = || self.files.commit_about(&sealed);
            let committed = match &live {
                Some(layer) => {
                    let parts = |chain: &crate::layer::chain::Chain| {
                        std::iter::once(new).chain(chain.parts.iter().cloned()).collect()
                    };
                    layer.exchange(parts, commit)
                }
                None => commit(),
            };
            committed.map_err(io_error("write", &self.files.folder_of(&about)))
        });
        if let Err(error) = made {
            self.files.remove_node(&about, sealed.top());
            return Err(self.files.explain(error));
        }
        match &live {
            Some(layer) => {
                layer.set_others_bytes(self.files.others_bytes(&sealed));
                flushed(layer, &about)?;
                let chain = layer.chain();
                let below = chain.parts[1..].iter().filter(|part| !part.map.is_settled());
                below.for_each(|part| self.files.settle(&sealed, part));
            }
            None => {
                self.files.sync_folder(&sealed)?;
                // Which flushes what the server did not when it died.
                drop(self.files.open_sealed(&sealed, about.top())?);
            }
        }
        Ok(Some(snapshot))
    }

    /// Deletes a snapshot; the others and the disk stay what they are. Its room comes back as [`tidy`](Self::tidy) goes on.
    ///
    /// # Errors
    /// There is none, or that can't be written: then it is there.
    pub fn remove_snapshot(&self, disk: &DiskId, number: u32) -> Result<(), LayerError> {
        self.change_tree(disk, number, |tree, _| tree.without(number))
    }

    /// Has the disk go back to a snapshot when the machine boots again, in another boot than `now`. What it holds then becomes a
    /// snapshot itself.
    ///
    /// # Errors
    /// There is no such snapshot, or that can't be written.
    pub fn ask_roll_back(&self, disk: &DiskId, number: u32, now: BootId) -> Result<(), LayerError> {
        self.change_tree(disk, number, |tree, _| {
            tree.files_of(number)?;
            let roll_back = Some(RollBack { snapshot: number, asked_in_boot: now });
            Some(Tree { roll_back, ..tree })
        })
    }

    /// The disk stays what it is. Whether it was to go back.
    ///
    /// # Errors
    /// There is no disk, or that can't be written.
    pub fn withdraw_roll_back(&self, disk: &DiskId) -> Result<bool, LayerError> {
        let asked = self.kept_about(disk)?.tree.and_then(|tree| tree.roll_back);
        let Some(asked) = asked else { return Ok(false) };
        self.change_tree(disk, asked.snapshot, |tree, _| Some(Tree { roll_back: None, ..tree }))?;
        Ok(true)
    }

    /// Goes back, if that was asked for and this is another boot; to which snapshot. Nobody uses the disk: who holds it open still
    /// gets errors.
    ///
    /// # Errors
    /// There is no room, or the operating system refuses: then the disk is as it was, and will go back.
    pub fn roll_back_for(
        &self,
        disk: &DiskId,
        boot: BootId,
        at_unix: u64,
    ) -> Result<Option<u32>, LayerError> {
        let is_asked = |about: &About| {
            let asked = about.tree.as_ref()?.roll_back.as_ref()?;
            (asked.asked_in_boot != boot).then_some(asked.snapshot)
        };
        let Some(about) = self.files.about(disk, LayerMode::Persistent)? else {
            return Ok(None);
        };
        if is_asked(&about).is_none() {
            return Ok(None);
        }
        let turns = self.turns.of(disk);
        let _turn = turns.begin();
        let about = self.kept_about(disk)?;
        let (Some(number), Some(tree)) = (is_asked(&about), &about.tree) else { return Ok(None) };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let former = open.remove(&folder(disk, LayerMode::Persistent));
        drop(open);
        if let Some(layer) = former.and_then(|entry| entry.layer.upgrade()) {
            layer.retire();
        }
        let top = self.files.open_top(&about)?;
        top.flush().map_err(io_error("flush", &self.files.folder_of(&about)))?;
        let missing = || LayerError::NoSnapshot { disk: disk.clone(), number };
        let tree = tree.rolled_back(number, at_unix, top.map.is_untouched()).ok_or_else(missing)?;
        tree.check().map_err(|why| {
            let path = self.files.folder_of(&about);
            LayerError::Damaged { disk: disk.clone(), path, why: why.to_owned() }
        })?;
        let back = about.with_tree(tree);
        drop(self.files.make_node(&about, back.top())?);
        if let Err(error) = self.commit(&back) {
            self.files.remove_node(&about, back.top());
            return Err(error);
        }
        self.files.settle(&back, &top);
        Ok(Some(number))
    }

    /// The machine's persistent layer, if it is open.
    pub(super) fn live(&self, disk: &DiskId) -> Option<Arc<WriteLayer>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&folder(disk, LayerMode::Persistent)).and_then(|entry| entry.layer.upgrade())
    }

    pub(super) fn kept_about(&self, disk: &DiskId) -> Result<About, LayerError> {
        let about = self.files.about(disk, LayerMode::Persistent)?;
        about.ok_or_else(|| LayerError::NoDisk(disk.clone()))
    }

    /// Has another description count, durably.
    pub(super) fn commit(&self, about: &About) -> Result<(), LayerError> {
        self.files.prepare_about(about)?;
        let folder = self.files.folder_of(about);
        self.files.commit_about(about).map_err(io_error("write", &folder))?;
        self.files.sync_folder(about)
    }

    /// Changes what the description says without touching a file that it names.
    fn change_tree(
        &self,
        disk: &DiskId,
        number: u32,
        change: impl FnOnce(Tree, &About) -> Option<Tree>,
    ) -> Result<(), LayerError> {
        let turns = self.turns.of(disk);
        let _turn = turns.join();
        let about = self.kept_about(disk)?;
        let changed = about.tree.clone().and_then(|tree| change(tree, &about));
        let missing = || LayerError::NoSnapshot { disk: disk.clone(), number };
        self.commit(&about.with_tree(changed.ok_or_else(missing)?))
    }
}
