//! Which layer it is that is there: how far it has come, and whose it is.

use super::Layers;
use crate::layer::about::LayerMode;
use crate::layer::error::{LayerError, OtherCopy, OtherOwner, io_error};
use crate::layer::files::{folder, is_said};
use crate::layer::last_use::LastUse;
use model::{BootId, DiskId, DiskOwner};
use std::fs;
use std::sync::PoisonError;

impl Layers {
    /// How far the layer on disk has come; `None` if the machine has none in this mode.
    ///
    /// # Errors
    /// Its description, or the file that says it, can't be read.
    pub fn last_use(&self, disk: &DiskId, mode: LayerMode) -> Result<Option<LastUse>, LayerError> {
        self.about(disk, mode)?.map(|about| self.files.last_use(&about)).transpose()
    }

    /// Keeps that the layer was opened in this boot: its count is larger than it was, and than `beyond`. What a former
    /// copy of it has is less from now on.
    ///
    /// # Errors
    /// There is no layer, or that can't be written: then the layer is what it was.
    pub fn begin_use(
        &self,
        disk: &DiskId,
        mode: LayerMode,
        boot: BootId,
        beyond: u64,
    ) -> Result<LastUse, LayerError> {
        let about = self.about(disk, mode)?.ok_or_else(|| self.missing(disk))?;
        let count = self.files.last_use(&about)?.count.max(beyond).saturating_add(1);
        self.files.note_use(&about, count, boot)
    }

    /// Says that the layer on disk, which is as `found`, is not the one that was `noted`.
    pub fn other(
        &self,
        disk: &DiskId,
        mode: LayerMode,
        found: LastUse,
        noted: LastUse,
    ) -> LayerError {
        let put_back = self.files.put_back_path(disk, mode);
        let (dir, disk) = (self.files.dir().to_owned(), disk.clone());
        LayerError::OtherCopy(Box::new(OtherCopy { disk, mode, dir, found, noted, put_back }))
    }

    /// Whether a person has said, by a file in its folder, that this layer is to be taken although it is not the one that
    /// was there last.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn is_put_back(&self, disk: &DiskId, mode: LayerMode) -> Result<bool, LayerError> {
        let path = self.files.put_back_path(disk, mode);
        is_said(&path).map_err(io_error("read", &path))
    }

    /// The same; if it is so, nothing is kept of the one that was there last: who holds it open gets errors, and what was
    /// not flushed is forgotten. [`settle_put_back`](Self::settle_put_back) takes the file away.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn take_put_back(&self, disk: &DiskId, mode: LayerMode) -> Result<bool, LayerError> {
        if !self.is_put_back(disk, mode)? {
            return Ok(false);
        }
        let turns = self.turns.of(disk);
        let _turn = turns.begin();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = open.remove(&folder(disk, mode)).and_then(|one| one.layer.upgrade()) {
            layer.retire();
        }
        self.files.forget_volatile(disk, mode)?;
        Ok(true)
    }

    /// Takes away the file that said so: it counts once.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn settle_put_back(&self, disk: &DiskId, mode: LayerMode) -> Result<(), LayerError> {
        let path = self.files.put_back_path(disk, mode);
        fs::remove_file(&path).map_err(io_error("remove", &path))
    }

    /// The machine that has had the persistent layer of that name last; `None` if there is no layer, or that is not known.
    ///
    /// # Errors
    /// The file that says it can't be read.
    pub fn owner(&self, disk: &DiskId) -> Result<Option<DiskOwner>, LayerError> {
        self.files.owner(disk)
    }

    /// Keeps that this machine has the persistent layer of that name.
    ///
    /// # Errors
    /// That can't be written: then it is what it was.
    pub fn note_owner(&self, disk: &DiskId, owner: &DiskOwner) -> Result<(), LayerError> {
        self.files.note_owner(disk, owner)
    }

    /// Says that the persistent layer on disk is of the machine that was `noted`, and not of the one that asks.
    pub fn other_owner(&self, disk: &DiskId, noted: DiskOwner, asked: DiskOwner) -> LayerError {
        let take_over = self.files.take_over_path(disk);
        let (dir, disk) = (self.files.dir().to_owned(), disk.clone());
        LayerError::OtherOwner(Box::new(OtherOwner { disk, dir, noted, asked, take_over }))
    }

    /// Whether a person has said, by a file in its folder, that whoever has the name now is to have the persistent layer.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn is_taken_over(&self, disk: &DiskId) -> Result<bool, LayerError> {
        let path = self.files.take_over_path(disk);
        is_said(&path).map_err(io_error("read", &path))
    }

    /// Takes away the file that said so: it counts once.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn settle_take_over(&self, disk: &DiskId) -> Result<(), LayerError> {
        let path = self.files.take_over_path(disk);
        fs::remove_file(&path).map_err(io_error("remove", &path))
    }

    /// How much the machine has written to its persistent layer, in bytes, and when that was begun, in seconds since 1970;
    /// `None` if that can't be seen.
    pub fn extent(&self, disk: &DiskId) -> Option<(u64, u64)> {
        match self.files.about(disk, LayerMode::Persistent) {
            Ok(Some(about)) if about.tree.is_some() => Some(self.files.extent_of(&about)),
            _ => self.files.extent(disk).ok(),
        }
    }
}
